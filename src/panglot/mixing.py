"""Batches for the model: which segments of a data set come together in a sample, in which order, and how packed.

Segments of one group are about the same thing (the word "dog", photos, barks, clips). A sample is made anew each time:
a segment is drawn, another of its group is put before or behind it, so every medium is learned from every other. Most
samples are requests: `<ask>` what is given `<give>` what is wanted, for which what is given is first said in words.
Kinds of segments (a modality, and how it shows the thing) are drawn by the square root of how many there are, and so
are the groups within a kind; of texts only those that are about no medium.

A batch is a pure function of (seed, step). Rows are filled with whole samples, none is cut.
Not here: reading shards (`panglot.shards`), what is learned from a batch (`panglot.learning`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from panglot.layout import Layout

REQUEST = 0.75
"""Share of samples that are requests; the others are segments one after another."""

ALONE, TEXT, BOTH = 0.05, 0.72, 0.18
"""Shares of samples: a medium alone (for guidance), with its text, with text and another medium; else with another.

Where there are a medium, its text and another medium, the text stands between them: what is asked for in another medium
is answered by saying first, in words, what was given. Asked without words, the model has to learn each pair of media
by itself, and had learned next to nothing: 1 of 20 drawings became the right word said, where 18 of 20 became the
right word written, and 14 of 20 words the right word said (cf. chain of thought, arXiv 2201.11903)."""

ECHO = 0.01
"""Share of samples that are a text and the same text again."""

TOLD_FIRST, TOLD = 0.3, 0.85
"""How often the kind of a medium ("photo") is said before it, where it is given and where it is wanted."""

WORDS = 3.0
"""Weight in the loss of a text, of which there is little beside the tokens of other media."""

GIVEN = 0.2
"""Weight in the loss of what is given, against 1 for what is wanted."""

NOISE = 0.1
"""Share of the codes of given pictures, sounds and videos that are replaced by any other of their alphabet, so that a
photo is not known by a few of its tokens. Without it the loss of a word was 0.6 for media that had been seen and 0.8
for others (the idea is word dropout, arXiv 1506.07285 and 1511.06349)."""


@dataclass(frozen=True)
class Segments:
    """A data set in memory. ids: int32 [N] of all segments, one after another; offsets: int64 [S + 1].

    group: int [S]; kind: int [S], an index into `kinds`, pairs of modality and the words that say how ("photo" or "").
    medium: int [S], equal for variants of one medium at different budgets.
    """

    ids: np.ndarray
    offsets: np.ndarray
    group: np.ndarray
    kind: np.ndarray
    medium: np.ndarray
    kinds: Sequence[tuple[str, str]]

    def of(self, row: int) -> np.ndarray:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True)
class Batch:
    """Packed rows, all [B, L]: ids and positions int64, samples int64 (-1 padding), weights float32 of each id as a
    target, modality int8 of the segment it belongs to (an index into MODALITIES, -1 none)."""

    ids: np.ndarray
    positions: np.ndarray
    samples: np.ndarray
    weights: np.ndarray
    modality: np.ndarray


MODALITIES = ("text", "image", "audio", "video")


@dataclass
class Mixer:
    """Makes batches from segments. told: the packed text segment of each kind's words, where it has some."""

    segments: Segments
    layout: Layout
    told: Mapping[int, np.ndarray]
    rows: int = 16
    length: int = 512
    seed: int = 0
    noise: float = NOISE
    _index: dict[int, dict[int, dict[int, np.ndarray]]] = field(init=False, repr=False)

    def __post_init__(self):
        s = self.segments
        self._codes = np.zeros((self.layout.size, 2), np.int64)  # first id and size of the alphabet of a code
        for name in self.layout.digits:
            start, size = self.layout.starts[name], self.layout.sizes[name]
            self._codes[start : start + size] = start, size
        self._lengths = np.diff(s.offsets)
        usable = np.flatnonzero(self._lengths <= self.length // 2)
        self._index = {}
        order = usable[np.lexsort((s.medium[usable], s.group[usable], s.kind[usable]))]
        for kind, rows in _runs(order, s.kind):
            self._index[kind] = {group: dict(_runs(part, s.medium)) for group, part in _runs(rows, s.group)}
        self._of_group: dict[int, list[int]] = {}
        for kind, groups in self._index.items():
            for group in groups:
                self._of_group.setdefault(group, []).append(kind)
        shown = {g for kind, groups in self._index.items() if s.kinds[kind][0] != "text" for g in groups}
        # A text of media comes with them; one that is alone is drawn itself.
        self._groups = {
            kind: [g for g in groups if s.kinds[kind][0] != "text" or g not in shown]
            for kind, groups in self._index.items()
        }
        self._drawn_kinds = [kind for kind, groups in self._groups.items() if groups]
        media = {k: np.array([len(self._index[k][g]) for g in self._groups[k]]) for k in self._drawn_kinds}
        self._share = _root_share(np.array([media[k].sum() for k in self._drawn_kinds]))
        self._reach = {k: np.cumsum(_root_share(media[k])[:-1]) for k in self._drawn_kinds}
        self._rows_of = {
            (kind, group): list(media.values())
            for kind, groups in self._index.items()
            for group, media in groups.items()
        }

    def batch(self, step: int) -> Batch:
        """The rows of one step: drawn samples, each put into the first row with room, until one fits nowhere."""
        rng = np.random.default_rng([self.seed, step])
        shape = (self.rows, self.length)
        ids = np.full(shape, self.layout.marks["pad"], np.int64)
        positions, samples = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        weights, modality = np.zeros(shape, np.float32), np.full(shape, -1, np.int8)
        used, count = np.zeros(self.rows, int), 0
        while True:
            tokens, weight, kind = self.sample(rng)
            if len(tokens) > self.length:
                continue
            fits = np.flatnonzero(used + len(tokens) <= self.length)
            if not fits.size:
                return Batch(ids, positions, samples, weights, modality)
            row = int(fits[used[fits].argmax()])
            here = slice(used[row], used[row] + len(tokens))
            ids[row, here], weights[row, here], modality[row, here] = tokens, weight, kind
            positions[row, here], samples[row, here] = np.arange(len(tokens)), count
            used[row] += len(tokens)
            count += 1

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One sample: ids, their weights in the loss, and the modality each belongs to."""
        parts = self._drawn(rng)
        marks, kinds = self.layout.marks, self.segments.kinds
        request = len(parts) > 1 and rng.random() < REQUEST
        answer = len(parts) - (2 if request and len(parts) == 3 else 1)
        pieces, worth, modality = [np.array([marks["bos"]])], [np.zeros(1)], [np.full(1, -1)]

        def put(ids: np.ndarray, weight: float = 0.0) -> None:
            pieces.append(ids)
            worth.append(np.full(len(ids), weight))
            modality.append(np.full(len(ids), -1))

        def tell(row: int, share: float) -> None:
            kind = int(self.segments.kind[row])
            if kind in self.told and rng.random() < share:
                put(self.told[kind])

        def show(row: int, weight: float, given: bool = False) -> None:
            ids, name = self.segments.of(row), kinds[int(self.segments.kind[row])][0]
            pieces.append(ids)
            worth.append(np.full(len(ids), weight * (WORDS if name == "text" else 1.0) * len(ids) ** -0.5))
            modality.append(np.full(len(ids), MODALITIES.index(name)))
            if given and self.noise:
                pieces[-1], worth[-1] = self._noisy(rng, ids, worth[-1])

        if request:
            put(np.array([marks["ask"]]))
        for row in parts[:answer]:
            tell(row, TOLD_FIRST)
            show(row, GIVEN, given=True)
        tell(parts[-1], TOLD)
        if request:
            put(np.array([marks["give"]]))
        for row in parts[answer:]:
            show(row, 1.0 if len(parts) > 1 else GIVEN)
        put(np.array([marks["eos"]]), 0.3)
        return tuple(np.concatenate(part) for part in (pieces, worth, modality))  # type: ignore[return-value]

    def _noisy(self, rng: np.random.Generator, ids: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some codes replaced by others; nobody has to predict those."""
        start, size = self._codes[ids].T
        noisy = (size > 0) & (rng.random(len(ids)) < self.noise)
        return np.where(noisy, start + rng.integers(np.maximum(size, 1)), ids), np.where(noisy, 0.0, weight)

    def _drawn(self, rng: np.random.Generator) -> list[int]:
        """Rows of the segments of one sample, in the order in which they stand."""
        kinds = self.segments.kinds
        kind = self._drawn_kinds[int(rng.choice(len(self._drawn_kinds), p=self._share))]
        group = self._groups[kind][int(np.searchsorted(self._reach[kind], rng.random(), "right"))]
        parts = [self._row(rng, kind, group)]
        others = [k for k in self._of_group[group] if k != kind or len(self._rows_of[k, group]) > 1]
        text = [k for k in others if kinds[k][0] == "text"]
        media = [k for k in others if kinds[k][0] != "text"]
        draw = rng.random()
        if text and draw < ECHO:
            return [self._row(rng, text[0], group)] * 2
        if draw < ECHO + ALONE or not (text or media):
            return parts
        if text and (draw < ALONE + TEXT + BOTH or not media):
            parts.append(self._row(rng, text[int(rng.integers(len(text)))], group))
        if media and (draw >= ALONE + TEXT or not text):
            other = media[int(rng.integers(len(media)))]
            parts.append(self._row(rng, other, group))
            while other == kind and self.segments.medium[parts[-1]] == self.segments.medium[parts[0]]:
                parts[-1] = self._row(rng, other, group)  # not the same medium twice
        parts = [parts[i] for i in rng.permutation(len(parts))]
        if len(parts) == 3:
            parts.insert(1, parts.pop([kinds[int(self.segments.kind[row])][0] for row in parts].index("text")))
        return parts

    def _row(self, rng: np.random.Generator, kind: int, group: int) -> int:
        """A medium of a kind and group, at one of its budgets: short ones more often, by the square root."""
        media = self._rows_of[kind, group]
        rows = media[int(rng.integers(len(media)))]
        if len(rows) == 1:
            return int(rows[0])
        share = self._lengths[rows] ** -0.5
        return int(rng.choice(rows, p=share / share.sum()))


def _root_share(counts: np.ndarray) -> np.ndarray:
    """Probabilities by the square root of counts."""
    return np.sqrt(counts) / np.sqrt(counts).sum()


def _runs(rows: np.ndarray, values: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Rows, which are sorted by values[rows], as (value, its rows)."""
    if not rows.size:
        return []
    cuts = np.flatnonzero(np.diff(values[rows])) + 1
    return [(int(values[part[0]]), part) for part in np.split(rows, cuts)]
