"""Train the image tokenizer: `python recipes/train_image.py --data DATA [--steps N]`; about an hour on two cores.

The story in order: gather crops; let reverse water-filling choose how finely each level codes what; set the pyramid to
the linear optimum (PCA analysis, least-squares synthesis), which is already a working codec; then train the networks
added to it to lower the squared error after every level at once, while blocks of the finer levels are absent, most
often those that the coarser levels describe well.
(The shipped weights learned with random blocks absent; going on from them like this gained nothing, see docs/log.md.)
`--stride 16` trains for one length instead, all blocks down to that stride and nothing else counted, to see what it
costs to serve every budget with one model (`benchmarks/allocation.py --fixed`).
Squared error, because at these rates the number of merit is PSNR and no perceptual weights can be fetched.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from data import PictureBatches, pictures
from torch import Tensor

from panglot.tokenizers.pyramid import STRIDES, Pyramid, PyramidConfig, plan_levels
from panglot.tokenizers.weights import read_weights, save_weights
from panglot.train import Schedule, fit

BITS = (12, 12, 12)
WEIGHTS = (0.15, 1.0, 0.6)
"""How much the log of the error after each level counts; stride 16 is where most pictures will be used."""


class Presence:
    """Chooses the blocks of the finer levels for one batch: of some pictures all, of most others the worst, else any.

    The worst blocks, by what the coarser levels left, are those that a token budget keeps (`panglot.budget`); in the
    rest a random subset is kept, so that any subset decodes. Finer blocks lie within coarser ones, as they do there.
    """

    WHOLE = (1.0, 0.7, 0.5)

    def __init__(self, target: Tensor):
        self.target = target
        n = len(target)
        self.share = torch.rand(n, 2)
        self.worst = torch.rand(n) < 0.8
        self.before: Tensor | None = None

    def __call__(self, level: int, picture: Tensor | None) -> Tensor | None:
        if level == 0 or picture is None:
            return None
        n = len(self.target)
        error = F.avg_pool2d(((picture.float() - self.target) ** 2).mean(1, keepdim=True), STRIDES[level])
        score = torch.where(self.worst.view(n, 1, 1, 1), error, torch.rand_like(error))
        if self.before is not None:
            inside = F.interpolate(self.before.float(), scale_factor=2).bool()
            score = torch.where(inside, score, -1.0)
        rank = score.flatten(1).argsort(1, descending=True).argsort(1).view_as(score)
        keep = rank < (self.share[:, level - 1] * rank[0].numel()).view(n, 1, 1, 1)
        whole = (torch.rand(n) < self.WHOLE[level]).view(n, 1, 1, 1)
        self.before = (keep | whole) if self.before is None else (keep | whole) & inside
        return self.before


def everywhere(level: int, picture: Tensor | None) -> None:
    """Chooses all blocks of every level."""


def loss(
    model: Pyramid, batch, step: int, weights: Sequence[float] = WEIGHTS, complete: bool = False
) -> tuple[Tensor, dict[str, float]]:
    """complete: no block is absent."""
    picture = torch.from_numpy(batch).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        decoded, _ = model(picture, choose=everywhere if complete else Presence(picture))
    errors = [((d.float() - picture) ** 2).mean((1, 2, 3)) for d in decoded]
    total = torch.stack([w * torch.log(e + 1e-3).mean() for w, e in zip(weights, errors, strict=True)]).sum()
    figures = {
        f"db{s}": -10 * torch.log10(e.detach() / 4).mean().item() for s, e in zip((32, 16, 8), errors, strict=True)
    }
    return total, figures


def linear_start(sets: dict[str, list[bytes]]) -> Pyramid:
    """The pyramid at the linear optimum of 4,000 crops."""
    start = torch.from_numpy(PictureBatches(sets, 128, 4000, seed=1)(0))
    model = Pyramid(PyramidConfig(plan_levels(start, BITS)))
    model.fit(start)
    return model


def trained(weights: Path) -> Pyramid:
    """A pyramid as an earlier run left it."""
    tensors, config = read_weights(weights)
    model = Pyramid(PyramidConfig.from_dict(config))
    model.load_state_dict(tensors)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path(".cache/image"))
    parser.add_argument("--out", type=Path, default=Path("src/panglot/assets/image.safetensors"))
    parser.add_argument("--init", type=Path, help="go on from these weights instead of the linear optimum")
    parser.add_argument("--stride", type=int, choices=STRIDES, help="for this length only")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sets = pictures(args.data)
    model = trained(args.init) if args.init else linear_start(sets)
    model = model.to(memory_format=torch.channels_last)
    schedule = Schedule(steps=args.steps, lr=args.lr, checkpoint_every=250)
    goal = partial(loss, weights=[float(s == args.stride) for s in STRIDES], complete=True) if args.stride else loss
    fit(model, PictureBatches(sets, 128, args.batch, seed=2), goal, schedule, args.run)
    save_weights(model, model.config.to_dict(), args.out)


if __name__ == "__main__":
    main()
