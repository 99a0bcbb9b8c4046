"""The linear baseline: what matrices and rounding alone make of the same bits, for pictures, sound and video.

A block (32 x 32 pixels; 80 ms of a log-mel spectrogram; 8 frames of 32 x 32 pixels) is projected on its principal
components (the Karhunen-Loeve transform, within the cosine transform's coefficients of most energy, so that the matrix
is small). Component i is rounded to L_i levels by a Lloyd-Max quantiser (Lloyd, IEEE Trans. Inf. Theory 1982), and the
levels are shared out so that the error is smallest while sum(log2 L_i) stays within the bits of a block: reverse
water-filling with whole numbers (Shoham and Gersho, IEEE Trans. ASSP 1988). What a neural tokenizer is worth shows in
what it keeps beyond this. `recipes/train_linear.py` fits it.

Not here: entropy coding (panglot's codes have none either), and other peers (`panglot.classical`).
"""

from __future__ import annotations

import heapq
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from panglot.media import Audio, Image, Video
from panglot.peers import Coded, error, factors, restored, scaled, timed
from panglot.tokenizers.base import WeightsError
from panglot.tokenizers.weights import ASSETS

SHAPES = {"image": (32, 32, 3), "audio": (8, 80), "video": (8, 32, 32, 3)}
"""Blocks: rows, columns, colours; hops of 10 ms, mel bands; frames, rows, columns, colours."""

LEVELS = (*range(1, 9), *(round(2 ** (i / 4)) for i in range(13, 33)))
"""Numbers of levels that a component can have: 1 to 8, then four steps for every factor of 2 up to 256."""

TOKEN_BITS = {"image": 12, "audio": 10, "video": 12}
"""Levels are joined into symbols of so many bits, as FSQ joins its own: what counts as a token of this code."""

DENSITY = {"image": 0.25, "video": 0.02}
"""Bits a pixel near which a size of the picture does best; three sizes around it are tried."""

FLOOR = 2e-5
"""Added to a magnitude before its logarithm; a full-scale sine has magnitude 1."""

GRIFFIN_LIM = 32

_GRID = (1 + np.sin(np.linspace(-0.5, 0.5, 33) * np.pi)) / 2
"""Probabilities of the quantiles that are kept of every component, denser towards both ends."""


@dataclass(frozen=True, eq=False)
class Transform:
    """Principal components of blocks of one shape, and how each is distributed.

    kept:      int32 [n], which coefficients of a block's cosine transform take part (flat indices)
    mean:      float32 [n], of these coefficients
    basis:     float32 [n, k], orthonormal columns, components by falling variance
    quantiles: float32 [k, len(_GRID)], of the components over the training blocks
    errors:    float32 [k, len(LEVELS)], mean squared error of each component's Lloyd-Max quantisers
    """

    shape: tuple[int, ...]
    kept: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    quantiles: np.ndarray
    errors: np.ndarray
    _quantisers: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, chunks: Iterable[np.ndarray], shape: tuple[int, ...], keep: int, components: int) -> Transform:
        """From training blocks, float32 [m, *shape] a chunk: `components` of the `keep` strongest coefficients."""
        low = tuple(min(side, 16) for side in shape[:-1]) + shape[-1:]
        corner = (slice(None), *map(slice, low))
        x = np.concatenate([_cosines(chunk)[corner].reshape(len(chunk), -1) for chunk in chunks])
        strong = np.sort(np.argsort(x.var(0))[::-1][:keep])
        x = x[:, strong]
        mean = x.mean(0, dtype=np.float64).astype(np.float32)
        x -= mean
        _, vectors = np.linalg.eigh((x.T @ x / len(x)).astype(np.float64))
        basis = _orthonormal(*_rounded(vectors[:, ::-1][:, :components]))
        quantiles = np.quantile(x @ basis, _GRID, axis=0).T.astype(np.float32)
        errors = np.array([[lloyd_max(_samples(q), n)[1] for n in LEVELS] for q in quantiles], np.float32)
        kept = np.ravel_multi_index(np.unravel_index(strong, low), shape).astype(np.int32)
        return cls(shape, kept, mean, basis, quantiles, errors)

    def levels(self, bits: float) -> list[int]:
        """Levels of each component with sum(log2) <= bits that leave the least error; those with one are cut off."""
        at, left = [0] * len(self.errors), bits
        heap = [(-self._gain(i, 0), i) for i in range(len(at))]
        heapq.heapify(heap)
        while heap:
            _, i = heapq.heappop(heap)
            cost = math.log2(LEVELS[at[i] + 1] / LEVELS[at[i]])
            if cost > left + 1e-9:
                continue
            at[i] += 1
            left -= cost
            if at[i] + 1 < len(LEVELS):
                heapq.heappush(heap, (-self._gain(i, at[i]), i))
        used = max((i for i, n in enumerate(at) if n), default=-1) + 1
        return [LEVELS[n] for n in at[:used]]

    def _gain(self, component: int, at: int) -> float:
        """Error saved per bit by the next number of levels."""
        saved = float(self.errors[component, at] - self.errors[component, at + 1])
        return saved / math.log2(LEVELS[at + 1] / LEVELS[at])

    def centroids(self, component: int, levels: int) -> np.ndarray:
        """float32 [levels]: the values that one component can take."""
        key = (component, levels)
        if key not in self._quantisers:
            self._quantisers[key] = lloyd_max(_samples(self.quantiles[component]), levels)[0]
        return self._quantisers[key]

    def encode(self, blocks: np.ndarray, levels: list[int]) -> np.ndarray:
        """Blocks float32 [m, *shape] -> uint8 [m, len(levels)], a level for each component that has several."""
        coefficients = _cosines(blocks).reshape(len(blocks), -1)[:, self.kept] - self.mean
        values = coefficients @ self.basis[:, : len(levels)]
        out = np.zeros(values.shape, np.uint8)
        for i, n in enumerate(levels):
            centroids = self.centroids(i, n)
            out[:, i] = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values[:, i])
        return out

    def decode(self, symbols: np.ndarray, levels: list[int]) -> np.ndarray:
        """The inverse of `encode` up to rounding: centroids times components."""
        from scipy.fft import idctn

        values = np.zeros(symbols.shape, np.float32)
        for i, n in enumerate(levels):
            values[:, i] = self.centroids(i, n)[symbols[:, i]]
        whole = np.zeros((len(symbols), math.prod(self.shape)), np.float32)
        whole[:, self.kept] = values @ self.basis[:, : len(levels)].T + self.mean
        axes = tuple(range(1, 1 + len(self.shape)))
        return np.asarray(idctn(whole.reshape(-1, *self.shape), axes=axes, norm="ortho"), np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """What is written to disk: the basis in int8, distributions in float16, errors as shares of the variance."""
        rounded, scale = _rounded(self.basis)
        found = {"kept": self.kept, "mean": self.mean, "basis": rounded, "scale": scale, "variance": self.errors[:, 0]}
        shares = (self.errors / self.errors[:, :1]).astype(np.float16)
        return found | {"quantiles": self.quantiles.astype(np.float16), "errors": shares}

    @classmethod
    def of(cls, stored: dict[str, np.ndarray], shape: tuple[int, ...]) -> Transform:
        """From what `tensors` gives. Raises KeyError or ValueError where that does not fit together."""
        basis = _orthonormal(stored["basis"], stored["scale"])
        errors = stored["errors"].astype(np.float32) * stored["variance"][:, None]
        quantiles, components = stored["quantiles"].astype(np.float32), basis.shape[1]
        if errors.shape != (components, len(LEVELS)) or quantiles.shape != (components, len(_GRID)):
            raise ValueError(f"{components} components, but quantisers {errors.shape}, quantiles {quantiles.shape}")
        return cls(shape, stored["kept"], stored["mean"], basis, quantiles, errors)


def lloyd_max(samples: np.ndarray, levels: int, rounds: int = 60) -> tuple[np.ndarray, float]:
    """The scalar quantiser with the least squared error on sorted samples [n]: centroids [levels], and that error.

    Starts from the cube root of the density, where the optimum for many levels lies (Panter and Dite, Proc. IRE 1951).
    """
    values = samples.astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(values)])
    square = float(values @ values)
    counts, bins = np.histogram(values, 500)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    centroids = np.interp((np.arange(levels) + 0.5) / levels * share[-1], share, bins)
    error = math.inf
    for _ in range(rounds):
        inner = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], inner, [len(values)]])
        counts, sums = np.diff(edges), np.diff(total[edges])
        centroids = np.where(counts > 0, sums / np.maximum(counts, 1), centroids)
        before, error = error, max(0.0, (square - float((sums * centroids)[counts > 0].sum())) / len(values))
        if before - error <= 1e-5 * error:
            break
    return centroids.astype(np.float32), error


def _samples(quantiles: np.ndarray, count: int = 2048) -> np.ndarray:
    """Sorted samples [count] of the distribution that has these quantiles at _GRID."""
    return np.interp((np.arange(count) + 0.5) / count, _GRID, quantiles)


def _cosines(blocks: np.ndarray) -> np.ndarray:
    """The orthonormal cosine transform of blocks [m, ...] over all axes but the first."""
    from scipy.fft import dctn

    return np.asarray(dctn(blocks.astype(np.float32), axes=tuple(range(1, blocks.ndim)), norm="ortho"), np.float32)


def _rounded(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [n, k] and the scale of each column, float32 [k]."""
    scale = (np.abs(basis).max(0) / 127).astype(np.float32)
    return np.rint(basis / scale).astype(np.int8), scale


def _orthonormal(rounded: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Orthonormal columns nearest in order to those that were rounded, with their signs."""
    q, r = np.linalg.qr(rounded * scale.astype(np.float64))
    return np.ascontiguousarray(q * np.sign(np.diag(r)), np.float32)


# --- media


class Linear:
    """The linear code of pictures, sounds and videos: `code` takes a medium and the bits it may cost in all."""

    def __init__(self, transforms: dict[str, Transform]):
        self.transforms = transforms

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls, path: Path = ASSETS / "linear.safetensors") -> Linear:
        """From a file that `save` wrote, by default the one shipped. Raises WeightsError."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            stored = load(path.read_bytes())
            parts = {m: {k[len(m) + 1 :]: v for k, v in stored.items() if k.startswith(m)} for m in SHAPES}
            return cls({m: Transform.of(parts[m], shape) for m, shape in SHAPES.items()})
        except (OSError, SafetensorError, KeyError, ValueError) as fault:
            remedy = "fit one with recipes/train_linear.py, or reinstall panglot"
            raise WeightsError(f"{path}: not a linear code ({fault}); {remedy}") from fault

    def save(self, path: Path) -> None:
        """Write all transforms to one file, whole or not at all."""
        from safetensors.numpy import save_file

        # safetensors writes the memory as it lies, whatever the strides say.
        found = {m: transform.tensors() for m, transform in self.transforms.items()}
        parts = {f"{m}.{k}": np.ascontiguousarray(v) for m, tensors in found.items() for k, v in tensors.items()}
        unfinished = path.with_suffix(".part")
        save_file(parts, unfinished, metadata={"shapes": json.dumps(SHAPES)})
        unfinished.chmod(0o644)
        os.replace(unfinished, path)

    def code(self, medium: Image | Audio | Video, bits: float) -> Coded:
        """What the linear code makes of a medium with at most so many bits; of a video, the pictures alone."""
        if isinstance(medium, Audio):
            return self._sound(medium, bits)
        pixels = medium.pixels if isinstance(medium, Image) else medium.frames
        transform = self.transforms[medium.modality]
        best: tuple[float, Coded] | None = None
        height, width = pixels.shape[-3:-1]
        for factor in factors(pixels.size // 3, bits, DENSITY[medium.modality])[:3]:
            (symbols, levels, size), encoding = timed(lambda f=factor: _encode(pixels, f, transform, bits))
            decoded, decoding = timed(lambda c=(symbols, levels, size): _decode(*c, transform, (height, width)))
            shown = decoded.reshape(pixels.shape)
            fault = error(pixels, shown)
            if best is None or fault < best[0]:
                cost = len(symbols) * sum(map(math.log2, levels))
                found = Image(shown) if isinstance(medium, Image) else Video(shown, medium.fps)
                best = fault, Coded(found, cost, f"x{factor:g}", encoding, decoding)
        assert best is not None
        return best[1]

    def _sound(self, audio: Audio, bits: float) -> Coded:
        transform = self.transforms["audio"]
        mono = audio.samples if audio.samples.ndim == 1 else audio.samples.mean(1)
        count = max(1, math.ceil(math.ceil(len(mono) * 16_000 / audio.rate) / 1280))
        levels = transform.levels(bits / count)
        _prepare(transform, levels)
        symbols, encoding = timed(lambda: transform.encode(log_mel(mono, audio.rate), levels))
        samples, decoding = timed(lambda: _waveform(transform.decode(symbols, levels), audio.rate, len(mono)))
        return Coded(Audio(samples, audio.rate), len(symbols) * sum(map(math.log2, levels)), "", encoding, decoding)


def _encode(
    pixels: np.ndarray, factor: float, transform: Transform, bits: float
) -> tuple[np.ndarray, list[int], tuple[int, ...]]:
    """Symbols, levels, and the size at which [T, H, W, 3] or [H, W, 3] was coded."""
    small = scaled(pixels.reshape(-1, *pixels.shape[-3:]), factor)
    size = small.shape[1:] if len(transform.shape) == 3 else small.shape
    blocks = cut(small.reshape(size), transform.shape)
    levels = transform.levels(bits / len(blocks))
    _prepare(transform, levels)
    return transform.encode(blocks, levels), levels, size


def _decode(
    symbols: np.ndarray, levels: list[int], size: tuple[int, ...], transform: Transform, shown: tuple[int, int]
) -> np.ndarray:
    small = np.clip(np.rint(joined(transform.decode(symbols, levels), size)), 0, 255).astype(np.uint8)
    return restored(small.reshape(-1, *size[-3:]), *shown)


def _prepare(transform: Transform, levels: list[int]) -> None:
    """Design the quantisers ahead of time: a codec that ships has them in a table."""
    for i, n in enumerate(levels):
        transform.centroids(i, n)


def cut(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array in blocks of `shape`, [m, *shape] in raster order; edges repeated to whole blocks."""
    padded = np.pad(values, [(0, -n % s) for n, s in zip(values.shape, shape, strict=True)], mode="edge")
    split = [side for n, s in zip(padded.shape, shape, strict=True) for side in (n // s, s)]
    order = (*range(0, 2 * len(shape), 2), *range(1, 2 * len(shape), 2))
    return padded.reshape(split).transpose(order).reshape(-1, *shape)


def joined(blocks: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The inverse of `cut` for an array of `size`."""
    shape = blocks.shape[1:]
    grid = [-(-n // s) for n, s in zip(size, shape, strict=True)]
    order = [axis for i in range(len(shape)) for axis in (i, len(shape) + i)]
    whole = blocks.reshape(*grid, *shape).transpose(order).reshape([n * s for n, s in zip(grid, shape, strict=True)])
    return whole[tuple(map(slice, size))]


def log_mel(mono: np.ndarray, rate: int) -> np.ndarray:
    """float [n] at `rate` Hz -> log-mel blocks of 80 ms, float32 [ceil, 8, 80], with the framing of the audio codes."""
    import torch

    from panglot.tokenizers import spectrum as sp

    blocks = max(1, math.ceil(math.ceil(len(mono) * sp.RATE / rate) / sp.BLOCK))
    samples = np.pad(sp.resample(mono, rate, sp.RATE, blocks * sp.BLOCK), sp.EDGE)
    mel = sp.magnitudes(torch.from_numpy(samples).float()).numpy() @ sp.mel_filters().T
    return np.log(mel + FLOOR).reshape(-1, sp.HOPS, sp.BANDS).astype(np.float32)


def _waveform(blocks: np.ndarray, rate: int, length: int) -> np.ndarray:
    """A sound, float32 [length] at `rate` Hz, that has about these log-mel blocks."""
    import torch

    from panglot.tokenizers import spectrum as sp

    mel = np.maximum(np.exp(blocks.reshape(-1, sp.BANDS)) - FLOOR, 0)
    magnitude = np.maximum(mel @ _spread().T, 0).astype(np.float32)
    samples = sp.griffin_lim(torch.from_numpy(magnitude), GRIFFIN_LIM).numpy()[sp.EDGE : -sp.EDGE]
    return np.clip(sp.resample(samples, sp.RATE, rate, length), -1, 1).astype(np.float32)


@lru_cache(maxsize=1)
def _spread() -> np.ndarray:
    """float64 [bins, bands]: the least-squares way back from mel bands to a spectrum."""
    from panglot.tokenizers import spectrum as sp

    return np.linalg.pinv(sp.mel_filters())
