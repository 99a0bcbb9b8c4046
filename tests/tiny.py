"""A data set and a training run small enough for tests; `python tiny.py SHARDS RUN STEP` is killed at that step."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from panglot import model, pretrain
from panglot.layout import Layout
from panglot.media import Text
from panglot.pretrain import TrainOptions
from panglot.shards import Manifest, Segment, shard_name, write_manifest, write_shard
from panglot.stream import pack_segment
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes

LAYOUT = Layout.standard(1, (32,), (32,))
WORDS = ("dog", "cat", "bird", "rain")
SIZE = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "inner": 64, "positions": 256}
OPTIONS = TrainOptions("tiny", steps=12, rows=2, length=96, checkpoint_every=4)


def allow() -> None:
    """Add the size "tiny" to those that can be trained."""
    model.SIZES["tiny"] = SIZE
    pretrain.RATES["tiny"] = 1e-2


def picture(word: int, view: int = 0) -> Codes:
    """64 x 32 pixels in two codes: of the word, and of the view."""
    codes = np.array([[100 + 7 * word, 300 + view]], np.int32)
    return Codes("image", {"height": 32, "width": 64}, {"image/32": codes})


def sound(word: int) -> Codes:
    return Codes("audio", {"samples": 3840, "rate": 16000}, {"audio/1": np.arange(3, dtype=np.int32) + 50 * word})


def write(folder: Path, layout: Layout = LAYOUT, held: str = "held", seed: int = 0, **said) -> Path:
    """A finished data set: of each word its text, three pictures, the last of them of the split `held`, and a sound."""
    folder.mkdir()
    shuffled = np.random.default_rng(seed)
    rows = []
    for i, word in enumerate(WORDS):
        media = [tokenizer("text").encode(Text(word)), *(picture(i, view) for view in range(3)), sound(i)]
        for part, codes in enumerate(media):
            kind = "photo" if codes.modality == "image" else ""
            split = held if part == 3 else "train"
            ids = pack_segment(codes, layout)
            rows.append(Segment(word, i, part, codes.modality, kind, 0, split, ids, ""))
    rows = [rows[i] for i in shuffled.permutation(len(rows))]
    half = len(rows) // 2
    infos = [write_shard(folder / shard_name(i), part, {}) for i, part in enumerate((rows[:half], rows[half:]))]
    whole = Manifest(layout.to_json(), layout.size, {}, {"fit": {"side": 32}}, True, tuple(infos))
    write_manifest(folder, replace(whole, **said))
    return folder


def main() -> None:
    """A training that is killed in the middle of a step."""
    shards, run, last = sys.argv[1:]
    torch.set_num_threads(1)
    allow()
    learn = pretrain.loss

    def dying(learner, batch, step):
        if step == int(last):
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(learner, batch, step)

    pretrain.loss = dying
    pretrain.train(Path(shards), Path(run), OPTIONS)


if __name__ == "__main__":
    main()
