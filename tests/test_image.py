from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panglot import tokenfile
from panglot.media import Image
from panglot.testing import TokenizerContract, some_image
from panglot.tokenizers import image as module
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import ABSENT, Codes, CodesError

GOLDEN = Path(__file__).parent / "data" / "golden_image.pgt"
SIZES = [(64, 48), (33, 7), (1, 1), (40, 129)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean())


class TestImageContract(TokenizerContract):
    prefixes_decode = True
    blocks_may_be_absent = True

    def tokenizer(self):
        return tokenizer("image")

    def samples(self):
        return [some_image(h, w, seed) for seed, (h, w) in enumerate(SIZES)]

    def options(self):
        return ({}, {"stride": 16}, {"stride": 16, "effort": 1})


def test_every_level_improves():
    tok, picture = tokenizer("image"), some_image(192, 256, 5)
    quality = [psnr(tok.decode(tok.encode(picture, stride=s)).pixels, picture.pixels) for s in (32, 16, 8)]
    assert quality[1] > quality[0] + 1
    assert quality[2] > quality[1] + 1


def test_effort_finds_better_codes():
    tok, picture = tokenizer("image"), some_image(128, 96, 5)
    for stride in (32, 16, 8):
        quality = [
            psnr(tok.decode(tok.encode(picture, stride=stride, effort=e)).pixels, picture.pixels) for e in (0, 1, 4)
        ]
        assert quality == sorted(quality)
        assert quality[2] > quality[0] + 0.05


def test_more_blocks_are_better():
    tok, picture = tokenizer("image"), some_image(128, 128, 5)
    codes = tok.encode(picture)
    order = np.random.default_rng(0).permutation(256).reshape(16, 16)
    quality = []
    for kept in (0, 64, 128, 192, 256):
        fine = np.where(order < kept, codes.arrays["image/8"], ABSENT)
        thin = Codes("image", codes.header, {**codes.arrays, "image/8": fine})
        quality.append(psnr(tok.decode(thin).pixels, picture.pixels))
    assert quality == sorted(quality)


def test_tiles_leave_no_seams(monkeypatch):
    """The decoded picture is nearly the same whether one tile or many cover it, and no step shows at their borders."""
    tok, picture = tokenizer("image"), some_image(512, 512, 7)
    codes = tok.encode(picture)
    whole = tok.decode(codes).pixels.astype(int)
    monkeypatch.setattr(module, "WINDOW", 450 * 450)
    assert len(list(module._tiles(512, 512))) == 4
    tiled = tok.decode(codes).pixels.astype(int)
    difference = tiled - whole
    assert np.abs(difference).mean() < 0.1
    assert np.abs(difference).max() <= 4
    again = tok.encode(picture)
    assert psnr(tok.decode(again).pixels, picture.pixels) > psnr(whole, picture.pixels) - 0.2


def test_golden_codes():
    """Codes written on another day decode to the same picture, and the same picture gives the same codes."""
    tok = tokenizer("image")
    (codes,) = tokenfile.read(GOLDEN, tok.alphabets)
    picture = some_image(80, 100, 11)
    encoded = tok.encode(picture)
    for name, array in codes.arrays.items():
        assert np.mean(encoded.arrays[name] == array) > 0.99
    assert psnr(tok.decode(codes).pixels, picture.pixels) == pytest.approx(
        psnr(tok.decode(encoded).pixels, picture.pixels), abs=0.2
    )
    assert psnr(tok.decode(codes).pixels, picture.pixels) > 22


@pytest.mark.parametrize("stride", [0, 64, 7])
def test_unknown_stride(stride):
    with pytest.raises(CodesError, match="use 32, 16 or 8"):
        tokenizer("image").encode(some_image(8, 8), stride=stride)


def test_a_flat_picture_stays_flat():
    picture = Image(np.full((96, 96, 3), 128, np.uint8))
    decoded = tokenizer("image").decode(tokenizer("image").encode(picture)).pixels
    assert decoded.std() < 3
    assert abs(decoded.mean() - 128) < 3


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 12_000), width=st.integers(1, 12_000))
def test_tiles_cover_a_picture_once_within_the_window(height, width):
    tiles = list(module._tiles(height, width))
    assert sum((bottom - top) * (right - left) for top, left, bottom, right in tiles) == height * width
    assert len(set(tiles)) == len(tiles)
    for top, left, bottom, right in tiles:
        assert top % 32 == left % 32 == 0
        seen = [
            min(side, after + module.MARGIN) - max(0, before - module.MARGIN)
            for side, before, after in ((height, top, bottom), (width, left, right))
        ]
        assert seen[0] * seen[1] <= module.WINDOW


@pytest.mark.parametrize(
    ("size", "count"), [((1, 1), 1), ((1024, 1024), 1), ((1080, 1920), 1), ((2000, 3000), 4), ((1, 10**8), 1535)]
)
def test_as_few_tiles_as_fit(size, count):
    assert len(list(module._tiles(*size))) == len(list(module._tiles(*size[::-1]))) == count


def test_a_coded_size_beyond_reason_is_refused():
    head = {"height": 32, "width": 32, "coded_height": 60_000, "coded_width": 60_000}
    codes = Codes("image", head, {"image/32": np.full((1875, 1875), -1, np.int32)})
    with pytest.raises(CodesError, match="60000 x 60000 is over the limit"):
        tokenizer("image").decode(codes)
