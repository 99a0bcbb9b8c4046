"""Kinds of regions, on pictures that are drawn so that the kind is known."""

import math

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from panglot import regions
from panglot.regions import KINDS, PLAIN


def kinds_in(pixels: np.ndarray) -> dict[str, float]:
    return {name: share for name, share in regions.shares(regions.kinds(pixels)).items() if share}


def letters() -> np.ndarray:
    paper = Pillow.new("RGB", (160, 64), "white")
    for line in range(5):
        ImageDraw.Draw(paper).text((2, 12 * line), "Where tokens matter: 576 of them", fill="black")
    return np.asarray(paper)


def grass(seed: int = 0, strength: float = 8.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, strength, (64, 64, 1))
    return np.clip(np.array([90, 110, 80]) + noise, 0, 255).astype(np.uint8)


def skin() -> np.ndarray:
    light = np.linspace(0.8, 1.1, 64)[:, None, None] * np.ones((1, 64, 1))
    return np.clip(np.array([215, 160, 135]) * light, 0, 255).astype(np.uint8)


def test_letters_are_text_like():
    assert kinds_in(letters()).get("text-like", 0) > 0.5
    assert set(kinds_in(letters())) == {"text-like"}


def test_noise_is_texture_and_too_little_of_it_is_plain():
    assert kinds_in(grass()) == {"texture": 1.0}
    assert kinds_in(grass(strength=1.0)) == {}


@pytest.mark.parametrize("darkness", [1.0, 0.5])
def test_skin_in_several_lights_is_face_like(darkness):
    assert kinds_in((skin() * darkness).astype(np.uint8)) == {"face-like": 1.0}


def test_saturated_areas_are_colour():
    assert kinds_in(np.full((32, 32, 3), (20, 90, 220), np.uint8)) == {"colour": 1.0}


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_grey_is_plain(grey):
    assert kinds_in(np.full((48, 48, 3), grey, np.uint8)) == {}


def test_one_edge_is_neither_text_nor_texture():
    pixels = np.full((32, 32, 3), 240, np.uint8)
    pixels[:, :24] = 15
    assert kinds_in(pixels) == {}


def test_a_block_has_the_kind_of_its_own_pixels_alone():
    found = regions.kinds(np.concatenate([grass(), skin()], 1))
    assert (found[:, :4] == KINDS.index("texture")).all()
    assert (found[:, 5:] == KINDS.index("face-like")).all()  # the block at the seam has an edge of its own


def test_detail_is_measured_in_the_blocks_of_each_kind():
    pixels = np.concatenate([grass(), skin(), np.full((64, 64, 3), 128, np.uint8)], 1)
    found = regions.kinds(pixels)
    assert set(regions.detail(found, pixels, pixels).values()) == {math.inf}
    worse = pixels.copy()
    worse[:, :64] ^= 4
    measured = regions.detail(found, pixels, worse)
    assert measured["texture"] == pytest.approx(10 * math.log10(255**2 / 16))
    assert math.isinf(measured["face-like"])
    assert "text-like" not in measured
    worse[:, 128:] = 0  # plain blocks count nowhere
    assert regions.detail(found, pixels, worse) == measured


@pytest.mark.parametrize("size", [(1, 1), (15, 200), (17, 33)])
def test_pictures_that_are_no_multiple_of_a_block(size):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    found = regions.kinds(pixels)
    assert found.shape == (size[0] // 16, size[1] // 16)
    assert ((found >= PLAIN) & (found < len(KINDS))).all()
    assert set(regions.detail(found, pixels, pixels)) <= set(KINDS)
    assert (regions.shares(found) == {}) == (found.size == 0)
