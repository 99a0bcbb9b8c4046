"""Build the primer: the picture book from which the default model learns words.

    python recipes/primer/build.py --data ../shared/data -o .cache/primer

The output is ordinary folders with `metadata.jsonl`. Files that are there are kept, so an interrupted build goes on
where it stopped; the same seed makes the same files. Not here: what is made (`concepts`, `scenes`, `pictures`,
`sounds`, `clips`), nor anything that learns from it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import clips
import pictures
import sounds
import typer
from concepts import CONCEPTS
from items import SPLITS, Item, generator
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from panglot.media import MediaError

VERSION = 7
"""Of the files: a folder of another version is not mixed with this one."""

CREDITS = """# Sources of the primer

`source` in every line of metadata.jsonl names the file that an entry was made from, with its author and licence where
those differ from file to file (`sound_source`: the sound of a clip). The licence
of every set and the credits that it asks for are in ATTRIBUTION.md, copied from the source data.

Words by `espeak-ng` were spoken by that program (GPL-3.0; the sound it makes is not covered by its licence).

All entries were changed: cut, scaled to 64 x 64 or resampled to 16 kHz, combined, recoloured, and re-encoded.

| set | entries |
|---|---|
"""


# ---------------------------------------------------------------------------------------------------------------------
# Making


def plan_stills(data: Path, seed: int) -> list[Item]:
    """Everything that is made from the source data alone."""
    found: list[Item] = []
    for split in SPLITS:
        found += pictures.plan_emoji(data, split)
        found += pictures.plan_photos(data, split, seed)
        found += pictures.plan_scenes(data, split, seed)
        found += sounds.plan_voices(split)
        found += sounds.plan_speech(data, split, seed)
        found += sounds.plan_sounds(data, split)
    return found


def plan_clips(data: Path, out: Path, seed: int, made: Sequence[Item]) -> list[Item]:
    """Everything that takes its sound from files of the primer."""
    found: list[Item] = []
    for split in SPLITS:
        found += clips.plan_clips(data, out, split, seed, made)
        found += clips.plan_scene_clips(data, out, split, seed, made)
    return found


def _make(job: tuple[Path, int, Item]) -> None:
    out, seed, item = job
    path = out / item.path
    if not path.exists():
        item.make(generator(seed, item.path)).save(path)


def make(out: Path, seed: int, items: Sequence[Item], processes: int, title: str, console: Console) -> None:
    """Render what is missing. Every file appears whole or not at all."""
    for folder in {(out / item.path).parent for item in items}:
        folder.mkdir(parents=True, exist_ok=True)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, multiprocessing.get_context("spawn").Pool(processes) as pool:
        jobs = ((out, seed, item) for item in items)
        for _ in progress.track(pool.imap_unordered(_make, jobs, 16), len(items), description=title):
            pass


def write(path: Path, text: str) -> None:
    """A text file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_metadata(out: Path, items: Iterable[Item]) -> None:
    folders: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        folders[item.folder].append(item)
    for folder, members in folders.items():
        lines = (json.dumps(item.line, ensure_ascii=False) for item in members)
        write(out / folder / "metadata.jsonl", "\n".join(lines) + "\n")


def write_credits(data: Path, out: Path, items: Iterable[Item]) -> None:
    keys = ("source", "sound_source")
    sets = Counter(item.row[key].split()[0] for item in items for key in keys if key in item.row)
    table = "".join(f"| {name} | {count} |\n" for name, count in sorted(sets.items()))
    write(out / "SOURCES.md", CREDITS + table)
    shutil.copyfile(data / "ATTRIBUTION.md", out / "ATTRIBUTION.md")


def claim(out: Path, seed: int) -> None:
    """Mark the folder as one of this version and seed. Raises SystemExit if it is another's."""
    mark = {"version": VERSION, "seed": seed}
    path = out / "primer.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != mark:
        raise SystemExit(
            f"{out}: holds a primer of another version or seed; remove it, or choose another folder with -o"
        )
    write(path, json.dumps(mark) + "\n")


# ---------------------------------------------------------------------------------------------------------------------
# Counting and checking


def picture_kinds(items: Iterable[Item]) -> dict[str, set[str]]:
    """Concept -> kinds of still picture it is seen in: noto, fxemoji, photo, hand, handwriting."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.folder.split("/")[1] in ("emoji", "photos"):
            kinds[item.row["concept"]].add(item.row["style"])
    return kinds


def shared_origins(items: Iterable[Item]) -> set[str]:
    """Recordings, photographs, speakers and synthetic voices that are on both sides. Has to be empty."""
    sides: dict[str, set[str]] = {split: set() for split in SPLITS}
    for item in items:
        keys = ("origin", "sound_origin")
        sides[item.path.split("/")[0]] |= {item.row[key] for key in keys if key in item.row}
    return sides["train"] & sides["held"]


def promises(items: Sequence[Item]) -> dict[str, bool]:
    """What the primer promises -> whether it holds for these files."""
    train = [item for item in items if item.path.startswith("train/")]
    kinds = picture_kinds(train)
    voices: dict[str, set[str]] = defaultdict(set)
    for item in train:
        if "voice" in item.row:
            voices[item.row["concept"]].add(item.row["voice"])
    natural = {item.row["concept"] for item in train if item.folder == "train/sounds"}
    filmed = {item.row["concept"] for item in train if item.folder == "train/clips"}
    whole = [c.word for c in CONCEPTS if len(kinds[c.word]) >= 2 and len(voices[c.word]) >= 20 and c.word in filmed]
    seen = {item.row["text"] for item in train if item.folder == "train/scenes"}
    new = {item.row["text"] for item in items if item.row.get("seen") is False}
    return {
        f"{len(whole)} concepts (at least 60) have a word, two kinds of picture, 20 voices and a clip": len(whole)
        >= 60,
        f"{len(natural)} concepts (at least 25) have a natural sound": len(natural) >= 25,
        "no recording, photograph, named speaker or voice is in both train and held": not shared_origins(items),
        f"none of the {len(new)} never-seen combinations is in train": bool(new) and not new & seen,
    }


def report(items: Sequence[Item], console: Console) -> None:
    """Tables of what there is, and the promises. Raises SystemExit if one is broken."""
    table = Table("set", "train", "held", title="files")
    counts = Counter(item.folder for item in items)
    for name in dict.fromkeys(item.folder.split("/")[1] for item in items):
        table.add_row(name, f"{counts['train/' + name]:,}", f"{counts['held/' + name]:,}")
    sides = Counter(item.path.split("/")[0] for item in items)
    table.add_row("all", f"{sides['train']:,}", f"{sides['held']:,}", style="bold")
    console.print(table)
    kinds = Counter(len(k) for k in picture_kinds(items).values())
    console.print(
        f"{len(CONCEPTS)} concepts; kinds of picture: " + ", ".join(f"{n} with {k}" for k, n in sorted(kinds.items()))
    )
    held = promises(items)
    for text, kept in held.items():
        console.print(f"{'kept  ' if kept else 'BROKEN'} {text}", style=None if kept else "bold red")
    if not all(held.values()):
        raise SystemExit(f"the primer breaks a promise; on both sides: {sorted(shared_origins(items))[:5]}")


def main(
    data: Annotated[Path, typer.Option(help="The folder of the source data.")] = Path("../shared/data"),
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the primer goes.")] = Path(".cache/primer"),
    seed: Annotated[int, typer.Option(help="Another seed makes another primer.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="How many files are made at once.")] = 2,
) -> None:
    """Build the primer, or what is missing of it."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("espeak-ng: not found, and needed to speak the words; apt-get install espeak-ng")
    console = Console(stderr=True)
    items = plan_stills(data, seed)
    moving = plan_clips(data, out, seed, items)
    claim(out, seed)
    try:
        make(out, seed, items, processes, "pictures and sounds", console)
        make(out, seed, moving, processes, "clips", console)
    except (MediaError, OSError) as error:
        raise SystemExit(str(error)) from None
    items += moving
    write_metadata(out, items)
    write_credits(data, out, items)
    report(items, Console())


if __name__ == "__main__":
    typer.run(main)
