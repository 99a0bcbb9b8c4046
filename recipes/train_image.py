"""Train the image tokenizer: `python recipes/train_image.py --data DATA [--steps N]`; about an hour on two cores.

The story in order: gather crops; let reverse water-filling choose how finely each level codes what; set the pyramid to
the linear optimum (PCA analysis, least-squares synthesis), which is already a working codec; then train the networks
added to it to lower the squared error after every level at once, while random blocks of the finer levels are absent.
Squared error, because at these rates the number of merit is PSNR and no perceptual weights can be fetched.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from data import PictureBatches, pictures
from torch import Tensor

from panglot.tokenizers.pyramid import Pyramid, PyramidConfig, plan_levels
from panglot.tokenizers.weights import save_weights
from panglot.train import Schedule, fit

BITS = (12, 12, 12)
WEIGHTS = (0.15, 1.0, 0.6)
"""How much the log of the error after each level counts; stride 16 is where most pictures will be used."""


def random_presence(batch: int, side: int, whole: float) -> Tensor:
    """bool [batch, 1, side, side]: a share `whole` of the pictures keeps all blocks, the rest a random subset."""
    keep = torch.rand(batch, 1, 1, 1)
    present = torch.rand(batch, 1, side, side) < keep
    return present | (torch.rand(batch, 1, 1, 1) < whole)


def loss(model: Pyramid, batch, step: int) -> tuple[Tensor, dict[str, float]]:
    picture = torch.from_numpy(batch).to(memory_format=torch.channels_last)
    n, side = len(picture), picture.shape[-1]
    present = (None, random_presence(n, side // 16, 0.8), random_presence(n, side // 8, 0.6))
    with torch.autocast("cpu", torch.bfloat16):
        decoded, _ = model(picture, choose=lambda level, _: present[level])
    errors = [((d.float() - picture) ** 2).mean((1, 2, 3)) for d in decoded]
    total = sum(w * torch.log(e + 1e-3).mean() for w, e in zip(WEIGHTS, errors, strict=True))
    figures = {
        f"db{s}": -10 * torch.log10(e.detach() / 4).mean().item() for s, e in zip((32, 16, 8), errors, strict=True)
    }
    return total, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path(".cache/image"))
    parser.add_argument("--out", type=Path, default=Path("src/panglot/assets/image.safetensors"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sets = pictures(args.data)
    start = torch.from_numpy(PictureBatches(sets, 128, 4000, seed=1)(0))
    model = Pyramid(PyramidConfig(plan_levels(start, BITS)))
    if not (args.run / "checkpoint.safetensors").exists():
        model.fit(start)
    del start
    model = model.to(memory_format=torch.channels_last)
    schedule = Schedule(steps=args.steps, lr=1.5e-3, checkpoint_every=250)
    fit(model, PictureBatches(sets, 128, args.batch, seed=2), loss, schedule, args.run)
    save_weights(model, model.config.to_dict(), args.out)


if __name__ == "__main__":
    main()
