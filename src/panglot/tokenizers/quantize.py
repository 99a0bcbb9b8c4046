"""Finite scalar quantisation: a vector of a few bounded numbers, each rounded to a few levels, read as one integer.

There is no codebook, so nothing can collapse and every integer decodes (Mentzer et al. 2023, arXiv 2309.15505). Unlike
the paper's bound, ours gives all levels of a coordinate the same width in the tanh domain, for odd and even counts.

Also here: the linear optimum that tokenizers start from - principal components, as many levels for each as reverse
water-filling gives it, and a least-squares decoder. Not here: the networks added to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class FSQ(nn.Module):
    """Rounds the channels (dim 1) of a tensor to `levels[i]` values in (-1, 1).

    size: how many codes there are, the product of the levels.
    """

    _levels: Tensor
    _weights: Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.levels = tuple(int(n) for n in levels)
        self.size = math.prod(self.levels)
        weights = np.cumprod((1, *self.levels[:-1]))
        self.register_buffer("_levels", torch.tensor(self.levels, dtype=torch.float32), persistent=False)
        self.register_buffer("_weights", torch.tensor(weights, dtype=torch.long), persistent=False)

    def _column(self, values: Tensor, like: Tensor) -> Tensor:
        return values.view(1, -1, *[1] * (like.ndim - 2))

    def column(self, like: Tensor) -> Tensor:
        """The levels, shaped to go with `like` [B, D, ...]."""
        return self._column(self._levels.to(like.dtype), like)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z: float [B, D, ...], unbounded. Returns values [B, D, ...] in (-1, 1) and codes int64 [B, ...].

        Gradients pass the rounding unchanged (straight-through). Computed in float32 at least, whatever autocast says.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float() if z.dtype in (torch.bfloat16, torch.float16) else z
            n = self.column(z)
            bounded = torch.tanh(z)
            index = torch.round(bounded * n / 2 + (n - 1) / 2).clamp(torch.zeros_like(n), n - 1)
            values = bounded + ((2 * index - (n - 1)) / n - bounded).detach()
            codes = (index.long() * self._column(self._weights, z)).sum(1)
        return values, codes

    def codes(self, values: Tensor) -> Tensor:
        """The codes int64 [B, ...] of values [B, D, ...] that `forward` or `values` returned."""
        n = self.column(values)
        index = torch.round((values * n + n - 1) / 2).long()
        return (index * self._column(self._weights, values)).sum(1)

    def values(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """codes: int64 [B, ...] in 0 .. size-1. Returns the values [B, D, ...] that `forward` rounded to."""
        n = self._column(self._levels.to(dtype), codes.unsqueeze(1))
        index = codes.unsqueeze(1) // self._column(self._weights, codes.unsqueeze(1))
        index = index % self._column(self._levels.long(), codes.unsqueeze(1))
        return (2 * index.to(dtype) - (n - 1)) / n


def allocate_levels(variances: np.ndarray, bits: float, most: int = 16) -> list[int]:
    """Levels for the leading coordinates of a linear transform whose product fits 2**bits: reverse water-filling.

    variances: float [D], in falling order. Greedy: the next level goes where it saves most distortion a bit, with the
    distortion of an n-level quantiser taken as variance / n**2 (Gersho & Gray 1992, section 8.3).
    Returns a list of level counts >= 2, in the order of the coordinates, cut at the first coordinate that gets none.
    """
    levels = np.ones(len(variances), int)
    spent = 0.0
    while True:
        cost = np.log2((levels + 1) / levels)
        gain = variances * (1 / levels**2 - 1 / (levels + 1) ** 2)
        gain[(levels >= most) | (spent + cost > bits + 1e-9)] = -1
        best = int(np.argmax(gain / cost))
        if gain[best] <= 0:
            return [int(n) for n in levels[levels > 1]]
        levels[best] += 1
        spent = float(np.log2(levels).sum())


@torch.no_grad()
def principal_components(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x: float [N, F]. Returns the mean [F], variances in falling order, and their directions [F, ...] as columns.

    All of them, or the leading 64 by a randomised method (Halko et al. 2011) where F is too large for that.
    """
    mean = x.mean(0)
    centred = x - mean
    if x.shape[1] > 4096:
        _, singular, directions = torch.svd_lowrank(centred, q=64, niter=3)
        return mean, singular.square() / len(x), directions
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    return mean, variances.flip(0).clamp(min=0), vectors.flip(1)


@torch.no_grad()
def fit_linear(x: Tensor, fsq: FSQ, analysis: Tensor, bias: Tensor, synthesis: Tensor, offset: Tensor) -> None:
    """Set a linear codec around `fsq` to its optimum for the vectors x [N, F], in place.

    analysis [D, F] and bias [D]: leading principal components, each scaled so that rounding loses least.
    synthesis [F, D] and offset [F]: least squares on the rounded values.
    """
    mean, _, vectors = principal_components(x)
    basis = vectors[:, : len(fsq.levels)]
    z = (x - mean) @ basis
    scale = torch.stack([_best_scale(z[:, i], n) for i, n in enumerate(fsq.levels)])
    analysis.copy_((basis * scale).T)
    bias.copy_(-(mean @ basis) * scale)
    values, _ = fsq(z * scale)
    design = torch.cat([values, torch.ones(len(values), 1)], 1)
    # Normal equations: the rounded values are few and hardly correlated, and x may have thousands of columns.
    normal = (design.T @ design).double() + 1e-6 * torch.eye(design.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(normal, (design.T @ x).double()).float()
    synthesis.copy_(solution[:-1].T)
    offset.copy_(solution[-1])


def _best_scale(z: Tensor, levels: int) -> Tensor:
    """The scale under which one coordinate with these levels explains most of z [N], by least squares."""
    fsq = FSQ((levels,))
    tries = torch.logspace(-0.6, 0.5, 24) / z.std().clamp(min=1e-6)
    errors = []
    for scale in tries:
        v = fsq((z * scale)[:, None])[0][:, 0]
        errors.append(((z - v * (z @ v) / (v @ v).clamp(min=1e-9)) ** 2).mean())
    return tries[int(torch.stack(errors).argmin())]
