import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from panglot.tokenizers.pyramid import Pyramid, PyramidConfig
from panglot.train import Schedule, TrainError, fit

SMALL = PyramidConfig(
    ((4, 4), (4, 4), (4, 4)), widths=(16, 16, 16), encoder_depths=(1, 1, 1), decoder_depths=(1, 1, 1), output_depth=1
)


def batch(step: int) -> np.ndarray:
    return np.random.default_rng([7, step]).standard_normal((2, 3, 64, 64)).astype(np.float32) * 0.3


def loss(model, data, step):
    picture = torch.from_numpy(data)
    noisy = picture + 0.01 * torch.randn_like(picture)
    error = ((model(noisy)[0][-1] - picture) ** 2).mean()
    return error, {"mse": error.item()}


class Killed(Exception):
    pass


@pytest.mark.parametrize("muon_lr", [0.0, 2e-3])
def test_a_killed_run_resumes_to_the_bit(tmp_path, muon_lr):
    schedule = Schedule(steps=7, warmup=2, checkpoint_every=3, muon_lr=muon_lr)

    def fresh():
        torch.manual_seed(3)
        return Pyramid(SMALL)

    def dying(model, data, step):
        if step == 5:
            raise Killed
        return loss(model, data, step)

    fit(fresh(), batch, loss, schedule, tmp_path / "whole")
    with pytest.raises(Killed):
        fit(fresh(), batch, dying, schedule, tmp_path / "resumed")
    fit(fresh(), batch, loss, schedule, tmp_path / "resumed")
    whole, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    rows = [json.loads(line) for line in (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 7]


def test_one_batch_is_learned(tmp_path):
    torch.manual_seed(0)
    model = Pyramid(SMALL)
    data = torch.from_numpy(batch(0))
    model.fit(data.repeat(20, 1, 1, 1))
    before = loss(model, batch(0), 0)[0].item()
    fit(model, lambda step: batch(0), loss, Schedule(steps=60, lr=3e-3, warmup=5), tmp_path)
    assert loss(model, batch(0), 0)[0].item() < 0.9 * before


def test_another_schedule_is_refused(tmp_path):
    fit(Pyramid(SMALL), batch, loss, Schedule(steps=2, warmup=1), tmp_path)
    with pytest.raises(TrainError, match="another schedule"):
        fit(Pyramid(SMALL), batch, loss, Schedule(steps=3, warmup=1), tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_damaged_checkpoint_is_told(tmp_path, keep):
    fit(Pyramid(SMALL), batch, loss, Schedule(steps=1, warmup=1), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainError, match=r"is damaged .* delete it to begin again"):
        fit(Pyramid(SMALL), batch, loss, Schedule(steps=1, warmup=1), tmp_path)


def test_a_row_of_the_log_that_was_cut_short_is_dropped(tmp_path):
    schedule = Schedule(steps=4, warmup=1, checkpoint_every=2)
    fit(Pyramid(SMALL), batch, loss, schedule, tmp_path)
    whole = (tmp_path / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(whole[:-9])
    fit(Pyramid(SMALL), batch, loss, schedule, tmp_path)
    assert (tmp_path / "log.jsonl").read_text() == whole.splitlines(keepends=True)[0]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    def bad(model, data, step):
        return loss(model, data, step)[0] * float("nan"), {}

    with pytest.raises(TrainError, match="lower learning rate"):
        fit(Pyramid(SMALL), batch, bad, Schedule(steps=2, warmup=1), tmp_path)
