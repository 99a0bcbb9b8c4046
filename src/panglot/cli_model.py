"""The verbs of `panglot` from folders of files to a model of one's own, and to what that is worth: scan, prepare, eval.

Thin, like those of `panglot.cli`, which registers them: what they do is imported when they run. Faults of the command
line, of a folder or of a data set are one line; files that cannot be used are counted and named, and stop nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from panglot._terminal import BadInput, Log, print_grid, progress, shown

FoldersArgument = Annotated[
    list[Path], typer.Argument(metavar="FOLDER...", help="Folders of text, pictures, sound, video.")
]
Variants = Annotated[int, typer.Option(metavar="N", help="Ways to encode each medium, with more tokens and fewer.")]
Finest = Annotated[
    int, typer.Option("--stride", help="Finest level of pictures: 32, 16 or 8; of what changes in video at least 16.")
]
Deepest = Annotated[int, typer.Option("--depth", help="Codes a block of sound (80 ms) at most; of video one less.")]
Side = Annotated[int | None, typer.Option(help="Crop pictures and frames to squares of so many pixels.")]
Seconds = Annotated[float | None, typer.Option(help="The loudest seconds of a sound, at 16 kHz, one level.")]
Rate = Annotated[float | None, typer.Option("--fps", help="At most so many frames a second of video.")]
Frames = Annotated[int | None, typer.Option(help="The first frames of a video.")]
MaxTokens = Annotated[int, typer.Option(metavar="N", help="Leave out what takes more tokens than this.")]
OneObject = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")]
SHOWN = 5
"""Left out files that a summary names, with the reason; --json and the manifest have all."""


def scan(
    folders: FoldersArgument,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Draw concepts and share of tokens.")] = None,
    variants: Variants = 2,
    stride: Finest = 8,
    depth: Deepest = 4,
    max_tokens: MaxTokens = 2048,
    side: Side = None,
    seconds: Seconds = None,
    fps: Rate = None,
    frames: Frames = None,
    as_json: OneObject = False,
) -> None:
    """Tell what folders hold, what pairs with what, what will be left out and why, and what a model of it will take."""
    if plot is not None and (plot.suffix.lower() != ".png" or plot.is_dir() or not plot.parent.is_dir()):
        raise BadInput(f"{shown(plot)}: --plot names a PNG file, in a folder that exists")
    from panglot import scan as scanning

    with _faults(), progress("scan") as tell:
        fit = _fit(side, seconds, fps, frames)
        options = _options(variants=variants, stride=stride, depth=depth, max_tokens=max_tokens, fit=fit)
        report = scanning.scan(folders, options, tell)
    if plot is not None:
        scanning.plot(report, plot)
    if as_json:
        Log.object_line(report.as_dict())
        return
    for title, head, rows in scanning.grids(report):
        print_grid(title, head, rows)
    print(scanning.estimate(report))


def prepare(
    folders: FoldersArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="SHARDS", help="Folder for the token data set.")],
    join: Annotated[
        str | None, typer.Option(metavar="text", help="Samples of the same text are about one thing.")
    ] = None,
    variants: Variants = 2,
    stride: Finest = 8,
    depth: Deepest = 4,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Processes; by default one a core.")] = None,
    held: Annotated[float, typer.Option(metavar="PART", help="Part that is held out, 0 to 1.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    max_tokens: MaxTokens = 2048,
    side: Side = None,
    seconds: Seconds = None,
    fps: Rate = None,
    frames: Frames = None,
    as_json: OneObject = False,
) -> None:
    """Turn folders of files into a token data set to train on. Run it again to go on where it was ended."""
    from panglot.prepare import prepare as prepared

    start = perf_counter()
    with _faults(), progress("prepare") as tell:
        how = {"variants": variants, "stride": stride, "depth": depth, "max_tokens": max_tokens}
        fit = _fit(side, seconds, fps, frames)
        options = _options(join=join, held=held, seed=seed, fit=fit, **how)
        found = prepared(folders, out, options, tell, os.cpu_count() or 1 if workers is None else workers)
    manifest, seconds = found.manifest, perf_counter() - start
    if as_json:
        counts = {"samples": found.samples, "segments": manifest.rows, "tokens_per_modality": manifest.tokens}
        made = {"output": str(out), "shards": len(manifest.shards), "kept": found.kept, "seconds": round(seconds, 3)}
        skipped = [{"name": name, "reason": reason} for name, reason in manifest.skipped]
        Log.object_line({**made, **counts, "tokens": sum(manifest.tokens.values()), "skipped": skipped})
        return
    tokens = ", ".join(f"{name} {n:,}" for name, n in manifest.tokens.items())
    kept = f", {found.kept} of them were there" if found.kept else ""
    print(f"{found.samples:,} samples -> {shown(out)}  {len(manifest.shards)} shards{kept}, {seconds:.1f} s")
    print(f"{manifest.rows:,} segments, {sum(manifest.tokens.values()):,} tokens: {tokens}")
    if manifest.skipped:
        print(
            f"left out: {len(manifest.skipped):,}, all of them named in {shown(out / 'manifest.json')}", file=sys.stderr
        )
        for name, reason in manifest.skipped[:SHOWN]:
            print(f"  {shown(name)}: {shown(reason)}", file=sys.stderr)


def _fit(side: int | None, seconds: float | None, fps: float | None, frames: int | None) -> Any:
    from panglot.fitting import Fit

    try:
        return Fit(side, seconds, fps, frames)
    except ValueError as error:
        raise BadInput(f"--{error}") from None


def _options(**values: Any) -> Any:
    from panglot.variants import Options

    return Options(**values)


@contextmanager
def _faults() -> Iterator[None]:
    """Faults of folders, options and data sets as BadInput."""
    from panglot.convert import OptionError
    from panglot.folders import FolderError
    from panglot.shards import ShardError

    try:
        yield
    except (FolderError, OptionError, ShardError) as error:
        raise BadInput(shown(str(error))) from None


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A training run, or the folder of its model.")],
    data: Annotated[
        Path, typer.Option(metavar="DATA", help="Has the folders train and held, of which prepare got the first.")
    ],
    judges: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judges; trained there if missing. By default beside DATA.")
    ] = None,
    cases: Annotated[int, typer.Option(metavar="N", help="Cases of a row at most.")] = 96,
    shards: Annotated[Path | None, typer.Option(metavar="SHARDS", help="Measure the held-out loss too.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of cases and of what is drawn.")] = 0,
    tries: Annotated[int, typer.Option(help="As of generate: of so many answers the best read is kept.")] = 4,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write all measurements here.")] = None,
    as_json: OneObject = False,
) -> None:
    """Measure a model on held-out media: any in, any out, judged by classifiers that learned from real media alone."""
    if out is not None and (out.suffix.lower() != ".json" or out.is_dir() or not out.parent.is_dir()):
        raise BadInput(f"{shown(out)}: --out names a JSON file, in a folder that exists")
    from panglot import evaluate as evaluating
    from panglot import evaluate_report as showing
    from panglot.checkpoint import CheckpointError
    from panglot.judges import JudgeError
    from panglot.layout import LayoutError
    from panglot.media import MediaError
    from panglot.train import TrainError

    def tell(line: str) -> None:
        print(f"panglot: {shown(line)}", file=sys.stderr, flush=True)

    try:
        # What a training of judges shows goes to standard error: standard output is for the result.
        with _faults(), redirect_stdout(sys.stderr):
            options = evaluating.Options(cases, seed, shards, tries)
            found = evaluating.evaluate(
                run, data, judges or data.resolve().with_name(f"{data.resolve().name}-judges"), options, tell
            )
    except (CheckpointError, JudgeError, LayoutError, MediaError, TrainError, evaluating.EvaluateError) as error:
        raise BadInput(shown(str(error))) from None
    found["goals"] = showing.goals(found)
    if out is not None:
        showing.write(found, out)
    if as_json:
        Log.object_line(found)
        return
    for title, head, rows in showing.grids(found):
        print_grid(title, head, rows)
    print(*showing.notes(found), sep="\n")
