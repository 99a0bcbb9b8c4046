"""Short-time spectra for the audio tokenizer: framing, mel bands, phase recovery, resampling that can be streamed.

Everything that codes depend on runs in float64, so that the order in which sums are taken (whole file, batch, stream)
cannot move a code. Not here: the network and the codes (`audio.py`), plots and distances (`panglot.measure`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

RATE = 16_000
HOP = 160
WINDOW = 640
HOPS = 8
BLOCK = HOP * HOPS
"""Samples of one block: 80 ms at 16 kHz."""

EDGE = (WINDOW - HOP) // 2
"""How far the first and last window of a block reach beyond it: 15 ms. This is the look-ahead."""

BINS = WINDOW // 2 + 1
BANDS = 80


def window(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.hann_window(WINDOW, dtype=dtype)


def magnitudes(samples: Tensor) -> Tensor:
    """samples [..., HOP * n + 2 * EDGE] -> magnitude spectrum [..., n, BINS]; a full-scale sine peaks at 1."""
    w = window(samples.dtype)
    frames = samples.unfold(-1, WINDOW, HOP) * w
    return torch.fft.rfft(frames).abs() * (2 / w.sum())


def mel_filters(bands: int = BANDS, top: float = RATE / 2) -> np.ndarray:
    """Slaney's mel filter bank (Auditory Toolbox, 1998) as float64 [bands, BINS], triangles that peak at 1."""
    edges = _slaney_to_hz(np.linspace(0, _hz_to_slaney(top), bands + 2))
    frequencies = np.arange(BINS) * RATE / WINDOW
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


def _hz_to_slaney(hz: float) -> float:
    return 15 + 27 * math.log(hz / 1000) / math.log(6.4) if hz >= 1000 else hz * 3 / 200


def _slaney_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


def griffin_lim(magnitude: Tensor, iterations: int, momentum: float = 0.99, phase: Tensor | None = None) -> Tensor:
    """Samples [HOP * n + 2 * EDGE] whose spectrum has about this magnitude [n, BINS] (scaled as `magnitudes`).

    Fast Griffin-Lim (Perraudin, Balazs & Sondergaard 2013). phase: a first guess in radians, by default that of
    sinusoids that run on through the peaks from frame to frame.
    """
    w = window(magnitude.dtype)
    spectrum = magnitude * (w.sum() / 2)
    angle = torch.polar(torch.ones_like(spectrum), vocoder_phase(spectrum) if phase is None else phase)
    previous = torch.zeros_like(angle)
    for _ in range(iterations):
        rebuilt = torch.fft.rfft(overlap_add(spectrum * angle).unfold(-1, WINDOW, HOP) * w)
        angle = rebuilt + momentum * (rebuilt - previous)
        angle = angle / angle.abs().clamp(min=1e-9)
        previous = rebuilt
    return overlap_add(spectrum * angle)


def vocoder_phase(spectrum: Tensor) -> Tensor:
    """Phase [n, BINS] of sinusoids at the spectrum's local peaks, run on from frame to frame (phase vocoder start)."""
    step = 2 * math.pi * HOP / WINDOW
    left = torch.nn.functional.pad(spectrum[:, :-1], (1, 0))
    right = torch.nn.functional.pad(spectrum[:, 1:], (0, 1))
    total = (left + spectrum + right).clamp(min=1e-9)
    centre = torch.arange(BINS, dtype=spectrum.dtype) + (right - left) / total
    turn = torch.arange(BINS) % 2 * math.pi
    return torch.cumsum(centre * step, 0) + turn


def overlap_add(spectrum: Tensor) -> Tensor:
    """Inverse of the framing: complex [n, BINS] -> samples, windowed again and divided by the windows' overlap."""
    w = window(torch.float64 if spectrum.dtype == torch.complex128 else torch.float32)
    frames = torch.fft.irfft(spectrum, WINDOW) * w
    n = len(frames)
    length = HOP * (n - 1) + WINDOW
    fold = {"output_size": (1, length), "kernel_size": (1, WINDOW), "stride": (1, HOP)}
    total = torch.nn.functional.fold(frames.T[None], **fold)[0, 0, 0]
    weight = torch.nn.functional.fold((w * w).expand(n, -1).T[None].contiguous(), **fold)[0, 0, 0]
    return total / weight.clamp(min=0.05)


class Resampler:
    """Windowed-sinc resampling from one whole rate to another that gives the same samples however it is fed.

    The filter reaches 10 zero crossings to each side, so the delay is under 1 ms for the usual rates (the DFT stages of
    faster resamplers wait for thousands of samples). Output sample m stands at input time m * source / target.
    """

    def __init__(self, source: int, target: int):
        common = math.gcd(source, target)
        self.up, self.down = target // common, source // common
        self.reach = 10 * max(self.up, self.down)
        self.margin = -(-self.reach // self.up)
        self.held = np.zeros(self.margin + self.down)
        self.start = -len(self.held)
        self.made = 0
        if self.up != self.down:
            from scipy.signal import firwin

            taps = firwin(2 * self.reach + 1, 1 / max(self.up, self.down), window=("kaiser", 5.0)) * self.up  # type: ignore[arg-type]
            # Zeros in front make the filter's delay a whole number of output samples.
            self.taps = np.concatenate([np.zeros(-self.reach % self.down), taps])
            self.delay = -(-self.reach // self.down)

    def push(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """float64 [n] more input -> float64 [m] output that is final. With `last`, all that remains."""
        if self.up == self.down:
            return np.asarray(samples, np.float64)
        from scipy.signal import upfirdn

        held = np.concatenate([self.held, samples])
        end = self.start + len(held)
        ready = max(self.made, (end * self.up - self.reach - 1) // self.down)
        if last:
            ready = -(-end * self.up // self.down)
            held = np.concatenate([held, np.zeros(self.margin + 1)])
        out = np.zeros(0)
        if ready > self.made:
            # Start at a multiple of `down` inputs, where an output stands exactly on an input.
            first = self._reached(self.made)
            filtered = upfirdn(self.taps, held[first - self.start :], self.up, self.down)
            base = first * self.up // self.down - self.delay
            out = filtered[self.made - base : ready - base]
            self.made = ready
        keep = self._reached(self.made)
        self.held, self.start = held[keep - self.start :], keep
        return out

    def _reached(self, output: int) -> int:
        """The input, a multiple of `down`, from which on output sample `output` depends on the input."""
        first = (output * self.down // self.up - self.margin) // self.down * self.down
        return max(first, -(-self.start // self.down) * self.down)


def resample(samples: np.ndarray, source: int, target: int, length: int | None = None) -> np.ndarray:
    """float [n] at `source` Hz -> float64 [ceil(n * target / source)] at `target` Hz, or cut or filled to `length`."""
    out = Resampler(source, target).push(np.asarray(samples, np.float64), last=True)
    return out if length is None else np.pad(out, (0, max(0, length - len(out))))[:length]
