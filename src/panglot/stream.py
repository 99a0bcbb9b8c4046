"""Codes to one stream of ids and back.

`pack` writes any mix of codes, with `<ask>` and `<give>` between them, as the ids of a `Layout`; `unpack` reads them
again with the grammar, so that `unpack(pack(parts)) == parts`.

Not here: the order of symbols and what may follow what (`panglot.grammar`), files (`panglot.tokenfile`).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

from panglot._limits import MAX_FRAME_PIXELS, MAX_PIXELS, MAX_RATE
from panglot.grammar import (
    FREE,
    LONGEST,
    NESTED,
    P_CHANGE,
    P_IMAGE,
    P_SAME,
    P_STOP,
    SCALED,
    SLOWEST,
    STOP,
    WHOLE,
    Cursor,
    Grammar,
)
from panglot.layout import BUDGETS, FPS, MARKS, RATES, Layout
from panglot.tokenizers.audio import RUN, blocks, due_blocks
from panglot.tokenizers.base import ABSENT, Codes, CodesError, header_int, nested_in, split_flags
from panglot.tokenizers.change import GROUP

Part = Codes | str
"""A segment, or "ask" or "give"."""


def pack(parts: Iterable[Part], layout: Layout) -> np.ndarray:
    """A whole sample, from bos to eos: int32 [N]. Raises CodesError where codes do not fit the layout."""
    found = [mark(layout, "bos")]
    for part in parts:
        found.append(mark(layout, part) if isinstance(part, str) else pack_segment(part, layout))
    return np.concatenate([*found, mark(layout, "eos")])


def mark(layout: Layout, name: str) -> np.ndarray:
    """One mark as int32 [1]. Raises CodesError for a name that no stream holds."""
    if name not in MARKS:
        raise CodesError(f"{name!r} is no mark; there are {', '.join(MARKS)}")
    return np.array([layout.marks[name]], np.int32)


def pack_segment(codes: Codes, layout: Layout) -> np.ndarray:
    """One segment with the mark that opens it: int32 [N]. Raises CodesError as `pack` does."""
    if codes.modality not in ("text", "image", "audio", "video"):
        raise CodesError(f"codes of {codes.modality!r} are no medium and have no place in a stream")
    if any(not np.issubdtype(array.dtype, np.integer) for part in codes.walk() for array in part.arrays.values()):
        raise CodesError("codes must be integers")
    writer = _Writer(layout)
    writer.put("mark", MARKS.index(codes.modality))
    getattr(writer, codes.modality)(codes)
    return writer.ids()


def unpack(ids: Sequence[int] | np.ndarray, layout: Layout) -> list[Part]:
    """The parts of one whole sample. Raises CodesError, which names the first id that cannot be, and where."""
    cursor = Cursor(layout, Grammar(layout).sample())
    for at, token in enumerate(np.asarray(ids).tolist()):
        try:
            cursor.push(token)
        except CodesError as fault:
            raise CodesError(f"position {at} of {len(ids)}: {fault}") from None
    if not cursor.done:
        raise CodesError(f"the stream ends after {len(ids)} ids, in the middle of a sample")
    return cursor.result  # type: ignore[return-value]


class _Writer:
    """Collects symbols as ids."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.found: list[np.ndarray] = []

    def ids(self) -> np.ndarray:
        return np.concatenate(self.found)

    def put(self, alphabet: str, symbols: int | np.ndarray) -> None:
        """Append symbols of an alphabet. Raises CodesError where it has none such."""
        if alphabet not in self.layout.starts:
            raise CodesError(f"the layout has no alphabet {alphabet}: encode coarser, or take a layout that has it")
        values = np.atleast_1d(np.asarray(symbols, np.int64)).ravel()
        if values.size and not 0 <= values.min() <= values.max() < self.layout.sizes[alphabet]:
            raise CodesError(f"a code of {alphabet} is outside 0 to {self.layout.sizes[alphabet] - 1}")
        self.found.append((values + self.layout.starts[alphabet]).astype(np.int32))

    def number(self, value: int) -> None:
        digits = [value % 256]
        while value := value // 256:
            digits.append(256 + value % 256)
        self.put("number", np.array(digits[::-1]))

    def budget(self, codes: Codes) -> None:
        tokens = sum(codes.tokens().values())
        if tokens > BUDGETS[-1]:
            raise CodesError(f"a segment of {tokens} tokens is over the limit of {BUDGETS[-1]}")
        self.put("budget", bisect_left(BUDGETS, max(1, tokens)))

    def text(self, codes: Codes) -> None:
        _header(codes)
        if list(codes.arrays) != ["text"] or codes.arrays["text"].ndim != 1 or codes.children:
            raise CodesError("a text needs one row of codes, and nothing else")
        self.put("text", codes.arrays["text"])
        self.put("mark", MARKS.index("end"))

    def image(self, codes: Codes) -> None:
        self.budget(codes)
        for side in _size(codes, MAX_PIXELS):
            self.number(side)
        self.picture(codes)

    def picture(self, codes: Codes) -> None:
        """The size at which it is coded, where that is another, and the levels."""
        scaled = ("coded_height", "coded_width") if len(codes.header) > 2 else ()
        _header(codes, "height", "width", *scaled)
        size = _size(codes, MAX_PIXELS, *scaled)
        if scaled:
            self.put("level", SCALED)
            self.number(size[0])
            self.number(size[1])
        if not codes.arrays or codes.children:
            raise CodesError("a picture needs its coarsest level, and has no parts")
        self.levels("image", dict(codes.arrays), size)

    def levels(self, kind: str, arrays: dict[str, np.ndarray], size: tuple[int, int]) -> None:
        strides = self.layout.strides(kind)
        known = [f"{kind}/{s}" for s in strides]
        if list(arrays) != known[: len(arrays)]:
            raise CodesError(f"levels {', '.join(arrays)} are not the first of the layout's {', '.join(known)}")
        before: np.ndarray | None = None
        for stride, (name, array) in zip(strides, arrays.items(), strict=False):
            if array.shape != (-(-size[0] // stride), -(-size[1] // stride)):
                raise CodesError(f"{name} has shape {array.shape}, which does not cover {size[1]} x {size[0]} pixels")
            possible = nested_in(array, before)
            present = array != ABSENT
            if present.all():
                self.put("level", WHOLE)
            else:
                self.put("level", FREE if possible is None else NESTED)
                self.put("split", split_flags(array, possible))
            self.put(name, array[present])
            before = array
        if len(arrays) < len(strides):
            self.put("level", STOP)

    def rate(self, rate: int | None) -> None:
        if rate is None:
            self.put("rate", len(RATES))
        elif rate in RATES[1:]:
            self.put("rate", RATES.index(rate))
        elif rate <= MAX_RATE:
            self.put("rate", 0)
            self.number(rate)
        else:
            raise CodesError(f"a rate of {rate} Hz is over the limit of {MAX_RATE}")

    def audio(self, codes: Codes) -> None:
        _header(codes, "samples", "rate")
        samples, rate = self.length(codes), header_int(codes, "rate", 1)
        self.budget(codes)
        self.rate(rate)
        self.number(len(codes.arrays))
        self.number(samples)
        if not codes.children:
            self.sound(codes, blocks(samples, rate))
            return
        left = blocks(samples, rate)
        for span in codes.children:
            arrays = dict(span.arrays)
            symbol = _single(span, "depth")
            depth, count = symbol // RUN, symbol % RUN + 1
            arrays.pop("depth")
            left -= count
            if span.modality != "span" or span.header or span.children or len(arrays) != depth or left < 0:
                raise CodesError("the spans of a sound are not those that its length needs")
            self.put("depth", symbol)
            if depth:
                self.sound(Codes("audio", {}, arrays), count)
        if left or codes.arrays:
            raise CodesError("the spans of a sound are not those that its length needs")

    def length(self, codes: Codes) -> int:
        """Samples of a sound. Raises CodesError where they are more than a stream can hold."""
        samples = header_int(codes, "samples")
        if samples > LONGEST:
            raise CodesError(f"a sound of {samples} samples is over the limit of {LONGEST}")
        return samples

    def sound(self, codes: Codes, count: int) -> None:
        """Codes of so many blocks in the order of time."""
        names = [f"audio/{k}" for k in range(1, len(codes.arrays) + 1)]
        if list(codes.arrays) != names:
            raise CodesError(f"sound needs audio/1, audio/2, ... in order, not {', '.join(codes.arrays)}")
        if len(names) > self.layout.depth:
            raise CodesError(
                f"{len(names)} codes a block of sound, the layout has {self.layout.depth}: use a depth of at most that"
            )
        if not names or any(array.shape != (count,) for array in codes.arrays.values()):
            raise CodesError(f"a sound of this length has {count} blocks, these codes have others")
        grid = np.stack(list(codes.arrays.values()))
        for name, row in zip(names, grid, strict=True):
            if row.size and not 0 <= row.min() <= row.max() < self.layout.sizes[name]:
                raise CodesError(f"a code of {name} is outside 0 to {self.layout.sizes[name] - 1}")
        starts = np.array([[self.layout.starts[name]] for name in names])
        self.found.append((grid + starts).T.ravel().astype(np.int32))

    def video(self, codes: Codes) -> None:
        _header(codes, "height", "width", "frames", "fps", "samples", "rate")
        if codes.arrays or any(part.children for part in codes.children):
            raise CodesError("the codes of a video are in its parts, and those have none")
        self.budget(codes)
        frames, fps, rate = header_int(codes, "frames", 1), codes.header["fps"], codes.header["rate"]
        if isinstance(fps, bool) or not isinstance(fps, int | float) or not SLOWEST < fps < 1e4:
            raise CodesError(f"a video of {fps} frames/s; it must be positive and under 10,000")
        if frames > LONGEST:
            raise CodesError(f"a video of {frames} frames is over the limit of {LONGEST}")
        for number in (*_size(codes, MAX_FRAME_PIXELS), frames):
            self.number(number)
        if float(fps) in FPS[1:]:
            self.put("fps", FPS.index(float(fps)))
        else:
            self.put("fps", 0)
            self.put("number", np.frombuffer(struct.pack(">d", fps), np.uint8))
        self.rate(None if rate is None else header_int(codes, "rate", 1))
        depths = {len(part.arrays) for part in codes.children if part.modality == "audio"}
        if len(depths) > 1 or (rate is None and (depths or codes.header["samples"] is not None)):
            raise CodesError("a video needs sound of one depth and a rate, or neither sound nor samples")
        waiting = 0
        if rate is not None:
            self.number(depths.pop() if depths else 1)
            self.number(self.length(codes))
            waiting = blocks(self.length(codes), header_int(codes, "rate", 1))
        self.parts(codes, float(fps), waiting)

    def parts(self, codes: Codes, fps: float, waiting: int) -> None:
        """The parts, each with the sound that is due after it, which must be where the tokenizer puts it."""
        frames, shown, placed = header_int(codes, "frames", 1), 0, 0
        rest = list(codes.children)
        if not rest or rest[0].modality != "image":
            raise CodesError("a video must begin with a keyframe")
        size = _size(codes, MAX_FRAME_PIXELS)
        while rest and rest[0].modality != "audio":
            shown += self.part(rest.pop(0), size)
            if shown > frames:
                raise CodesError(f"the parts of a video show {shown} frames, its header says {frames}")
            n = max(0, min(due_blocks(shown, fps) - placed, waiting - placed))
            if n:
                placed += self.heard(rest, n)
        if shown < frames:
            self.put("part", P_STOP)
        if placed < waiting:
            placed += self.heard(rest, waiting - placed)
        if rest or placed != waiting:
            raise CodesError("the sound of a video is not where it is due: encode it with panglot's video tokenizer")

    def heard(self, rest: list[Codes], count: int) -> int:
        if not rest or rest[0].modality != "audio":
            raise CodesError("the sound of a video is not where it is due: encode it with panglot's video tokenizer")
        _header(rest[0])
        self.sound(rest.pop(0), count)
        return count

    def part(self, part: Codes, size: tuple[int, int]) -> int:
        """One part of a video of this size; returns how many frames it shows."""
        if part.modality == "image":
            if _size(part, MAX_FRAME_PIXELS) != size:
                raise CodesError("a keyframe's size differs from the video's")
            self.put("part", P_IMAGE)
            self.picture(part)
            return 1
        _header(part)
        if part.modality == "same":
            hold = _single(part, "hold")
            if len(part.arrays) > 1:
                raise CodesError("a same part has one hold code, and nothing else")
            self.put("part", P_SAME)
            self.put("hold", hold)
            return (hold + 1) * GROUP
        if part.modality != "change":
            raise CodesError(f"a video has no part {part.modality!r}")
        span = _single(part, "span")
        self.put("part", P_CHANGE)
        self.put("span", span)
        self.levels("change", {name: array for name, array in part.arrays.items() if name != "span"}, size)
        return span + 1


def _header(codes: Codes, *names: str) -> None:
    """Raise CodesError unless the header has these fields and no others: those would be lost in a stream."""
    if set(codes.header) != {*names}:
        raise CodesError(f"{codes.modality} codes need the header {', '.join(names) or 'of nothing'}, and no more")


def _size(codes: Codes, most: int, height: str = "height", width: str = "width") -> tuple[int, int]:
    """Two sides out of a header, of at most so many pixels together. Raises CodesError."""
    sides = header_int(codes, height, 1), header_int(codes, width, 1)
    if sides[0] * sides[1] > most:
        raise CodesError(f"a picture of {sides[1]} x {sides[0]} is over the limit of {most} pixels")
    return sides


def _single(part: Codes, name: str) -> int:
    """The one code of an alphabet that a part begins with. Raises CodesError."""
    if list(part.arrays)[:1] != [name] or part.arrays[name].shape != (1,) or part.arrays[name][0] < 0:
        raise CodesError(f"a {part.modality} part begins with one {name} code")
    return int(part.arrays[name][0])
