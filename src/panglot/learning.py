"""What the model learns from a batch: the next id, among those of the one alphabet that the grammar allows there.

The alphabet of the next symbol is known at every position (`panglot.grammar`), so the loss is over its slice of the
vocabulary alone: cheaper by far than over all ids, and it spends nothing on what is never asked. Sampling uses the same
slices.

Symbols of quantised media are numbers made of digits. While it is trained, an embedding is the sum of a row of its own
and a row for each of its digits, so that symbols which are never seen stand where their neighbours do; `folded` writes
the sum as an ordinary matrix (cf. the weight sharing of adaptive inputs, arXiv 1809.10853).

Not here: batches (`panglot.mixing`), optimisers and checkpoints (`panglot.train`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panglot.layout import Layout
from panglot.mixing import MODALITIES, Batch
from panglot.model import Transformer


class Learner(nn.Module):
    """A transformer and the digits of its embedding."""

    alphabet: Tensor

    def __init__(self, model: Transformer, layout: Layout):
        super().__init__()
        self.model, self.layout = model, layout
        width = model.config.width
        self.digits = nn.ParameterDict()
        self._made_of_digits = {layout.starts[name]: name.replace("/", "_") for name in layout.digits}
        for name, bases in layout.digits.items():
            features = _features(bases)
            self.register_buffer(f"features_{name.replace('/', '_')}", features, persistent=False)
            self.digits[name.replace("/", "_")] = nn.Parameter(torch.randn(features.shape[1], width) * 0.02)
        which = torch.empty(layout.size, dtype=torch.long)
        for i, (start, stop) in enumerate(layout.slices):
            which[start:stop] = i
        self.register_buffer("alphabet", which, persistent=False)
        with torch.no_grad():
            for name in layout.digits:
                start = layout.starts[name]
                model.embedding[start : start + layout.sizes[name]].mul_(0.25)

    def embedding(self) -> Tensor:
        """The embedding matrix [V, C] with the digits added."""
        # Split, not sliced: the gradient of every slice would be a table of zeros, a quarter of the time of a step.
        parts = []
        for (start, _), rows in zip(self.layout.slices, self.split(self.model.embedding), strict=True):
            name = self._made_of_digits.get(start)
            if name is None:
                parts.append(rows)
            else:
                parts.append(rows + getattr(self, f"features_{name}") @ self.digits[name])
        return torch.cat(parts)

    def split(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """The rows of an embedding matrix [V, C] by `Layout.slices`."""
        return embedding.split([stop - start for start, stop in self.layout.slices])

    def folded(self) -> dict[str, Tensor]:
        """The state of a stock model, digits included in its embedding."""
        state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        state["model.embed_tokens.weight"] = self.embedding().detach()
        return state

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy in nats of each target, [N]; its weight, [N]; its modality, [N] (-1 for marks)."""
        device = self.alphabet.device
        ids, positions, samples, weights = (
            torch.from_numpy(x).to(device) for x in (batch.ids, batch.positions, batch.samples, batch.weights)
        )
        modality = torch.from_numpy(batch.modality).to(device)
        embedding = self.embedding()
        hidden = self.model(ids, positions, samples, embedding)
        follows = (samples[:, 1:] == samples[:, :-1]) & (weights[:, 1:] > 0)
        hidden, target = hidden[:, :-1][follows], ids[:, 1:][follows]
        weight, modality = weights[:, 1:][follows], modality[:, 1:][follows]
        which = self.alphabet[target]
        order = which.argsort(stable=True)
        counts = torch.bincount(which, minlength=len(self.layout.slices)).tolist()
        parts = []
        tables = zip(self.layout.slices, self.split(embedding), order.split(counts), strict=True)
        for (start, _), table, rows in tables:
            if len(rows):
                logits = hidden[rows] @ table.T
                parts.append(F.cross_entropy(logits.float(), target[rows] - start, reduction="none"))
        return torch.cat(parts), weight[order], modality[order]


def loss(learner: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
    """The weighted mean loss, and figures: nats a token for each modality, tokens that were not padding."""
    assert isinstance(learner, Learner)
    nats, weight, modality = learner.losses(batch)
    figures = {"loss": float((nats * weight).sum().detach() / weight.sum())}
    for i, name in enumerate(MODALITIES):
        chosen = nats.detach()[modality == i]
        if len(chosen):
            figures[name] = float(chosen.mean())
    figures["tokens"] = float((batch.samples >= 0).sum())
    return (nats * weight).sum() / weight.sum(), figures


def _features(bases: tuple[int, ...]) -> Tensor:
    """One-hot digits of 0 .. product(bases) - 1, the first digit counting least: float32 [N, sum(bases)]."""
    numbers = torch.arange(int(torch.tensor(bases).prod()))
    columns = []
    for base in bases:
        columns.append(F.one_hot(numbers % base, base))
        numbers = numbers // base
    return torch.cat(columns, 1).float()
