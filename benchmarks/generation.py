"""Speed of generation: panglot's decoding beside `generate` of transformers, from the same checkpoint.

    python benchmarks/generation.py [--json] [--only 'mini/1/*'] [--threads 2]

Rows are size/batch/context: how many rows of how many random ids are read before the tokens that are timed. Both sides
run in one process in turn, in float32, without a compiler, and take the most probable of all 20,000 ids each time;
transformers with its own defaults (attention by PyTorch's kernels, a cache that grows). A rate is tokens a second of
all rows together from the second token on; the time to the first one has its own columns. `legal 1000` is panglot where
the grammar leaves 1,000 ids, as it does for most codes, which need no other scores. Weights are random: speed does not
depend on them. Not measured: accelerators, serving, sampling other than the most probable.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _common import Cell, Missing, Options, Table, options, report, rows_or_notes

from panglot import checkpoint
from panglot.layout import MARKS, Layout
from panglot.model import ModelConfig, Transformer
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Alphabet

IDS = 20_000
LEGAL = 1000
ROWS = ["mini/1/128", "mini/1/512", "mini/1/2048", "mini/16/128", "mini/16/512", "small/1/128", "small/16/128"]
WANTED = ">= 2"


@dataclass(frozen=True)
class Run:
    """One call: seconds to the first token, seconds of those after it, and the ids of all."""

    first: float
    rest: float
    ids: torch.Tensor


class Clock:
    """A criterion for stopping that never stops, but notes when each token was there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        self.times.append(perf_counter())
        return torch.zeros(len(ids), dtype=torch.bool)


@torch.inference_mode()
def ours(model: Transformer, prompt: torch.Tensor, new: int, legal: int, eos: int) -> Run:
    """Greedy decoding of `new` tokens among the first `legal` ids; eos never, as `min_new_tokens` has it."""
    begun = perf_counter()
    cache = model.cache(len(prompt), prompt.shape[1] + new)
    hidden, chosen, times = model.prefill(list(prompt), cache), [], []
    for n in range(new):
        scores = model.logits(hidden, 0, legal)
        if eos < legal:
            scores[:, eos] = -torch.inf
        chosen.append(scores.argmax(-1, keepdim=True))
        times.append(perf_counter())
        if n + 1 < new:
            hidden = model.step(chosen[-1], cache)[:, 0]
    return Run(times[0] - begun, times[-1] - times[0], torch.cat(chosen, 1))


def theirs(model: Any, prompt: torch.Tensor, new: int) -> Run:
    clock, begun = Clock(), perf_counter()
    ids = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=new,
        max_new_tokens=new,
        stopping_criteria=[clock],
    )
    return Run(clock.times[0] - begun, clock.times[-1] - clock.times[0], ids[:, prompt.shape[1] :])


def models(size: str, seed: int) -> tuple[Transformer, Any, int]:
    """The same random weights on both sides, by way of a checkpoint; and the id of eos."""
    try:
        from transformers import Qwen3ForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise Missing(f"{error}; pip install -c constraints.txt -e '.[bench]'") from error
    logging.disable_progress_bar()
    first = (*tokenizer("text").alphabets, Alphabet("mark", len(MARKS)))
    layout = Layout((*first, Alphabet("image/8", IDS - sum(a.size for a in first))))
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        checkpoint.save(path, Transformer(ModelConfig.sized(size, IDS)), layout.to_json(), dtype=torch.float32)
        model, _, _ = checkpoint.load(path)
        return model, Qwen3ForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), layout.marks["eos"]


def measure(row: str, opts: Options) -> dict[str, Cell]:
    """One row: all sides in turn, medians over the rounds; the ratio is the median of the rounds' ratios."""
    size, batch, context = row.split("/")
    new, rounds = opts.extra["new"], opts.limit or opts.extra["repeat"]
    model, other, eos = models(size, opts.seed)
    prompt = torch.randint(0, IDS, (int(batch), int(context)), generator=torch.Generator().manual_seed(opts.seed))
    sides = {
        "panglot": partial(ours, model, prompt, new, IDS, eos),
        "legal": partial(ours, model, prompt, new, LEGAL, eos),
        "transformers": partial(theirs, other, prompt, new),
    }
    for run in sides.values():
        run()
    runs = [{name: run() for name, run in sides.items()} for _ in range(rounds)]
    tokens = int(batch) * (new - 1)

    def rate(name: str) -> float:
        return float(np.median([tokens / run[name].rest for run in runs]))

    def first(name: str) -> float:
        return float(np.median([run[name].first for run in runs]))

    return {
        "parameters M": model.config.parameters / 1e6,
        "panglot tokens/s": rate("panglot"),
        f"legal {LEGAL}": rate("legal"),
        "transformers": rate("transformers"),
        "faster by": float(np.median([run["transformers"].rest / run["panglot"].rest for run in runs])),
        "wanted": WANTED,
        "first token s": first("panglot"),
        "transformers s": first("transformers"),
        "same ids": float((runs[0]["panglot"].ids == runs[0]["transformers"].ids).double().mean()),
    }


def rows(opts: Options) -> Mapping[str, Any]:
    return {row: partial(measure, row, opts) for row in ROWS}


def main() -> None:
    opts = options(
        __doc__ or "",
        ROWS,
        needs_data=False,
        threads={"type": int, "default": 2, "help": "threads of torch (default 2)"},
        repeat={"type": int, "default": 5, "help": "rounds (default 5)"},
        new={"type": int, "default": 64, "help": "tokens a call (default 64)"},
    )
    torch.set_num_threads(opts.extra["threads"])
    table = Table(f"Generation: size/batch/context, {opts.extra['new']} tokens, {IDS} ids, float32")
    for name, row in rows_or_notes(rows(opts), opts, table):
        table.add(what=name, **row)
    if table.rows:
        table.notes.append("same ids: share of equal tokens; after one tie broken otherwise a row differs to its end.")
    report("generation", [table], opts)


if __name__ == "__main__":
    main()
