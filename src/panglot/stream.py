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

from panglot.grammar import FREE, NESTED, P_CHANGE, P_IMAGE, P_SAME, P_STOP, SCALED, STOP, WHOLE, Cursor, Grammar
from panglot.layout import BUDGETS, FPS, MARKS, RATES, Layout
from panglot.tokenizers.audio import blocks, due_blocks
from panglot.tokenizers.base import ABSENT, Codes, CodesError, header_int, nested_in, split_flags
from panglot.tokenizers.video import GROUP

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
        self.put("text", codes.arrays["text"])
        self.put("mark", MARKS.index("end"))

    def image(self, codes: Codes) -> None:
        self.budget(codes)
        self.number(header_int(codes, "height", 1))
        self.number(header_int(codes, "width", 1))
        self.picture(codes)

    def picture(self, codes: Codes) -> None:
        """The size at which it is coded, where that is another, and the levels."""
        if "coded_height" in codes.header or "coded_width" in codes.header:
            self.put("level", SCALED)
            self.number(header_int(codes, "coded_height", 1))
            self.number(header_int(codes, "coded_width", 1))
        if not codes.arrays:
            raise CodesError("a picture needs its coarsest level")
        self.levels("image", dict(codes.arrays))

    def levels(self, kind: str, arrays: dict[str, np.ndarray]) -> None:
        strides = self.layout.strides(kind)
        known = [f"{kind}/{s}" for s in strides]
        if list(arrays) != known[: len(arrays)]:
            raise CodesError(f"levels {', '.join(arrays)} are not the first of the layout's {', '.join(known)}")
        before: np.ndarray | None = None
        for name, array in arrays.items():
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
        else:
            self.put("rate", 0)
            self.number(rate)

    def audio(self, codes: Codes) -> None:
        samples, rate = header_int(codes, "samples"), header_int(codes, "rate", 1)
        self.budget(codes)
        self.rate(rate)
        self.number(len(codes.arrays))
        self.number(samples)
        if not codes.children:
            self.sound(codes, blocks(samples, rate))
            return
        for span in codes.children:
            arrays = dict(span.arrays)
            self.put("depth", arrays.pop("depth"))
            self.sound(Codes("audio", {}, arrays), None)

    def sound(self, codes: Codes, count: int | None) -> None:
        """Codes of blocks in the order of time; count: how many blocks there must be, where that is known."""
        names = [f"audio/{k}" for k in range(1, len(codes.arrays) + 1)]
        if list(codes.arrays) != names or len({a.shape for a in codes.arrays.values()}) > 1:
            raise CodesError(f"sound needs audio/1, audio/2, ... of one length, not {', '.join(codes.arrays)}")
        if len(names) > self.layout.depth:
            raise CodesError(
                f"{len(names)} codes a block of sound, the layout has {self.layout.depth}: use a depth of at most that"
            )
        if count is not None and (not names or codes.arrays[names[0]].shape != (count,)):
            raise CodesError(f"a sound of this length has {count} blocks, these codes have others")
        if not names:
            return
        grid = np.stack(list(codes.arrays.values()))
        for name, row in zip(names, grid, strict=True):
            if row.size and not 0 <= row.min() <= row.max() < self.layout.sizes[name]:
                raise CodesError(f"a code of {name} is outside 0 to {self.layout.sizes[name] - 1}")
        starts = np.array([[self.layout.starts[name]] for name in names])
        self.found.append((grid + starts).T.ravel().astype(np.int32))

    def video(self, codes: Codes) -> None:
        self.budget(codes)
        for name in ("height", "width", "frames"):
            self.number(header_int(codes, name, 1))
        fps, rate = codes.header["fps"], codes.header.get("rate")
        assert isinstance(fps, int | float)
        if float(fps) in FPS[1:]:
            self.put("fps", FPS.index(float(fps)))
        else:
            self.put("fps", 0)
            self.put("number", np.frombuffer(struct.pack(">d", fps), np.uint8))
        self.rate(None if rate is None else header_int(codes, "rate", 1))
        heard = [part for part in codes.children if part.modality == "audio"]
        waiting = 0
        if rate is not None:
            samples = header_int(codes, "samples")
            waiting = blocks(samples, header_int(codes, "rate", 1))
            self.number(len(heard[0].arrays) if heard else 1)
            self.number(samples)
        self.parts(codes, float(fps), waiting)

    def parts(self, codes: Codes, fps: float, waiting: int) -> None:
        """The parts, each with the sound that is due after it, which must be where the tokenizer puts it."""
        frames, shown, placed = header_int(codes, "frames", 1), 0, 0
        rest = list(codes.children)
        while rest and rest[0].modality != "audio":
            shown += self.part(rest.pop(0))
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
        self.sound(rest.pop(0), count)
        return count

    def part(self, part: Codes) -> int:
        """One part; returns how many frames it shows."""
        if part.modality == "image":
            self.put("part", P_IMAGE)
            self.picture(part)
            return 1
        if part.modality == "same":
            self.put("part", P_SAME)
            self.put("hold", part.arrays["hold"])
            return (int(part.arrays["hold"][0]) + 1) * GROUP
        if part.modality != "change":
            raise CodesError(f"a video has no part {part.modality!r}")
        arrays = dict(part.arrays)
        self.put("part", P_CHANGE)
        self.put("span", arrays["span"])
        span = int(arrays.pop("span")[0]) + 1
        self.levels("change", arrays)
        return span
