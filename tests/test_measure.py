"""The measures against values worked out by hand, their definitions written another way, and their limits."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from panglot import measure
from panglot.media import Audio

DEMO = Path(measure.__file__).parent / "assets" / "demo"


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def voice() -> Audio:
    samples, rate = soundfile.read(DEMO / "voice.ogg", dtype="float32")
    return Audio(samples, rate)


def noisy(sound: Audio, snr: float) -> Audio:
    hiss = np.random.default_rng(0).standard_normal(sound.samples.shape) * sound.samples.std() * 10 ** (-snr / 20)
    return Audio((sound.samples + hiss).astype(np.float32), sound.rate)


def test_psnr_of_a_known_error():
    a = np.zeros((10, 10, 3), np.uint8)
    b = a.copy()
    b[..., 0] = 30  # a third of the values is off by 30: mean squared error 300
    assert measure.psnr(a, b) == pytest.approx(10 * math.log10(255**2 / 300))
    assert measure.psnr(a, b) == measure.psnr(b, a)
    assert measure.psnr(a, a) == math.inf


def test_psnr_of_several_frames_pools_their_error():
    a, b = noise((4, 9, 7, 3)), noise((4, 9, 7, 3), 1)
    error = np.mean([measure.mean_squared_error(x, y) for x, y in zip(a, b, strict=True)])
    assert measure.psnr(a, b) == pytest.approx(10 * math.log10(255**2 / error))


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The definition, window by window."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    luma = np.array([0.299, 0.587, 0.114])
    x, y = (sliding_window_view(p @ luma, (11, 11)) for p in (a, b))
    mx, my = (x * window).sum((2, 3)), (y * window).sum((2, 3))
    vx = ((x - mx[..., None, None]) ** 2 * window).sum((2, 3))
    vy = ((y - my[..., None, None]) ** 2 * window).sum((2, 3))
    cov = ((x - mx[..., None, None]) * (y - my[..., None, None]) * window).sum((2, 3))
    c1, c2 = 6.5025, 58.5225
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


@pytest.mark.parametrize("shape", [(11, 11, 3), (40, 23, 3), (300, 12, 3)])
def test_ssim_is_its_definition(shape):
    a = noise(shape)
    b = (a * 0.7 + noise(shape, 1) * 0.3).astype(np.uint8)
    assert measure.ssim(a, b) == pytest.approx(slow_ssim(a, b), abs=1e-6)
    assert measure.ssim(a, a) == pytest.approx(1)


def test_ssim_of_a_picture_smaller_than_its_window_is_unknown():
    assert math.isnan(measure.ssim(noise((10, 200, 3)), noise((10, 200, 3))))


@pytest.mark.parametrize("metric", [measure.psnr, measure.ssim])
def test_pictures_that_cannot_be_compared(metric):
    with pytest.raises(ValueError, match="one shape"):
        metric(noise((20, 20, 3)), noise((20, 21, 3)))
    with pytest.raises(ValueError, match="uint8"):
        metric(noise((20, 20, 3)).astype(np.float32), noise((20, 20, 3)))


def test_mel_distance_of_a_change_of_loudness(voice):
    """Halving the amplitude moves every cell above the floor by 6.02 dB, and cells at the floor not at all."""
    quieter = Audio(voice.samples / 2, voice.rate)
    power = measure.mel_power(np.asarray(measure.mono(Audio(np.sin(np.arange(16000, dtype=np.float32)), 16000))), 16000)
    assert power.shape == (80, 99)
    assert 0 < measure.mel_distance(voice, quieter) < 20 * math.log10(2)
    loud = Audio((np.random.default_rng(0).standard_normal(16000) * 0.1).astype(np.float32), 16000)
    assert measure.mel_distance(loud, Audio(loud.samples / 2, 16000)) == pytest.approx(20 * math.log10(2), abs=0.01)


def test_mel_power_puts_a_tone_into_its_band():
    for hertz in (200, 1000, 3000, 7000):
        tone = np.sin(2 * np.pi * hertz * np.arange(8000) / 16000).astype(np.float32)
        bank = measure._mel_bank(16000, 1024)
        centre = (bank * np.fft.rfftfreq(1024, 1 / 16000)).sum(1)
        band = measure.mel_power(tone, 16000).mean(1).argmax()
        assert abs(centre[band] - hertz) < 0.06 * hertz + 20


def test_more_noise_is_further_away(voice):
    distances = [measure.mel_distance(voice, noisy(voice, snr)) for snr in (40, 20, 0)]
    understood = [measure.stoi(voice, noisy(voice, snr)) for snr in (40, 20, 0)]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert understood == sorted(understood, reverse=True)
    assert understood[0] > 0.99
    assert measure.mel_distance(voice, voice) == 0
    assert measure.stoi(voice, voice) == pytest.approx(1)


def test_stereo_is_mixed_down(voice):
    stereo = Audio(np.stack([voice.samples, voice.samples], 1), voice.rate)
    assert measure.mel_distance(stereo, voice) == 0


def test_sound_that_is_too_short_or_silent_to_measure(voice):
    silence = Audio(np.zeros_like(voice.samples), voice.rate)
    short = Audio(voice.samples[: voice.rate // 5], voice.rate)
    empty = Audio(voice.samples[:0], voice.rate)
    assert math.isnan(measure.stoi(voice, silence))
    assert math.isnan(measure.stoi(silence, voice))
    assert math.isnan(measure.stoi(short, short))
    assert math.isnan(measure.mel_distance(empty, voice))
    assert measure.mel_distance(silence, silence) == 0
    assert measure.mel_distance(Audio(voice.samples[:5], voice.rate), Audio(voice.samples[:5], voice.rate)) == 0


@pytest.mark.parametrize("metric", [measure.mel_distance, measure.stoi])
def test_sounds_of_two_rates_are_not_compared(metric, voice):
    with pytest.raises(ValueError, match="one rate"):
        metric(voice, Audio(voice.samples, 16000))


@settings(max_examples=30, deadline=None)
@given(late=st.integers(-300, 300), seed=st.integers(0, 3))
def test_lag_finds_a_shift(late, seed):
    signal = np.random.default_rng(seed).standard_normal(4000)
    reference, degraded = signal[400:3600], signal[400 - late : 3600 - late]
    assert measure.lag(reference, degraded, 400) == late
    x, y = measure.align(reference, degraded, 400)
    assert len(x) == 3200 - abs(late)
    assert np.array_equal(x, y)


def test_lag_survives_inverted_phase_and_keeps_to_its_limit(voice):
    x = voice.samples[:20000].astype(np.float64)
    assert measure.lag(x, -np.roll(x, 120), 400) == 120
    assert abs(measure.lag(x, np.roll(x, 120), 50)) <= 50
    assert measure.lag(x[:0], x, 50) == 0


@pytest.mark.parametrize("rate", [1, 100, 1000, 4000])
def test_mel_distance_at_rates_so_low_that_a_band_had_no_bin(rate):
    sound = Audio(np.random.default_rng(0).standard_normal(4 * rate).astype(np.float32), rate)
    quieter = Audio(sound.samples / 2, rate)
    assert measure.mel_distance(sound, sound) == 0
    assert measure.mel_distance(sound, quieter) == pytest.approx(6.02, abs=0.2)
