"""Train the change half of the video tokenizer: `python recipes/train_video.py --data DATA`; 20 minutes on two cores.

Needs the image tokenizer's weights, since change is coded against what the decoder already has. The story in order:
take clips; decode every sixth frame from its image codes; set the change pyramid to the linear optimum of four true
frames less the decoded one; then train the networks added to it, coding only blocks that are wrong, by a threshold
drawn at random, as the tokenizer does. Every other step starts from a frame that was itself decoded from a change, and
one clip in five is under a fade of the light. The shipped weights had 2,000 steps without the last two, then 1,400 with
them (`--init WEIGHTS --lr 8e-4`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from data import ClipBatches, clips
from torch import Tensor

from panglot.media import Image
from panglot.tokenizers.change import GROUP, add_change, coverage, where_wrong
from panglot.tokenizers.image import ImageTokenizer
from panglot.tokenizers.pyramid import STRIDES, Pyramid, PyramidConfig, plan_levels
from panglot.tokenizers.weights import read_weights, save_weights
from panglot.train import Schedule, fit

BITS = (10, 10, 10)
WEIGHTS = (0.3, 1.0, 1.0)


def loss(model: Pyramid, batch: tuple[np.ndarray, np.ndarray], step: int) -> tuple[Tensor, dict[str, float]]:
    last, after = (torch.from_numpy(x) for x in batch)
    if step % 2:
        # Every other step learns on the second group, which begins with what the first was decoded to.
        with torch.no_grad():
            share = torch.exp(torch.empty(len(last)).uniform_(-2.5, -0.3))
            last = coded(model, last, after[:, :GROUP], share)[0][-1][:, -1]
        after = after[:, GROUP:]
    else:
        after = after[:, :GROUP]
    frames, held = coded(model, last, after, torch.exp(torch.empty(len(last)).uniform_(-2.5, 0.3)))
    total, figures = torch.zeros(()), {"held": -10 * torch.log10(held / 4 + 1e-6).mean().item()}
    for i, weight in enumerate(WEIGHTS):
        error = ((frames[i] - after) ** 2).mean((1, 2, 3, 4))
        total = total + weight * torch.log(error + 1e-3).mean()
        figures[f"db{STRIDES[i]}"] = -10 * torch.log10(error.detach() / 4 + 1e-6).mean().item()
    return total, figures


def coded(model: Pyramid, last: Tensor, after: Tensor, share: Tensor) -> tuple[list[Tensor], Tensor]:
    """Frames [B, GROUP, 3, H, W] after each level; the error [B] of holding `last`, of which `share` is let pass."""
    target = (after - last.unsqueeze(1)).flatten(1, 2).to(memory_format=torch.channels_last)
    held = (target**2).mean((1, 2, 3))
    threshold = (held * share).view(-1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        pictures, codes = model(target, last, where_wrong(target.detach(), threshold))
    covers = [coverage(codes[: i + 1]) for i in range(len(codes))]
    return [add_change(last, p.float(), c) for p, c in zip(pictures, covers, strict=True)], held


def linear_start(batches: ClipBatches) -> Pyramid:
    """The change pyramid at the linear optimum of 1,600 groups."""
    pairs = [batches(10**6 + i) for i in range(100)]
    changes = [(a[:, :GROUP] - b[:, None]).reshape(len(a), GROUP * 3, *b.shape[-2:]) for b, a in pairs]
    start = torch.from_numpy(np.concatenate(changes))
    shape = {"widths": (160, 144, 96), "encoder_depths": (1, 1, 1), "decoder_depths": (1, 2, 1), "output_depth": 1}
    model = Pyramid(PyramidConfig(plan_levels(start, BITS), channels=GROUP * 3, context=3, **shape))
    model.fit(start)
    return model


def trained(weights: Path) -> Pyramid:
    """A change pyramid as an earlier run left it."""
    tensors, config = read_weights(weights)
    model = Pyramid(PyramidConfig.from_dict(config))
    model.load_state_dict(tensors)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image", type=Path, default=None, help="image weights (default: the shipped ones)")
    parser.add_argument("--run", type=Path, default=Path(".cache/video"))
    parser.add_argument("--out", type=Path, default=Path("src/panglot/assets/video.safetensors"))
    parser.add_argument("--init", type=Path, help="go on from these weights instead of the linear optimum")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    image = ImageTokenizer.load(args.image)

    def through(frame: np.ndarray, quality: int) -> np.ndarray:
        return image.decode(image.encode(Image(frame), stride=(16, 8)[quality])).pixels

    batches = ClipBatches(list(clips(args.data)), through, 128, args.batch, seed=2)
    model = trained(args.init) if args.init else linear_start(batches)
    model = model.to(memory_format=torch.channels_last)
    fit(model, batches, loss, Schedule(steps=args.steps, lr=args.lr, checkpoint_every=500), args.run)
    save_weights(model, model.config.to_dict(), args.out)


if __name__ == "__main__":
    main()
