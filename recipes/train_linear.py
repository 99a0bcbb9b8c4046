"""Fit the linear baseline that `panglot compare` ships: `python recipes/train_linear.py --data DATA`; about a minute.

It sees a part of the photographs, sounds and clips that the tokenizers learned from, and is done when their second
moments are known: there is nothing to iterate but the scalar quantisers. Photographs alone, at their own size: with
emoji and enlarged crops among them, as the image tokenizer has them, Kodak crops lost 0.8 to 1.4 dB.
Prints how many bits a block takes and what is wrong then, by the quantisers' own account.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import SOUNDS, clips, listed, tones
from PIL import Image as Pillow

from panglot.linear import LEVELS, SHAPES, Linear, Transform, log_mel
from panglot.tokenizers.weights import ASSETS

SEED = 0
PHOTOGRAPHS = ("caltech101", "grocery", "skimage")
PICTURES, PATCHES = 1300, 12
"""Photographs of these sets together, and blocks of each, at random places."""
FILES = 900
"""Sounds, shared out over the sets as the audio tokenizer's training does."""
PLACES = 16
"""Blocks of every 8 frames of a clip, at random places."""
KEEP = {"image": 256, "audio": 256, "video": 256}
COMPONENTS = {"image": 128, "audio": 56, "video": 80}
SHOWN = {"image": (12, 60, 252), "audio": (10, 50, 100), "video": (20, 60, 120)}


def picture_blocks(data: Path) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    files = [path for name in PHOTOGRAPHS for path, _ in listed(data / "train" / name)]
    side = SHAPES["image"][0]
    for i in rng.permutation(len(files))[:PICTURES]:
        pixels = np.asarray(Pillow.open(files[i]).convert("RGB"))
        if min(pixels.shape[:2]) >= side:
            places = rng.integers(0, np.array(pixels.shape[:2]) - side + 1, (PATCHES, 2))
            yield np.stack([pixels[y : y + side, x : x + side] for y, x in places])


def sound_blocks(data: Path) -> Iterator[np.ndarray]:
    import soundfile

    rng = np.random.default_rng(SEED)
    for name, share in SOUNDS.items():
        count = max(1, round(FILES * share))
        if name == "tones":
            yield from (log_mel(sound / 32768, 16_000) for sound in tones(16_000, count))
            continue
        files = [path for path, _ in listed(data / "train" / name)]
        for i in rng.permutation(len(files))[:count]:
            samples, rate = soundfile.read(files[i], dtype="float32", always_2d=True)
            gain = 10 ** (rng.uniform(-20, 6) / 20)
            yield log_mel(np.clip(samples[: 10 * rate].mean(1) * gain, -1, 1), rate)


def clip_blocks(data: Path) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    length, side = SHAPES["video"][:2]
    for clip in clips(data):
        for start in range(0, len(clip) - length + 1, length):
            height, width = clip.shape[1:3]
            places = zip(
                rng.integers(0, height - side + 1, PLACES),
                rng.integers(0, width - side + 1, PLACES),
                strict=True,
            )
            yield np.stack([clip[start : start + length, y : y + side, x : x + side] for y, x in places])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PANGLOT_DATA"), help="default: $PANGLOT_DATA")
    parser.add_argument("--out", type=Path, default=ASSETS / "linear.safetensors")
    options = parser.parse_args()
    if options.data is None or not (Path(options.data) / "train").is_dir():
        parser.error("no train/ found; name the data folder with --data or PANGLOT_DATA")
    data, found = Path(options.data), {}
    for modality, blocks in (("image", picture_blocks), ("audio", sound_blocks), ("video", clip_blocks)):
        fitted = Transform.fit(blocks(data), SHAPES[modality], KEEP[modality], COMPONENTS[modality])
        found[modality] = fitted
        for bits in SHOWN[modality]:
            levels = fitted.levels(bits)
            left = sum(float(fitted.errors[i, LEVELS.index(n)]) for i, n in enumerate(levels))
            share = left / float(fitted.errors[:, 0].sum())
            print(f"{modality}, {bits} bits a block: {len(levels)} components, {share:.1%} of their energy wrong")
    Linear(found).save(options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
