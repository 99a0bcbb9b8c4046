"""The verbs of `panglot` for a model: train, generate.

Thin, like those of `panglot.cli`, which registers them: what they do is imported when they run. Not here: the data step
and the evaluation (`panglot.cli_model`).
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from panglot._terminal import BadInput, Log, check_input, progress, shown


def train(
    shards: Annotated[Path, typer.Argument(metavar="SHARDS", help="A data set that panglot prepare made.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run; it is resumed there.")],
    size: Annotated[str, typer.Option(help="mini, small or base.")] = "mini",
    steps: Annotated[int, typer.Option(help="Batches in all.")] = 4000,
    rows: Annotated[int, typer.Option(help="Rows of a batch.")] = 8,
    length: Annotated[int, typer.Option(help="Tokens of a row; longer than half of it is not learned.")] = 448,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; else the one of the size.")] = None,
    muon: Annotated[bool, typer.Option(help="Train matrices with Muon, or all with AdamW.")] = True,
    begin: Annotated[Path | None, typer.Option("--from", metavar="MODEL", help="Start from this model.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same run.")] = 0,
) -> None:
    """Train a model on a token data set, or go on where it was stopped. RUN/model is a stock Qwen3 checkpoint."""
    from panglot.model import SIZES

    if size not in SIZES:
        raise BadInput(f"--size {size}: choose {', '.join(SIZES)}")
    for name, value in (("steps", steps), ("rows", rows), ("length", length)):
        if value < 1:
            raise BadInput(f"--{name} {value}: give at least 1")
    if not 0 <= seed < 2**32:
        raise BadInput(f"--seed {seed}: give a whole number from 0 to {2**32 - 1}")
    if lr is not None and not 0 < lr < 1:
        raise BadInput(f"--lr {lr:g}: give a number above 0, below 1")
    from panglot import pretrain
    from panglot.checkpoint import CheckpointError
    from panglot.layout import LayoutError
    from panglot.shards import ShardError
    from panglot.train import TrainError

    try:
        start = None if begin is None else str(begin)
        options = pretrain.TrainOptions(size, steps, rows, length, lr, muon, seed=seed, begin=start)
        print(f"The model is {shown(pretrain.train(shards, out, options))}")
    except (ShardError, LayoutError, TrainError, CheckpointError) as error:
        raise BadInput(shown(str(error))) from None


def generate(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, and texts in quotes, in any order.")],
    want: Annotated[list[str] | None, typer.Option(help="text, image, audio, video; or several of them.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE|DIR", help="Where media go.")] = None,
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="A model of yours, RUN/model.")] = None,
    tokens: Annotated[int | None, typer.Option(help="At most so many tokens: draw coarse or fine.")] = None,
    n: Annotated[int, typer.Option("--n", help="Answers to draw.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.")] = 0,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest; else 0 for text, 0.5 for media.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest that make up so much.")] = 0.95,
    guidance: Annotated[float, typer.Option(help="Above 1: keep closer to the inputs.")] = 2.0,
    words: Annotated[bool, typer.Option(help="Say first, unseen, in words what is given in other media.")] = True,
    tries: Annotated[int, typer.Option(help="Of so many answers the one is kept that reads best.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an answer, nothing else.")] = False,
) -> None:
    """Give any media, get any media: panglot generate bark.ogg "draw it" --want image -o dog.png"""
    wanted = [name for group in want or [] for name in group.split(",")]
    if n < 1:
        raise BadInput(f"--n {n}: give at least 1")
    _check_output(inputs, wanted, out, n)
    given = [_input(name) for name in inputs]
    from panglot.checkpoint import CheckpointError
    from panglot.generate import GenerateError, Panglot, Settings
    from panglot.layout import LayoutError
    from panglot.media import MediaError
    from panglot.tokenizers.base import CodesError

    log = Log(as_json)
    try:
        settings = Settings(tokens, seed, temperature, top_p, guidance, words=words, tries=tries)
        loaded = Panglot.load(model)
        given = [loaded.fit.open(name) if isinstance(name, Path) else name for name in given]
        chosen = tries > 1 and temperature is None and any(getattr(g, "modality", "text") != "text" for g in given)
        alone = wanted == ["text"] and n == 1 and not chosen and (out is None or out.is_dir())
        streamed = _Streamed(loaded) if alone and not as_json else None
        start = perf_counter()
        with nullcontext() if streamed else progress("generate"):  # a bar would wipe the text as it comes
            answers = loaded.answers(given, wanted or None, n, streamed, settings)
        _written(answers, out, log, perf_counter() - start, streamed is not None)
    except (GenerateError, CheckpointError, LayoutError, MediaError, CodesError) as error:
        raise BadInput(shown(str(error))) from None
    log.finish()


def _check_output(inputs: list[str], wanted: list[str], out: Path | None, n: int) -> None:
    """Whether the answers can be written, each under its name; all that can be known before they are drawn."""
    from panglot.convert import SUFFIXES

    if unknown := [w for w in wanted if w not in SUFFIXES]:
        raise BadInput(f"--want {unknown[0]}: choose among {', '.join(SUFFIXES)}")
    kinds = wanted or list(SUFFIXES)
    if out is not None and not out.is_dir():
        if not out.absolute().parent.is_dir():
            raise BadInput(f"{shown(out)}: lies in a folder that does not exist; make it, or choose another")
        known = [suffix for kind in dict.fromkeys(kinds) for suffix in SUFFIXES[kind]]
        if out.suffix and out.suffix.lower() not in known:
            raise BadInput(f"{shown(out)}: {' and '.join(kinds)} cannot be saved as that; use {', '.join(known)}")
    most = n * (len(wanted) or 4)
    given = {Path(name).resolve() for name in inputs}
    alone = [(1, 1)] if most == 1 or not wanted else []
    for kind in dict.fromkeys(kinds):
        for number, count in alone + [(number, most) for number in range(1, most + 1) if most > 1]:
            target = _target(out, kind, number, count)
            if target.resolve() in given:
                raise BadInput(f"{shown(target)}: is given and would be written; choose another name with -o")


class _Streamed:
    """Prints a text as it comes, in whole characters."""

    def __init__(self, loaded: Any):
        from panglot.tokenizers import tokenizer

        self.coder, self.ids, self.printed = tokenizer("text"), [], 0
        self.size = loaded.layout.sizes["text"]

    def __call__(self, row: int, alphabet: str, symbol: int) -> None:
        import numpy as np

        from panglot.tokenizers.base import Codes

        if alphabet != "text":
            return
        self.ids.append(symbol)
        text = self.coder.decode(Codes("text", {}, {"text": np.array(self.ids, np.int32)})).text
        ready = text.rstrip("\ufffd")
        print(_printable(ready[self.printed :]), end="", flush=True)
        self.printed = len(ready)


def _printable(text: str) -> str:
    """What a model says, with its lines, but without what a terminal would take for commands."""
    return "".join(c if c in "\n\t" else shown(c) for c in text)


def _input(name: str) -> Any:
    """A medium where `name` is a file, else a text; what looks like the name of a file must be one.

    Of a video it is the path: how much of it is read depends on the model.
    """
    from panglot import media
    from panglot.folders import MEDIA, TEXTS

    path = Path(name)
    if not name.strip():
        raise BadInput("an empty text: name a file, or put words in quotes")
    try:
        there = path.is_file() or (path.is_dir() and os.sep in name)  # a word may be the name of a folder too
    except OSError:  # too long for a name: a text
        there = False
    if there or name == "-":
        check_input(path)
        try:
            return path if media.probe(path).modality == "video" else media.open(path)
        except media.MediaError as error:
            raise BadInput(shown(str(error))) from None
    if path.suffix.lower() in {*MEDIA, *TEXTS, ".pgt"}:
        raise BadInput(f"{shown(name)}: does not exist; check the name, or put a text in other words")
    return name


def _written(answers: list[list[Any]], out: Path | None, log: Log, seconds: float, printed: bool) -> None:
    """Texts to standard output, media to files: FILE itself for a single one, else numbered."""
    from panglot import convert, media

    count = sum(len(answer) for answer in answers)
    number = 0
    for row, answer in enumerate(answers):
        told = []
        for codes in answer:
            number += 1
            tokens = sum(codes.tokens().values())
            if codes.modality == "text" and (out is None or out.is_dir() or out.suffix.lower() not in ("", ".txt")):
                told.append({"modality": "text", "text": convert.decode(codes).text, "tokens": tokens})  # type: ignore[union-attr]
                if not log.as_json:
                    print("" if printed else _printable(told[-1]["text"]))
                continue
            target = _target(out, codes.modality, number, count)
            target.parent.mkdir(exist_ok=True)
            media.save(convert.decode(codes), target)
            told.append({"modality": codes.modality, "output": str(target), "tokens": tokens})
            if not log.as_json:
                print(f"{shown(target)}  {codes.modality}, {tokens} tokens")
        if log.as_json:
            log.object_line({"answer": row, "parts": told, "seconds": round(seconds, 3)})
    if not log.as_json:
        print(f"{seconds:.2f} s", file=sys.stderr)


def _target(out: Path | None, modality: str, number: int, count: int) -> Path:
    """Where a medium goes: numbered where there are several, with the suffix that was named if it can be saved so."""
    from panglot.convert import SUFFIXES

    suffix = SUFFIXES[modality][0]
    if out is None:
        return Path(f"answer-{number}{suffix}")
    if out.is_dir() or (not out.suffix and count > 1):
        return out / f"answer-{number}{suffix}"
    if count == 1:
        return out if out.suffix else out.with_suffix(suffix)
    return out.with_name(f"{out.stem}-{number}{out.suffix if out.suffix.lower() in SUFFIXES[modality] else suffix}")
