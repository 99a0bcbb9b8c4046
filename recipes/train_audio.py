"""Train the audio tokenizer: `python recipes/train_audio.py --data DATA [--steps N]`; about 40 minutes on two cores.

The story in order: gather sound; let reverse water-filling choose the levels of ten nested codes of 10 bits; set the
codec to the linear optimum of the 80 ms log-mel block; then train the networks added to it on the magnitude spectrum
(phases are recovered by Griffin-Lim, which has nothing to train). Four losses: log-mel, the mel distance of
`panglot.measure` as far as a spectrum shows it, log magnitude, and the correlation of third-octave envelopes over
0.4 s, which is what intelligibility measures (STOI, Taal et al. 2011) look at. Two in five sounds use all codes, the
others a random prefix, alike for all blocks or not, so that every prefix decodes.

The shipped weights went on from there, `--init WEIGHTS --steps 800 --lr 6e-4` and then `--steps 1900 --lr 8e-4` on
the mix of `data.py`, and are three parts of the former and one of the latter (`average.py`); then `--decoder --steps
1300 --lr 6e-4` for the second of the losses, which the runs before had not (docs/log.md).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import SoundBatches, sounds
from torch import Tensor

from panglot.tokenizers import spectrum as sp
from panglot.tokenizers.audio import AudioConfig, SpectrumCodec, block_features, plan_levels
from panglot.tokenizers.weights import read_weights, save_weights
from panglot.train import Schedule, fit

BLOCKS = 40
LENGTH = BLOCKS * sp.BLOCK + 2 * sp.EDGE
DEPTH = 10
BITS = 10


def third_octaves() -> Tensor:
    """float32 [15, BINS]: which bins belong to each third-octave band from 150 Hz on."""
    centres = 150 * 2 ** (np.arange(15) / 3)
    frequencies = np.arange(sp.BINS) * sp.RATE / sp.WINDOW
    low, high = centres[:, None] * 2 ** (-1 / 6), centres[:, None] * 2 ** (1 / 6)
    return torch.from_numpy(((frequencies >= low) & (frequencies < high)).astype(np.float32))


class SpectrumLoss:
    """Compares log magnitude spectra [B, hops, BINS]; see the module's docstring."""

    def __init__(self, floor: float):
        self.floor = floor
        self.filters = torch.from_numpy(sp.mel_filters()).float()
        self.energies = (self.filters / self.filters.sum(1, keepdim=True)).T
        self.bands = third_octaves()

    def __call__(self, predicted: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
        m, n = torch.exp(predicted), torch.exp(target)
        mel = (torch.log(m @ self.filters.T + self.floor) - torch.log(n @ self.filters.T + self.floor)).abs().mean()
        magnitude = (predicted - target).abs().mean()
        correlation, distance = self.correlation(m, n), self.distance(m, n)
        total = 0.3 * mel + distance + 0.3 * magnitude + (1 - correlation)
        figures = {"mel": mel, "distance": distance, "log": magnitude, "corr": correlation}
        return total, {name: value.item() for name, value in figures.items()}

    def distance(self, m: Tensor, n: Tensor) -> Tensor:
        """Nearly `panglot.measure.mel_distance`, in nats of amplitude: energies of mel bands, 80 dB under the loudest
        at least, seen through a window of 25 ms, which is as if those of 40 ms were smeared over three bins."""
        a, b = (F.avg_pool1d(F.pad(x**2, (1, 1)), 3, 1) @ self.energies for x in (m, n))
        floor = 1e-8 * b.amax((1, 2), keepdim=True) + 1e-10
        return (torch.log(a.maximum(floor)) - torch.log(b.maximum(floor))).abs().mean() / 2

    def correlation(self, m: Tensor, n: Tensor, length: int = 38, step: int = 6) -> Tensor:
        """Mean correlation of envelopes over windows of 0.38 s that are within 40 dB of the sound's loudest."""
        a, b = (torch.sqrt((x**2) @ self.bands.T + 1e-9).unfold(1, length, step) for x in (m, n))
        loud = b.pow(2).sum((2, 3), keepdim=True)
        weight = (loud > loud.amax(1, keepdim=True) * 1e-4).float()
        a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
        r = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-5)
        weight = weight[..., 0] * torch.ones_like(r)
        return (r * weight).sum() / weight.sum()


def depths(sounds: int) -> Tensor:
    """How many codes of each block count, int64 [sounds, BLOCKS]: all, one number for a sound, or runs of many."""
    kind = torch.rand(sounds, 1)
    alike = torch.randint(1, DEPTH + 1, (sounds, 1)).expand(-1, BLOCKS)
    runs = torch.randint(0, DEPTH + 1, (sounds, -(-BLOCKS // 4))).repeat_interleave(4, 1)[:, :BLOCKS]
    return torch.where(kind < 0.4, DEPTH, torch.where(kind < 0.75, alike, runs))


class Loss:
    def __init__(self, floor: float):
        self.compare = SpectrumLoss(floor)

    def __call__(self, model: SpectrumCodec, batch: np.ndarray, step: int) -> tuple[Tensor, dict[str, float]]:
        samples = torch.from_numpy(batch)
        with torch.no_grad():
            target = torch.log(sp.magnitudes(samples) + self.compare.floor)
            features = block_features(samples, self.compare.filters, self.compare.floor)
        keep = depths(len(batch))
        with torch.autocast("cpu", torch.bfloat16):
            values, _ = model.encode(features)
            predicted = model.spectrum(values, keep)
        return self.compare(predicted.float(), target)


def linear_start(sets: dict[str, list[np.ndarray]], floor: float) -> SpectrumCodec:
    """The codec at the linear optimum of 28,000 blocks, its levels chosen by reverse water-filling."""
    start = torch.from_numpy(SoundBatches(sets, LENGTH, 700, seed=1)(0))
    filters = torch.from_numpy(sp.mel_filters()).float()
    features = block_features(start, filters, floor).reshape(-1, sp.HOPS * sp.BANDS)
    model = SpectrumCodec(AudioConfig(plan_levels(features, BITS, DEPTH), floor=floor))
    model.fit(features, torch.log(sp.magnitudes(start) + floor).reshape(-1, sp.BINS))
    return model


def trained(weights: Path, floor: float) -> SpectrumCodec:
    """A codec as an earlier run left it, for further training, on other sound or at another floor."""
    tensors, config = read_weights(weights)
    model = SpectrumCodec(replace(AudioConfig.from_dict(config), floor=floor))
    model.load_state_dict(tensors)
    return model


def keep_codes(model: SpectrumCodec) -> None:
    """Leave everything that a code depends on as it is, so that only what is decoded from it can change."""
    fixed = [model.encoder_in, model.encoder, *(m for s in model.nested for m in (s.analysis, s.synthesis, s.head))]
    for module in fixed:
        module.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path(".cache/audio"))
    parser.add_argument("--out", type=Path, default=Path("src/panglot/assets/audio.safetensors"))
    parser.add_argument("--init", type=Path, help="go on from these weights instead of the linear optimum")
    parser.add_argument("--decoder", action="store_true", help="train the decoder alone: codes stay as they are")
    parser.add_argument("--steps", type=int, default=2700)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--floor", type=float, default=2e-5, help="added to magnitudes before their logarithm")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sets = sounds(args.data, sp.RATE)
    model = trained(args.init, args.floor) if args.init else linear_start(sets, args.floor)
    if args.decoder:
        keep_codes(model)
    batches = SoundBatches(sets, LENGTH, args.batch, seed=2, pitch=True)
    fit(model, batches, Loss(args.floor), Schedule(steps=args.steps, lr=args.lr, checkpoint_every=250), args.run)
    save_weights(model, model.config.to_dict(), args.out)


if __name__ == "__main__":
    main()
