"""What every benchmark needs: options, data, panglot's tokenizers, tables.

Each script measures, collects `Table`s, and hands them to `report`, which prints them or, with `--json`, writes one
object to standard output. Not here: any codec, any metric, any measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable

from panglot import media

Cell = str | int | float | bool | None
S = TypeVar("S")
T = TypeVar("T")


class Missing(RuntimeError):
    """Something a row needs is not installed or not made yet; the message says what, and what to do."""


@dataclass
class Table:
    """Rows with the same columns, in the order in which they were added; `notes` are printed below."""

    title: str
    rows: list[dict[str, Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, **cells: Cell) -> None:
        self.rows.append(cells)


@dataclass(frozen=True)
class Options:
    """The options all benchmarks share; `extra` holds a script's own."""

    data: Path
    json: bool
    only: tuple[str, ...]
    limit: int | None
    seed: int
    jobs: int
    extra: Mapping[str, Any]

    def wants(self, row: str) -> bool:
        """Whether a row was asked for: `--only` takes names or patterns, and nothing given means all."""
        return not self.only or any(fnmatch(row, pattern) for pattern in self.only)

    def folder(self, name: str) -> Path:
        """A folder below the data folder; ends the program with one line if it is not there."""
        path = self.data / name
        if not path.is_dir():
            sys.exit(f"{path}: no such folder; give the data folder with --data or PANGLOT_DATA (see docs/data.md)")
        return path


def options(description: str, rows: Sequence[str], *, needs_data: bool = True, **extra: dict[str, Any]) -> Options:
    """Parse the command line. `rows` are the names `--only` may select; `extra` maps names to add_argument keywords."""
    summary = description.split("\n", 1)[0]
    parser = argparse.ArgumentParser(description=summary, epilog=f"rows: {', '.join(rows)}")
    parser.add_argument("--data", type=Path, default=os.environ.get("PANGLOT_DATA"), help="data folder (PANGLOT_DATA)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else there")
    parser.add_argument("--only", default="", help="rows to measure, by name or pattern, separated by commas")
    parser.add_argument("--limit", type=int, help="use only the first N items of every set")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default 0)")
    parser.add_argument("--jobs", type=int, default=2, help="threads (default 2)")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    given = vars(parser.parse_args())
    only = tuple(part.strip() for part in given.pop("only").split(",") if part.strip())
    for pattern in only:
        if not any(fnmatch(row, pattern) for row in rows):
            parser.error(f"--only {pattern}: no such row; there are {', '.join(rows)}")
    data = given.pop("data")
    if data is None and needs_data:
        parser.error("where is the data? give --data FOLDER or set PANGLOT_DATA (see docs/data.md)")
    common = {name: given.pop(name) for name in ("json", "limit", "seed", "jobs")}
    return Options(Path(data or "."), only=only, extra=given, **common)


def tokenizer(modality: str) -> Any:
    """panglot's tokenizer with its shipped weights. Raises Missing where the weights are not there."""
    from panglot import tokenizers
    from panglot.tokenizers.weights import WeightsError

    try:
        return tokenizers.tokenizer(modality)
    except (WeightsError, ModuleNotFoundError) as error:
        raise Missing(f"panglot's {modality} tokenizer: {error}") from error


def require(program: str, package: str) -> str:
    """The path of a program; raises Missing that names the Debian package it comes in."""
    path = shutil.which(program)
    if path is None:
        raise Missing(f"{program} is not installed; on Debian: apt-get install {package}")
    return path


def entries(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's metadata.jsonl, in file order, each with its `path`."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [{**row, "path": folder / row["file_name"]} for row in map(json.loads, lines)]


def load(path: Path, kind: type[T]) -> T:
    """A file as Image, Audio or Video. Raises TypeError if it holds something else."""
    medium = media.open(path)
    if not isinstance(medium, kind):
        raise TypeError(f"{path}: holds {medium.modality}, wanted was {kind.__name__}")
    return medium


def choose(items: Sequence[T], count: int | None, seed: int) -> list[T]:
    """`count` of the items, chosen by the seed alone, in their own order (all where there are not more)."""
    if count is None or count >= len(items):
        return list(items)
    picked = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[i] for i in sorted(picked)]


def each(function: Callable[[S], T], items: Iterable[S], jobs: int) -> list[T]:
    """`function` of every item, in order, on `jobs` threads (codecs and NumPy release the lock)."""
    if jobs == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(function, items))


def mean(values: Iterable[float]) -> float:
    return float(np.mean(np.fromiter(values, float)))


def median_seconds(function: Callable[[], object], repeat: int) -> float:
    """Median wall-clock time of `repeat` calls after one to warm up."""
    function()
    times = []
    for _ in range(repeat):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return float(np.median(times))


def report(name: str, tables: Sequence[Table], opts: Options) -> None:
    """Print the tables, or the same as JSON."""
    if opts.json:
        machine = {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
        body = [{"title": t.title, "rows": t.rows, "notes": t.notes} for t in tables]
        print(json.dumps({"benchmark": name, "machine": machine, "seed": opts.seed, "tables": body}))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        _print(console, table)


def progress(line: str) -> None:
    """One line of progress on standard error, where it disturbs no table and no JSON."""
    print(line, file=sys.stderr, flush=True)


def _print(console: Console, table: Table) -> None:
    columns = list(dict.fromkeys(column for row in table.rows for column in row))
    view = RichTable(title=table.title, title_justify="left")
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in table.rows)
        view.add_column(column, justify="right" if numeric else "left", no_wrap=numeric)
    for row in table.rows:
        view.add_row(*(_text(row.get(column)) for column in columns))
    console.print(view)
    for note in table.notes:
        console.print(f"  {note}", highlight=False, markup=False)
    console.print()


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.2f}" if abs(cell) >= 1 else f"{cell:.3f}"
    return str(cell)


def rows_or_notes(
    rows: Mapping[str, Callable[[], Mapping[str, Cell]]], opts: Options, table: Table
) -> Iterator[tuple[str, Mapping[str, Cell]]]:
    """Measure the wanted rows in order; one whose tool is missing becomes a note instead."""
    for name, measure in rows.items():
        if not opts.wants(name):
            continue
        progress(f"{table.title}: {name}")
        try:
            yield name, measure()
        except Missing as error:
            table.notes.append(f"{name} left out: {error}")
