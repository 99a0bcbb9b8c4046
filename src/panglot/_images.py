"""Still and animated images to pixels, through Pillow.

Whatever the file holds - palette, grey, 16 bits, CMYK, alpha, a turned camera - becomes uint8 RGB, upright, in strips,
so that a 100 megapixel file never exists in more than one extra copy. Alpha is composited on white.

Not covered: colour profiles (values are taken as sRGB), further pages of a TIFF, raw camera files.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from panglot import _limits
from panglot._limits import MediaError, refuse

ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose frames have durations. The pages of a TIFF have none."""

T = TypeVar("T")

_STRIP_PIXELS = 2**20
_ORIENTATION = 0x0112
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
)
"""What Pillow's readers raise on broken files. Nothing else of ours runs inside `_decoding`."""


# Pillow logs some faults before it raises them; without a handler Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn every fault of Pillow into a MediaError, and keep its warnings to ourselves."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except MediaError:
            raise
        except Image.DecompressionBombError:
            raise _too_large(name, "its size is over") from None
        except UnidentifiedImageError:
            raise refuse(name, "damaged image (its header is broken)", "open it in an image editor") from None
        except _FAULTS as error:
            fault = f"damaged image ({error or type(error).__name__})"
            raise refuse(name, fault, "open it in an image editor and save it again") from None


def _too_large(name: str, size: str) -> MediaError:
    limit = f"{_limits.MAX_PIXELS / 1e6:.0f} megapixels"
    return refuse(name, f"{size} the limit of {limit} for an image", "reduce or crop it first")


class ImageFile:
    """An image or animation, opened but not decoded.

    height, width: as displayed, after the turn that the file asks for.
    animated: whether it has several timed frames.

    Closing it closes `source`.
    """

    def __init__(self, source: Path | BinaryIO, format: str, name: str) -> None:
        self.name = name
        self._file = source.open("rb") if isinstance(source, Path) else source
        try:
            self._read_header(format)
        except MediaError:
            self.close()
            raise

    def _read_header(self, format: str) -> None:
        from PIL import Image

        with _decoding(self.name):
            self._image: Any = Image.open(self._file, formats=[format])
            width, height = self._image.size
            if width * height > _limits.MAX_PIXELS:
                raise _too_large(self.name, f"{width}x{height} pixels are over")
            self.animated = format in ANIMATED and getattr(self._image, "n_frames", 1) > 1
            turned = format != "TIFF" and _orientation(self._image) >= 5
        if self.animated and width * height > _limits.MAX_FRAME_PIXELS:
            raise refuse(self.name, f"frames of {width}x{height} pixels are over the limit of 8192x4320", "reduce it")
        self.height, self.width = (width, height) if turned else (height, width)

    def close(self) -> None:
        self._file.close()

    def load(self) -> tuple[int, int, int]:
        """Decode a still image: its height, its width and its EXIF orientation as `rows` gives them."""
        with _decoding(self.name):
            self._image.load()
            return self._image.height, self._image.width, _orientation(self._image)

    def rows(self) -> Iterator[np.ndarray]:
        """uint8 [h, W, 3] strips of a loaded still image from top to bottom, not yet turned upright."""
        return _strips(self._image)

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3], upright."""
        with _decoding(self.name):
            return _pixels(self._image)

    def durations(self) -> list[Fraction]:
        """Seconds that each frame of an animation is shown. Walks through the whole file."""
        return [duration for duration, _ in self._walk(lambda image: None)]

    def frames(self) -> Iterator[tuple[Fraction, Fraction, np.ndarray]]:
        """(start in seconds, duration in seconds, uint8 [H, W, 3]) of each frame of an animation."""
        start = Fraction(0)
        for duration, pixels in self._walk(_pixels):
            yield start, duration, _fit(pixels, self.height, self.width)
            start += duration

    def _walk(self, look: Callable[[Any], T]) -> Iterator[tuple[Fraction, T]]:
        """(duration, look(image)) at each frame."""
        # An APNG may open with a still for readers that cannot animate; it is no part of the animation.
        for index in range(int(getattr(self._image, "default_image", False)), self._image.n_frames):
            with _decoding(self.name):
                self._image.seek(index)
                self._image.load()
                duration, found = _duration(self._image), look(self._image)
            if duration > _limits.MAX_GAP:
                raise refuse(self.name, f"shows one picture for over {_limits.MAX_GAP} s", "set its durations right")
            yield duration, found


def _duration(image: Any) -> Fraction:
    milliseconds = Fraction(image.info.get("duration") or 0).limit_denominator(1000)
    # Browsers show frames that ask for 10 ms or less for 100 ms; files are made with that in mind.
    return (milliseconds if milliseconds > 10 else Fraction(100)) / 1000


def _orientation(image: Any) -> int:
    from PIL import Image

    try:
        # Not the method of PNG, which decodes the picture and keeps its faults to itself: half of it would be black.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _FAULTS:
        return 1  # broken EXIF data says nothing about the picture
    return value if value in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn [H, W, 3] as EXIF orientation 1 to 8 asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flip_x, flip_y = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[
        orientation
    ]
    pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(pixels)


def _pixels(image: Any) -> np.ndarray:
    image.load()
    out = np.empty((image.height, image.width, 3), np.uint8)
    top = 0
    for strip in _strips(image):
        out[top : top + len(strip)] = strip
        top += len(strip)
    return upright(out, _orientation(image))


def _strips(image: Any) -> Iterator[np.ndarray]:
    scale = _scale(image)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        yield _rgb(strip, scale)


def _scale(image: Any) -> tuple[float, float]:
    """(lowest, highest) value of an image with more than 8 bits: what becomes 0 and what becomes 255."""
    if image.mode.startswith("I;16"):
        return 0.0, 65535.0
    if image.mode not in ("I", "F"):
        return 0.0, 255.0
    low, high = image.getextrema()
    if not (np.isfinite(low) and np.isfinite(high)):
        return 0.0, 1.0
    # 32-bit integers and floats come without a stated range: take the smallest usual one that holds the values.
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return next(((0.0, top) for top in usual if low >= 0 and high <= top), (low, max(high, low + 1)))


def _rgb(strip: Any, scale: tuple[float, float]) -> np.ndarray:
    """uint8 [h, W, 3] of a Pillow image of any mode."""
    if strip.mode.startswith("I;16") or strip.mode in ("I", "F"):
        low, high = scale
        values = np.nan_to_num(np.asarray(strip).astype(np.float64), posinf=high, neginf=low)
        grey = np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if strip.has_transparency_data:
        return on_white(np.asarray(strip.convert("RGBA")))
    return np.asarray(strip.convert("RGB"))


def on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] with straight alpha -> uint8 [H, W, 3] on a white ground."""
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _fit(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop or pad with white: a frame of a broken animation may differ from the first in size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    out = np.full((height, width, 3), 255, np.uint8)
    part = pixels[:height, :width]
    out[: part.shape[0], : part.shape[1]] = part
    return out
