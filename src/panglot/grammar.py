"""The grammar of a stream: which ids are legal at each position, and what the symbols so far stand for.

    sample := <bos> (segment | <ask> | <give>)* <eos>

It is written as coroutines. Each yields an `Ask`, which says what may come next, is sent the symbol that came, and in
the end returns what it has read. So one text serves to read a stream, to mask what a model samples, and to keep
budgets: whatever is sampled under the masks is a valid medium. `Cursor` runs them on ids.

    text   := <text> token* <end>
    image  := <image> budget height width level*
    level  := scaled height width | whole code* | nested flag* code* | free flag* code* | stop
    audio  := <audio> budget rate depth samples (code* | (depth code*)*)
    video  := <video> budget height width frames fps rate [depth samples] (part [code*])*
    part   := image level* | change span level* | same hold | stop

Codes of sound stand in the order of time, the codes of a block together. In a video those that are due by the end of a
part follow it, so that picture and sound stay together; which are due follows from the header. A budget bounds the
codes and split flags of its segment: a symbol after which the budget could not be kept is not legal.

Not here: codes to ids (`panglot.stream`), choosing among legal ids (`panglot.generate`).
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from panglot._limits import MAX_FRAME_PIXELS, MAX_PIXELS, MAX_RATE
from panglot.layout import BUDGETS, FPS, HEADERS, LEVELS, MARKS, PARTS, RATES, STRIDES, Layout, LayoutError
from panglot.tokenizers.audio import RUN, blocks, due_blocks
from panglot.tokenizers.base import ABSENT, SPLIT, Codes, CodesError
from panglot.tokenizers.change import GROUP
from panglot.tokenizers.flags import flags
from panglot.tokenizers.video import HOLD

STOP, WHOLE, NESTED, FREE, SCALED = range(len(LEVELS))
P_STOP, P_IMAGE, P_CHANGE, P_SAME = range(len(PARTS))

LONGEST = 1 << 40
"""Samples of a sound and frames of a video at most."""

SLOWEST = 1e-6
"""Every rate of frames is above this."""


@dataclass(frozen=True)
class Ask:
    """What may come next: symbols of one alphabet, all of them or those listed. "text" includes its end mark.

    what: what the symbol decides, for whoever wants to decide it instead of the model ("budget", "height", ...).
    """

    alphabet: str
    allowed: tuple[int, ...] | None = None
    what: str = ""


@dataclass(frozen=True)
class Bounds:
    """How large what is read or sampled may be. The defaults are those of reading; sampling wants smaller ones."""

    tokens: int = BUDGETS[-1]
    text: int = LONGEST
    pixels: int = MAX_PIXELS
    frames: int = LONGEST
    samples: int = LONGEST
    usual: bool = False
    """Only sampling rates and rates of frames that have a symbol of their own, and no sound without any samples.

    What is sampled needs it: not every rate of frames that can be spelled is one."""


Reader = Generator[Ask, int, Any]


@dataclass(frozen=True)
class Grammar:
    """The coroutines, for one layout and bounds."""

    layout: Layout
    bounds: Bounds = Bounds()

    def __post_init__(self):
        """Raise LayoutError where the layout lacks what the coroutines ask for."""
        sizes = self.layout.sizes
        needed = [*(a.name for a in HEADERS), "split", "span", "hold", "depth", "image/32", "change/32"]
        if missing := [name for name in (*needed, "audio/1") if name not in sizes]:
            raise LayoutError(f"a layout without the alphabet {missing[0]} has no grammar")
        wrong = [name for name, size in (("split", SPLIT.size), ("span", GROUP), ("hold", HOLD)) if sizes[name] != size]
        if wrong or sizes["depth"] < (self.layout.depth + 1) * RUN:
            raise LayoutError(f"the alphabet {[*wrong, 'depth'][0]} is not that of this panglot")
        for kind, order in (("image", STRIDES), ("change", STRIDES), ("audio", range(1, self.layout.depth + 1))):
            names = [name for name in sizes if name.startswith(kind + "/")]
            if names != [f"{kind}/{n}" for n in order][: len(names)]:
                raise LayoutError(f"the alphabets of {kind} are not coarse to fine without gaps")

    def sample(self) -> Reader:
        """A whole sample from its bos on. Returns a list of Codes, "ask" and "give"."""
        yield _mark("bos")
        found: list[Codes | str] = []
        while True:
            name = MARKS[(yield _mark("text", "image", "audio", "video", "ask", "give", "eos"))]
            if name == "eos":
                return found
            found.append(name if name in ("ask", "give") else (yield from self.segment(name)))

    def segment(self, modality: str) -> Reader:
        """What follows the mark of a segment. Returns its Codes."""
        return (yield from getattr(self, f"_{modality}")())

    def _text(self) -> Reader:
        size, found = self.layout.sizes["text"], []
        anything, over = Ask("text"), Ask("text", (size,))
        while (symbol := (yield anything if len(found) < self.bounds.text else over)) != size:
            found.append(symbol)
        return Codes("text", {}, {"text": np.array(found, np.int32)})

    def _image(self) -> Reader:
        left = yield from self._budget()
        height = yield from _number("height", 1, self.bounds.pixels)
        width = yield from _number("width", 1, self.bounds.pixels // height)
        return (yield from self._picture(height, width, left))[0]

    def _picture(self, height: int, width: int, left: int) -> Reader:
        """The levels of a picture. Returns its Codes and what is left of the budget."""
        header: dict[str, Any] = {"height": height, "width": width}
        strides = self.layout.strides("image")
        ask = _levels(strides[0], height, width, None, left, may_stop=False, may_scale=True)
        if (symbol := (yield ask)) == SCALED:
            height = yield from _number("coded height", 1, self.bounds.pixels)
            width = yield from _number("coded width", 1, self.bounds.pixels // height)
            header |= {"coded_height": height, "coded_width": width}
            symbol = yield _levels(strides[0], height, width, None, left, may_stop=False, may_scale=False)
        arrays, left = yield from _level_arrays("image", strides, (height, width), left, symbol)
        return Codes("image", header, arrays), left

    def _audio(self) -> Reader:
        left = yield from self._budget()
        rate = yield from self._rate(silent=False)
        usual = self.bounds.usual
        depths = tuple(range(min(self.layout.depth, left if usual else self.layout.depth) + 1))
        depth = yield Ask("number", depths, "depth")
        most = min(self.bounds.samples, _samples(left // depth if depth else left * RUN, rate))
        samples = yield from _number("samples", 1 if usual or not depth else 0, most)
        count = blocks(samples, rate)
        header = {"samples": samples, "rate": rate}
        if depth:
            grid = yield from _sound(depth, count)
            return Codes("audio", header, _tracks(grid))
        children = []
        while count:
            symbol = yield Ask("depth", self._spans(count, left), "span")
            depth, n = symbol // RUN, symbol % RUN + 1
            grid = yield from _sound(depth, n)
            children.append(Codes("span", {}, {"depth": np.array([symbol], np.int32)} | _tracks(grid)))
            count, left = count - n, left - 1 - n * depth
        return Codes("audio", header, {}, tuple(children))

    def _spans(self, count: int, left: int) -> tuple[int, ...]:
        """Symbols of "depth" after which `count` blocks can still be had for `left` tokens."""
        return tuple(
            depth * RUN + n - 1
            for depth in range(self.layout.depth + 1)
            for n in range(1, min(RUN, count) + 1)
            if 1 + n * depth + -(-(count - n) // RUN) <= left
        )

    def _video(self) -> Reader:
        left = yield from self._budget()
        height = yield from _number("height", 1, min(self.bounds.pixels, MAX_FRAME_PIXELS))
        width = yield from _number("width", 1, min(self.bounds.pixels, MAX_FRAME_PIXELS) // height)
        frames = yield from _number("frames", 1, self.bounds.frames)
        fps = yield from self._fps()
        rate = yield from self._rate(silent=True)
        header = {"height": height, "width": width, "frames": frames, "fps": fps, "samples": None, "rate": rate}
        depth, waiting = 0, 0
        if rate is not None:
            depths = tuple(range(1, self.layout.depth + 1))
            depth = yield Ask("number", depths, "depth")
            most = min(self.bounds.samples, _samples((left - 1) // depth, rate))
            header["samples"] = yield from _number("samples", 0, most)
            waiting = blocks(header["samples"], rate)
        return (yield from self._parts(header, left - depth * waiting, depth, waiting))

    def _parts(self, header: dict[str, Any], left: int, depth: int, waiting: int) -> Reader:
        """The parts of a video; left: of the budget, for pictures; waiting: blocks of sound."""
        size, frames, shown, placed = (header["height"], header["width"]), header["frames"], 0, 0
        children: list[Codes] = []
        while shown < frames:
            legal = (P_IMAGE,) if not shown else _parts_allowed(frames - shown, left)
            kind = yield Ask("part", legal, "part")
            if kind == P_STOP:
                break
            part, count, left = yield from self._part(kind, size, frames - shown, left)
            children.append(part)
            shown += count
            n = max(0, min(due_blocks(shown, header["fps"]) - placed, waiting - placed))
            if depth and n:
                children.append(Codes("audio", {}, _tracks((yield from _sound(depth, n)))))
                placed += n
        if depth and (placed < waiting):
            children.append(Codes("audio", {}, _tracks((yield from _sound(depth, waiting - placed)))))
        return Codes("video", header, {}, tuple(children))

    def _part(self, kind: int, size: tuple[int, int], frames: int, left: int) -> Reader:
        """One part: its Codes, how many frames it shows, and what is left of the budget."""
        if kind == P_IMAGE:
            part, left = yield from self._picture(*size, left)
            return part, 1, left
        if kind == P_SAME:
            hold = yield Ask("hold", tuple(range(min(self.layout.sizes["hold"], frames // GROUP))), "hold")
            return Codes("same", {}, {"hold": np.array([hold], np.int32)}), (hold + 1) * GROUP, left - 1
        span = yield Ask("span", tuple(range(min(GROUP, frames))), "span")
        arrays = {"span": np.array([span], np.int32)}
        strides = self.layout.strides("change")
        symbol = yield _levels(strides[0], *size, None, left - 1, may_stop=True, may_scale=False)
        more, left = yield from _level_arrays("change", strides, size, left - 1, symbol)
        return Codes("change", {}, arrays | more), span + 1, left

    def _budget(self) -> Reader:
        """The segment's budget: at most how many codes and flags. Returns it in tokens."""
        top = self.bounds.tokens
        symbol = yield Ask("budget", tuple(i for i in range(1, len(BUDGETS)) if BUDGETS[i - 1] < top), "budget")
        return min(top, BUDGETS[symbol])

    def _rate(self, silent: bool) -> Reader:
        """A sampling rate in Hz, or None for no sound."""
        legal = range(1 if self.bounds.usual else 0, len(RATES) + silent)
        symbol = yield Ask("rate", tuple(legal), "rate")
        if symbol == len(RATES):
            return None
        return RATES[symbol] if symbol else (yield from _number("rate", 1, MAX_RATE))

    def _fps(self) -> Reader:
        symbol = yield Ask("fps", tuple(range(self.bounds.usual, len(FPS))), "fps")
        if symbol:
            return FPS[symbol]
        data = bytearray()
        for _ in range(8):
            data.append((yield Ask("number", tuple(range(256)))))
        (value,) = struct.unpack(">d", data)
        if not SLOWEST < value < 1e4:
            raise CodesError(f"a stream says {value} frames/s; it must be positive and under 10,000")
        return value


def _mark(*names: str) -> Ask:
    return Ask("mark", tuple(MARKS.index(name) for name in names), "mark")


def _parts_allowed(frames: int, left: int) -> tuple[int, ...]:
    if left < 1:
        return (P_STOP,)
    return (P_STOP, P_IMAGE, P_CHANGE, P_SAME) if frames >= GROUP else (P_STOP, P_IMAGE, P_CHANGE)


def _samples(count: int, rate: int) -> int:
    """The most samples at a rate that so many blocks cover; at most blocks(samples, rate) = count."""
    found = count * 1280 * rate // 16000
    while found and blocks(found, rate) > count:
        found -= 1
    return found


def _number(what: str, least: int, most: int) -> Reader:
    """A whole number from least to most, base 256, most significant digit first."""
    if most < least:
        raise CodesError(f"no {what} is possible here")
    value = 0
    while True:
        symbol = yield Ask("number", _digits(value, least, most), what)
        value = value * 256 + symbol % 256
        if symbol < 256:
            return value


@lru_cache(maxsize=4096)
def _digits(value: int, least: int, most: int) -> tuple[int, ...]:
    """Symbols that can follow, once the digits so far make `value`, in a number from least to most."""
    bases = range(value * 256, value * 256 + 256)
    last = [base % 256 for base in bases if least <= base <= most]
    more = [256 + base % 256 for base in bases if base and _completes(base, least, most)]
    return (*last, *more)


def _completes(base: int, least: int, most: int) -> bool:
    low, high = base * 256, base * 256 + 255
    while low <= most:
        if high >= least:
            return True
        low, high = low * 256, high * 256 + 255
    return False


def _levels(
    stride: int, height: int, width: int, coarser: np.ndarray | None, left: int, may_stop: bool, may_scale: bool
) -> Ask:
    """Which level symbols fit what is left of a budget."""
    h, w = -(-height // stride), -(-width // stride)
    legal = [STOP] if may_stop else []
    legal += [WHOLE] if h * w <= left else []
    if left >= 1:
        legal += [FREE] if coarser is None or bool((coarser != ABSENT).all()) else [NESTED, FREE]
    legal += [SCALED] if may_scale else []
    return Ask("level", tuple(legal), "level")


def _level_arrays(kind: str, strides: tuple[int, ...], size: tuple[int, int], left: int, symbol: int) -> Reader:
    """The arrays of the levels, the first of which begins with `symbol`, and what is left of the budget."""
    arrays: dict[str, np.ndarray] = {}
    before: np.ndarray | None = None
    for i, stride in enumerate(strides):
        shape = (-(-size[0] // stride), -(-size[1] // stride))
        if i:
            symbol = yield _levels(stride, *size, before, left, may_stop=True, may_scale=False)
        if symbol == STOP:
            break
        present = np.ones(shape, bool)
        if symbol != WHOLE:
            possible = None
            if symbol == NESTED:
                assert before is not None
                possible = (before != ABSENT).repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]
            present, spent = yield from _flags(shape, left, possible)
            left -= spent
        array = np.full(shape, ABSENT, np.int32)
        ask = Ask(f"{kind}/{stride}")
        found = np.empty(int(present.sum()), np.int32)
        for k in range(found.size):
            found[k] = yield ask
        array[present] = found
        arrays[f"{kind}/{stride}"] = before = array
        left -= found.size
    return arrays, left


def _flags(shape: tuple[int, int], left: int, possible: np.ndarray | None) -> Reader:
    """Which blocks of a level are there, and how many flags said so."""
    reader, spent = flags(shape, possible, left), 0
    try:
        legal = next(reader)
        while True:
            symbol = yield Ask("split", legal, "split")
            spent += 1
            legal = reader.send(symbol)
    except StopIteration as done:
        return done.value, spent


def _sound(depth: int, count: int) -> Reader:
    """`count` blocks of `depth` codes. Returns int32 [depth, count]."""
    asks = [Ask(f"audio/{k}") for k in range(1, depth + 1)]
    grid = np.empty((depth, count), np.int32)
    for t in range(count):
        for k, ask in enumerate(asks):
            grid[k, t] = yield ask
    return grid


def _tracks(grid: np.ndarray) -> dict[str, np.ndarray]:
    return {f"audio/{k}": row for k, row in enumerate(grid, 1)}


class Cursor:
    """A grammar run on ids: `ask` is what may come next, `push` takes one id, `result` is there when `done`."""

    def __init__(self, layout: Layout, reader: Reader):
        self.layout, self.reader = layout, reader
        self.done, self.result = False, None
        self.ask: Ask = next(reader)

    def legal(self) -> tuple[int, int, tuple[int, ...] | None]:
        """start, stop of the run of ids that may come next, and which of it, counted from start, or None for all."""
        start = self.layout.starts[self.ask.alphabet]
        size = self.layout.sizes[self.ask.alphabet] + (self.ask.alphabet == "text")
        return start, start + size, self.ask.allowed

    def push(self, token: int) -> None:
        """Go on with one id. Raises CodesError where it is not legal."""
        start, stop, allowed = self.legal()
        symbol = token - start
        if self.done or not start <= token < stop or (allowed is not None and symbol not in allowed):
            raise CodesError(f"id {token} ({self._named(token)}) where {self._wanted()} must come")
        try:
            self.ask = self.reader.send(symbol)
        except StopIteration as end:
            self.done, self.result = True, end.value

    def feed(self, tokens: Iterator[int]) -> None:
        """Push ids until they or the sample end."""
        for token in tokens:
            self.push(token)
            if self.done:
                return

    def _named(self, token: int) -> str:
        if not 0 <= token < self.layout.size:
            return "outside the layout"
        return "{} {}".format(*self.layout.symbol(token))

    def _wanted(self) -> str:
        if self.done:
            return "nothing more"
        return f"a symbol of {self.ask.alphabet}" + (f" for the {self.ask.what}" if self.ask.what else "")
