"""Classical picture codecs at a byte budget: JPEG, WebP and AVIF through Pillow, counted by payload.

`best_within` gives each codec every advantage that DESIGN asks for: headers and containers are not counted, the
picture may be coded smaller and enlarged again, both chroma samplings are tried, and the best PSNR within the budget
is taken by looking at the original. Not here: learned codecs, the linear baseline (`_klt.py`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pil

FACTORS = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)


@dataclass(frozen=True)
class Codec:
    """How to write one format: Pillow's format name, the highest quality, and the settings to try."""

    format: str
    top: int
    settings: tuple[dict[str, object], ...]
    payload: Callable[[bytes], int]
    factors: tuple[float, ...] = FACTORS


@dataclass(frozen=True)
class Coded:
    """One picture after a codec: pixels uint8 [H, W, 3], payload bytes, and how it was coded."""

    pixels: np.ndarray
    bytes: int
    how: str


def jpeg_scan_bytes(data: bytes) -> int:
    """Bytes of entropy-coded data of a JPEG file: everything but markers and their segments (ITU-T T.81, B.1.1).

    Restart markers inside a scan are counted as part of it. Raises ValueError if the file has no complete scan.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file: no SOI marker")
    at, scan = 2, 0
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ValueError(f"not a JPEG file: no marker at byte {at}")
        if marker == 0xD9:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            end = at
            while end + 1 < len(data) and not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
            scan, at = scan + end - at, end
    if scan == 0:
        raise ValueError("not a JPEG file: it has no scan")
    return scan


def webp_payload_bytes(data: bytes) -> int:
    """Bytes of the VP8 (or VP8L) chunk of a WebP file, without RIFF and chunk headers (RFC 9649, 2.3 to 2.6)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("not a WebP file: no RIFF header")
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            return size
        at += 8 + size + size % 2
    raise ValueError("not a WebP file: it has no VP8 chunk")


def avif_payload_bytes(data: bytes) -> int:
    """Bytes inside the mdat boxes of an AVIF file: the AV1 data alone (ISO/IEC 14496-12, 4.2 and 8.1.1)."""
    at, total = 0, 0
    while at + 8 <= len(data):
        size, header = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(data) - at
        if size < header:
            raise ValueError(f"not an AVIF file: a box of {size} bytes at byte {at}")
        if data[at + 4 : at + 8] == b"mdat":
            total += size - header
        at += size
    if total == 0:
        raise ValueError("not an AVIF file: it has no mdat box")
    return total


JPEG = Codec(
    "JPEG",
    95,
    tuple({"subsampling": s, "optimize": True} for s in ("4:2:0", "4:4:4")),
    jpeg_scan_bytes,
)
WEBP = Codec("WEBP", 100, ({"method": 6},), webp_payload_bytes)
AVIF = Codec(
    "AVIF",
    100,
    tuple({"subsampling": s, "speed": 6} for s in ("4:2:0", "4:4:4")),
    avif_payload_bytes,
    factors=(1.0, 0.75, 0.5, 0.375, 0.25),
)


def best_within(pixels: np.ndarray, codec: Codec, budget: int, psnr: Callable[..., float]) -> Coded | None:
    """The codec's picture with the highest PSNR among those of at most `budget` payload bytes, or None.

    pixels: uint8 [H, W, 3]; psnr(a, b) compares two such arrays. Payload grows with quality, so the highest quality
    that fits is found by bisection for every size and setting.
    """
    best: tuple[float, Coded] | None = None
    for small, factor in _sizes(pixels, codec.factors):
        for settings in codec.settings:
            fitting = _highest_quality(small, codec, settings, budget)
            if fitting is None:
                continue
            data, quality = fitting
            decoded = _enlarge(data, pixels.shape[:2])
            how = " ".join([f"x{factor:g}", f"q{quality}", str(settings.get("subsampling", ""))]).strip()
            score = psnr(pixels, decoded)
            if best is None or score > best[0]:
                best = (score, Coded(decoded, codec.payload(data), how))
    return best[1] if best else None


def _sizes(pixels: np.ndarray, factors: tuple[float, ...]) -> Iterator[tuple[Pil.Image, float]]:
    picture = Pil.fromarray(pixels)
    for factor in factors:
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        yield (picture if factor == 1 else picture.resize(size, Pil.Resampling.LANCZOS)), factor


def _highest_quality(
    picture: Pil.Image, codec: Codec, settings: dict[str, object], budget: int
) -> tuple[bytes, int] | None:
    low, high, found = 1, codec.top, None
    while low <= high:
        quality = (low + high) // 2
        file = io.BytesIO()
        picture.save(file, codec.format, quality=quality, **settings)
        if codec.payload(file.getvalue()) <= budget:
            found, low = (file.getvalue(), quality), quality + 1
        else:
            high = quality - 1
    return found


def _enlarge(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    picture = Pil.open(io.BytesIO(data)).convert("RGB")
    if picture.size != (shape[1], shape[0]):
        picture = picture.resize((shape[1], shape[0]), Pil.Resampling.LANCZOS)
    return np.asarray(picture)
