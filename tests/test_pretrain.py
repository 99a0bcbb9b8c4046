"""Training of the model: it learns, goes on to the bit after a kill, and refuses what does not belong together."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from panglot import checkpoint, model, pretrain
from panglot.generate import Panglot, Settings
from panglot.layout import Layout, LayoutError
from panglot.mixing import MODALITIES
from panglot.pretrain import segments, told, train
from panglot.shards import ShardError, open_shards, read_manifest, write_manifest
from panglot.stream import unpack
from panglot.train import TrainError

STEPS = 200
"""Of the run that learns all there is to learn."""


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(model, "SIZES", dict(model.SIZES))
    monkeypatch.setattr(pretrain, "RATES", dict(pretrain.RATES))
    tiny.allow()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("data") / "shards")


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_killed_run_goes_on_to_the_bit(shards, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(shards, whole, tiny.OPTIONS)
    died = subprocess.run([sys.executable, tiny.__file__, str(shards), str(killed), "7"], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert not (killed / "model" / "model.safetensors.tmp").exists()
    assert rows_of(killed)[-1]["step"] == 4
    train(shards, killed, tiny.OPTIONS)
    a, b = (load_file(run / "checkpoint.safetensors") for run in (whole, killed))
    assert a.keys() == b.keys()
    assert {key.split(".")[0] for key in a} == {"model", "opt"}
    assert all(torch.equal(a[key], b[key]) for key in a)
    a, b = (load_file(run / "model" / "model.safetensors") for run in (whole, killed))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [row["step"] for row in rows_of(killed)] == [row["step"] for row in rows_of(whole)] == [4, 8, 12]


@pytest.fixture(scope="module")
def learned(shards, tmp_path_factory):
    """A run that has learned all there is to learn."""
    run = tmp_path_factory.mktemp("learned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "SIZES", dict(model.SIZES))
        patch.setattr(pretrain, "RATES", dict(pretrain.RATES))
        tiny.allow()
        folder = train(shards, run, replace(tiny.OPTIONS, steps=STEPS, rows=4, lr=2e-2, checkpoint_every=STEPS // 2))
    assert folder == run / "model"
    return run


def test_the_loss_falls(learned):
    rows = rows_of(learned)
    assert rows[-1]["step"] == STEPS
    assert rows[-1]["loss"] < 0.35 * rows[0]["loss"]
    for name in ("text", "image", "audio"):
        assert rows[-1][name] < 0.5 * rows[0][name]
    assert {key for key in rows[-1] if key.startswith("held_out")} == {"held_out_image"}
    assert "video" not in rows[-1]
    assert rows[-1]["tokens_per_s"] > 0
    assert (learned / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_model_is_a_checkpoint_that_says_what_it_learned_from(learned, shards):
    _, layout, extra = checkpoint.load(learned / "model")
    assert layout == tiny.LAYOUT.to_json()
    assert extra["options"]["steps"] == STEPS
    assert extra["data"]["rows"] == 20
    assert extra["data"]["options"] == {"fit": {"side": 32}}
    assert set(extra["data"]["tokens"]) == {"text", "image", "audio"}


def test_what_was_learned_is_answered(learned):
    """From disk, through the grammar: the sound and the picture of each word.

    Rounding differs from processor to processor, and a few hundred steps do not make every answer certain: two of eight
    may be wrong, where a guess has one chance in thousands to be right.
    """
    ours = Panglot.load(learned / "model")
    assert ours.fit.side == 32
    likeliest = Settings(temperature=0)

    def answers(inputs, want):
        return [codes for (codes,) in ours.answer_all(inputs, want, settings=likeliest)]

    heard = answers([[word] for word in tiny.WORDS], "audio")
    drawn = answers([[word, "photo"] for word in tiny.WORDS], "image")
    right = [codes == tiny.sound(i) for i, codes in enumerate(heard)]
    right += [int(codes.arrays["image/32"][0, 0]) == 100 + 7 * i for i, codes in enumerate(drawn)]
    assert sum(right) >= 6, right


def test_segments_of_a_split(shards):
    data = open_shards(shards)
    found, held = (segments(data, split) for split in ("train", "held"))
    assert (len(found.group), len(held.group), len(segments(data, "other").group)) == (16, 4, 0)
    assert sorted(found.kinds) == [("audio", ""), ("image", "photo"), ("text", "")]
    assert held.kinds == [("image", "photo")]
    for one in (found, held):
        for row, (group, kind) in enumerate(zip(one.group, one.kind, strict=True)):
            bos, eos = tiny.LAYOUT.marks["bos"], tiny.LAYOUT.marks["eos"]
            (codes,) = unpack([bos, *one.of(row), eos], tiny.LAYOUT)
            assert codes.modality == one.kinds[kind][0]
            if codes.modality == "image":
                word = tiny.WORDS.index(data.rows.group.names[group])
                assert codes in [tiny.picture(word, view) for view in ((2,) if one is held else (0, 1))]
    assert len(set(found.medium.tolist()) & set(held.medium.tolist())) == 0
    (phrase,) = told(found, tiny.LAYOUT).values()
    (codes,) = unpack([tiny.LAYOUT.marks["bos"], *phrase, tiny.LAYOUT.marks["eos"]], tiny.LAYOUT)
    assert codes == pretrain.tokenizer("text").encode(pretrain.Text("photo"))


def test_held_out_loss_is_of_the_held_rows_alone(shards):
    data = open_shards(shards)
    batches = pretrain._held_out(data, tiny.LAYOUT, tiny.OPTIONS)
    assert len(batches) == pretrain.HELD_OUT
    torch.manual_seed(0)
    learner = pretrain.Learner(pretrain.Transformer(pretrain.ModelConfig.sized("tiny", tiny.LAYOUT.size)), tiny.LAYOUT)
    found = pretrain.held_out_loss(learner, batches)
    assert set(found) == {"image"}
    assert found["image"] > 1
    assert not any(np.isin(batch.modality, [MODALITIES.index("audio")]).any() for batch in batches)


@pytest.mark.parametrize(
    "other", [{"steps": 13}, {"seed": 1}, {"lr": 1e-3}, {"muon": False}, {"length": 97}], ids=lambda o: next(iter(o))
)
def test_a_run_of_other_options_is_refused(shards, tmp_path, other):
    train(shards, tmp_path / "run", replace(tiny.OPTIONS, steps=1))
    with pytest.raises(TrainError, match=r"run: holds a run with .* choose another folder"):
        train(shards, tmp_path / "run", replace(tiny.OPTIONS, **{"steps": 1, **other}))


def test_a_run_of_other_data_is_refused(shards, tmp_path):
    options = replace(tiny.OPTIONS, steps=1)
    train(shards, tmp_path / "run", options)
    layout = Layout.standard(2, (32,), (32,))
    for other in (tiny.write(tmp_path / "layout", layout), tiny.write(tmp_path / "rows", seed=1)):
        with pytest.raises(TrainError, match="holds a run of another layout or other data"):
            train(other, tmp_path / "run", options)
    train(shards, tmp_path / "run", options)


def test_data_that_cannot_be_used(shards, tmp_path):
    def with_manifest(name: str, **said) -> Path:
        return tiny.write(tmp_path / name, **said)

    def refused(error: type, match: str, folder: Path, options=tiny.OPTIONS) -> None:
        with pytest.raises(error, match=match) as fault:
            train(folder, tmp_path / "run", options)
        assert "\n" not in str(fault.value)
        assert not (tmp_path / "run").exists()

    size = tiny.LAYOUT.size
    refused(ShardError, r"has ids outside its layout's 0 to 99", with_manifest("outside", vocabulary=100))
    refused(LayoutError, f"says {size + 1} ids, its layout {size}", with_manifest("more", vocabulary=size + 1))
    none = with_manifest("none")
    write_manifest(none, replace(read_manifest(none), layout={}))
    refused(LayoutError, "not a layout", none)
    foreign = with_manifest("foreign", tokenizers={**checkpoint.fingerprints(), "image": "0" * 64})
    refused(ShardError, r"foreign: prepared with other tokenizers \(image\); prepare it again", foreign)
    refused(ShardError, "is not finished", with_manifest("part", complete=False))
    refused(ShardError, "missing: does not exist", tmp_path / "missing")
    refused(TrainError, "no text is as short as half of --length 4; choose", shards, replace(tiny.OPTIONS, length=4))
    empty = with_manifest("empty")
    info = read_manifest(empty)
    write_manifest(empty, replace(info, shards=()))
    refused(TrainError, "has no rows to train on; prepare it with a smaller --held", empty)


def test_a_length_beyond_the_models_positions_is_refused(shards, tmp_path):
    with pytest.raises(TrainError, match="--length 257: the model has 256 positions"):
        train(shards, tmp_path / "run", replace(tiny.OPTIONS, length=257))


def test_a_run_begins_with_another_model(learned, shards, tmp_path):
    """Lower learning rates: what was learned is still there after one step, and is refused where it does not fit."""
    options = replace(tiny.OPTIONS, steps=1, rows=4, begin=str(learned / "model"))
    train(shards, tmp_path / "run", options)
    assert rows_of(tmp_path / "run")[0]["loss"] < 1.5 * rows_of(learned)[-1]["loss"]
    model.SIZES["tiny"] = {**tiny.SIZE, "width": 48}
    with pytest.raises(TrainError, match="is a model of another size; choose it with --size"):
        train(shards, tmp_path / "wider", options)
    with pytest.raises(TrainError, match="is a model of another layout; prepare the data with its options"):
        train(tiny.write(tmp_path / "other", Layout.standard(2, (32,), (32,))), tmp_path / "layout", options)


def test_without_rows_held_out(tmp_path):
    folder = tiny.write(tmp_path / "all", held="train")
    train(folder, tmp_path / "run", replace(tiny.OPTIONS, steps=2))
    assert not any(key.startswith("held_out") for key in rows_of(tmp_path / "run")[-1])
