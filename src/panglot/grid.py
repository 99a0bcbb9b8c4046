"""Any medium in, any medium out: what `panglot demo` asks the shipped model, and what it answers.

Each concept is given four times, as a word, a photo, a recording and a clip, and each time every medium is wanted. What
is asked stands in the tables at the top. All is drawn with one seed: what is shown is what comes, not what was picked.
The requests of a column are answered side by side, which is several times faster than one after the other.

Not here: generation (`panglot.generate`), the page (`panglot.grid_report`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from panglot import generate, media
from panglot.generate import Panglot, Settings
from panglot.inspect import PLAYABLE
from panglot.media import Media, Text
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes

CONCEPTS = ("rooster", "dog", "helicopter")
"""The words, which name their files too. These are held-out media (assets/demo/ATTRIBUTION.md), chosen before
any model was trained; the shipped one names two of three recordings, all clips and none of the photos right."""

MEDIA = {"word": "", "photo": ".jpg", "recording": ".ogg", "clip": ".mp4"}
"""What is given of each concept, and the suffix of its file."""

SEED = 0


@dataclass(frozen=True)
class Wanted:
    """A column. modality: of the answer. said: the words before it, by which the model knows which way of showing is
    meant ("" for none). tokens: at most; None: as many as the model finds usual, up to `longest`."""

    name: str
    modality: str
    said: str = ""
    tokens: int | None = None
    longest: int = 512

    @property
    def settings(self) -> Settings:
        return Settings(tokens=self.tokens, seed=SEED, longest=self.longest)


WANTED = (
    Wanted("word", "text", longest=16),
    Wanted("picture, coarse", "image", "draw it", 20),
    Wanted("picture, fine", "image", "draw it", 84),
    Wanted("sound", "audio", "sound", 64),
    Wanted("spoken word", "audio", "say it"),
    Wanted("clip with sound", "video", "film it"),
)


@dataclass(frozen=True)
class Given:
    """What a row begins with. medium: a key of MEDIA."""

    concept: str
    medium: str

    @property
    def name(self) -> str:
        """The word itself, or the name of the file."""
        return self.concept + MEDIA[self.medium]

    def open(self, assets: Path) -> Media:
        return media.open(assets / self.name) if MEDIA[self.medium] else Text(self.concept)


@dataclass(frozen=True, eq=False)
class Answer:
    """One cell. seconds: its share of the time in which its column was drawn, and its own decoding.

    text: of a word; file: of any other medium, as a browser plays it.
    """

    wanted: Wanted
    codes: Codes
    seconds: float
    text: str | None = None
    file: Path | None = None

    @property
    def tokens(self) -> int:
        return sum(self.codes.tokens().values())


@dataclass(frozen=True, eq=False)
class Row:
    """shown: the file that was given, as a browser plays it; None for a word."""

    given: Given
    shown: Path | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """All rows, those of a concept together. parameters: of the model that answered."""

    parameters: int
    rows: tuple[Row, ...]

    def objects(self, at: Callable[[Path], Path] = lambda path: path) -> list[dict[str, Any]]:
        """An object an answer, for JSON. at: where a file will be found by whoever reads it."""
        return [
            {
                "input": row.given.name,
                "given": row.given.medium,
                "wanted": answer.wanted.name,
                "modality": answer.wanted.modality,
                "tokens": answer.tokens,
                "seconds": round(answer.seconds, 4),
                **({"text": answer.text} if answer.file is None else {"file": str(at(answer.file))}),
            }
            for row in self.rows
            for answer in row.answers
        ]

    def columns(self) -> tuple[list[str], list[list[str]]]:
        """The answers as a table of text: titles, and a line a row."""
        lines = [[f"{r.given.concept}: {r.given.medium}", *(_brief(a) for a in r.answers)] for r in self.rows]
        return ["given", *(wanted.name for wanted in WANTED)], lines


def ask(
    assets: Path, folder: Path, model: Path | None = None, told: Callable[[float], None] = lambda part: None
) -> Grid:
    """Ask for everything, and write what comes.

    assets: where the files of CONCEPTS are. folder: for the media, given and answered. model: a checkpoint's folder, by
    default the one that ships. told: called with the part that is done, 0 to 1. Raises CheckpointError for a model that
    is damaged or missing, GenerateError where it cannot answer.
    """
    loaded = Panglot.load(model)
    given = [Given(concept, medium) for concept in CONCEPTS for medium in MEDIA]
    inputs = [one.open(assets) for one in given]
    folders = [folder / f"{one.concept}-{one.medium}" for one in given]
    columns: list[list[Answer]] = []
    for number, wanted in enumerate(WANTED, 1):
        columns.append(_column(loaded, inputs, wanted, folders))
        told(number / len(WANTED))
    rows = zip(given, inputs, folders, zip(*columns, strict=True), strict=True)
    return Grid(
        loaded.model.config.parameters,
        tuple(Row(one, _shown(one, medium, assets, place), answers) for one, medium, place, answers in rows),
    )


def missing() -> bool:
    """Whether this copy of panglot came without its model."""
    return not generate.ASSETS.is_dir()


def _column(loaded: Panglot, inputs: Sequence[Media], wanted: Wanted, folders: Sequence[Path]) -> list[Answer]:
    start = perf_counter()
    requests = [[medium, wanted.said] if wanted.said else [medium] for medium in inputs]
    drawn = loaded.answer_all(requests, wanted.modality, settings=wanted.settings)
    share = (perf_counter() - start) / len(inputs)
    return [_answer(wanted, codes, share, place) for (codes,), place in zip(drawn, folders, strict=True)]


def _answer(wanted: Wanted, codes: Codes, seconds: float, folder: Path) -> Answer:
    start = perf_counter()
    decoded = tokenizer(codes.modality).decode(codes)
    seconds += perf_counter() - start
    if isinstance(decoded, Text):
        return Answer(wanted, codes, seconds, text=decoded.text)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (wanted.name.replace(",", "").replace(" ", "-") + PLAYABLE[codes.modality])
    media.save(decoded, file)
    return Answer(wanted, codes, seconds, file=file)


def _shown(given: Given, medium: Media, assets: Path, folder: Path) -> Path | None:
    if isinstance(medium, Text):
        return None
    if medium.modality == "audio":  # not every browser plays OGG
        file = folder / f"given{PLAYABLE['audio']}"
        media.save(medium, file)
        return file
    return Path(shutil.copyfile(assets / given.name, folder / f"given{MEDIA[given.medium]}"))


def _brief(answer: Answer) -> str:
    count = f"{answer.tokens} token{'s' * (answer.tokens != 1)}, {answer.seconds:.2f} s"
    return count if answer.text is None else f"{answer.text} ({count})"
