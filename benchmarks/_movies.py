"""Video at equal bytes: H.264 and H.265 through PyAV (x264, x265), counted without their information messages.

As for pictures (`_pictures.py`), the codec may code the video smaller, and the best PSNR within the budget is taken.
Not here: sound, containers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from PIL import Image as Pil

from panglot.measure import psnr

FACTORS = (1.0, 0.5, 0.25)
CRF = range(16, 52)
PRESET = "medium"
ENCODERS = {
    "x264": ("libx264", "h264", "keyint=infinite:threads=1"),
    "x265": ("libx265", "hevc", "keyint=-1:pools=1:frame-threads=1:log-level=none"),
}


@dataclass(frozen=True)
class Coded:
    """A video after a codec: frames uint8 [T, H, W, 3], payload bytes, and how it was coded."""

    frames: np.ndarray
    bytes: int
    how: str


def mean_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the frames of uint8 [T, H, W, 3] of their PSNR in dB; frames without any error count as 100 dB."""
    return float(np.mean([min(psnr(x, y), 100.0) for x, y in zip(a, b, strict=True)]))


def resized(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] at another size, by Lanczos."""
    if frames.shape[1:3] == (height, width):
        return frames
    size = (width, height)
    return np.stack([np.asarray(Pil.fromarray(f).resize(size, Pil.Resampling.LANCZOS)) for f in frames])


def without_sei(packet: bytes, codec: str) -> int:
    """Bytes of an Annex B packet without its SEI units and their start codes (ITU-T H.264 7.3.1, H.265 7.3.1.2)."""
    sei = {"h264": (6,), "hevc": (39, 40)}[codec]
    total = 0
    for start, stop in _units(packet):
        header = packet[packet.index(b"\x00\x00\x01", start) + 3]
        kind = header & 0x1F if codec == "h264" else header >> 1 & 0x3F
        total += 0 if kind in sei else stop - start
    return total


def _units(packet: bytes) -> Iterator[tuple[int, int]]:
    """The NAL units of an Annex B packet as (start, stop), start codes included; a fourth zero belongs to its unit."""
    starts = []
    at = packet.find(b"\x00\x00\x01")
    while at >= 0:
        starts.append(at - 1 if at > 0 and packet[at - 1] == 0 else at)
        at = packet.find(b"\x00\x00\x01", at + 3)
    if starts:
        yield from pairwise([*starts, len(packet)])


def encode(frames: np.ndarray, fps: float, name: str, crf: int) -> tuple[list[av.Packet], int]:
    """Packets of frames uint8 [T, H, W, 3] (even sides) at one quality, and their payload bytes."""
    library, codec, parameters = ENCODERS[name]
    rate = Fraction(fps).limit_denominator(1001)
    encoder: Any = av.CodecContext.create(library, "w")
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", rate, 1 / rate
    encoder.options = {"crf": str(crf), "preset": PRESET, f"{name}-params": parameters}
    packets = []
    for i, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return packets, sum(without_sei(bytes(packet), codec) for packet in packets)


def decode(packets: list[av.Packet], name: str) -> np.ndarray:
    """The frames uint8 [T, H, W, 3] of `encode`'s packets, in display order."""
    decoder: Any = av.CodecContext.create(ENCODERS[name][1], "r")
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def best_within(frames: np.ndarray, fps: float, name: str, budget: float) -> Coded | None:
    """The codec's video with the highest mean PSNR among those of at most `budget` bytes, or None.

    Bytes fall as CRF rises, so the least CRF that fits is found by bisection for every size.
    """
    height, width = frames.shape[1:3]
    best: tuple[float, Coded] | None = None
    for factor in FACTORS:
        small = resized(frames, *(max(2, 2 * round(side * factor / 2)) for side in (width, height)))
        low, high, found = CRF[0], CRF[-1], None
        while low <= high:
            crf = (low + high) // 2
            packets, size = encode(small, fps, name, crf)
            if size <= budget:
                found, high = (packets, size, crf), crf - 1
            else:
                low = crf + 1
        if found is None:
            continue
        packets, size, crf = found
        decoded = resized(decode(packets, name), width, height)
        score = mean_psnr(frames, decoded)
        if best is None or score > best[0]:
            best = (score, Coded(decoded, size, f"x{factor:g} crf{crf}"))
    return best[1] if best else None
