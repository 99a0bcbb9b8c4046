"""What a model is worth, measured on held-out media: `panglot eval RUN --data DATA`.

DATA has two folders, `train` and `held`, each with sets of media and their metadata.jsonl, as `panglot prepare` reads
them. Measured are

- the sixteen cells of any in, any out, split into rows (`panglot.cells`),
- scenes: combinations of attributes that training has shown, and such that it never has, side by side,
- pictures asked for with a quarter of their tokens, against the same with all,
- whether every answer decodes; whether the sound of made videos is as long as their pictures, and begins within them,
- with the shards of the data set, the loss a token of each modality on held-out segments.

Every share has its number of cases, its 95 % interval, what chance and the most frequent answer would have, and what
the judge is worth on real media. What the project set out to reach is in `panglot.evaluate_report`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from panglot.cells import Asked, Bench, Material, Row, Told, chosen, rows, share
from panglot.fitting import resampled
from panglot.generate import MEDIA, Panglot, Settings
from panglot.judge_training import train_judges, value
from panglot.judges import ATTRIBUTES, SIDE, Item, Judges, picture_input
from panglot.learning import Learner
from panglot.media import Image, Media, MediaError, Video
from panglot.mixing import Mixer
from panglot.model import Transformer
from panglot.pretrain import HELD_OUT, held_out_loss, segments, told
from panglot.shards import Shards, open_shards
from panglot.tokenizers import tokenizer
from panglot.tokenizers.spectrum import BLOCK, RATE

ONSET_DB = -30.0
"""A sound has begun where it first comes so near to its peak."""

LOSS_ROWS, LOSS_LENGTH = 8, 512
"""Of the batches on which the loss is measured."""


class EvaluateError(ValueError):
    """An evaluation that cannot be made. One line: why, and the remedy."""


@dataclass(frozen=True)
class Options:
    """cases: of a row at most; seed: of the choice of cases and of what is drawn; shards: for the loss, or None; tries:
    those of `generate.Settings`."""

    cases: int = 96
    seed: int = 0
    shards: Path | None = None
    tries: int = Settings.tries

    def __post_init__(self):
        if self.cases < 1:
            raise EvaluateError(f"--cases {self.cases}: give at least 1")
        if self.seed < 0:
            raise EvaluateError(f"--seed {self.seed}: give 0 or more")
        if not 1 <= self.tries <= 64:
            raise EvaluateError(f"--tries {self.tries}: choose from 1 to 64")


def evaluate(
    run: Path, data: Path, judges: Path, options: Options = Options(), progress: Told | None = None
) -> dict[str, Any]:
    """All measurements, as a value that JSON can hold.

    run: a model's folder, or that of a training run which holds it as `model`. judges: their folder; those that are
    missing are trained from DATA/train. Raises CheckpointError, FolderError, JudgeError, MediaError, ShardError,
    TrainError.
    """
    start = perf_counter()
    model = Asked(Panglot.load(run / "model" if (run / "model").is_dir() else run), options.seed, options.tries)
    shards = None if options.shards is None else open_shards(options.shards, model.layout.to_json())
    tell = progress or (lambda line: None)
    material = readable(Material.of(data), model, tell)
    wanted = rows(material, options.cases, options.seed)
    if not wanted:
        raise EvaluateError(f"{data / 'held'}: holds nothing to ask with; check the texts of its media")
    bench = Bench(material, train_judges(data / "train", judges, told=tell))
    tallies, films = matrix(model, bench, wanted, tell)
    found: dict[str, Any] = {
        "model": {"parameters": model.model.config.parameters, "vocabulary": model.layout.size},
        "data": {"train": len(material.train), "held": len(material.held), "concepts": len(material.words)},
        "options": {"cases": options.cases, "seed": options.seed, "tries": options.tries},
        "rows": tallies,
        "cells": pooled(tallies),
        "scenes": scenes(model, bench, options, tell),
        "quarter": quarter(model, bench, options, tell),
        "video": in_step(films),
    }
    if shards is not None:
        found["loss"] = losses(model, shards)
    found["well_formed"] = {"answers": model.answered, "decoded": model.decoded, "faults": dict(model.faults)}
    return found | {"seconds": round(perf_counter() - start, 1)}


def readable(material: Material, model: Asked, tell: Told) -> Material:
    """Without the held-out files that cannot be opened, which are told."""
    kept = []
    for item in material.held:
        try:
            model.medium(item)
            kept.append(item)
        except MediaError as error:
            tell(f"left out: {error}")
    return replace(material, held=tuple(kept))


# ---------------------------------------------------------------------------------------------------------------------
# Cells


def matrix(model: Asked, bench: Bench, wanted: Sequence[Row], tell: Told) -> tuple[list[dict[str, Any]], list[Video]]:
    """Every row answered and judged; and all videos that were made."""
    answers: dict[int, list[Media | None]] = {}
    films: list[Video] = []
    for want in MEDIA:
        chosen_rows = [i for i, row in enumerate(wanted) if row.want == want]
        requests = [wanted[i].request(item, model.medium(item)) for i in chosen_rows for item in wanted[i].cases]
        made = model.ask(requests, want, tell)
        films += [m for m in made if isinstance(m, Video)]
        at = 0
        for i in chosen_rows:
            answers[i] = made[at : at + len(wanted[i].cases)]
            at += len(wanted[i].cases)
    return [bench.tally(row, answers[i]).to_json() for i, row in enumerate(wanted)], films


def pooled(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells, all their rows together, and those alone that are closed on both sides."""
    out = []
    for source in MEDIA:
        for want in MEDIA:
            cell = [r for r in found if (r["source"], r["want"]) == (source, want)]
            if not cell:
                continue
            cases = sum(r["cases"] for r in cell)
            said = {"source": source, "want": want} | share(sum(r["right"] for r in cell), cases)
            said["usual"] = round(sum(r["usual"] * r["cases"] for r in cell) / cases, 4)
            said["chance"] = round(sum(r["chance"] * r["cases"] for r in cell) / cases, 4)
            closed = [r for r in cell if r["closed"] and r["kind"] in ("", "draw it", "say it", "film it")]
            if closed:
                said["closed"] = share(sum(r["right"] for r in closed), sum(r["cases"] for r in closed))
            out.append(said)
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Scenes


def scenes(model: Asked, bench: Bench, options: Options, tell: Told) -> list[dict[str, Any]]:
    """Scenes told in words, and drawn or filmed from words: seen combinations against never seen ones."""
    out = []
    for modality in ("image", "video"):
        for seen in (True, False):
            pool = [i for i in bench.material.held if i.is_scene and i.modality == modality and i.row["seen"] is seen]
            cases = chosen(pool, options.cases, options.cases, options.seed, f"scenes {modality} {seen}")
            if not cases:
                continue
            said = model.ask([[model.medium(i)] for i in cases], "text", tell)
            texts = [getattr(medium, "text", "") for medium in said]
            read = [_in_words(i, text, cases) for i, text in zip(cases, texts, strict=True)]
            exact = [text == i.text for i, text in zip(cases, texts, strict=True)]
            out.append({"given": modality, "want": "text", "seen": seen} | _scored(cases, read, exact))
            if bench.judges.scene is None:
                continue
            asked = [[i.text, i.kind] if i.kind else [i.text] for i in cases]
            drawn = model.ask(asked, modality, tell)
            read = [_judged(bench.judges, i, medium) for i, medium in zip(cases, drawn, strict=True)]
            real = [_judged(bench.judges, i, i.open()) for i in cases]
            found = {"given": "text", "want": modality, "seen": seen} | _scored(cases, read, [all(r) for r in read])
            out.append(found | {"judge": _scored(cases, real, [all(r) for r in real])})
    return out


def attributes(item: Item) -> list[str]:
    return [a for a in ATTRIBUTES if value(item, a)]


def _in_words(item: Item, text: str, others: Sequence[Item]) -> list[bool]:
    """Of each attribute, whether a text has its value, and no other value of it that is not part of this one."""
    out = []
    for attribute in attributes(item):
        right = value(item, attribute)
        wrong = {v for i in others if (v := value(i, attribute)) and v not in right}
        out.append(_has(text, right) and not any(_has(text, word) for word in wrong))
    return out


def _has(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def _judged(judges: Judges, item: Item, medium: Media | None) -> list[bool]:
    wanted = attributes(item)
    if not isinstance(medium, Image | Video) or judges.scene is None:
        return [False] * len(wanted)
    frames = [picture_input(f) for f in ([medium.pixels] if isinstance(medium, Image) else medium.frames)]
    read = judges.scene.read(frames, wanted)
    return [read.get(a) == value(item, a) for a in wanted]


def _scored(cases: Sequence[Item], read: Sequence[Sequence[bool]], whole: Sequence[bool]) -> dict[str, Any]:
    """Shares of cases that are right in all, and in each attribute."""
    right: dict[str, list[bool]] = {}
    for item, found in zip(cases, read, strict=True):
        for attribute, good in zip(attributes(item), found, strict=True):
            right.setdefault(attribute, []).append(good)
    each = {a: share(sum(good), len(good)) for a, good in right.items()}
    return share(sum(whole), len(cases)) | {"attributes": each}


# ---------------------------------------------------------------------------------------------------------------------
# Tokens, time, loss


def quarter(model: Asked, bench: Bench, options: Options, tell: Told) -> dict[str, Any] | None:
    """Pictures from words with all tokens of a picture, and with a quarter; how many of those that the judge names
    right with all it still names right. None without pictures."""
    kinds = bench.material.kinds("image")
    if not kinds or bench.judges.picture is None:
        return None
    kind = max(kinds, key=lambda k: (len(bench.material.concepts["image", k]), k))
    known = bench.material.concepts["image", kind]
    pool = [item for item in bench.material.words if item.concept in known]
    cases = chosen(pool, options.cases, 1, options.seed, "quarter")
    side = model.fit.side or SIDE
    whole = sum(tokenizer("image").count(Image(np.zeros((side, side, 3), np.uint8)).info).values())
    row = Row("word", "text", True, "image", kind, cases, frozenset(known), "")
    named = []
    for tokens in (whole, whole // 4):
        made = model.ask([row.request(item, item.text) for item in cases], "image", tell, tokens)
        verdicts = bench.verdicts(made, "image")
        named.append([pair == (item.concept, kind) for (pair, _), item in zip(verdicts, cases, strict=True)])
    kept = [few for full, few in zip(*named, strict=True) if full]
    said = {"kind": kind, "tokens": [whole, whole // 4], "full": share(sum(named[0]), len(cases))}
    return said | {"quarter": share(sum(named[1]), len(cases)), "kept": share(sum(kept), len(kept))}


def in_step(films: Sequence[Video]) -> dict[str, Any] | None:
    """Of the videos that were made: those with a sound, whose sound is as long as the pictures to a block of 80 ms,
    whose sound begins while they are shown. None without any."""
    if not films:
        return None
    sounding = [film for film in films if film.audio is not None and len(film.audio.samples)]
    long = sum(abs(f.audio.duration - f.duration) <= BLOCK / RATE for f in sounding if f.audio)
    begun = sum(_onset(film) < film.duration for film in sounding)
    frames = [len(film.frames) for film in films]
    said = {"videos": len(films), "with_sound": share(len(sounding), len(films))}
    said |= {"as_long": share(long, len(sounding)), "begins_within": share(begun, len(sounding))}
    return said | {"seconds": round(float(np.median([f.duration for f in films])), 3), "frames": int(np.median(frames))}


def _onset(film: Video) -> float:
    """When the sound of a video begins, in seconds; never, if it is silent."""
    assert film.audio is not None
    loud = np.abs(resampled(film.audio))
    peak = float(loud.max(initial=0.0))
    return int(np.argmax(loud > peak * 10 ** (ONSET_DB / 20))) / RATE if peak > 1e-3 else float("inf")


def losses(model: Panglot, shards: Shards) -> dict[str, float]:
    """Nats a token of each modality on the held-out segments of shards of the model's layout."""
    found = segments(shards, "held")
    if not len(found.group) or np.diff(found.offsets).min() > LOSS_LENGTH // 2:
        return {}
    mixer = Mixer(found, model.layout, told(found, model.layout), LOSS_ROWS, LOSS_LENGTH, 1, noise=0.0)
    learner = Learner(Transformer(model.model.config), model.layout)
    learner.model.load_state_dict(model.model.state_dict())
    with torch.no_grad():
        for digits in learner.digits.values():  # they are folded into the weights already
            digits.zero_()
    return {k: round(v, 4) for k, v in held_out_loss(learner, [mixer.batch(i) for i in range(HELD_OUT)]).items()}
