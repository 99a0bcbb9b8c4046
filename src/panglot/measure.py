"""How close decoded media is to the original: PSNR and SSIM for pictures, mel distance and STOI for sound.

Each function states its definition in full, because "PSNR" and "mel distance" name families of numbers: two
papers that use the same word often measure different things. Everything is NumPy in, float out, on the CPU.

Not here: learned metrics (LPIPS, FAD, DNSMOS), whose weights would have to be fetched, and video metrics with a
notion of time. A video is measured frame by frame as pictures and its sound as sound (`panglot.inspect`).
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import numpy as np

from panglot.media import Audio

MEL_BANDS = 80
MEL_RATE = 16_000
MEL_RANGE_DB = 80.0
STOI_MIN_SECONDS = 0.4

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SILENCE = 1e-10
_BAND_ROWS = 256


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean squared error), over all RGB values together.

    a, b: uint8 [H, W, 3] of the same shape, or [T, H, W, 3] for one number over several frames.
    Returns inf for equal pictures. Raises ValueError on other shapes or types.
    """
    error = mean_squared_error(a, b)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the squared differences of all RGB values, exact; the same inputs and errors as `psnr`."""
    _same_pictures(a, b)
    # A row at a time: an int32 copy of a 100-megapixel photo would not fit beside the two originals.
    rows = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
    return sum(int(((x.astype(np.int32) - y) ** 2).sum(dtype=np.int64)) for x, y in rows) / a.size


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of the luma, 1 for equal pictures (Wang, Bovik, Sheikh and Simoncelli, 2004).

    a, b: uint8 [H, W, 3] of the same shape, at least 11 x 11.
    Luma is 0.299 R + 0.587 G + 0.114 B, not rounded. Means, variances and covariance are taken under a Gaussian
    window of 11 x 11, sigma 1.5, normalised to sum 1; K1 = 0.01, K2 = 0.03, L = 255. The mean is over the windows
    that lie whole inside the picture, at full size: the optional downsampling of the authors' script is not done.
    Returns nan for a picture smaller than the window.
    """
    _same_pictures(a, b)
    if a.ndim != 3:
        raise ValueError(f"SSIM takes one picture [H, W, 3], got shape {a.shape}")
    height, width = a.shape[:2]
    if min(height, width) < 11:
        return math.nan
    total = 0.0
    for top in range(0, height - 10, _BAND_ROWS):  # bands of rows, so that memory does not grow with the photo
        rows = slice(top, min(top + _BAND_ROWS + 10, height))
        total += float(_ssim_map(a[rows] @ _LUMA, b[rows] @ _LUMA).sum(dtype=np.float64))
    return total / ((height - 10) * (width - 10))


def _ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    var_x, var_y = _gaussian(x * x) - mean_x**2, _gaussian(y * y) - mean_y**2
    covariance = _gaussian(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def _gaussian(x: np.ndarray) -> np.ndarray:
    """[h, w] -> [h - 10, w - 10]: the weighted mean under the 11 x 11 window, whole windows only."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    h, w = x.shape
    down = sum(k * x[i : h - 10 + i] for i, k in enumerate(weights))
    return sum(k * down[:, i : w - 10 + i] for i, k in enumerate(weights))  # type: ignore[index, return-value]


def _same_pictures(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.shape[-1:] != (3,) or a.ndim not in (3, 4) or not a.size:
        raise ValueError(f"pictures to compare must have one shape [H, W, 3], got {a.shape} and {b.shape}")
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"pictures to compare must be uint8, got {a.dtype} and {b.dtype}")


def mel_distance(a: Audio, b: Audio) -> float:
    """Mean absolute difference in dB of two log-mel spectrograms; 0 for equal sounds. `a` is the reference.

    Both sounds are mixed to mono, resampled to 16 kHz if their rate is higher, and cut to the shorter one.
    Spectrogram: Hann window of 25 ms, hop 10 ms, no centring, the last window padded with zeros, power; 80
    triangular bands on the Slaney mel scale from 0 Hz to half the rate, each with weights that sum to 1. Levels below
    a floor count as the floor, which lies 80 dB under the loudest cell of the reference. The mean is over all cells.
    Returns nan when either sound is empty. Raises ValueError when the rates differ.
    """
    x, y, rate = _pair(a, b)
    if not x.size:
        return math.nan
    powers = mel_power(x, rate), mel_power(y, rate)
    floor = max(float(powers[0].max()) * 10 ** (-MEL_RANGE_DB / 10), _SILENCE)
    decibels = [10 * np.log10(np.maximum(p, floor)) for p in powers]
    return float(np.abs(decibels[0] - decibels[1]).mean())


def mel_power(samples: np.ndarray, rate: int) -> np.ndarray:
    """Mel power spectrogram, float64 [bands, frames], as `mel_distance` defines it; a full 1 kHz sine peaks at 0.2."""
    window, hop = max(2, round(0.025 * rate)), max(1, round(0.010 * rate))
    fft = max(512, 1 << (2 * window - 1).bit_length())  # at least, so that every band has a bin
    frames = max(1, math.ceil((samples.size - window) / hop) + 1)
    padded = np.pad(samples.astype(np.float64), (0, max(0, (frames - 1) * hop + window - samples.size)))
    hann = np.hanning(window + 1)[:-1]
    hann /= hann.sum()
    bank = _mel_bank(rate, fft)
    mel = np.empty((MEL_BANDS, frames))
    for start in range(0, frames, 1000):  # 10 s at a time: the spectra of an hour would take gigabytes
        stop = min(start + 1000, frames)
        piece = np.lib.stride_tricks.sliding_window_view(padded[start * hop : (stop - 1) * hop + window], window)[::hop]
        mel[:, start:stop] = bank @ (np.abs(np.fft.rfft(piece * hann, fft)) ** 2).T
    return mel


@lru_cache(maxsize=8)
def _mel_bank(rate: int, fft: int) -> np.ndarray:
    """float64 [bands, fft / 2 + 1]: triangles on the Slaney mel scale (Auditory Toolbox, 1998), each of sum 1."""
    edges = _hertz(np.linspace(0, _mel(rate / 2), MEL_BANDS + 2))[:, None]
    bins = np.fft.rfftfreq(fft, 1 / rate)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0, np.minimum(rising, falling))
    return bank / bank.sum(1, keepdims=True)


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27))


def stoi(a: Audio, b: Audio) -> float:
    """Short-time objective intelligibility, about 0 to 1 (Taal, Hendriks, Heusdens and Jensen, 2011). `a` is clean.

    Computed by pystoi (not extended), which resamples to 10 kHz and leaves out the frames in which the reference is
    more than 40 dB under its loudest one. A measure of speech: of music and noise it says nothing.
    Returns nan where fewer than 30 frames (about 0.4 s) remain. Raises ValueError when the rates differ.
    """
    from pystoi import stoi as measure

    if a.rate != b.rate:
        raise ValueError(f"sounds to compare must have one rate, got {a.rate} and {b.rate} Hz")
    x, y = mono(a), mono(b)
    n = min(x.size, y.size)
    x, y = x[:n], y[:n]
    if n < STOI_MIN_SECONDS * a.rate or not x.any() or not y.any():
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns and returns 1e-5 where it cannot measure
        try:
            return float(measure(x, y, a.rate, extended=False))
        except RuntimeWarning:
            return math.nan


def lag(reference: np.ndarray, degraded: np.ndarray, max_lag: int) -> int:
    """By how many samples `degraded` comes late (negative: early), at most `max_lag`: the peak of cross-correlation.

    reference, degraded: float [T] of any lengths. Rectified signals without their means are correlated, so that a
    codec that keeps the envelope but not the phase (Codec2) is aligned too.
    """
    if not reference.size or not degraded.size:
        return 0
    x, y = (np.abs(s) - np.abs(s).mean() for s in (reference.astype(np.float64), degraded.astype(np.float64)))
    size = 1 << (x.size + y.size).bit_length()
    correlation = np.fft.irfft(np.conj(np.fft.rfft(x, size)) * np.fft.rfft(y, size), size)
    reach = min(max_lag, max(x.size, y.size) - 1)
    lags = np.arange(-reach, reach + 1)
    return int(lags[np.argmax(correlation[lags])])


def align(reference: np.ndarray, degraded: np.ndarray, max_lag: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of two signals that overlap once `lag` is taken off, of equal length."""
    late = lag(reference, degraded, max_lag)
    x, y = reference[max(0, -late) :], degraded[max(0, late) :]
    n = min(x.size, y.size)
    return x[:n], y[:n]


def _pair(a: Audio, b: Audio) -> tuple[np.ndarray, np.ndarray, int]:
    """Both sounds mono, at most at 16 kHz and of one length: float [n], float [n], rate."""
    import soxr

    if a.rate != b.rate:
        raise ValueError(f"sounds to compare must have one rate, got {a.rate} and {b.rate} Hz")
    rate = min(a.rate, MEL_RATE)
    n = min(len(a.samples), len(b.samples))
    x, y = mono(a)[:n], mono(b)[:n]
    if a.rate != rate and n:
        x, y = soxr.resample(x, a.rate, rate), soxr.resample(y, a.rate, rate)
    return x, y, rate


def mono(audio: Audio) -> np.ndarray:
    """The samples of a sound mixed to one channel, float32 [T]."""
    return audio.samples if audio.samples.ndim == 1 else audio.samples.mean(1, dtype=np.float32)
