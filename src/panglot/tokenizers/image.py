"""Images as a pyramid of codes: strides 32, 16 and 8, coarse to fine, any size up to the limit of `media`.

A picture is cut into tiles that overlap, each tile runs through `Pyramid` with a margin of context that is thrown away
after, so memory is bounded, codes do not depend on what else is encoded, and tile borders see what whole pictures see.

Not here: the network (`pyramid.py`), the choice of which blocks deserve codes (`panglot.detail`), files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from panglot._limits import MAX_PIXELS
from panglot.media import Image
from panglot.tokenizers.base import ABSENT, SPLIT, Alphabet, Codes, CodesError, Tokenizer, header_int
from panglot.tokenizers.pyramid import STRIDES, Pyramid, PyramidConfig
from panglot.tokenizers.weights import ASSETS, read_weights

WINDOW = 2**21
"""Pixels that one pass of the network sees at most, margins included; this bounds memory. A full HD picture is one."""

MARGIN = 192
"""Context around a tile, in pixels. What lies beyond changes a pixel by 0.01 of 255 on average; beyond 128, by 0.5."""

FADE = 64
"""Pixels over which a tile is faded into the one before it, so that what is left of that does not show as a seam."""


class ImageTokenizer(Tokenizer[Image]):
    """Codes "image/32", "image/16", "image/8": int32 [ceil(H/s), ceil(W/s)], ABSENT allowed in the finer two.

    encode(image, stride=8) stops after the level of that stride (32, 16 or 8). Memory beyond the picture itself is
    bounded by the tile; a picture costs ceil(H/s) * ceil(W/s) tokens a level. Where the header has "coded_height" and
    "coded_width", the codes are those of the picture scaled to that size, and decoding scales it back.
    """

    modality = "image"

    def __init__(self, network: Pyramid):
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, path: Path | None = None) -> ImageTokenizer:
        """From a weights file, by default the one shipped. Raises WeightsError."""
        tensors, config = read_weights(path or ASSETS / "image.safetensors")
        network = Pyramid(PyramidConfig.from_dict(config))
        network.load_state_dict(tensors)
        return cls(network)

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        sizes = (level.fsq.size for level in self.network.levels)
        return (*(Alphabet(f"image/{s}", n) for s, n in zip(STRIDES, sizes, strict=True)), SPLIT)

    def count(self, media: Any, stride: int = 8, effort: int = 0) -> dict[str, int]:
        """Tokens per alphabet of an Image or a MediaInfo; effort changes none."""
        info = media.info if isinstance(media, Image) else media
        height, width = info.height or 0, info.width or 0
        return {f"image/{s}": -(-height // s) * -(-width // s) for s in strides_down_to(stride)}

    def encode(self, media: Image, stride: int = 8, effort: int = 0) -> Codes:
        """Codes down to a stride. effort: rounds of search for better codes; each costs about one more encode.

        Two rounds gain about 0.3 dB, six 0.4 (Kodak crops), at the same number of codes and with the same decoder.
        """
        used = strides_down_to(stride)
        if effort < 0:
            raise CodesError(f"effort {effort} is not possible: give 0 or a small number of rounds")
        height, width = media.pixels.shape[:2]
        grids = {s: np.empty((-(-height // s), -(-width // s)), np.int32) for s in used}
        for (top, left, bottom, right), _, (y0, x0), _, codes in self._passes(media.pixels, stride, effort, False):
            for s, code in zip(used, codes, strict=True):
                target = grids[s][top // s : -(-bottom // s), left // s : -(-right // s)]
                y, x = (top - y0) // s, (left - x0) // s
                target[:] = code[0, y : y + target.shape[0], x : x + target.shape[1]].numpy()
        return Codes("image", {"height": height, "width": width}, {f"image/{s}": grids[s] for s in used})

    def _passes(self, pixels: np.ndarray, stride: int, effort: int, finish: bool) -> Iterator[tuple[Any, ...]]:
        """Tile by tile: its sides, its pixels with margins, their corner, the pictures after each level, the codes."""
        for top, left, bottom, right in _tiles(*pixels.shape[:2]):
            y0, x0 = max(0, top - MARGIN), max(0, left - MARGIN)
            seen = pixels[y0 : bottom + MARGIN, x0 : right + MARGIN]
            with torch.no_grad():
                pictures, codes = self.network(to_tensor(seen), stride=stride, effort=effort, finish=finish)
            yield (top, left, bottom, right), seen, (y0, x0), pictures, codes

    def analyse(self, media: Image, exact: bool = True) -> tuple[Codes, np.ndarray]:
        """Codes of all levels, and the squared error that is left in each block of 8x8 after each.

        Returns the codes and float32 [levels, ceil(H/8), ceil(W/8)], sums over pixels and colours in units of 0..255.
        exact: without, the last level's errors are those of its linear part alone, and the call costs as `encode`.
        """
        height, width = media.pixels.shape[:2]
        grids = {s: np.empty((-(-height // s), -(-width // s)), np.int32) for s in STRIDES}
        errors = np.empty((len(STRIDES), -(-height // 8), -(-width // 8)), np.float32)
        for (top, left, bottom, right), seen, (y0, x0), pictures, codes in self._passes(media.pixels, 8, 0, exact):
            true = to_tensor(seen)
            h, w = bottom - top, right - left
            y, x = top - y0, left - x0
            for i, (s, code, picture) in enumerate(zip(STRIDES, codes, pictures, strict=True)):
                target = grids[s][top // s : -(-bottom // s), left // s : -(-right // s)]
                target[:] = code[0, y // s : y // s + target.shape[0], x // s : x // s + target.shape[1]].numpy()
                wrong = (picture.clamp(-1, 1) - true)[:, :, y : y + h, x : x + w].mul_(127.5).square_().sum(1)
                wrong = torch.nn.functional.pad(wrong, (0, -w % 8, 0, -h % 8))
                blocks = torch.nn.functional.avg_pool2d(wrong, 8)[0] * 64
                errors[i, top // 8 : top // 8 + blocks.shape[0], left // 8 : left // 8 + blocks.shape[1]] = blocks
        return Codes("image", {"height": height, "width": width}, {f"image/{s}": grids[s] for s in STRIDES}), errors

    def decode(self, codes: Codes) -> Image:
        (height, width), grids = self._checked(codes)
        return Image(resized(self._pixels(height, width, grids), *_shown(codes)))

    def _pixels(self, height: int, width: int, grids: list[np.ndarray]) -> np.ndarray:
        if len(grids) < len(STRIDES):
            # The next level, though all absent, takes away block edges: -0.2 dB at stride 32 and +0.05 at 16.
            stride = STRIDES[len(grids)]
            grids.append(np.full((-(-height // stride), -(-width // stride)), ABSENT, np.int32))
        pixels = np.empty((height, width, 3), np.uint8)
        for top, left, bottom, right in _tiles(height, width):
            y0, x0 = max(0, top - MARGIN), max(0, left - MARGIN)
            y1, x1 = min(height, bottom + FADE + MARGIN), min(width, right + FADE + MARGIN)
            cut = [_cut(grid, s, (y0, y1), (x0, x1)) for s, grid in zip(STRIDES, grids, strict=False)]
            with torch.inference_mode():
                picture = self.network.decode(cut)[-1]
            target = pixels[top : bottom + FADE, left : right + FADE]
            y, x = top - y0, left - x0
            decoded = to_pixels(picture[0, :, y : y + target.shape[0], x : x + target.shape[1]])
            _fade(target, decoded, top > 0, left > 0)
        return pixels

    def _checked(self, codes: Codes) -> tuple[tuple[int, int], list[np.ndarray]]:
        """The size at which the picture is coded, and its levels."""
        self.check(codes)
        height, width = _shown(codes)
        if "coded_height" in codes.header or "coded_width" in codes.header:
            height, width = _size(codes, "coded_height", "coded_width")
        names = [f"image/{s}" for s in STRIDES][: len(codes.arrays)]
        if not names or list(codes.arrays) != names:
            raise CodesError(
                f"image codes need the levels image/32, image/16, image/8 or a prefix, not {list(codes.arrays)}"
            )
        grids = list(codes.arrays.values())
        for s, grid in zip(STRIDES, grids, strict=False):
            shape = (-(-height // s), -(-width // s))
            if grid.shape != shape:
                raise CodesError(f"image/{s} has shape {grid.shape}, a {width} x {height} picture needs {shape}")
        return (height, width), grids

    def encode_stream(self, chunks: Iterable[Image], stride: int = 8, effort: int = 0) -> Iterator[Codes]:
        """An image is one piece: its codes appear once all its rows, stacked from the chunks, are there."""
        rows = [chunk.pixels for chunk in chunks]
        if rows:
            yield self.encode(Image(np.concatenate(rows)), stride=stride, effort=effort)

    def join(self, pieces: Iterable[Codes]) -> Codes:
        (whole,) = pieces
        return whole


def strides_down_to(stride: int) -> tuple[int, ...]:
    """(32,), (32, 16) or (32, 16, 8). Raises CodesError for any other stride."""
    if stride not in STRIDES:
        raise CodesError(f"stride {stride} is not a level of the pyramid: use 32, 16 or 8")
    return STRIDES[: STRIDES.index(stride) + 1]


def _shown(codes: Codes) -> tuple[int, int]:
    """Height and width of the decoded picture."""
    return _size(codes, "height", "width")


def _size(codes: Codes, *names: str) -> tuple[int, int]:
    height, width = (header_int(codes, name, 1) for name in names)
    if height * width > MAX_PIXELS:
        raise CodesError(f"a picture of {width} x {height} is over the limit of {MAX_PIXELS} pixels")
    return height, width


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [height, width, 3], by Lanczos windows."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Pillow.fromarray(pixels).resize((width, height), Pillow.Resampling.LANCZOS))


def _tiles(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Equal tiles as top, left, bottom, right, in reading order; sides inside the picture are multiples of 32."""
    high, wide = _tile(height, width)
    for top in range(0, height, high):
        for left in range(0, width, wide):
            yield top, left, min(height, top + high), min(width, left + wide)


def _tile(height: int, width: int) -> tuple[int, int]:
    """Height and width of the tiles with which the network sees fewest pixels in all, none over WINDOW at once."""
    best = (math.inf, 0, 0)
    for rows in range(1, -(-height // STRIDES[0]) + 1):
        high = _share(height, rows)
        room = WINDOW // (high + MARGIN * min(rows - 1, 2))
        columns = next((n for n in (1, 2) if _share(width, n) + MARGIN * (n - 1) <= room), 0)
        if not columns and room >= 2 * MARGIN + STRIDES[0]:
            columns = -(-width // ((room - 2 * MARGIN) // STRIDES[0] * STRIDES[0]))
        if columns:
            seen = (height + 2 * MARGIN * (rows - 1)) * (width + 2 * MARGIN * (columns - 1))
            best = min(best, (seen, high, _share(width, columns)))
        if columns == 1:
            break
    return best[1:]


def _share(side: int, parts: int) -> int:
    """The length of equal parts of a side, in whole blocks of the coarsest stride."""
    return -(-side // (parts * STRIDES[0])) * STRIDES[0]


def _fade(target: np.ndarray, decoded: np.ndarray, above: bool, beside: bool) -> None:
    """Write a tile over what is there; where a tile above or beside it has written already, go over gradually."""
    above_old = target[:FADE].copy() if above else None
    beside_old = target[:, :FADE].copy() if beside else None
    target[:] = decoded
    if beside_old is not None:
        ramp = np.linspace(0, 1, beside_old.shape[1], dtype=np.float32)[None, :, None]
        target[:, :FADE] = np.rint(beside_old * (1 - ramp) + target[:, :FADE] * ramp)
    if above_old is not None:
        ramp = np.linspace(0, 1, len(above_old), dtype=np.float32)[:, None, None]
        target[:FADE] = np.rint(above_old * (1 - ramp) + target[:FADE] * ramp)


def _cut(grid: np.ndarray, stride: int, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    """The codes [1, h, w] over a window of pixels, filled up with ABSENT to whole blocks of the coarsest stride."""
    (y0, y1), (x0, x1) = rows, columns
    part = grid[y0 // stride : -(-y1 // stride), x0 // stride : -(-x1 // stride)]
    shape = (-(-(y1 - y0) // STRIDES[0]) * STRIDES[0] // stride, -(-(x1 - x0) // STRIDES[0]) * STRIDES[0] // stride)
    padded = np.full(shape, ABSENT, np.int64)
    padded[: part.shape[0], : part.shape[1]] = part
    return torch.from_numpy(padded)[None]


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [..., H, W, 3] -> float32 [N, 3, H', W'] in [-1, 1], edges repeated up to whole blocks of 32."""
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    down, right = -frames.shape[1] % STRIDES[0], -frames.shape[2] % STRIDES[0]
    if down or right:
        frames = np.pad(frames, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
    frames = np.require(frames, requirements=["C", "W"])  # torch warns of arrays that it may not write to
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)
    return planes.float().div_(127.5).sub_(1)


def to_pixels(picture: torch.Tensor) -> np.ndarray:
    """float [..., C, H, W] in [-1, 1] -> uint8 [..., H, W, C]"""
    scaled = picture.add(1).mul_(127.5).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).movedim(-3, -1).numpy()
