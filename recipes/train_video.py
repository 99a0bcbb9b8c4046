"""Train the change half of the video tokenizer: `python recipes/train_video.py --data DATA`; 20 minutes on two cores.

Needs the image tokenizer's weights, since change is coded against what the decoder already has. The story in order:
take clips; decode every sixth frame from its image codes; set the change pyramid to the linear optimum of four true
frames less the decoded one; then train the networks added to it, coding only blocks that are wrong, by a threshold
drawn at random, as the tokenizer does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from data import ClipBatches, clips
from torch import Tensor

from panglot.media import Image
from panglot.tokenizers.image import ImageTokenizer
from panglot.tokenizers.pyramid import STRIDES, Pyramid, PyramidConfig, plan_levels
from panglot.tokenizers.video import GROUP, add_change, coverage, where_wrong
from panglot.tokenizers.weights import save_weights
from panglot.train import Schedule, fit

BITS = (10, 10, 10)
WEIGHTS = (0.3, 1.0, 1.0)


def loss(model: Pyramid, batch: tuple[np.ndarray, np.ndarray], step: int) -> tuple[Tensor, dict[str, float]]:
    last, after = (torch.from_numpy(x) for x in batch)
    target = (after - last.unsqueeze(1)).flatten(1, 2).to(memory_format=torch.channels_last)
    held = (target**2).mean((1, 2, 3))
    threshold = held * torch.exp(torch.empty(len(held)).uniform_(-2.5, 0.3))
    with torch.autocast("cpu", torch.bfloat16):
        pictures, codes = model(target, last, where_wrong(target.detach(), threshold.view(-1, 1, 1, 1)))
    total, figures = torch.zeros(()), {"held": -10 * torch.log10(held / 4 + 1e-6).mean().item()}
    for i, weight in enumerate(WEIGHTS):
        frames = add_change(last, pictures[i].float(), coverage(codes[: i + 1]))
        error = ((frames - after) ** 2).mean((1, 2, 3, 4))
        total = total + weight * torch.log(error + 1e-3).mean()
        figures[f"db{STRIDES[i]}"] = -10 * torch.log10(error.detach() / 4 + 1e-6).mean().item()
    return total, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image", type=Path, default=None, help="image weights (default: the shipped ones)")
    parser.add_argument("--run", type=Path, default=Path(".cache/video"))
    parser.add_argument("--out", type=Path, default=Path("src/panglot/assets/video.safetensors"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    image = ImageTokenizer.load(args.image)

    def through(frame: np.ndarray, quality: int) -> np.ndarray:
        return image.decode(image.encode(Image(frame), stride=(16, 8)[quality])).pixels

    batches = ClipBatches(list(clips(args.data)), through, 128, args.batch, seed=2)
    pairs = [batches(10**6 + i) for i in range(100)]
    start = torch.from_numpy(np.concatenate([(a - b[:, None]).reshape(len(a), GROUP * 3, 128, 128) for b, a in pairs]))
    levels = plan_levels(start, BITS)
    shape = {"widths": (160, 144, 96), "encoder_depths": (1, 1, 1), "decoder_depths": (1, 2, 1), "output_depth": 1}
    model = Pyramid(PyramidConfig(levels, channels=GROUP * 3, context=3, **shape))
    if not (args.run / "checkpoint.safetensors").exists():
        model.fit(start)
    del start, pairs
    model = model.to(memory_format=torch.channels_last)
    fit(model, batches, loss, Schedule(steps=args.steps, lr=1.5e-3, checkpoint_every=500), args.run)
    save_weights(model, model.config.to_dict(), args.out)


if __name__ == "__main__":
    main()
