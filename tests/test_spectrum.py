import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panglot.tokenizers import spectrum as sp

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000])


@settings(max_examples=25, deadline=None)
@given(RATES, RATES, st.integers(0, 3000), st.integers(0, 2**31))
def test_resampling_does_not_depend_on_the_pieces(source, target, n, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    whole = sp.resample(x, source, target)
    assert len(whole) == -(-n * target // source)
    resampler, parts = sp.Resampler(source, target), []
    for piece in np.split(x, np.sort(rng.integers(0, n + 1, 5))):
        parts.append(resampler.push(piece))
    parts.append(resampler.push(np.zeros(0), last=True))
    assert np.array_equal(np.concatenate(parts), whole)


def test_resampling_keeps_a_tone():
    t = np.arange(24000) / 24000
    y = sp.resample(np.sin(2 * np.pi * 1000 * t), 24000, 16000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert np.abs(y - expected)[100:-100].max() < 2e-3


def test_a_full_scale_sine_has_magnitude_one():
    t = torch.arange(16000, dtype=torch.float64) / sp.RATE
    magnitudes = sp.magnitudes(torch.sin(2 * torch.pi * 1000 * t))
    assert abs(magnitudes[5].max().item() - 1) < 1e-6


def test_overlap_add_inverts_the_framing():
    x = torch.randn(sp.HOP * 20 + sp.WINDOW - sp.HOP, dtype=torch.float64)
    frames = torch.fft.rfft(x.unfold(0, sp.WINDOW, sp.HOP) * sp.window())
    y = sp.overlap_add(frames)
    assert torch.allclose(x[sp.WINDOW : -sp.WINDOW], y[sp.WINDOW : -sp.WINDOW], atol=1e-9)


def test_phase_recovery_finds_a_signal_with_the_magnitude_asked_for():
    t = torch.arange(16000, dtype=torch.float64) / sp.RATE
    x = torch.sin(2 * torch.pi * 440 * t) * 0.3 + torch.sin(2 * torch.pi * 1330 * t) * 0.2
    magnitude = sp.magnitudes(x)

    def error(iterations: int) -> float:
        found = sp.magnitudes(sp.griffin_lim(magnitude, iterations))
        return ((found - magnitude)[4:-4].norm() / magnitude[4:-4].norm()).item()

    assert error(32) < 0.1
    assert error(32) <= error(0)


def test_mel_filters_cover_all_but_the_ends():
    filters = sp.mel_filters()
    assert filters.shape == (sp.BANDS, sp.BINS)
    assert (filters.sum(0)[3:-3] > 0).all()
