"""How well a model reads in an answer what was asked for: of several tries the best read is kept.

A model tells what a picture or a sound is with fewer mistakes than it draws one, so it is its own judge: each try is
given back to it, and the one is kept after which the words of the request are the likeliest. DALL-E did the same with
another network as the judge (arXiv 2102.12092, section 2.6).

Not here: drawing the tries (`panglot.generate`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from panglot.layout import Layout
from panglot.model import Transformer
from panglot.stream import mark, pack_segment
from panglot.tokenizers.base import Codes

ROWS = 64
"""Rows that are read side by side."""


@torch.inference_mode()
def likelihoods(
    model: Transformer, layout: Layout, answers: Sequence[Sequence[Codes]], texts: Sequence[Codes]
) -> np.ndarray:
    """Log-likelihood, in nats, of texts[i] and its end behind `<ask>` answers[i] `<give>`: float64 [N].

    -inf where both are longer than the model's context. Raises CodesError for codes that do not fit the layout.
    """
    bos, ask, give = (mark(layout, name) for name in ("bos", "ask", "give"))
    rows, firsts = [], []
    for answer, text in zip(answers, texts, strict=True):
        before = np.concatenate([bos, ask, *(pack_segment(codes, layout) for codes in answer), give])
        said = pack_segment(text, layout)
        rows.append(torch.from_numpy(np.concatenate([before, said]).astype(np.int64)))
        firsts.append(len(before) + 1)  # behind the mark of a text, which was asked for
    found = np.full(len(rows), -np.inf)
    fit = [i for i in range(len(rows)) if len(rows[i]) <= model.config.positions]
    fit.sort(key=lambda i: len(rows[i]))
    for start in range(0, len(fit), ROWS):
        some = fit[start : start + ROWS]
        found[some] = _read(model, [rows[i] for i in some], [firsts[i] for i in some])
    return found


def _read(model: Transformer, rows: Sequence[Tensor], firsts: Sequence[int]) -> list[float]:
    """Log-likelihood, in nats, of each row (int64 [n]) from a position on. Padding is on the right, unseen."""
    hidden = model(pad_sequence(list(rows), batch_first=True))
    found = []
    for line, row, first in zip(hidden, rows, firsts, strict=True):
        scores = model.logits(line[first - 1 : len(row) - 1]).double().log_softmax(-1)
        found.append(float(scores.gather(1, row[first:, None]).sum()))
    return found
