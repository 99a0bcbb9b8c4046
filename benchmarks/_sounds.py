"""Sound codecs to compare with: Codec2, Opus, and the linear code of log-mel blocks.

Each takes mono `Audio` and returns what it became, at the same rate, with the payload bits it took: Codec2's frames
alone, Opus packets without Ogg, the linear code's levels. Delay is left in; the benchmark aligns.
Not here: neural codecs, whose weights cannot be had without downloading them (their speed is in `speed.py`).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from _common import require
from _klt import Klt

from panglot.media import Audio

CODEC2_MODES = {"700C": 28, "1300": 52, "2400": 48}
"""Bits of one frame, which is 40 ms long, in 2400 20 ms."""


@dataclass(frozen=True)
class Coded:
    """A sound after a codec, at the rate it had before, and its payload in bits."""

    audio: Audio
    bits: float


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    return samples if rate == wanted else soxr.resample(samples, rate, wanted)


def codec2(audio: Audio, mode: str) -> Coded:
    """Codec2 at one of CODEC2_MODES, 8 kHz, by the programs of the Debian package codec2."""
    encoder, decoder = require("c2enc", "codec2"), require("c2dec", "codec2")
    rate = 8000
    raw = np.clip(resampled(audio.samples, audio.rate, rate) * 32767, -32768, 32767).astype("<i2")
    with tempfile.TemporaryDirectory() as folder:
        heard, coded, back = (str(Path(folder, name)) for name in ("in.raw", "coded.bit", "out.raw"))
        raw.tofile(heard)
        subprocess.run([encoder, mode, heard, coded], check=True, capture_output=True)
        subprocess.run([decoder, mode, coded, back], check=True, capture_output=True)
        frame_bits = CODEC2_MODES[mode]
        bits = Path(coded).stat().st_size // -(-frame_bits // 8) * frame_bits  # c2enc pads a frame to whole bytes
        decoded = np.fromfile(back, "<i2").astype(np.float32) / 32768
    return Coded(Audio(resampled(decoded, rate, audio.rate), audio.rate), bits)


def opus(audio: Audio, bit_rate: int) -> Coded:
    """Opus through libopus, variable rate, frames of 60 ms (the cheapest at low rates); packet bytes only."""
    import av

    rate = 24_000
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = rate, "mono", "flt", bit_rate
    encoder.options = {"application": "voip", "frame_duration": "60", "vbr": "on"}
    samples = resampled(audio.samples, audio.rate, rate).astype(np.float32)
    size = rate * 60 // 1000
    samples = np.pad(samples, (0, -len(samples) % size + size))
    packets = []
    for start in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], "flt", "mono")
        frame.sample_rate, frame.pts = rate, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = rate, "mono"
    sound = [frame for packet in packets for frame in decoder.decode(packet)]
    decoded = np.concatenate([_mono(frame.to_ndarray(), frame.format.is_planar) for frame in sound])
    # The padding above flushes the encoder; its last packet is silence that a stream would not carry.
    bits = 8 * sum(packet.size for packet in packets[: -(-len(samples) // size) - 1])
    return Coded(Audio(resampled(decoded, sound[0].sample_rate, audio.rate), audio.rate), bits)


def _mono(values: np.ndarray, planar: bool) -> np.ndarray:
    """PyAV's [channels, n] (planar) or [1, n] of one channel -> float32 [n]."""
    samples = values.mean(0) if planar else values.reshape(-1)
    return samples.astype(np.float32) / (32768 if values.dtype == np.int16 else 1)


def mel_bank(rate: int, fft: int, bands: int) -> np.ndarray:
    """Triangles of sum 1 on the Slaney mel scale (linear to 1 kHz, then 27 steps per factor 6.4): [bands, fft/2+1]."""
    top = 15 + 27 * np.log(rate / 2000) / np.log(6.4)
    mel = np.linspace(0, top, bands + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))[:, None]
    bins = np.fft.rfftfreq(fft, 1 / rate)
    rising = (bins - edges[:-2]) / np.diff(edges[:-1], axis=0)
    falling = (edges[2:] - bins) / np.diff(edges[1:], axis=0)
    bank = np.maximum(0, np.minimum(rising, falling))
    return bank / bank.sum(1, keepdims=True)


@dataclass(frozen=True)
class Linear:
    """The linear sound code: blocks of 80 ms of a log-mel spectrogram, KLT, Lloyd-Max, then Griffin-Lim.

    16 kHz, window 32 ms, hop 10 ms, 80 mel bands: 8 frames of 80 values are one vector of the KLT.
    """

    klt: Klt

    RATE = 16_000
    FFT = 512
    HOP = 160
    FRAMES = 8
    FLOOR = 1e-5

    @classmethod
    def fit(cls, sounds: Sequence[Audio], keep: int = 128) -> Linear:
        """From training sounds, mono."""
        blocks = [cls.blocks(resampled(s.samples, s.rate, cls.RATE)) for s in sounds]
        return cls(Klt.fit(np.concatenate(blocks), keep))

    @classmethod
    def blocks(cls, samples: np.ndarray) -> np.ndarray:
        """float32 [n] at 16 kHz -> log-mel blocks float32 [ceil(n / 1280), 640]."""
        samples = np.pad(samples, (0, -len(samples) % (cls.HOP * cls.FRAMES)))
        mel = cls._bank() @ np.abs(cls._stft(samples))[:, : len(samples) // cls.HOP]
        return np.log(mel + cls.FLOOR).T.reshape(-1, cls.FRAMES * len(mel)).astype(np.float32)

    def code(self, audio: Audio, bits: float) -> Coded:
        """Encode and decode at `bits` bits a block of 80 ms."""
        blocks = self.blocks(resampled(audio.samples, audio.rate, self.RATE))
        mel = np.exp(self.klt.code(blocks, bits).reshape(-1, len(self._bank())).T) - self.FLOOR
        samples = self._griffin_lim(np.maximum(self._inverse() @ np.maximum(mel, 0), 0))
        count = -(-len(audio.samples) * self.RATE // audio.rate)
        return Coded(Audio(resampled(samples[:count], self.RATE, audio.rate), audio.rate), bits * len(blocks))

    def _griffin_lim(self, magnitude: np.ndarray, rounds: int = 60, momentum: float = 0.99) -> np.ndarray:
        """A signal with about this magnitude [bins, frames] (Perraudin, Balazs and Soendergaard, WASPAA 2013)."""
        length = magnitude.shape[1] * self.HOP
        magnitude = np.pad(magnitude, ((0, 0), (0, 1)), mode="edge")
        phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
        before = np.zeros_like(phase)
        for _ in range(rounds):
            now = self._stft(self._istft(magnitude * phase, length))
            phase = now - momentum / (1 + momentum) * before
            phase /= np.abs(phase) + 1e-16
            before = now
        return self._istft(magnitude * phase, length).astype(np.float32)

    @classmethod
    def _stft(cls, samples: np.ndarray) -> np.ndarray:
        """float [n], n a multiple of the hop -> complex [bins, n / hop + 1], frames centred on the hops."""
        padded = np.pad(samples, cls.FFT // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, cls.FFT)[:: cls.HOP]
        return np.fft.rfft(frames * cls._window()).T

    @classmethod
    def _istft(cls, spectrum: np.ndarray, length: int) -> np.ndarray:
        """The least-squares inverse of `_stft`: overlap-add, divided by the sum of squared windows."""
        frames = np.fft.irfft(spectrum.T, cls.FFT) * cls._window()
        total, weight = np.zeros(length + cls.FFT), np.zeros(length + cls.FFT)
        for i, frame in enumerate(frames):
            at = slice(i * cls.HOP, i * cls.HOP + cls.FFT)
            total[at] += frame
            weight[at] += cls._window() ** 2
        return (total / np.maximum(weight, 1e-8))[cls.FFT // 2 : cls.FFT // 2 + length]

    @staticmethod
    @lru_cache
    def _window() -> np.ndarray:
        return np.hanning(Linear.FFT + 1)[:-1]

    @staticmethod
    @lru_cache
    def _bank() -> np.ndarray:
        return mel_bank(Linear.RATE, Linear.FFT, 80)

    @staticmethod
    @lru_cache
    def _inverse() -> np.ndarray:
        return np.linalg.pinv(Linear._bank())
