import json
import signal
import subprocess
import sys

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_finishes_its_step_and_goes_on_from_there(tmp_path, monkeypatch, capfd, number):
    schedule, taken = Schedule(steps=7, warmup=2, checkpoint_every=3), []

    def interrupted(model, data, step):
        if step == 4 and 4 not in taken:
            signal.raise_signal(number)
        taken.append(step)
        return loss(model, data, step)

    def leave(*_):
        raise Killed

    models = [Pyramid(SMALL) for _ in range(3)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    fit(models[0], batch, loss, schedule, tmp_path / "whole")
    before = [signal.signal(n, leave) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(Killed):
            fit(models[1], batch, interrupted, schedule, tmp_path / "resumed")
        assert signal.getsignal(number) is leave
    finally:
        for n, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(n, handler)
    assert "stopped behind step 5; the same command goes on from there" in capfd.readouterr().err
    fit(models[2], batch, interrupted, schedule, tmp_path / "resumed")
    assert taken == list(range(7))
    whole, resumed = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holder, tmp_path / "lock"], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TrainError, match="another training runs here"):
            fit(Pyramid(SMALL), batch, loss, Schedule(steps=2, warmup=1), tmp_path)
        process.communicate()
    fit(Pyramid(SMALL), batch, loss, Schedule(steps=2, warmup=1), tmp_path)


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
