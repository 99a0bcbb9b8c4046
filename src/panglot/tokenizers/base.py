"""The contract every tokenizer keeps, and `Codes`, the value it produces.

A tokenizer cuts one kind of media into integers of a few small alphabets and turns any legal arrangement of them back
into media. `Codes` is what passes between the two halves: integer arrays, the small header that decoding needs, and
nothing else - no reference to a model, so it can be written to a file (`panglot.tokenfile`) or to a stream.

Not here: how any medium is cut (the sibling modules), id ranges of several alphabets in one vocabulary, and weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

ABSENT = -1
"""The value of a block that was left out of a finer level; it costs no code, only its split flag."""

HeaderValue = str | int | float | bool | None


class CodesError(ValueError):
    """Codes that no tokenizer could have produced: a value out of range, a wrong shape, a missing header field."""


class WeightsError(ValueError):
    """A weights file that cannot be used: missing, cut short, or of another shape."""


@dataclass(frozen=True)
class Alphabet:
    """A named set of `size` symbols, 0 .. size-1. `bits` is what one symbol costs in a token file."""

    name: str
    size: int

    @property
    def bits(self) -> int:
        return max(1, (self.size - 1).bit_length())


@dataclass(frozen=True, eq=False)
class Codes:
    """What a medium became.

    modality: "text", "image", "audio", "video", or "change" (the part of a video between keyframes).
    header:   JSON-able facts decoding needs (size, rate, duration); a handful of scalars.
    arrays:   alphabet name -> int32 array, in stream order, coarse to fine. ABSENT marks a block left out.
    children: parts in stream order; only a video has them (its keyframes, changes and spans of sound).

    Two codes are equal when all four are equal element by element.
    """

    modality: str
    header: Mapping[str, HeaderValue] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    children: tuple[Codes, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Codes)
            and self.modality == other.modality
            and dict(self.header) == dict(other.header)
            and list(self.arrays) == list(other.arrays)
            and all(np.array_equal(a, other.arrays[name]) for name, a in self.arrays.items())
            and self.children == other.children
        )

    __hash__ = None  # type: ignore[assignment]

    def walk(self) -> Iterator[Codes]:
        """This value and everything below it, in stream order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def levels(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """This value's arrays, each with where its blocks can be, given the array before it (`nested_in`)."""
        before: np.ndarray | None = None
        for array in self.arrays.values():
            yield array, nested_in(array, before)
            before = array

    def tokens(self) -> dict[str, int]:
        """Tokens per alphabet, split flags included: what this value costs in a stream."""
        total: dict[str, int] = {}
        for part in self.walk():
            for name, array in part.arrays.items():
                total[name] = total.get(name, 0) + int((array != ABSENT).sum())
            flags = sum(split_flags(array, possible).size for array, possible in part.levels())
            if flags:
                total["split"] = total.get("split", 0) + flags
        return total

    def bits(self, alphabets: Iterable[Alphabet]) -> int:
        """Raw bits of all tokens, at the true bit width of each alphabet."""
        width = {a.name: a.bits for a in (*alphabets, SPLIT)}
        return sum(n * width[name] for name, n in self.tokens().items())


def header_int(codes: Codes, name: str, least: int = 0) -> int:
    """A whole number >= least from the header. Raises CodesError."""
    value = codes.header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CodesError(f"{codes.modality} codes say {name} = {value!r}; it must be a whole number >= {least}")
    return value


SPLIT = Alphabet("split", 81)
"""Which blocks of a level are there, a symbol for four neighbours: base-3 digits, top left, top right, bottom left,
bottom right, the first counting least; 0: none of the quarter's blocks, 1: all that there can be, 2: some."""

NONE, ALL, SOME = 0, 1, 2


def nested_in(array: np.ndarray, coarser: np.ndarray | None) -> np.ndarray | None:
    """Where a level [h, w] can have blocks if each must lie within a block of the next coarser level: bool [h, w].

    None where there is no such level (another shape), where it is whole, or where `array` has a block outside it.
    """
    if coarser is None or array.ndim != 2 or coarser.shape != tuple(-(-side // 2) for side in array.shape):
        return None
    possible = (coarser != ABSENT).repeat(2, 0).repeat(2, 1)[: array.shape[0], : array.shape[1]]
    return None if bool(possible.all()) or bool(((array != ABSENT) & ~possible).any()) else possible


def split_flags(array: np.ndarray, possible: np.ndarray | None = None) -> np.ndarray:
    """Presence of the blocks of one level as symbols of `SPLIT`, coarse to fine.

    array: a level's codes, int [h, w], ABSENT where left out; any other array, or one without gaps, has no flags.
    possible: bool [h, w], where blocks can be at all (`nested_in`); everywhere if None.
    Returns int32 [n]: a quadtree. Its root covers the whole level; then, level by level in raster order, a symbol for
    every quarter of which some blocks are there and some are not.
    """
    present = array != ABSENT
    if array.ndim != 2 or bool(present.all()):
        return np.zeros(0, np.int32)
    missing = ~present if possible is None else possible & ~present
    states = [_states(present, missing)]
    while len(states) == 1 or states[-1].size > 1:
        present, missing = _any(present), _any(missing)
        states.append(_states(present, missing))
    flags = []
    for finer, coarser in zip(states[-2::-1], states[:0:-1], strict=True):
        symbols = (_groups(finer).reshape(*coarser.shape, 4) @ _PLACES).astype(np.int32)
        flags.append(symbols.ravel() if coarser is states[-1] else symbols[coarser == SOME])
    return np.concatenate(flags)


def join_flags(
    shape: tuple[int, int], take: Callable[[int], np.ndarray], possible: np.ndarray | None = None
) -> np.ndarray:
    """Which blocks of a level are present: the inverse of `split_flags`.

    shape: h, w of the level. take(n): the next n symbols of `SPLIT`, int [n]; how many there are in all shows while
    they are read. Returns bool [h, w]. Raises CodesError on symbols that `split_flags` never gives.
    """
    room = [np.ones(shape, bool) if possible is None else possible]
    while len(room) == 1 or room[-1].size > 1:
        room.append(_any(room[-1]))
    state = np.full((1, 1), SOME, np.uint8)
    for depth in range(len(room) - 2, -1, -1):
        h, w = room[depth].shape
        open_, fits = state == SOME, _groups(room[depth]).reshape(*state.shape, 4)
        quarters = np.where(fits & (state == ALL)[..., None], ALL, NONE).astype(np.uint8)
        symbols = np.asarray(take(int(open_.sum())), np.int64)
        if symbols.size and symbols.max() >= SPLIT.size:
            raise CodesError(f"split flag {symbols.max()}, there are {SPLIT.size}")
        digits = symbols[:, None] // _PLACES % 3
        known = fits[open_]
        if (digits[~known] != NONE).any() or (depth == 0 and (digits == SOME).any()):
            raise CodesError("a split flag names blocks where there can be none")
        whole = (digits == NONE).all(1) | ((digits == ALL) | ~known).all(1)
        if depth < len(room) - 2 and whole.any():
            raise CodesError("a split flag says that all or none of a group is there, its parent that some is")
        quarters[open_] = digits
        state = quarters.reshape(*state.shape, 2, 2).transpose(0, 2, 1, 3).reshape(2 * len(state), -1)[:h, :w]
    return state == ALL


def most_flags(height: int, width: int) -> int:
    """How many split flags a level of so many blocks can have: one for every cell of the quadtree."""
    total = 0
    while not total or height * width > 1:
        height, width = -(-height // 2), -(-width // 2)
        total += height * width
    return total


_PLACES = np.array([1, 3, 9, 27])


def _groups(cells: np.ndarray) -> np.ndarray:
    """[h, w] -> [ceil(h/2), ceil(w/2), 2, 2], padded with 0."""
    h, w = cells.shape
    padded = np.pad(cells, ((0, h % 2), (0, w % 2))) if h % 2 or w % 2 else cells
    return padded.reshape((h + 1) // 2, 2, (w + 1) // 2, 2).transpose(0, 2, 1, 3)


def _any(cells: np.ndarray) -> np.ndarray:
    """bool [h, w] -> bool [ceil(h/2), ceil(w/2)]: whether any of four neighbours is set"""
    return np.asarray(_groups(cells).any((2, 3)))


def _states(present: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return np.where(present, np.where(missing, SOME, ALL), NONE).astype(np.uint8)


M = TypeVar("M")


class Tokenizer(ABC, Generic[M]):
    """Encode and decode one kind of media.

    Properties every tokenizer keeps, tested by `panglot.testing.TokenizerContract`:
    encoding is deterministic; a batch encodes as its members do alone; `join(encode_stream(chunks))` equals
    `encode(whole)`; decoding returns the size, rate and duration that were encoded; every code is in range; every
    array of in-range codes decodes.
    """

    modality: ClassVar[str]

    @property
    @abstractmethod
    def alphabets(self) -> tuple[Alphabet, ...]:
        """The alphabets whose symbols `encode` may return, in stream order."""

    @abstractmethod
    def encode(self, media: M, **options: Any) -> Codes:
        """The codes of one medium. Options say which codes are left out (`stride`, `depth`)."""

    @abstractmethod
    def decode(self, codes: Codes) -> M:
        """Media of the size, rate and duration in the header. Raises CodesError on codes that cannot be."""

    @abstractmethod
    def count(self, media: Any, **options: Any) -> dict[str, int]:
        """Tokens per alphabet that `encode` would return, from the size alone (a medium or a `MediaInfo`).

        Exact where the codes do not depend on content; an upper bound for video, whose unchanged blocks cost nothing.
        """

    @abstractmethod
    def encode_stream(self, chunks: Iterable[M], **options: Any) -> Iterator[Codes]:
        """Codes as soon as they are known, from consecutive pieces of one medium; state is carried between pieces."""

    @abstractmethod
    def join(self, pieces: Iterable[Codes]) -> Codes:
        """The pieces of `encode_stream` as one value, equal to what `encode` of the whole returns."""

    def encode_batch(self, media: Iterable[M], **options: Any) -> list[Codes]:
        """Codes of several media; equal to encoding each alone."""
        return [self.encode(m, **options) for m in media]

    def check(self, codes: Codes) -> None:
        """Raise CodesError unless the modality is ours, every array has an alphabet and every code is in its range."""
        if codes.modality != self.modality:
            raise CodesError(f"these are codes of {codes.modality}, not of {self.modality}: use that tokenizer")
        sizes = {a.name: a.size for a in self.alphabets}
        for part in codes.walk():
            for name, array in part.arrays.items():
                if name not in sizes:
                    raise CodesError(f"alphabet {name!r} is not one of this tokenizer's: {', '.join(sizes)}")
                if not np.issubdtype(array.dtype, np.integer):
                    raise CodesError(f"codes of {name} are {array.dtype}, must be integers")
                if array.size and not (int(array.min()) >= ABSENT and int(array.max()) < sizes[name]):
                    raise CodesError(
                        f"codes of {name} run from {array.min()} to {array.max()}, legal are 0 to {sizes[name] - 1}"
                    )
