"""Muon (Jordan et al. 2024): momentum made orthogonal by Newton-Schulz iterations, for the matrices of a transformer.

`torch.optim.Muon` iterates in bfloat16, which takes many times as long as float32 on processors without it, and one
matrix at a time. Here matrices of one shape are one batch, in float32 on a CPU without it. Updates are
scaled to the size that AdamW's have (Liu et al. 2025, arXiv 2502.16982), so both take the same learning rates.

Not here: embeddings, vectors and convolutions, which AdamW trains.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """params: matrices. lr as AdamW's; momentum of Nesterov's kind; weight_decay decoupled."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[tuple(p.shape)].append((p, p.grad))
            for shape, pairs in alike.items():
                updates = []
                for p, gradient in pairs:
                    state = self.state[p]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(p)
                    kept = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(kept, group["momentum"]))
                scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for (p, _), update in zip(pairs, orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(update.to(p.dtype), alpha=scale)


@cache
def computes_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32: on GPUs, and on CPUs with instructions for it."""
    if device != "cpu":
        return True
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def orthogonal(x: Tensor) -> Tensor:
    """Matrices [N, a, b] with their singular values brought near 1."""
    a, b, c = COEFFICIENTS
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x.bfloat16() if computes_bfloat16(x.device.type) else x.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
