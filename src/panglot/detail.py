"""What one medium can cost, and what each cost leaves wrong: a plan a medium, all answering to one price a token.

Distortions are shares of what separates a medium's coarsest description from the original, so that the media of one
message count alike under one price.

- A picture: blocks of its finer levels, kept where they save most, in a picture that is scaled down first where the
  budget is too small for its size. The gain of a block is measured (`exact`), or predicted from what the encoder has
  seen anyway, which costs no decode.
- A sound: the number of codes of each block of 80 ms, none for silence.
- A video: stride and rate of frames, codes of its sound.
- A text: fixed.

Not here: the arithmetic of the choice (`panglot.allocation`), budgets and qualities (`panglot.budget`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from panglot.allocation import best_depths, best_detail, cost
from panglot.media import Audio, Image, MediaInfo, Text, Video
from panglot.tokenizers import spectrum as sp
from panglot.tokenizers import tokenizer
from panglot.tokenizers.audio import SEGMENT, spans
from panglot.tokenizers.base import ABSENT, Codes
from panglot.tokenizers.image import resized
from panglot.tokenizers.pyramid import STRIDES

DENSE = 13.0
"""Tokens for every 32x32 pixels below which a picture is scaled down: fewer tokens describe a smaller picture better.
Measured: 1,920 tokens of a photo of 768 x 512 keep 23.8 dB at full size (5 a block), 24.8 at 0.59 (15 a block)."""

PREDICTED = (0.35, 0.30)
"""Gain of a block of the finest level: these shares of what its linear part saves, and of what is wrong before it."""


class BudgetError(ValueError):
    """A budget that cannot be met. One line: what was asked, what is possible. medium: which of a message, if one."""

    medium: int | None = None


@dataclass(frozen=True)
class Focus:
    """A region that matters more: x, y, width, height in pixels of the picture; `weight` times what is outside."""

    x: int
    y: int
    width: int
    height: int
    weight: float = 100.0

    @classmethod
    def parse(cls, text: str) -> Focus:
        """From "X,Y,W,H". Raises BudgetError; words would need a shared space to be found in the picture."""
        numbers = text.split(",")
        if len(numbers) != 4 or not all(re.fullmatch(r"\s*-?[0-9]{1,9}\s*", n) for n in numbers):
            remedy = (
                "give X,Y,W,H in pixels (words need a shared space to be found in a picture, which is not there yet)"
            )
            raise BudgetError(f"--focus {text[:40]}: {remedy}")
        return cls(*(int(n) for n in numbers))

    def weights(self, height: int, width: int) -> np.ndarray:
        """float [ceil(height/8), ceil(width/8)]: how much the error of each block of 8x8 counts."""
        if self.width < 1 or self.height < 1 or self.x < 0 or self.y < 0:
            raise BudgetError(f"--focus {self}: give X,Y,W,H in pixels, W and H at least 1")
        if self.x + self.width > width or self.y + self.height > height:
            raise BudgetError(f"--focus {self} reaches outside the picture of {width} x {height} pixels")
        rows, columns = np.arange(-(-height // 8)) * 8, np.arange(-(-width // 8)) * 8
        inside_y = np.clip(np.minimum(rows + 8, self.y + self.height) - np.maximum(rows, self.y), 0, 8) / 8
        inside_x = np.clip(np.minimum(columns + 8, self.x + self.width) - np.maximum(columns, self.x), 0, 8) / 8
        return 1 / self.weight + (1 - 1 / self.weight) * np.outer(inside_y, inside_x)

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


class Plan(Protocol):
    """What one medium can cost. Prices are in distortion a token, distortions in shares of the coarsest one's."""

    def at(self, price: float) -> tuple[int, float]:
        """Tokens and distortion at this price; tokens fall as it rises."""
        ...

    def codes(self, price: float, limit: int | None = None) -> Codes:
        """The codes at this price; of at most `limit` tokens, and as near to it as can be, where one is given."""
        ...


# --- pictures


@dataclass(frozen=True)
class _Scaled:
    """A picture at one size: its codes, what its blocks save (weighted, in the unit of the whole), what 32 leaves."""

    codes: Codes
    gain16: np.ndarray
    gain8: np.ndarray
    coarse: float

    @property
    def base(self) -> int:
        return self.codes.arrays["image/32"].size

    @property
    def all(self) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(self.gain16.shape, bool), np.ones(self.gain8.shape, bool)

    def pick(self, price: float) -> tuple[np.ndarray, np.ndarray]:
        return best_detail(self.gain16, self.gain8, price)

    def spent(self, present: tuple[np.ndarray, np.ndarray]) -> int:
        return self.base + cost(present[0]) + cost(present[1], present[0])

    def left(self, present: tuple[np.ndarray, np.ndarray]) -> float:
        return self.coarse - float(self.gain16[present[0]].sum()) - float(self.gain8[present[1]].sum())

    def chosen(self, present: tuple[np.ndarray, np.ndarray]) -> Codes:
        """The codes with all other blocks absent; a level without any is left out."""
        arrays = dict(self.codes.arrays)
        for name, keep in zip(("image/16", "image/8"), present, strict=True):
            arrays[name] = np.where(keep, arrays[name], ABSENT).astype(np.int32)
        if not present[1].any():
            del arrays["image/8"]
        if not present[0].any():
            del arrays["image/16"]
        return replace(self.codes, arrays=arrays)


class ImagePlan:
    """A picture at one or several sizes. weights: as `Focus.weights` gives. exact: measure gains, do not predict."""

    def __init__(
        self, image: Image, scales: Sequence[float] = (1.0,), weights: np.ndarray | None = None, exact: bool = False
    ):
        self.image = image
        self.weights = np.ones([-(-n // 8) for n in image.pixels.shape[:2]]) if weights is None else weights
        found = [_scaled(image, scale, self.weights, exact) for scale in scales]
        self.unit = max(s.coarse for s in found) or 1.0
        self.scaled = [replace(s, coarse=s.coarse / self.unit, gain16=s.gain16 / self.unit, gain8=s.gain8 / self.unit)
                       for s in found]  # fmt: skip

    def _best(self, price: float) -> tuple[_Scaled, tuple[np.ndarray, np.ndarray]]:
        ways = [(s, s.pick(price)) for s in self.scaled]
        return min(ways, key=lambda way: way[0].left(way[1]) + price * way[0].spent(way[1]))

    def at(self, price: float) -> tuple[int, float]:
        scaled, present = self._best(price)
        return scaled.spent(present), scaled.left(present)

    def codes(self, price: float, limit: int | None = None) -> Codes:
        largest = max(self.scaled, key=lambda scaled: scaled.base)
        if limit is not None and limit >= largest.spent(largest.all):
            return largest.codes  # more than the price buys, which is only what was predicted to gain
        scaled, present = self._best(price)
        if limit is not None:
            present = _filled(scaled, present, limit)
        return scaled.chosen(present)


def _scaled(image: Image, scale: float, weights: np.ndarray, exact: bool) -> _Scaled:
    tok: Any = tokenizer("image")
    height, width = image.pixels.shape[:2]
    h, w = coded_size(height, width, scale)
    pixels = resized(image.pixels, h, w)
    codes, errors = tok.analyse(Image(pixels), exact)
    lost, area = 0.0, (height * width) / (h * w)
    if (h, w) != (height, width):
        codes = replace(codes, header={"height": height, "width": width, "coded_height": h, "coded_width": w})
        wrong = ((resized(pixels, height, width).astype(np.float32) - image.pixels) ** 2).sum(-1)
        lost = float((_blocks(wrong) * weights).sum())
        weights = _resampled(weights, errors.shape[1:])
    coarse, middle, fine = errors * weights * area
    gain8 = middle - fine
    if not exact:
        gain8 = PREDICTED[0] * gain8 + PREDICTED[1] * middle
    return _Scaled(codes, _fours(coarse - middle), gain8, float(coarse.sum()) + lost)


def coded_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """The size at which a picture is coded: whole blocks of 32 where it is scaled at all."""
    if scale >= 1:
        return height, width
    return max(32, round(height * scale / 32) * 32), max(32, round(width * scale / 32) * 32)


def scale_for(height: int, width: int, tokens: int) -> float:
    """The scale at which so many tokens are DENSE a block of 32x32, at most 1, or a smaller one whose coarsest level
    they can pay: no side gets shorter than 32 pixels, so long thin pictures have more blocks than their area says."""
    scale = min(1.0, math.sqrt(tokens / DENSE * 32 * 32 / (height * width)))
    while coarsest(height, width, scale) > max(1, tokens):
        scale *= 0.9
    return scale


def scales(height: int, width: int, step: float = math.sqrt(0.5)) -> list[float]:
    """Scales that a picture may get, each `step` times the one before it, down to one block of 32x32."""
    found = {coded_size(height, width, 1.0): 1.0}
    scale = 1.0
    while coarsest(height, width, scale) > 1:
        scale *= step
        found.setdefault(coded_size(height, width, scale), scale)
    return list(found.values())


def coarsest(height: int, width: int, scale: float) -> int:
    """Tokens of the coarsest level of a picture that is coded at a scale."""
    rows, columns = coded_size(height, width, scale)
    return -(-rows // 32) * -(-columns // 32)


def complete(height: int, width: int, scale: float) -> int:
    """Tokens of all levels of a picture that is coded at a scale."""
    rows, columns = coded_size(height, width, scale)
    return sum(tokenizer("image").count(MediaInfo("image", height=rows, width=columns)).values())


def _blocks(wrong: np.ndarray) -> np.ndarray:
    """[H, W] -> sums over blocks of 8x8, [ceil(H/8), ceil(W/8)]"""
    h, w = wrong.shape
    padded = np.pad(wrong, ((0, -h % 8), (0, -w % 8)))
    return padded.reshape(-(-h // 8), 8, -(-w // 8), 8).sum((1, 3))


def _resampled(weights: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grid = torch.from_numpy(np.asarray(weights, np.float64))[None, None]
    return torch.nn.functional.interpolate(grid, shape, mode="bilinear", antialias=True)[0, 0].numpy()


def _fours(blocks8: np.ndarray) -> np.ndarray:
    h, w = blocks8.shape
    return np.pad(blocks8, ((0, h % 2), (0, w % 2))).reshape(-(-h // 2), 2, -(-w // 2), 2).sum((1, 3))


def _filled(scaled: _Scaled, present: tuple[np.ndarray, np.ndarray], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The blocks that a price chose, and the next best as long as they fit: the last few tokens of a budget."""
    coarse, fine = present
    for _ in range(60):
        rest = limit - scaled.spent((coarse, fine))
        inside = coarse.repeat(2, 0).repeat(2, 1)[: fine.shape[0], : fine.shape[1]]
        gains = np.where(inside & ~fine, scaled.gain8, -np.inf)
        outside = np.where(coarse, -np.inf, scaled.gain16)
        if rest <= 0 or max(gains.max(), outside.max()) <= 0:
            break
        for n in (rest, rest // 2, rest // 4, 1):
            tried = _added(coarse, outside, n), _added(fine, gains, n)
            fits = [t for t in ((coarse, tried[1]), (tried[0], fine)) if scaled.spent(t) <= limit]
            fits = [t for t in fits if scaled.left(t) < scaled.left((coarse, fine))]
            if n and fits:
                coarse, fine = min(fits, key=scaled.left)
                break
        else:
            break
    # A single block can change flags too, so the last token may fit nowhere but in one of many places.
    for at in np.argsort(scaled.gain8, axis=None)[::-1][:3000]:
        if scaled.spent((coarse, fine)) == limit:
            break
        row, column = np.unravel_index(at, fine.shape)
        if not fine[row, column] and coarse[row // 2, column // 2] and scaled.gain8[row, column] > 0:
            fine[row, column] = True
            fine[row, column] = scaled.spent((coarse, fine)) <= limit
    return coarse, fine


def _added(present: np.ndarray, gains: np.ndarray, n: int) -> np.ndarray:
    best = np.argsort(gains, axis=None)[::-1][:n]
    out = present.copy()
    out.flat[best[gains.flat[best] > 0]] = True
    return out


# --- sound


class SoundPlan:
    """A sound whose blocks of 80 ms each keep as many codes as they deserve."""

    def __init__(self, audio: Audio):
        self.whole = tokenizer("audio").encode(audio)
        self.distortion = _depth_distortion(audio, self.whole)
        self.unit = float(self.distortion[:, 1].sum()) or 1.0

    def at(self, price: float) -> tuple[int, float]:
        depths = best_depths(self.distortion / self.unit, price)
        runs = len(spans(self.whole, depths).children)
        left = self.distortion[np.arange(len(depths)), depths].sum() / self.unit
        return int(depths.sum()) + runs, float(left)

    def codes(self, price: float, limit: int | None = None) -> Codes:
        return spans(self.whole, best_depths(self.distortion / self.unit, price))


@torch.inference_mode()
def _depth_distortion(audio: Audio, codes: Codes) -> np.ndarray:
    """Mean absolute difference in dB of the log-mel blocks that 0 .. K codes decode to, float [T, K+1].

    Levels lower than 80 dB under the loudest count as that, as in `measure.mel_distance`. Before phase recovery. Runs
    in segments, so that memory does not grow with the spectra of long sounds.
    """
    tok: Any = tokenizer("audio")
    samples = audio.samples if audio.samples.ndim == 1 else audio.samples.mean(1)
    grid = torch.from_numpy(np.stack(list(codes.arrays.values())).astype(np.int64))
    blocks = grid.shape[1]
    mono = np.pad(sp.resample(samples, audio.rate, sp.RATE, blocks * sp.BLOCK), sp.EDGE).astype(np.float32)
    filters = tok.filters.float()

    def decibels(magnitude: torch.Tensor) -> torch.Tensor:
        return 20 * torch.log10(magnitude @ filters.T + 1e-9)

    def true(start: int, stop: int) -> torch.Tensor:
        piece = torch.from_numpy(mono[start * sp.BLOCK : stop * sp.BLOCK + 2 * sp.EDGE])
        return decibels(sp.magnitudes(piece)).reshape(stop - start, -1)

    parts = [(start, min(blocks, start + SEGMENT)) for start in range(0, blocks, SEGMENT)]
    floor = max((float(true(*part).max()) for part in parts), default=0.0) - 80
    out = np.zeros((blocks, len(grid) + 1))
    for start, stop in parts:
        seen = grid[:, max(0, start - tok.network.decoder_context) : stop]
        values = [s.fsq.values(c[None]).movedim(1, -1) for s, c in zip(tok.network.nested, seen, strict=True)]
        wanted = true(start, stop).clamp(min=floor)
        out[start:stop, 0] = (wanted - floor).mean(1)
        for depth in range(1, len(grid) + 1):
            log = tok.network.spectrum(values[:depth])[0, (start - stop) * sp.HOPS :]
            magnitude = (torch.exp(log) - tok.network.config.floor).clamp(min=0)
            decoded = decibels(magnitude).clamp(min=floor).reshape(stop - start, -1)
            out[start:stop, depth] = (decoded - wanted).abs().mean(1)
    return out


# --- videos and texts


class VideoPlan:
    """A video at several strides and rates of frames, with its sound at several depths: the best pairs by the price."""

    RATES = (1, 2, 4)
    DEPTHS = (1, 2, 4, 6, 10)

    def __init__(self, video: Video):
        self.video = video
        silent = replace(video, audio=None)
        pictures = [_VideoWay(*way, *_coded(silent, *way)) for way in self._ways()]
        unit = max(way.distortion for way in pictures) or 1.0
        self.pictures = [replace(way, distortion=way.distortion / unit) for way in pictures]
        self.sound = [(0, 0, 0.0)]
        if video.audio is not None and len(video.audio.samples):
            distortion = _depth_distortion(video.audio, tokenizer("audio").encode(video.audio))
            left = distortion.sum(0) / (distortion[:, 1].sum() or 1.0)
            self.sound = [(depth, depth * len(distortion), float(left[depth])) for depth in self.DEPTHS]

    def _ways(self) -> list[tuple[int, int]]:
        return [(stride, every) for stride in STRIDES for every in self.RATES if every < len(self.video.frames)] or [
            (stride, 1) for stride in STRIDES
        ]

    def _best(self, price: float) -> tuple[_VideoWay, tuple[int, int, float]]:
        picture = min(self.pictures, key=lambda way: way.distortion + price * way.tokens)
        return picture, min(self.sound, key=lambda s: s[2] + price * s[1])

    def at(self, price: float) -> tuple[int, float]:
        picture, sound = self._best(price)
        return picture.tokens + sound[1], picture.distortion + sound[2]

    def codes(self, price: float, limit: int | None = None) -> Codes:
        picture, sound = self._best(price)
        if sound[0] == 0:
            return picture.codes
        thinned = thin(self.video, picture.every)
        return tokenizer("video").encode(thinned, stride=picture.stride, depth=sound[0])


@dataclass(frozen=True)
class _VideoWay:
    stride: int
    every: int
    codes: Codes
    distortion: float

    @property
    def tokens(self) -> int:
        return sum(self.codes.tokens().values())


def thin(video: Video, every: int) -> Video:
    """Every so many-th frame, as long and with the same sound."""
    return video if every == 1 else Video(video.frames[::every], video.fps / every, video.audio)


def _coded(video: Video, stride: int, every: int) -> tuple[Codes, float]:
    """Codes of a thinned video, and the squared error of what is on screen at each of its frames."""
    tok: Any = tokenizer("video")
    codes = tok.encode(thin(video, every), stride=stride)
    wrong, at = 0.0, 0
    for part in tok.decode_stream(codes):
        for frame in part.frames:
            true = video.frames[at * every : (at + 1) * every]
            wrong += float(((true.astype(np.float32) - frame) ** 2).sum())
            at += 1
    return codes, wrong


class TextPlan:
    """Text costs what it costs."""

    def __init__(self, text: Text):
        self.whole = tokenizer("text").encode(text)

    def at(self, price: float) -> tuple[int, float]:
        return sum(self.whole.tokens().values()), 0.0

    def codes(self, price: float, limit: int | None = None) -> Codes:
        return self.whole
