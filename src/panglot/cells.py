"""The sixteen cells of any in, any out: which held-out media are given, what is asked for, and how answers are judged.

A cell (image in, sound out) is split into rows by what is given and what is asked for: photographs, and to hear the
word said. All that is known comes from the columns of the metadata: a row gives the media of one folder and kind, and
asks for a kind that training has for the same concepts. A text out is right where it is the very text of the medium
given; a picture or a sound where its judge, among all labels of its medium, says the concept and the kind that were
asked for; a video where the frames show the concept.

Beside each share stand what chance and the most frequent answer would have, and what the judge is worth: how much of
real held-out media of that kind it names right; where a text is asked for, how much of the media given.

Not here: what else is measured, and all of it in order (`panglot.evaluate`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from panglot.generate import MEDIA, GenerateError, Panglot, Settings
from panglot.judges import Item, Judges, Pair, items
from panglot.media import Audio, Image, Media, Video
from panglot.media import open as open_media
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes, CodesError

BATCH = 32
"""Requests that are answered side by side."""

TEXTS_A_CONCEPT = 4
"""Cases of a concept in rows whose answer is a text, at most; in the others it is one, for they take longer."""

RENDERED = ("draw it", "film it")
"""Kinds whose held-out media are made of what training has seen too: a drawing, on another ground."""

Told = Callable[[str], None]
"""Called with a line on what is being done."""


# ---------------------------------------------------------------------------------------------------------------------
# Rows


@dataclass(frozen=True)
class Row:
    """Cases that are alike. given: the kind of input, for people; want, kind: what is asked for ("" for a text).

    closed: whether what is given is rendered, not recorded. concepts: those in play; usual: the one that training has
    most often.
    """

    given: str
    source: str
    closed: bool
    want: str
    kind: str
    cases: tuple[Item, ...]
    concepts: frozenset[str]
    usual: str

    def request(self, item: Item, medium: Media | str) -> list[Media | str]:
        return [medium, self.kind] if self.kind else [medium]


@dataclass(frozen=True)
class Material:
    """What a data set has: `train` to know what there is, `held` to ask with."""

    train: tuple[Item, ...]
    held: tuple[Item, ...]

    @classmethod
    def of(cls, data: Path) -> Material:
        """From DATA/train and DATA/held. Raises FolderError or JudgeError."""
        return cls(tuple(items(data / "train")), tuple(items(data / "held")))

    @cached_property
    def concepts(self) -> dict[Pair, Counter[str]]:
        """(modality, kind) -> how many files of each concept training has, scenes apart."""
        found: dict[Pair, Counter[str]] = {}
        for item in self.train:
            if not item.is_scene:
                found.setdefault((item.modality, item.kind), Counter())[item.concept] += 1
        return found

    def kinds(self, modality: str) -> list[str]:
        """The kinds of a modality that training has and that are held out too, scenes apart: of no other can it be
        told how well they are judged."""
        held = {(item.modality, item.kind) for item in self.held if not item.is_scene}
        return sorted(kind for m, kind in self.concepts.keys() & held if m == modality)

    @cached_property
    def words(self) -> tuple[Item, ...]:
        """One text for each concept of training: its word."""
        word = {i.concept: i.text for i in self.train if not i.is_scene}
        return tuple(Item(Path(), "text", "", "", text, concept) for concept, text in sorted(word.items()))

    @cached_property
    def sources(self) -> dict[tuple[str, str, str], tuple[Item, ...]]:
        """(modality, set, kind) -> what can be given: held-out media, and words."""
        found: dict[tuple[str, str, str], list[Item]] = {("text", "", ""): list(self.words)}
        for item in self.held:
            if not item.is_scene:
                found.setdefault((item.modality, item.set, item.kind), []).append(item)
        ordered = sorted(found, key=lambda key: (MEDIA.index(key[0]), key[1:]))
        return {key: tuple(found[key]) for key in ordered}


def rows(material: Material, most: int, seed: int) -> list[Row]:
    """All rows, of at most `most` cases each."""
    out = []
    for (modality, name, kind), found in material.sources.items():
        if not found:
            continue
        known = {item.concept for item in found}
        taught = Counter(i.concept for i in material.train if not i.is_scene and (i.set, i.kind) == (name, kind))
        rendered = kind in RENDERED or "voice" in found[0].row or modality == "text"
        given = "word" if modality == "text" else f"{name or modality}{f' ({kind})' if kind else ''}"
        wanted = [("text", ""), *((m, k) for m in MEDIA[1:] for k in material.kinds(m))]
        for want, asked in wanted:
            there = Counter(known) if want == "text" else material.concepts[want, asked]
            concepts = frozenset(known & set(there))
            if not concepts:
                continue
            counted = taught if modality != "text" else there
            usual = max(sorted(concepts), key=lambda c: counted[c])
            pool = [item for item in found if item.concept in concepts]
            each = TEXTS_A_CONCEPT if want == "text" else 1
            cases = chosen(pool, most, each, seed, f"{given} {want} {asked}")
            out.append(Row(given, modality, rendered, want, asked, cases, concepts, usual))
    return out


def chosen(pool: Sequence[Item], most: int, each: int, seed: int, name: str) -> tuple[Item, ...]:
    """At most `most` items and `each` of a concept, drawn at random, concepts in turn."""
    order = np.random.default_rng([seed, crc32(name.encode())]).permutation(len(pool))
    turn: Counter[str] = Counter()
    placed = []
    for rank, i in enumerate(order):
        concept = pool[i].concept
        if turn[concept] < each:
            placed.append((turn[concept], rank, pool[i]))
            turn[concept] += 1
    return tuple(item for _, _, item in sorted(placed, key=lambda p: p[:2])[:most])


# ---------------------------------------------------------------------------------------------------------------------
# Answers


class Asked(Panglot):
    """A model that reads each input once, and counts which of its answers decode."""

    def __init__(self, model: Panglot, seed: int = 0, tries: int = Settings.tries):
        super().__init__(model.model, model.layout, model.fit, model.learned, model.kinds)
        self.seed, self.tries = seed, tries
        self.answered, self.decoded, self.faults = 0, 0, Counter[str]()
        self._media: dict[Path, Media] = {}
        self._codes: dict[int | str, Codes] = {}

    def medium(self, item: Item) -> Media | str:
        """What an item gives. Raises MediaError."""
        if item.modality == "text":
            return item.text
        if item.path not in self._media:
            # Pictures and videos at the size that is read: whole ones would fill the memory.
            small = item.modality != "audio"
            self._media[item.path] = self.fit.open(item.path) if small else open_media(item.path)
        return self._media[item.path]

    def encoded(self, medium: Media | str) -> Codes:
        key = medium if isinstance(medium, str) else id(medium)
        if key not in self._codes:
            self._codes[key] = super().encoded(medium)
        return self._codes[key]

    def ask(
        self, requests: Sequence[Sequence[Media | str]], want: str, told: Told | None = None, tokens: int | None = None
    ) -> list[Media | None]:
        """One decoded answer to each request; None where it is not a medium, which is then counted."""
        out: list[Media | None] = []
        if told:
            told(f"asking for {want}, {len(requests):,} times")
        for start in range(0, len(requests), BATCH):
            settings = Settings(tokens=tokens, seed=self.seed * 1_000_003 + start, tries=self.tries)
            answers = self._answers(requests[start : start + BATCH], want, settings)
            out += [self._decoded(answer, want) for answer in answers]
        return out

    def _answers(self, requests: Sequence[Any], want: str, settings: Settings) -> list[list[Codes]]:
        try:
            return self.answer_all(requests, want, settings=settings)
        except GenerateError as error:
            if len(requests) == 1:
                self.faults[str(error)] += 1
                return [[]]
            half = len(requests) // 2
            return [a for part in (requests[:half], requests[half:]) for a in self._answers(part, want, settings)]

    def _decoded(self, answer: list[Codes], want: str) -> Media | None:
        self.answered += 1
        if not answer:
            return None
        try:
            (codes,) = answer
            medium = tokenizer(want).decode(codes)
        except (CodesError, ValueError) as error:
            self.faults[" ".join(str(error).split())] += 1
            return None
        self.decoded += 1
        return medium


# ---------------------------------------------------------------------------------------------------------------------
# Judging


@dataclass
class Tally:
    """What has been found of a row. right: of the cases; anyhow: with the concept in whatever kind; heard: videos in
    whose sound the concept is heard."""

    row: Row
    right: int = 0
    anyhow: int = 0
    heard: int = 0
    usual: int = 0
    judge: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        row, n = self.row, len(self.row.cases)
        said: dict[str, Any] = {"given": row.given, "source": row.source, "closed": row.closed, "want": row.want}
        said |= {"kind": row.kind} | share(self.right, n)
        said |= {"chance": round(1 / len(row.concepts), 4), "classes": len(row.concepts)}
        said |= {"usual": round(self.usual / n, 4), "usual_concept": row.usual}
        said |= {"judge": round(self.judge[0] / self.judge[1], 4) if self.judge[1] else None}
        said |= {"judge_cases": self.judge[1]}
        if row.want in ("image", "audio"):
            said["any_kind"] = round(self.anyhow / n, 4)
        if row.want == "video":
            said["heard"] = round(self.heard / n, 4)
        return said


def share(right: int, cases: int) -> dict[str, Any]:
    """A share of cases and its 95 % interval."""
    low, high = wilson(right, cases)
    part = round(right / cases, 4) if cases else None
    return {"cases": cases, "right": right, "share": part, "low": round(low, 4), "high": round(high, 4)}


def wilson(right: int, cases: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a share (E. B. Wilson, 1927); (0, 1) without cases."""
    if not cases:
        return 0.0, 1.0
    p, extra = right / cases, z * z / cases
    middle, half = p + extra / 2, z * sqrt(p * (1 - p) / cases + extra / cases / 4)
    return max(0.0, (middle - half) / (1 + extra)), min(1.0, (middle + half) / (1 + extra))


@dataclass
class Bench:
    """Judges at work on the answers, and on the real media with which they are compared."""

    material: Material
    judges: Judges
    _known: dict[Path, tuple[Pair, str]] = field(default_factory=dict)

    def verdicts(self, media: Sequence[Media | None], want: str) -> list[tuple[Pair, str]]:
        """((concept, kind), concept in any kind) of each; of a video by its frames, and by its sound in the kind."""
        out: list[tuple[Pair, str]] = [(("", ""), "")] * len(media)
        there = [i for i, medium in enumerate(media) if medium is not None]
        if want == "image" and self.judges.picture:
            pixels = [m.pixels for i in there if isinstance(m := media[i], Image)]
            found = self.judges.pictures(pixels, self.material.kinds("image"))
        elif want == "audio" and self.judges.sound:
            sounds = [m for i in there if isinstance(m := media[i], Audio)]
            found = self.judges.sounds(sounds, self.material.kinds("audio"))
        elif want == "video" and self.judges.picture:
            found = [self._video(m) for i in there if isinstance(m := media[i], Video)]
        else:
            return out
        for i, verdict in zip(there, found, strict=True):
            out[i] = verdict
        return out

    def _video(self, video: Video) -> tuple[Pair, str]:
        """((concept of the frames, ""), concept of the sound)."""
        heard = ""
        if video.audio is not None and len(video.audio.samples) and self.judges.sound:
            heard = self.judges.sounds([video.audio], self.material.kinds("audio"))[0][1]
        return (self.judges.video(video), ""), heard

    def tally(self, row: Row, answers: Sequence[Media | None], judge: bool = True) -> Tally:
        """The answers to the cases of a row, judged."""
        found = Tally(row, usual=sum(item.concept == row.usual for item in row.cases))
        if row.want == "text":
            found.right = sum(getattr(a, "text", None) == i.text for a, i in zip(answers, row.cases, strict=True))
        else:
            for (pair, other), item in zip(self.verdicts(answers, row.want), row.cases, strict=True):
                wanted = (item.concept, "" if row.want == "video" else row.kind)
                found.right += pair == wanted
                found.anyhow += pair == wanted or other == item.concept
                found.heard += other == item.concept
        found.judge = self.worth(row)
        return found

    def worth(self, row: Row) -> tuple[int, int]:
        """How many real held-out media the judge names right: of the kind wanted, or given where that is a text."""
        if row.want != "text":
            pool = [i for i in self.material.held if (i.modality, i.kind) == (row.want, row.kind) and not i.is_scene]
            pool = [i for i in pool if i.concept in row.concepts]
        else:
            pool = [i for i in row.cases if i.modality != "text"]
        new = [i for i in pool if i.path not in self._known]
        for modality in {i.modality for i in new}:
            some = [i for i in new if i.modality == modality]
            media = [item.open() for item in some]
            self._known |= zip((i.path for i in some), self.verdicts(media, modality), strict=True)
        right = 0
        for item in pool:
            pair = self._known[item.path][0]
            right += pair[0] == item.concept if row.want in ("text", "video") else pair == item.pair
        return right, len(pool)
