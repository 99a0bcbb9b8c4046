"""What all parts of the primer share: the rows of the source data, and the plan of one file to make.

A plan is made before anything is rendered and is the same for the same seed and data. Not here: any rendering.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np

from panglot.media import Audio, Image, Video

SPLITS = {"train": "train", "held": "bench"}
"""Split of the primer -> split of the source data."""


@dataclass(frozen=True)
class Item:
    """One file to make.

    path: `train/emoji/dog/noto_00.png`, below the output folder. row: its line of metadata, without `file_name`; its
    `origin` names the recording, photo or speaker that must not be on both sides. make: random generator -> medium;
    picklable.
    """

    path: str
    row: dict
    make: Callable[[np.random.Generator], Image | Audio | Video]

    @property
    def folder(self) -> str:
        """`train/emoji`: the folder with its metadata."""
        return "/".join(self.path.split("/")[:2])

    @property
    def line(self) -> dict:
        return {"file_name": self.path.removeprefix(self.folder + "/"), **self.row}


@dataclass(frozen=True)
class Source:
    """A file of the source data with its row and the name of its set."""

    path: Path
    set: str
    row: dict

    @property
    def credit(self) -> str:
        """Enough to find the file and its author in ATTRIBUTION.md."""
        row = self.row
        parts = [f"{self.set} {row.get('source_id') or row['file_name']}"]
        parts += [f"by {row['author']}"] if "author" in row else []
        parts += [f"({row['licence']})"] if "licence" in row else []
        return " ".join(parts)

    @property
    def origin(self) -> str:
        """The speaker or pupil, where known, else the recording or photo."""
        key = self.row.get("split_key") or self.row.get("source_id") or self.row["file_name"]
        return f"{self.set} {key}"


@cache
def sources(data: Path, split: str, name: str) -> tuple[Source, ...]:
    """The files of a source set for a split of the primer (`train` or `held`).

    Raises SystemExit, with one line, if the set is not there.
    """
    folder = data / SPLITS[split] / name
    try:
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        raise SystemExit(f"{folder}/metadata.jsonl: not found; give the data folder of the project as --data") from None
    rows = map(json.loads, lines)
    return tuple(Source(folder / row["file_name"], name, row) for row in rows)


def generator(seed: int, *names: object) -> np.random.Generator:
    """A generator of its own for every name, so that one file does not depend on how many came before it."""
    return np.random.default_rng([seed, crc32("/".join(map(str, names)).encode())])


def slug(word: str) -> str:
    return word.replace(" ", "_")
