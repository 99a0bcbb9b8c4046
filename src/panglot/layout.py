"""The alphabets of all tokenizers in one id space: which id means which symbol.

A `Layout` is derived once from the tokenizers and from what of them a model is to use, and travels with every data set
and checkpoint. Text comes first, so that its ids are those of the text tokenizer itself; then the mark that ends a
text, the other marks, the alphabets of headers, and the media.

Not here: in which order symbols may come (`panglot.grammar`), and media to ids (`panglot.stream`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from panglot.tokenizers.base import SPLIT, Alphabet

MARKS = ("end", "bos", "eos", "text", "image", "audio", "video", "ask", "give", "pad")
"""`end` closes a text; bos and eos a sample; text to video open a segment; ask and give part a request from its answer.
Other segments need no mark to close them: their headers tell where they end. `pad` is never part of a stream."""

NUMBER = Alphabet("number", 512)
"""Whole numbers in base 256, most significant digit first: 256 + digit while more digits follow, the last one bare."""

BUDGETS = (0, *sorted({round(2 ** (k / 2)) for k in range(61)}))
"""A segment's budget: symbol b says that its codes and flags are at most BUDGETS[b] tokens."""

RATES = (0, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
"""Sampling rates in Hz that have a symbol; symbol 0 says that the rate follows as a number, len(RATES) that there is no
sound (in a video)."""

FPS = (0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 12.5, 15.0, 20.0, 24.0, 25.0, 30.0, 50.0, 60.0)
"""Rates of frames that have a symbol; symbol 0 says that the eight bytes of an IEEE 754 double follow as numbers."""

LEVELS = ("stop", "whole", "nested", "free", "scaled")
"""What comes next in a picture: nothing; a level whose blocks are all there; one with split flags, within the blocks of
the coarser one or anywhere; or, before the first level, the size at which the picture is coded."""

PARTS = ("stop", "image", "change", "same")
"""What comes next in a video; after `stop` the last picture is held to the end."""

STRIDES = (32, 16, 8)
"""Of the levels of pictures and of change that there can be, coarse to fine."""

HEADERS = (
    NUMBER,
    Alphabet("budget", len(BUDGETS)),
    Alphabet("rate", len(RATES) + 1),
    Alphabet("fps", len(FPS)),
    Alphabet("level", len(LEVELS)),
    Alphabet("part", len(PARTS)),
)


class LayoutError(ValueError):
    """A layout that cannot be used, or that does not belong to what it came with."""


@dataclass(frozen=True)
class Layout:
    """The id space. alphabets: in the order of their ids, text and marks first, each symbol's id its place.

    digits: for an alphabet whose symbols are made of digits (FSQ), the base of each, the first counting least: symbols
    that share digits mean similar things, which a model can start from.
    """

    alphabets: tuple[Alphabet, ...]
    digits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self):
        names = [a.name for a in self.alphabets]
        if names[:2] != ["text", "mark"] or len(set(names)) != len(names):
            raise LayoutError("a layout begins with the alphabets text and mark, and has each alphabet once")
        for a, wanted in ((a, w) for a in self.alphabets for w in (Alphabet("mark", len(MARKS)), *HEADERS)):
            if a.name == wanted.name and a.size != wanted.size:
                raise LayoutError(f"alphabet {a.name} has {a.size} symbols, this panglot knows {wanted.size}")
        if min(self.sizes.values()) < 1:
            raise LayoutError("every alphabet has at least one symbol")
        for name, bases in self.digits.items():
            if self.sizes.get(name) != math.prod(bases) or min(bases, default=0) < 1:
                raise LayoutError(f"the digits {bases} do not make the symbols of an alphabet {name}")

    @classmethod
    def standard(cls, depth: int = 4, strides: Sequence[int] = (32, 16, 8), change: Sequence[int] = (32, 16)) -> Layout:
        """From the installed tokenizers: `depth` codes a block of sound, these strides of pictures and of change.

        What is left out cannot be packed, and takes no ids. Raises LayoutError for what the tokenizers do not have.
        """
        from panglot.tokenizers import tokenizer

        text, image, audio, video = (tokenizer(m) for m in ("text", "image", "audio", "video"))
        for given in (tuple(strides), tuple(change)):
            if not given or given != STRIDES[: len(given)]:
                raise LayoutError(f"strides {given} are not the coarsest of {STRIDES}, one or more")
        if not 1 <= depth <= audio.depth:  # type: ignore[attr-defined]
            raise LayoutError(f"depth {depth}: a block of sound has 1 to {audio.depth} codes")  # type: ignore[attr-defined]
        wanted = {f"image/{s}" for s in strides} | {f"change/{s}" for s in change}
        wanted |= {f"audio/{k}" for k in range(1, depth + 1)} | {"span", "hold", "depth"}
        media = {a.name: a for coder in (video, image, audio) for a in coder.alphabets if a.name in wanted}
        digits = {f"image/{s}": v.fsq.levels for s, v in zip(STRIDES, image.network.levels, strict=True)}  # type: ignore[attr-defined]
        digits |= {f"change/{s}": v.fsq.levels for s, v in zip(STRIDES, video.network.levels, strict=True)}  # type: ignore[attr-defined]
        digits |= {f"audio/{k}": v.fsq.levels for k, v in enumerate(audio.network.nested, 1)}  # type: ignore[attr-defined]
        ordered = [media[name] for name in sorted(media, key=_place)]
        first = (*text.alphabets, Alphabet("mark", len(MARKS)), *HEADERS, SPLIT)
        return cls((*first, *ordered), {k: v for k, v in digits.items() if k in media})

    @cached_property
    def starts(self) -> dict[str, int]:
        """The first id of each alphabet."""
        out, at = {}, 0
        for a in self.alphabets:
            out[a.name] = at
            at += a.size
        return out

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The number of symbols of each alphabet."""
        return {a.name: a.size for a in self.alphabets}

    @cached_property
    def size(self) -> int:
        """How many ids there are: the vocabulary of a model."""
        return sum(a.size for a in self.alphabets)

    @cached_property
    def marks(self) -> dict[str, int]:
        """The id of each mark."""
        return {name: self.starts["mark"] + i for i, name in enumerate(MARKS)}

    @cached_property
    def slices(self) -> tuple[tuple[int, int], ...]:
        """Runs of ids [start, stop) of which one is legal at each position: text with its end, then each alphabet."""
        text = self.sizes["text"] + 1
        rest = [(self.starts[a.name], self.starts[a.name] + a.size) for a in self.alphabets[1:]]
        return ((0, text), (text, rest[0][1]), *rest[1:])

    @property
    def depth(self) -> int:
        """Codes a block of sound can have."""
        return sum(name.startswith("audio/") for name in self.sizes)

    def strides(self, kind: str) -> tuple[int, ...]:
        """The strides of the levels of "image" or "change", coarse to fine."""
        return tuple(int(n.partition("/")[2]) for n in self.sizes if n.startswith(kind + "/"))

    def symbol(self, token: int) -> tuple[str, int]:
        """The alphabet of an id, and its place there. Raises LayoutError outside the id space."""
        if not 0 <= token < self.size:
            raise LayoutError(f"id {token} is outside the layout's 0 to {self.size - 1}")
        place = bisect_right(self._edges, token) - 1
        return self.alphabets[place].name, token - self._edges[place]

    @cached_property
    def _edges(self) -> list[int]:
        return list(self.starts.values())

    def to_json(self) -> dict[str, Any]:
        """A value that JSON can hold and `from_json` reads."""
        return {
            "alphabets": [[a.name, a.size] for a in self.alphabets],
            "digits": {name: list(bases) for name, bases in self.digits.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> Layout:
        """The layout that `to_json` described. Raises LayoutError."""
        try:
            alphabets = tuple(Alphabet(str(name), int(size)) for name, size in value["alphabets"])
            return cls(alphabets, {str(k): tuple(int(n) for n in v) for k, v in value["digits"].items()})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as fault:
            raise LayoutError(f"not a layout ({fault})") from None


def _place(name: str) -> tuple[int, int]:
    """Pictures coarse to fine, sound, change, then the small alphabets."""
    kind, _, number = name.partition("/")
    order = ("span", "hold", "depth", "image", "audio", "change").index(kind)
    return order, int(number or 0) * (1 if kind == "audio" else -1)
