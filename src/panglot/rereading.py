"""How likely one thing is behind another: with that a model chooses among its own answers.

Of several drawings of a dog the one is kept behind which the model reads "dog" with the most certainty: it tells what a
picture or a sound is with fewer mistakes than it draws one. DALL-E did the same with another network as the judge
(arXiv 2102.12092, section 2.6).

Of several words for a picture those are kept that are likely behind the picture, and it behind them: a noisy channel
(arXiv 1611.02554, and for pictures arXiv 2303.16203). Read alone, a dog on a ground on which there was never a dog is
taken for what stood there; drawn from these words, such a picture would look different.

Not here: drawing what is chosen from (`panglot.generate`).
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

CHANNEL = 0.2
"""Weight of how likely what is given is behind a text, chosen on held-out media: with 0.5 new scenes are told better
still, spoken names and recordings worse (`docs/log.md`)."""


@torch.inference_mode()
def likelihoods(
    model: Transformer, layout: Layout, given: Sequence[Sequence[Codes]], answers: Sequence[Sequence[Codes]]
) -> np.ndarray:
    """Log-likelihood, in nats, of the segments answers[i] behind `<ask>` given[i] `<give>`: float64 [N].

    Each id is among those of its alphabet, as in training; the mark of the first segment was asked for and costs
    nothing. -inf where both are longer than the model's context. Raises CodesError for codes that do not fit the
    layout.
    """
    bos, ask, give = (mark(layout, name) for name in ("bos", "ask", "give"))
    rows, firsts = [], []
    for known, answer in zip(given, answers, strict=True):
        before = np.concatenate([bos, ask, *(pack_segment(codes, layout) for codes in known), give])
        said = [pack_segment(codes, layout) for codes in answer]
        rows.append(torch.from_numpy(np.concatenate([before, *said]).astype(np.int64)))
        firsts.append(len(before) + 1)
    found = np.full(len(rows), -np.inf)
    fit = [i for i in range(len(rows)) if len(rows[i]) <= model.config.positions]
    fit.sort(key=lambda i: len(rows[i]))
    for start in range(0, len(fit), ROWS):
        some = fit[start : start + ROWS]
        found[some] = _read(model, layout, [rows[i] for i in some], [firsts[i] for i in some])
    return found


def _read(model: Transformer, layout: Layout, rows: Sequence[Tensor], firsts: Sequence[int]) -> np.ndarray:
    """Log-likelihood, in nats, of each row (int64 [n]) from its first on: float64 [N]. Padding is right, unseen."""
    hidden = model(pad_sequence(list(rows), batch_first=True))
    states = torch.cat([line[first - 1 : len(row) - 1] for line, row, first in zip(hidden, rows, firsts, strict=True)])
    ids = torch.cat([row[first:] for row, first in zip(rows, firsts, strict=True)])
    owner = np.repeat(np.arange(len(rows)), [len(row) - first for row, first in zip(rows, firsts, strict=True)])
    found = np.zeros(len(rows))
    for start, stop in layout.slices:
        here = torch.nonzero((ids >= start) & (ids < stop))[:, 0]
        if len(here):
            scores = model.logits(states[here], start, stop).double().log_softmax(-1)
            np.add.at(found, owner[here.numpy()], scores.gather(1, ids[here, None] - start)[:, 0].numpy())
    return found
