"""A whole evaluation: of a model that knows all answers, of one that knows none, and from the command line."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from picture_book import WORDS, book

from panglot import cells, checkpoint, evaluate, evaluate_report, judge_training
from panglot.cells import Asked, Bench, Material, rows
from panglot.cli import run
from panglot.evaluate import EvaluateError, Options, in_step, matrix, pooled, quarter, scenes
from panglot.fitting import Fit
from panglot.judges import Judges
from panglot.layout import Layout
from panglot.media import Audio, Text, Video
from panglot.model import ModelConfig, Transformer
from panglot.tokenizers.base import CodesError

SEEN = [("box", "green", True), ("ball", "white", True)]
UNSEEN = [("box", "white", False), ("ball", "green", False)]


class ByEye(Judges):
    """Judges that know the picture book: a box is red, a ball is blue; a box hums, a ball whistles."""

    def __init__(self):
        super().__init__(picture=True, sound=True, scene=self)  # type: ignore[arg-type]

    def pictures(self, pictures, kinds):
        named = ["box" if self._reddest(p) else "ball" for p in pictures]
        return [((name, kinds[0]), name) for name in named]

    @staticmethod
    def _reddest(pixels) -> bool:
        p = pixels.astype(int)
        return bool((p[..., 0] - p[..., 2]).max() > (p[..., 2] - p[..., 0]).max())

    def sounds(self, sounds, kinds):
        crossings = [int((np.diff(np.signbit(s.samples)) != 0).sum()) / max(1, len(s.samples)) for s in sounds]
        return [((name, "say it"), name) for name in ("ball" if c > 0.1 else "box" for c in crossings)]

    def video(self, video):
        return self.pictures(video.frames[:1], ["film it"])[0][1]

    def read(self, frames, attributes):
        frame = np.moveaxis(frames[0], 0, -1)
        green = abs(frame[0, 0].astype(int) - (60, 170, 60)).max() < 40
        place = "left" if self._inside(frame[:, :32]) > self._inside(frame[:, 32:]) else "right"
        return {"concept": self.pictures([frame], [""])[0][1], "colour": "green" if green else "white", "place": place}

    @staticmethod
    def _inside(frame) -> int:
        return int((abs(frame.astype(int) - frame[0, 0]).max(-1) > 60).sum())


class Knowing(Asked):
    """Answers out of the held-out media; wrong: about the other thing."""

    def __init__(self, material: Material, wrong: bool = False):
        self.material, self.wrong, self.answered, self.decoded = material, wrong, 0, 0
        self.layout, self._media, self._codes = Layout.standard(), {}, {}
        self.fit = Fit(side=64)

    def ask(self, requests, want, told=None, tokens=None):
        by_medium = {id(self.medium(i)): i for i in self.material.held}
        out = []
        for request in requests:
            item = by_medium.get(id(request[0]))
            text = item.text if item else request[0]
            if self.wrong:
                text = next(iter(set(WORDS) - {text}), "nothing")
            if want == "text":
                out.append(Text(text))
            else:
                media = [i for i in self.material.held if (i.text, i.modality, i.kind) == (text, want, request[1])]
                out.append(media[0].open() if media else None)
        return out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    book(path / "train", 0, SEEN, clips=2)
    book(path / "held", 1, SEEN + UNSEEN, clips=1)
    return path


@pytest.fixture(scope="module")
def material(data):
    return Material.of(data)


def test_a_model_that_knows_all_is_right_in_every_cell(material):
    bench, wanted = Bench(material, ByEye()), rows(material, 8, 0)
    tallies, films = matrix(Knowing(material), bench, wanted, print)
    assert {(r["source"], r["want"]) for r in tallies} == {
        (a, b) for a in ("text", "image", "audio", "video") for b in ("text", "image", "audio", "video")
    }
    assert all(r["share"] == 1 for r in tallies)
    assert all(r["judge"] == 1 for r in tallies if r["judge_cases"])
    assert all(r["usual"] == 0.5 for r in tallies)
    assert all(r["heard"] == 1 for r in tallies if r["want"] == "video")
    cells = pooled(tallies)
    assert len(cells) == 16
    assert all(c["share"] == 1 and c["closed"]["share"] == 1 for c in cells)
    assert len(films) == 2 * 4
    assert in_step(films)["as_long"]["share"] is not None


def test_a_model_that_is_always_wrong_is_right_in_none(material):
    tallies, _ = matrix(Knowing(material, wrong=True), Bench(material, ByEye()), rows(material, 8, 0), print)
    assert all(r["share"] == 0 for r in tallies)


def test_scenes_are_counted_seen_and_never_seen(material):
    found = scenes(Knowing(material), Bench(material, ByEye()), Options(cases=10), print)
    assert [(s["given"], s["want"], s["seen"], s["cases"], s["share"]) for s in found] == [
        *(("image", "text", True, 4, 1.0), ("text", "image", True, 4, 1.0)),
        *(("image", "text", False, 4, 1.0), ("text", "image", False, 4, 1.0)),
    ]
    assert set(found[0]["attributes"]) == {"concept", "colour", "place"}
    assert found[1]["judge"]["share"] == 1
    wrong = scenes(Knowing(material, wrong=True), Bench(material, ByEye()), Options(cases=10), print)
    assert all(s["share"] == 0 for s in wrong)


def test_attributes_in_words_are_counted_one_by_one(material):
    class Half(Knowing):
        def ask(self, requests, want, told=None, tokens=None):
            right = super().ask(requests, want)
            return [Text(t.text.replace("left", "right")) if want == "text" else t for t in right]

    found = scenes(Half(material), Bench(material, ByEye()), Options(cases=10), print)[0]
    assert found["share"] == 0.5
    assert {a: s["share"] for a, s in found["attributes"].items()} == {"concept": 1.0, "colour": 1.0, "place": 0.5}


def test_a_quarter_of_the_tokens_is_counted_where_all_were_enough(material):
    asked = []

    class Coarse(Knowing):
        def ask(self, requests, want, told=None, tokens=None):
            asked.append(tokens)
            made = super().ask(requests, want)
            return made if tokens == 84 else [made[0], None]

    found = quarter(Coarse(material), Bench(material, ByEye()), Options(), print)
    assert asked == [84, 21]
    assert found["tokens"] == [84, 21]
    assert (found["full"]["share"], found["kept"]["share"]) == (1.0, 0.5)


def test_sound_that_keeps_step_with_its_pictures():
    frames = np.zeros((8, 4, 4, 3), np.uint8)
    tone = np.sin(np.arange(16_000) / 5).astype(np.float32)
    good = Video(frames, 8.0, Audio(tone, 16_000))
    short = Video(frames, 8.0, Audio(tone[:8000], 16_000))
    silent = Video(frames, 8.0, Audio(tone * 0, 16_000))
    late = Video(frames[:2], 8.0, Audio(np.concatenate([tone[:8000] * 0, tone[:8000]]), 16_000))
    found = in_step([good, short, silent, late, Video(frames, 8.0)])
    assert found["with_sound"]["share"] == 0.8
    assert (found["as_long"]["right"], found["begins_within"]["right"]) == (2, 2)
    assert in_step([]) is None


# ---------------------------------------------------------------------------------------------------------------------
# A model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that has learned nothing, of the smallest media."""
    torch.manual_seed(0)
    layout = Layout.standard(2, (32, 16), (32, 16))
    config = ModelConfig(
        vocab_size=layout.size,
        width=32,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=16,
        inner=32,
        positions=2048,
        rope_theta=10_000.0,
    )
    path = tmp_path_factory.mktemp("run")
    fit = {"side": 32, "seconds": 0.32, "fps": 4.0}
    checkpoint.save(path / "model", Transformer(config), layout.to_json(), {"data": {"options": {"fit": fit}}})
    return path


@pytest.fixture
def quick(monkeypatch):
    """Short answers, and judges of few steps."""
    monkeypatch.setattr(cells, "Settings", partial(cells.Settings, longest=12))
    monkeypatch.setattr(judge_training, "STEPS", {"picture": 2, "sound": 2, "scene": 2})
    monkeypatch.setattr(judge_training, "ROWS", 4)


def test_from_the_command_line(quick, data, model, tmp_path, capsys):
    line = ["eval", str(model), "--data", str(data), "--judges", str(tmp_path / "judges"), "--cases", "3"]
    assert run([*line, "--json", "--out", str(tmp_path / "eval.json")]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "eval.json").read_text())
    assert "judge of pictures" in said.err
    assert len(found["cells"]) == 16
    assert found["well_formed"]["answers"] == found["well_formed"]["decoded"] >= 50
    assert {g["goal"]: g["reached"] for g in found["goals"]}["answers that decode"] is True
    assert run(line) == 0
    again = capsys.readouterr()
    assert "judge of" not in again.err
    assert "Any in, any out" in again.out
    assert "voices" not in again.out
    assert "never" in again.out


def test_faults_are_one_line(data, model, tmp_path, capsys):
    (tmp_path / "held").mkdir()
    for line, fault in (
        ([str(tmp_path), "--data", str(data)], "config.json"),
        ([str(model), "--data", str(tmp_path)], "train: does not exist"),
        ([str(model), "--data", str(data), "--cases", "0"], "--cases 0: give at least 1"),
        ([str(model), "--data", str(data), "--tries", "0"], "--tries 0: choose from 1 to 64"),
        ([str(model), "--data", str(data), "--shards", str(tmp_path / "no")], "no: does not exist"),
        ([str(model), "--data", str(data), "--out", str(tmp_path / "a.txt")], "--out names a JSON file"),
    ):
        assert run(["eval", *line]) == 2
        said = capsys.readouterr().err
        assert fault in said
        assert said.count("\n") == 1


def test_an_answer_that_does_not_decode_is_counted(model, monkeypatch):
    asked = Asked(evaluate.Panglot.load(model / "model"))

    class Broken:
        def decode(self, codes):
            raise CodesError("cannot be")

    monkeypatch.setattr(cells, "tokenizer", lambda modality: Broken())
    monkeypatch.setattr(Asked, "answer_all", lambda self, requests, want, settings: [[None]] * len(requests))
    assert asked.ask([["dog"], ["cat"]], "image") == [None, None]
    assert (asked.answered, asked.decoded, dict(asked.faults)) == (2, 0, {"cannot be": 2})


def test_answers_are_drawn_with_the_tries_that_were_asked_for(model, monkeypatch):
    asked = Asked(evaluate.Panglot.load(model / "model"), seed=2, tries=7)
    drawn = []
    monkeypatch.setattr(
        Asked, "answer_all", lambda self, requests, want, settings: drawn.append(settings) or [[]] * len(requests)
    )
    asked.ask([["dog"]], "image", tokens=9)
    assert [(s.tries, s.tokens, s.seed) for s in drawn] == [(7, 9, 2_000_006)]


def test_an_input_is_encoded_once(model, material, monkeypatch):
    asked = Asked(evaluate.Panglot.load(model / "model"))
    item = next(i for i in material.held if i.modality == "image")
    first = asked.encoded(asked.medium(item))
    assert asked.encoded(asked.medium(item)) is first
    assert asked.encoded("dog") is asked.encoded("dog")
    assert asked.encoded("dog") != asked.encoded("cat")


def test_options():
    with pytest.raises(EvaluateError, match="give at least 1"):
        Options(cases=0)
    with pytest.raises(EvaluateError, match="--tries 0: choose from 1 to 64"):
        Options(tries=0)
    with pytest.raises(EvaluateError, match="--seed -1: give 0 or more"):
        Options(seed=-1)


def test_goals_are_those_that_were_measured():
    found = {"rows": [], "cells": [], "scenes": [], "quarter": None, "well_formed": {"answers": 0, "decoded": 0}}
    assert evaluate_report.goals(found) == []
    row = {"source": "image", "given": "photos (photo)", "want": "text", "kind": "", "closed": False, "chance": 0.1}
    found["rows"] = [row | {"share": 0.45, "low": 0.4, "high": 0.5, "cases": 100}]
    goals = {g["goal"]: (g["wanted"], g["reached"]) for g in evaluate_report.goals(found)}
    assert goals == {
        "held-out photos -> word": (0.4, True),
        "held-out photos -> word, 5 times chance": (0.5, False),
    }
