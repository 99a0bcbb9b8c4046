"""Video at equal bytes: H.264 and H.265 through PyAV (x264, x265), counted without their information messages.

As for pictures (`_pictures.py`), the codec may code the video smaller, and the best PSNR within the budget is taken.
x265 was seen to write beyond its memory (at 48x32 with AVX; compare its issue 774), which ends the process or spoils
what it holds. So `best_within_apart` searches in a process of its own, which is this module as a program (`python
_movies.py NAME FPS BUDGET`: frames as .npy on standard input, the result as .npz on standard output, nothing there if
nothing fits) and imports no torch.
Not here: sound, containers.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
from _common import Missing
from PIL import Image as Pil

from panglot.measure import psnr

FACTORS = (1.0, 0.5, 0.25)
CRF = range(16, 52)
PRESET = "medium"
ENCODERS = {
    "x264": ("libx264", "h264", "keyint=infinite:threads=1"),
    "x265": ("libx265", "hevc", "keyint=-1:pools=1:frame-threads=1:log-level=none:asm=sse4.2"),
}
"""Library, format and settings. x265 writes the same bytes with SSE 4.2 as with AVX, without the overflow at 48x32."""


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


def best_within_apart(frames: np.ndarray, fps: float, name: str, budget: float) -> Coded | None:
    """`best_within` in a process of its own. Raises Missing, with its last line, if that process fails."""
    sent = io.BytesIO()
    np.lib.format.write_array(sent, np.ascontiguousarray(frames))
    command = [sys.executable, __file__, name, repr(fps), repr(budget)]
    run = subprocess.run(command, input=sent.getvalue(), capture_output=True)
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise Missing(f"{name}'s process ended with exit code {run.returncode}: {last[0]}")
    if not run.stdout:
        return None
    with np.load(io.BytesIO(run.stdout)) as found:
        return Coded(found["frames"], int(found["bytes"]), str(found["how"]))


def main(name: str, fps: str, budget: str) -> None:
    frames = np.lib.format.read_array(io.BytesIO(sys.stdin.buffer.read()))
    found = best_within(frames, float(fps), name, float(budget))
    if found is not None:
        result = io.BytesIO()
        np.savez(result, frames=found.frames, bytes=found.bytes, how=found.how)
        sys.stdout.buffer.write(result.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
