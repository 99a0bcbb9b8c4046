"""What another code makes of a medium, and at which size it should see a picture.

The linear baseline and the classical codecs may code a picture smaller and enlarge it after, because few bits describe
a small picture better; which sizes are worth trying follows from the bits there are for a pixel.
Not here: the codes themselves (`panglot.linear`, `panglot.classical`), and measuring (`panglot.compare`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

from panglot.media import Audio, Image, Text, Video
from panglot.tokenizers.image import resized

FACTORS = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.09375, 0.0625, 0.046875)
"""Sizes at which a picture may be coded, as shares of its sides."""

T = TypeVar("T")


class Unavailable(RuntimeError):
    """A codec that is not installed here. One line: what is missing, and what to do."""


@dataclass(frozen=True, eq=False)
class Coded:
    """A medium after a code, of the size and rate that it had before.

    bits: the payload alone, without headers and containers; how: the settings that were chosen; seconds: of the one
    encode and decode that these settings take, without the search for them.
    """

    medium: Text | Image | Audio | Video
    bits: float
    how: str
    encode_seconds: float
    decode_seconds: float


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the seconds it took."""
    start = perf_counter()
    found = function()
    return found, perf_counter() - start


def factors(pixels: int, bits: float, density: float) -> list[float]:
    """All FACTORS, first those at which so many bits for so many pixels come nearest to `density` bits a pixel."""
    wanted = math.log(max(bits, 1.0) / (pixels * density)) / 2
    return sorted(FACTORS, key=lambda factor: abs(math.log(factor) - min(wanted, 0.0)))


def scaled(frames: np.ndarray, factor: float, even: bool = False) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] at a share of their sides, which are at least 1 pixel, or whole pairs of pixels."""
    step = 2 if even else 1
    height, width = (max(step, step * round(side * factor / step)) for side in frames.shape[1:3])
    return restored(frames, height, width)


def restored(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] at another size."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([resized(frame, height, width) for frame in frames])


def error(a: np.ndarray, b: np.ndarray) -> float:
    """Squared error of two uint8 arrays of one shape, summed: what the best of several settings is chosen by."""
    return float(sum(int(np.square(x.astype(np.int32) - y).sum(dtype=np.int64)) for x, y in zip(a, b, strict=True)))
