"""The linear baseline: its arithmetic on data whose answers are known, and the shipped one on small media."""

import math

import numpy as np
import pytest

from panglot import linear, measure
from panglot.linear import LEVELS, SHAPES, Linear, Transform
from panglot.media import Audio, Image
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers.base import WeightsError
from panglot.tokenizers.weights import ASSETS

SHAPE = (8, 8, 3)


def blocks(count: int = 6000, seed: int = 0) -> np.ndarray:
    """Blocks that are a mean, and two smooth patterns with amplitudes of standard deviation 50 and 10."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:8, :8] / 8
    patterns = np.stack([np.cos(np.pi * y), np.cos(np.pi * x)])[..., None] * np.ones(3)
    patterns /= np.sqrt((patterns**2).sum((1, 2, 3), keepdims=True))
    amplitudes = rng.normal(size=(count, 2)) * (50, 10)
    return (100 + np.tensordot(amplitudes, patterns, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Transform:
    return Transform.fit([blocks()[:1000], blocks()[1000:]], SHAPE, keep=20, components=6)


def test_the_principal_components_are_found(fitted):
    variance = fitted.errors[:, 0]
    assert variance[0] == pytest.approx(2500, rel=0.15)
    assert variance[1] == pytest.approx(100, rel=0.15)
    assert variance[2] < 1e-2  # what rounding the matrix to int8 leaks
    assert np.allclose(fitted.basis.T @ fitted.basis, np.eye(6), atol=1e-5)


def test_more_bits_leave_less_wrong_and_the_quantisers_tell_how_much(fitted):
    test = blocks(seed=1)
    before = math.inf
    for bits in (1, 3, 6, 10):
        levels = fitted.levels(bits)
        assert sum(map(math.log2, levels)) <= bits + 1e-9
        symbols = fitted.encode(test, levels)
        assert (symbols < np.array(levels)).all()
        wrong = float(((fitted.decode(symbols, levels) - test) ** 2).sum((1, 2, 3)).mean())
        told = sum(float(fitted.errors[i, LEVELS.index(n)]) for i, n in enumerate(levels))
        told += float(fitted.errors[len(levels) :, 0].sum())
        assert wrong == pytest.approx(told, rel=0.2)
        assert wrong < before / 1.5
        before = wrong


def test_bits_go_where_they_save_most(fitted):
    first, second = fitted.levels(6)[:2]
    assert first / second == pytest.approx(5, rel=0.5)  # reverse water-filling: levels as standard deviations
    assert fitted.levels(0) == []
    assert all(n in LEVELS for n in fitted.levels(1e3))


def test_lloyd_max_on_distributions_whose_optimum_is_known():
    uniform = (np.arange(4096) + 0.5) / 4096
    for levels in (1, 2, 5, 16):
        centroids, error = linear.lloyd_max(uniform, levels)
        assert centroids == pytest.approx((np.arange(levels) + 0.5) / levels, abs=1e-2)
        assert error == pytest.approx(1 / 12 / levels**2, rel=0.02)
    normal = np.sort(np.random.default_rng(0).normal(size=50_000))
    for levels, best in ((2, 0.3634), (4, 0.1175), (8, 0.03454)):  # Max, IRE Trans. Inf. Theory 1960, table I
        assert linear.lloyd_max(normal, levels, rounds=300)[1] == pytest.approx(best, rel=0.03)


@pytest.mark.parametrize("size", [(8, 8, 3), (1, 1, 3), (17, 23, 3), (64, 40, 3)])
def test_cutting_and_joining(size):
    values = np.random.default_rng(0).integers(0, 255, size)
    cut = linear.cut(values, SHAPE)
    assert cut.shape == (math.ceil(size[0] / 8) * math.ceil(size[1] / 8), *SHAPE)
    assert np.array_equal(linear.joined(cut, size), values)


def test_blocks_are_in_raster_order():
    values = np.arange(16 * 24).reshape(16, 24)
    assert [int(b[0, 0]) for b in linear.cut(values, (8, 8))] == [0, 8, 16, 8 * 24, 8 * 24 + 8, 8 * 24 + 16]


def test_what_is_saved_is_what_was_fitted(fitted, tmp_path):
    path = tmp_path / "linear.safetensors"
    other = {m: Transform.fit([np.random.default_rng(0).normal(size=(80, *s)) for _ in range(2)], s, 12, 5)
             for m, s in SHAPES.items()}  # fmt: skip
    Linear(other).save(path)
    for modality, back in Linear.load(path).transforms.items():
        true = other[modality]
        assert np.array_equal(back.kept, true.kept)
        assert (np.diff(back.quantiles, axis=1) >= 0).all()
        assert np.allclose(back.quantiles, true.quantiles, rtol=2e-3, atol=1e-3)
        assert np.allclose(back.errors, true.errors, rtol=2e-3, atol=1e-6)
        assert np.abs((back.basis * true.basis).sum(0)).min() > 0.999


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "linear.safetensors"
    with pytest.raises(WeightsError, match="fit one with"):
        Linear.load(path)
    path.write_bytes((ASSETS / "linear.safetensors").read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="not a linear code"):
        Linear.load(path)


def test_the_shipped_file_is_small():
    assert (ASSETS / "linear.safetensors").stat().st_size < 150_000


@pytest.mark.parametrize(
    "medium",
    [some_image(150, 210), some_audio(1.0, 22050), some_video(20, 66, 90, rate=None)],
    ids=["image", "audio", "video"],
)
def test_media_at_rising_rates(medium):
    faults = []
    for bits in (300, 1500, 6000):
        coded = Linear.load().code(medium, bits)
        assert 0.5 * bits < coded.bits <= bits
        faults.append(fault(medium, coded.medium))
    assert faults == sorted(faults, reverse=True)
    assert faults[-1] < 0.7 * faults[0]


def fault(original, decoded) -> float:
    if isinstance(original, Audio):
        assert decoded.rate == original.rate
        assert decoded.samples.shape == original.samples.shape
        return measure.mel_distance(original, decoded)
    pair = (m.pixels if isinstance(m, Image) else m.frames for m in (original, decoded))
    return measure.mean_squared_error(*pair)


@pytest.mark.parametrize("medium", [some_image(1, 1), some_image(5, 300), some_audio(0.01, 8000)])
def test_tiny_media_and_no_bits(medium):
    for bits in (0, 40):
        coded = Linear.load().code(medium, bits)
        assert coded.bits <= bits
        assert coded.medium.info == medium.info


def test_stereo_is_mixed_down():
    coded = Linear.load().code(some_audio(0.3, 16000, channels=2), 500)
    assert coded.medium.channels == 1
