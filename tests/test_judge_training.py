"""Judges of a tiny picture book: they learn it, the same each time, and know combinations that it does not hold."""

import json
import shutil

import numpy as np
import pytest
import torch
from picture_book import PLACES, WORDS, book, drawn, sounding

from panglot import judge_training
from panglot.judge_training import moved, picture_changed, scene_changed, sound_changed, train_judges
from panglot.judges import JudgeError, picture_input
from panglot.media import Video

STEPS = {"picture": 60, "sound": 40, "scene": 80}


@pytest.fixture(autouse=True, scope="module")
def _few_rows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_training, "ROWS", 10)
        yield


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    book(path, 0, [("box", "green", True), ("ball", "white", True)])
    return path


@pytest.fixture(scope="module")
def judges(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    lines = []
    found = train_judges(train, folder, steps=STEPS, told=lines.append)
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".safetensors") == [
        *("picture.json", "scene.json", "sound.json")
    ]
    assert len(lines) == 6
    return found


def test_pictures_are_named(judges):
    rng = np.random.default_rng(5)
    cases = [(word, drawn(word, "green", *rng.integers(0, 40, 2))) for word in WORDS for _ in range(10)]
    named = judges.pictures([pixels for _, pixels in cases], ("draw it",))
    assert sum(pair == (word, "draw it") for (word, _), (pair, _) in zip(cases, named, strict=True)) >= 18


def test_sounds_are_named(judges):
    rng = np.random.default_rng(5)
    cases = [(word, sounding(word, rng)) for word in WORDS for _ in range(5)]
    named = judges.sounds([sound for _, sound in cases], ("say it",))
    assert all(pair == (word, "say it") for (word, _), (pair, _) in zip(cases, named, strict=True))


def test_scenes_are_read_in_combinations_that_training_lacks(judges):
    for word, ground in (("box", "white"), ("ball", "green"), ("box", "green")):
        for place, (x, y) in PLACES.items():
            frames = [picture_input(drawn(word, ground, x, y))]
            wanted = {"concept": word, "colour": ground, "place": place}
            assert judges.scene.read(frames, tuple(wanted)) == wanted


def test_the_same_seed_gives_the_same_judge_and_a_finished_one_is_kept(train, tmp_path):
    few = {"picture": 3, "sound": 3, "scene": 3}
    for name in ("a", "b"):
        train_judges(train, tmp_path / name, seed=4, steps=few)
    a, b = ((tmp_path / name / "picture.safetensors") for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()
    train_judges(train, tmp_path / "c", seed=5, steps=few)
    assert a.read_bytes() != (tmp_path / "c" / "picture.safetensors").read_bytes()
    before = a.stat().st_mtime_ns
    train_judges(train, tmp_path / "a", seed=9, steps=few)
    assert a.stat().st_mtime_ns == before


def test_judges_of_other_media_are_not_used(train, tmp_path):
    few = {"picture": 3, "sound": 3, "scene": 3}
    data = tmp_path / "data"
    shutil.copytree(train, data)
    train_judges(data, tmp_path / "judges", steps=few)
    (tmp_path / "judges" / "sound.json").unlink()
    lines = next(data.rglob("metadata.jsonl"))
    lines.write_text("\n".join(lines.read_text("utf-8").splitlines()[1:]))
    with pytest.raises(JudgeError, match=r"has learned from other media than .*; delete it"):
        train_judges(data, tmp_path / "judges", steps=few)
    assert not (tmp_path / "judges" / "sound.json").exists()  # refused before any is trained
    assert not list((tmp_path / "judges").glob(".*"))


def test_what_cannot_be_read_is_told_and_stops_nothing(train, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(train, data)
    for name in ("pictures/box3.png", "sounds/box3.flac"):
        (data / name).write_bytes((data / name).read_bytes()[:80])
    found = train_judges(data, tmp_path / "judges", steps={"picture": 3, "sound": 3, "scene": 3})
    assert found.picture is not None
    assert found.sound is not None
    told = capsys.readouterr().err
    assert "left out" in told
    assert "box3.png" in told
    assert "box3.flac" in told


def test_frames_of_videos_are_among_the_pictures(tmp_path):
    clips = tmp_path / "train" / "clips"
    clips.mkdir(parents=True)
    Video(np.stack([drawn("box", "green", x, 20) for x in range(0, 36, 6)]), 8.0).save(clips / "a.mp4")
    (clips / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", "text": "box", "kind": "film it"}))
    found = train_judges(tmp_path / "train", tmp_path / "judges", steps={"picture": 2, "sound": 2, "scene": 2})
    assert found.picture is not None
    assert found.picture.labels == (("box", "film it"),)
    assert found.picture.facts["rows"] == 6  # three frames, and the same three coded
    assert (found.sound, found.scene) == (None, None)


def test_nothing_to_learn_from_is_told(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps({"text": "alone"}))
    with pytest.raises(JudgeError, match="no media with a text"):
        train_judges(tmp_path / "train", tmp_path / "judges")


@pytest.mark.parametrize("change", [picture_changed, scene_changed, sound_changed])
def test_changes_change_and_are_repeatable(change):
    x = torch.from_numpy(np.stack([drawn("box", "green", 20, 20), drawn("ball", "white", 9, 9)])).movedim(-1, 1) / 255
    x = x[:, :1] if change is sound_changed else x
    a, b, c = (change(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert a.shape == x.shape
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert float(a.min()) >= 0
    assert float(a.max()) <= 1


def test_moved_moves_by_at_most_what_it_is_told():
    x = torch.zeros(64, 1, 32, 32)
    x[:, :, 16, 16] = 1
    far = moved(x, torch.Generator().manual_seed(0), (0.0, 0.0), (0.25, 0.0), 0.0)
    rows, columns = far.sum((1, 3)), far.sum((1, 2))
    assert (rows.argmax(1) == 16).all()
    assert columns.argmax(1).min() <= 13
    assert columns.argmax(1).max() >= 19
    assert (columns.argmax(1) - 16).abs().max() <= 4


def test_grounds_change_and_objects_stay():
    x = torch.from_numpy(np.stack([drawn("box", "green", 20, 20), drawn("box", "white", 20, 20)])).movedim(-1, 1) / 255
    x = x.repeat(8, 1, 1, 1)
    grounds = scene_changed(x, torch.Generator().manual_seed(3))[:, 0, 2, 2]
    assert grounds[0::2].max() > 0.85  # green ones turned white
    assert grounds[1::2].min() < 0.4  # white ones turned green
    inside = scene_changed(x, torch.Generator().manual_seed(3))[:, :, 21:24, 30:34].mean((0, 2, 3))
    assert inside[0] > 0.7
    assert inside[2] < 0.4
