import pytest
import torch

from panglot.tokenizers.image import ImageTokenizer
from panglot.tokenizers.weights import ASSETS, WeightsError, read_weights, save_weights


def test_round_trip_in_half_precision(tmp_path):
    model = torch.nn.Linear(3, 2)
    save_weights(model, {"a": [1, 2]}, tmp_path / "w.safetensors")
    tensors, config = read_weights(tmp_path / "w.safetensors")
    assert config == {"a": [1, 2]}
    assert tensors["weight"].dtype == torch.float32
    assert torch.allclose(tensors["weight"], model.weight, atol=1e-3)


def test_large_matrices_take_a_byte_a_weight(tmp_path):
    model = torch.nn.Linear(1000, 400)
    save_weights(model, {}, tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").stat().st_size < 410_000
    tensors, _ = read_weights(tmp_path / "w.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    assert torch.allclose(tensors["weight"], model.weight, atol=model.weight.abs().max().item() / 250)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 100])
def test_a_broken_file_is_one_clear_line(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a panglot weights file"):
        ImageTokenizer.load(path)


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((ASSETS / "image.safetensors").read_bytes()[:-1000])
    with pytest.raises(WeightsError):
        ImageTokenizer.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "none.safetensors")


def test_shipped_weights_are_small():
    files = list(ASSETS.glob("*.safetensors"))
    assert {f.stem for f in files} == {"image", "audio", "video", "linear"}
    assert sum(f.stat().st_size for f in files) + (ASSETS / "text.json").stat().st_size < 25_000_000
