"""Speed of training: panglot's loop beside Hugging Face's `Trainer`, on the same model and the same samples.

    python benchmarks/training.py --shards .cache/shards [--json] [--steps 8] [--batch 8] [--length 448]

A rate is useful tokens a second: ids of samples, padding not counted. Both sides see the same samples in the same
order, as many a step as fill panglot's rows, and update every weight of the same Qwen3 (mini) with AdamW; both under
bfloat16 autocast where the processor computes in it (the table says so), else in float32.
The Trainer gets what its manual says: batches padded to the longest sample, attention by PyTorch's kernels, the model's
own loss over all ids; and once more with samples of like lengths together (`length`). panglot packs whole samples into
rows and takes the loss over the ids that the grammar allows; its row with Muon is what `panglot train` does by default.
One after the other in one process; the rate is that of the median step.

Not measured: accelerators, what is learned, loading of data.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _common import Cell, Missing, Table, options, progress, report

from panglot import checkpoint
from panglot.layout import Layout
from panglot.learning import Learner, loss
from panglot.mixing import Batch, Mixer
from panglot.model import ModelConfig, Transformer
from panglot.muon import computes_bfloat16
from panglot.pretrain import segments, told
from panglot.shards import ShardError, open_shards
from panglot.train import Schedule, optimizers

ROWS = ["panglot", "panglot, Muon", "Trainer", "Trainer, length"]
WANTED = ">= 1.3"


def samples_of(batch: Batch) -> list[np.ndarray]:
    """The samples of a packed batch, in their order."""
    return [batch.ids[batch.samples == i] for i in range(int(batch.samples.max()) + 1)]


def ours(layout: Layout, batches: Sequence[Batch], muon: bool) -> Callable[[int], float]:
    """A function that trains on one batch and returns the seconds it took."""
    learner = Learner(Transformer(ModelConfig.sized("mini", layout.size)), layout)
    opts = optimizers(learner, Schedule(len(batches), 1e-3, 1e-3 if muon else 0.0))

    def step(i: int) -> float:
        begun = perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=computes_bfloat16("cpu")):
            value, _ = loss(learner, batches[i], i)
        value.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        return perf_counter() - begun

    return step


def theirs(layout: Layout, batches: Sequence[Batch], alike: bool) -> tuple[list[int], list[float]]:
    """Useful tokens and seconds of each of the Trainer's steps, from the first to the last."""
    try:
        from transformers import Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments
    except ImportError as error:
        raise Missing("the Trainer needs pip install transformers accelerate") from error
    found = [samples_of(batch) for batch in batches]
    data = [{"input_ids": torch.from_numpy(s), "labels": torch.from_numpy(s)} for b in found for s in b]
    per_step = round(len(data) / len(batches))
    times: list[float] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **more: Any) -> None:
            times.append(-perf_counter())

        def on_step_end(self, *args: Any, **more: Any) -> None:
            times[-1] += perf_counter()

    def padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad([r["input_ids"] for r in rows], batch_first=True, padding_value=layout.marks["pad"])
        mask = pad([torch.ones_like(r["input_ids"]) for r in rows], batch_first=True)
        tokens.append(int(mask.sum()))
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    with tempfile.TemporaryDirectory() as folder:
        model = Transformer(ModelConfig.sized("mini", layout.size))
        checkpoint.save(Path(folder) / "model", model, layout.to_json(), dtype=torch.float32)
        try:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=per_step,
                num_train_epochs=1,
                learning_rate=1e-3,
                train_sampling_strategy="group_by_length" if alike else "sequential",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                bf16=computes_bfloat16("cpu"),
                dataloader_drop_last=True,
            )
        except ImportError as error:
            raise Missing(f"the Trainer: {error}") from error
        network = Qwen3ForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32)
        Trainer(network, arguments, padded, data, callbacks=[Clock()]).train()  # type: ignore[arg-type]
    return tokens, times


def main() -> None:
    extra = {
        "shards": {"type": Path, "required": True, "help": "a data set of panglot prepare"},
        "steps": {"type": int, "default": 8, "help": "steps of each (default 8; the first is not counted)"},
        "batch": {"type": int, "default": 8},
        "length": {"type": int, "default": 448},
    }
    opts = options(__doc__ or "", ROWS, needs_data=False, **extra)
    torch.set_num_threads(opts.jobs)
    try:
        shards = open_shards(opts.extra["shards"])
    except ShardError as error:
        sys.exit(str(error))
    layout = Layout.from_json(shards.manifest.layout)
    data = segments(shards, "train")
    mixer = Mixer(data, layout, told(data, layout), opts.extra["batch"], opts.extra["length"], opts.seed)
    batches = [mixer.batch(i) for i in range(opts.extra["steps"])]
    tokens = [int((b.samples >= 0).sum()) for b in batches]
    number = "bfloat16" if computes_bfloat16("cpu") else "float32"
    size = f"{np.mean(tokens):.0f} tokens a step in samples of {_mean_length(batches):.0f}"
    table = Table(f"training, mini, {number}, {size}")
    rates: dict[str, float] = {}
    for name in ROWS:
        if not opts.wants(name):
            continue
        progress(f"training: {name}")
        try:
            if name.startswith("panglot"):
                step = ours(layout, batches, "Muon" in name)
                seen, times = tokens, [step(i) for i in range(len(batches))]
            else:
                seen, times = theirs(layout, batches, "length" in name)
        except Missing as error:
            table.notes.append(f"{name} left out: {error}")
            continue
        rates[name] = float(np.median([n / t for n, t in zip(seen, times, strict=False)][1:]))
        table.add(name=name, **_cells(name, rates))
    table.notes.append(f"wanted: panglot {WANTED} times the Trainer's useful tokens a second, both with AdamW")
    report("training", [table], opts)


def _mean_length(batches: Sequence[Batch]) -> float:
    return float(np.mean([len(s) for b in batches for s in samples_of(b)]))


def _cells(name: str, rates: dict[str, float]) -> dict[str, Cell]:
    ratio = rates["panglot"] / rates[name] if "panglot" in rates and name.startswith("Trainer") else None
    return {"useful tokens/s": rates[name], "panglot is faster by": ratio}


if __name__ == "__main__":
    main()
