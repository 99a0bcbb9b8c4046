"""Train the model on a token data set: `panglot train SHARDS -o RUN`.

    RUN/checkpoint.safetensors   state of the run, from which it goes on to the bit
    RUN/log.jsonl, loss.png      loss of each modality over steps, tokens a second
    RUN/model/                   the model so far, as a stock Qwen3 checkpoint (`panglot.checkpoint`)

The loop is `panglot.train.fit`, the same that trains tokenizers. On a GPU, where there is one, it runs in bfloat16 and
compiled, with the same command; a processor with instructions for bfloat16 computes in that, too. Not here: batches
(`mixing`), what is learned (`learning`), the data set (`shards`).
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panglot import checkpoint
from panglot.layout import Layout, LayoutError
from panglot.learning import Learner, loss
from panglot.media import Text
from panglot.mixing import MODALITIES, Batch, Mixer, Segments
from panglot.model import ModelConfig, Transformer
from panglot.muon import computes_bfloat16
from panglot.shards import ShardError, Shards, open_shards
from panglot.stream import pack_segment
from panglot.tokenizers import tokenizer
from panglot.train import Schedule, TrainError, fit

RATES = {"mini": 2e-3, "small": 1.2e-3, "base": 7e-4}
"""The highest learning rate of each size."""

WEIGHT_DECAY = 0.1

HELD_OUT = 4
"""Batches on which the held-out loss is measured."""


@dataclass(frozen=True)
class TrainOptions:
    """size: of the model; rows and length of a batch; lr: None for that of the size; muon: for matrices.

    begin: the folder of a model to start from, of the same size and layout; None: from random weights.
    """

    size: str = "mini"
    steps: int = 4000
    rows: int = 8
    length: int = 512
    lr: float | None = None
    muon: bool = True
    checkpoint_every: int = 250
    seed: int = 0
    begin: str | None = None


def segments(shards: Shards, split: str) -> Segments:
    """The rows of one split ("train" or "held") as the mixer wants them."""
    rows = np.flatnonzero(shards.rows.split.where(split))
    lengths = shards.lengths[rows]
    pairs = np.stack([shards.rows.modality.codes[rows], shards.rows.kind.codes[rows]], 1)
    found, kind = np.unique(pairs, axis=0, return_inverse=True)
    names = [(shards.rows.modality.names[m], shards.rows.kind.names[k]) for m, k in found]
    medium = shards.rows.sample[rows] * 1024 + shards.rows.part[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = shards.ids[np.repeat(shards.rows.split.where(split), shards.lengths)]
    return Segments(ids, offsets, shards.rows.group.codes[rows], kind.ravel(), medium, names)


def told(found: Segments, layout: Layout) -> dict[int, np.ndarray]:
    """The packed text of each kind's words, by the number of the kind."""
    text = tokenizer("text")
    return {
        i: pack_segment(text.encode(Text(words)), layout)
        for i, (modality, words) in enumerate(found.kinds)
        if words and modality != "text"
    }


def train(folder: Path, run: Path, options: TrainOptions) -> Path:
    """Train, or go on with a run that was stopped; returns the folder of the model.

    Raises ShardError or LayoutError for data that cannot be used, TrainError for a run of other options.
    """
    shards = open_shards(folder)
    installed = checkpoint.fingerprints()
    if other := [name for name, print_ in shards.manifest.tokenizers.items() if installed.get(name) != print_]:
        raise ShardError(f"{folder}: prepared with other tokenizers ({', '.join(other)}); prepare it again")
    layout = Layout.from_json(shards.manifest.layout)
    if layout.size != shards.manifest.vocabulary:
        raise LayoutError(f"{folder}: its manifest says {shards.manifest.vocabulary} ids, its layout {layout.size}")
    data = segments(shards, "train")
    if not len(data.group):
        raise TrainError(f"{folder}: has no rows to train on; prepare it with a smaller --held, or --held 0")
    _tell_too_long(data, options.length // 2)
    config = ModelConfig.sized(options.size, layout.size)
    if options.length > config.positions:
        raise TrainError(f"--length {options.length}: the model has {config.positions} positions; choose a shorter one")
    mixer = Mixer(data, layout, told(data, layout), options.rows, options.length, options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    learner = Learner(Transformer(config), layout)
    if options.begin is not None and not (run / "checkpoint.safetensors").exists():
        _begin(learner, Path(options.begin))
    learner = learner.to(device)
    lr = options.lr or RATES[options.size]
    schedule = Schedule(
        steps=options.steps,
        lr=lr,
        muon_lr=lr if options.muon else 0.0,
        weight_decay=WEIGHT_DECAY,
        checkpoint_every=options.checkpoint_every,
        seed=options.seed,
    )
    if device == "cuda":
        learner.model.compile()
    held = _held_out(shards, layout, options)

    def evaluate(model: Any) -> dict[str, float]:
        export(model, run / "model", {"data": data_card(shards), "options": vars(options)})
        plot(run / "log.jsonl", run / "loss.png")
        return held_out_loss(model, held)

    _same_run(run, shards, options)
    fit(learner, mixer.batch, _on(device), schedule, run, evaluate)
    export(learner, run / "model", {"data": data_card(shards), "options": vars(options)})
    plot(run / "log.jsonl", run / "loss.png")
    return run / "model"


def _tell_too_long(data: Segments, limit: int) -> None:
    """Say on standard error what is not learned for its length. Raises TrainError where that is all of a modality."""
    lengths, modality = np.diff(data.offsets), np.array([name for name, _ in data.kinds])[data.kind]
    for name in MODALITIES:
        own = lengths[modality == name]
        long = int((own > limit).sum())
        if long and long == len(own):
            remedy = f"choose {2 * int(own.min())} at least, or prepare smaller media"
            raise TrainError(f"no {name} is as short as half of --length {2 * limit}; {remedy}")
        if long:
            told = f"{long:,} of {len(own):,} segments of {name} are longer than half of --length: not learned"
            print(f"panglot: {told}", file=sys.stderr)


def _begin(learner: Learner, folder: Path) -> None:
    """Start from the weights of another model. Raises CheckpointError, or TrainError where it does not fit."""
    model, layout, _ = checkpoint.load(folder)
    if Layout.from_json(layout) != learner.layout:
        raise TrainError(f"{folder}: is a model of another layout; prepare the data with its options")
    if model.config != learner.model.config:
        raise TrainError(f"{folder}: is a model of another size; choose it with --size")
    learner.model.load_state_dict(model.state_dict())
    with torch.no_grad():
        for rows in learner.digits.values():
            rows.zero_()  # they are folded into the embedding that was loaded


def _on(device: str):
    """The loss, under bfloat16 autocast where the hardware computes in it."""

    def run(model: Any, batch: Batch, step: int):
        with torch.autocast(device, torch.bfloat16) if computes_bfloat16(device) else nullcontext():
            return loss(model, batch, step)

    return run


def export(learner: Learner, folder: Path, extra: dict[str, Any], dtype: torch.dtype = torch.float16) -> None:
    """Write the model as a stock checkpoint, its digits folded into its embedding."""
    model = Transformer(learner.model.config)
    model.load_state_dict({k: v.cpu() for k, v in learner.folded().items()})
    checkpoint.save(folder, model, learner.layout.to_json(), extra, dtype)


def data_card(shards: Shards) -> dict[str, Any]:
    """What a model should tell of the data set it learned from."""
    card = {"rows": shards.manifest.rows, "tokens": shards.manifest.tokens, "options": dict(shards.manifest.options)}
    return card | {"kinds": sorted(filter(None, shards.rows.kind.names))}


def _held_out(shards: Shards, layout: Layout, options: TrainOptions) -> list[Batch]:
    found = segments(shards, "held")
    if not len(found.group) or np.diff(found.offsets).min() > options.length // 2:
        return []
    mixer = Mixer(found, layout, told(found, layout), options.rows, options.length, options.seed + 1, noise=0.0)
    return [mixer.batch(i) for i in range(HELD_OUT)]


@torch.no_grad()
def held_out_loss(learner: Learner, batches: list[Batch]) -> dict[str, float]:
    """Nats a token of each modality on segments that were not trained on."""
    total = {name: [0.0, 0] for name in MODALITIES}
    for batch in batches:
        nats, _, modality = learner.losses(batch)
        for i, name in enumerate(MODALITIES):
            total[name][0] += float(nats[modality == i].sum())
            total[name][1] += int((modality == i).sum())
    return {name: nats / count for name, (nats, count) in total.items() if count}


def _same_run(run: Path, shards: Shards, options: TrainOptions) -> None:
    """Refuse to go on with a run of other options, another layout or other data."""
    path, temporary = run / "options.json", run / "options.tmp"
    said = {"options": vars(options), "layout": shards.manifest.layout}
    said |= {"data": [shard.sha256 for shard in shards.manifest.shards]}
    if path.exists():
        try:
            before = json.loads(path.read_text("utf-8"))
            options_before = dict(before["options"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrainError(f"{path}: is not of a training run, or damaged ({error}); choose another folder") from None
        for name, value in said["options"].items():
            if options_before.get(name) != value:
                was = options_before.get(name)
                raise TrainError(f"{run}: holds a run with {name} {was}, not {value}; choose another folder")
        if before != json.loads(json.dumps(said)):
            raise TrainError(f"{run}: holds a run of another layout or other data; choose another folder")
        return
    run.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(said), "utf-8")
    os.replace(temporary, path)


def plot(log: Path, out: Path) -> None:
    """Draw the loss of each modality over steps, held-out ones as dots."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in MODALITIES:
        line = axes.plot([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r], label=name)
        held = [(r["step"], r[f"held_out_{name}"]) for r in rows if f"held_out_{name}" in r]
        if held:
            axes.plot(*zip(*held, strict=True), "o", color=line[0].get_color(), markersize=3)
    axes.set(xlabel="step", ylabel="nats a token (dots: held out)", title="loss")
    axes.legend()
    figure.savefig(out, format="png")
