import numpy as np
import pytest
import torch

from panglot.testing import some_image
from panglot.tokenizers.pyramid import Pyramid, PyramidConfig, plan_levels

SMALL = {"widths": (16, 16, 16), "encoder_depths": (1, 1, 1), "decoder_depths": (1, 1, 1), "output_depth": 1}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    scenes = np.stack([some_image(64, 64, seed).pixels for seed in range(200)])
    return torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module")
def pyramid(pictures) -> Pyramid:
    torch.manual_seed(0)
    model = Pyramid(PyramidConfig(plan_levels(pictures, (8, 8, 8)), **SMALL))
    model.fit(pictures)
    return model.eval()


def test_levels_use_their_bits(pyramid):
    for level in pyramid.levels:
        assert 128 < level.fsq.size <= 256


def test_an_untrained_pyramid_is_the_linear_codec(pyramid, pictures):
    """Its network adds nothing, so the last level's picture is the sum of three linear syntheses."""
    with torch.no_grad():
        decoded, codes = pyramid(pictures[:4])
        total = sum(
            level.picture(level.fsq.values(code), None) for level, code in zip(pyramid.levels, codes, strict=True)
        )
    assert torch.allclose(decoded[-1], total, atol=1e-5)
    errors = [((d - pictures[:4]) ** 2).mean().item() for d in decoded]
    assert errors[0] > errors[1] > errors[2]


def test_decoding_equals_the_closed_loop(pyramid, pictures):
    with torch.no_grad():
        decoded, codes = pyramid(pictures[:3])
        again = pyramid.decode(codes)
    for a, b in zip(decoded, again, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_stride_stops_the_loop(pyramid, pictures):
    for stride, n in ((32, 1), (16, 2), (8, 3)):
        assert len(pyramid(pictures[:1], stride=stride)[1]) == n


def test_absent_blocks_are_marked_and_leave_the_coarser_picture(pyramid, pictures):
    keep = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    keep[..., :4] = True
    with torch.no_grad():
        decoded, codes = pyramid(pictures[:1], choose=lambda level, _: keep if level == 2 else None)
    assert torch.equal(codes[2][0] < 0, ~keep[0, 0])
    assert torch.allclose(decoded[2][..., 32:], decoded[1][..., 32:], atol=1e-5)
    assert not torch.allclose(decoded[2][..., :32], decoded[1][..., :32], atol=1e-3)


def test_config_survives_json():
    import json

    config = PyramidConfig(((5, 3), (2, 2), (4,)), channels=12, context=3)
    assert PyramidConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
