"""`panglot plan`: counts that encoding confirms, predictions that hold on files never measured, one shared budget."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import panglot
from panglot import budget, cli, media, plan
from panglot.budget import Wish, fault
from panglot.detail import BudgetError
from panglot.media import Audio, Text
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers import tokenizer

DEMO = Path(panglot.__file__).parent / "assets" / "demo"
PHOTO, VOICE, CLIP = DEMO / "photo.jpg", DEMO / "voice.ogg", DEMO / "video.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    some_image(70, 130, 1).save(folder / "odd.png")
    some_image(256, 320, 1).save(folder / "picture.png")
    some_audio(2.5, 22050, 2).save(folder / "sound.wav")
    some_video(12, 64, 96, 3).save(folder / "clip.mp4")
    Text("What is written here comes back as it was, and costs what it costs. " * 4).save(folder / "text.txt")
    return folder


def spent(codes) -> int:
    return sum(codes.tokens().values())


def run(capsys, *args: object) -> tuple[int, str, str]:
    code = cli.run(["plan", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


# ---------------------------------------------------------------------------------------------------------------------
# Counts


@pytest.mark.parametrize("name", ["odd.png", "picture.png"])
def test_the_levels_of_a_picture_cost_what_is_said(folder, name):
    for way in plan.forecast(folder / name).levels():
        stride = int(way.option.split()[1])
        assert way.between is None
        assert way.tokens == spent(tokenizer("image").encode(media.open(folder / name), stride=stride))


def test_the_levels_of_a_sound_cost_what_is_said(folder):
    ways = plan.forecast(folder / "sound.wav").levels()
    assert len(ways) == tokenizer("audio").depth
    for way in ways[:: len(ways) - 1]:
        depth = int(way.option.split()[1])
        assert way.tokens == spent(tokenizer("audio").encode(media.open(folder / "sound.wav"), depth=depth))


def test_a_video_never_costs_more_than_its_most(folder):
    for way in plan.forecast(folder / "clip.mp4").levels():
        stride = int(way.option.split()[1])
        real = spent(tokenizer("video").encode(media.open(folder / "clip.mp4"), stride=stride))
        assert way.most is not None
        assert real <= way.most
        assert way.between is not None
        assert way.between[0] <= way.tokens <= way.between[1] <= way.most


def test_the_tokens_of_a_text_are_about_right():
    (way,) = plan.forecast(DEMO / "text.txt").levels()
    real = tokenizer("text").count(media.open(DEMO / "text.txt"))["text"]
    assert way.between is not None
    assert 0.75 * real < way.tokens < 1.33 * real


def test_nothing_is_encoded_nor_decoded(folder, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a plan knows sizes only")

    for modality in ("image", "audio", "video", "text"):
        monkeypatch.setattr(type(tokenizer(modality)), "encode", never)
    monkeypatch.setattr(media, "open", never)
    files = [plan.forecast(path, alone=False) for path in sorted(folder.iterdir())]
    assert len(plan.split(files, 600)) == 5


# ---------------------------------------------------------------------------------------------------------------------
# Predictions


def test_the_curves_are_of_the_weights_that_are_shipped():
    found = {modality: plan.digest(modality) for modality in plan.WEIGHTS}
    assert plan.curves()["weights"] == found, "measure again: recipes/measure_curves.py"
    assert "tried out" not in " ".join(plan.curves()["measured_on"].values())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4000), st.integers(1, 4000), st.booleans())
def test_more_tokens_never_predict_less(first, second, alone):
    few, many = sorted((first, second))
    for path, name, sign in ((PHOTO, "psnr", 1), (VOICE, "mel_distance", -1)):
        file = plan.forecast(path, alone=alone)
        ways = [file.filled(file.at(1e3), n) if sign > 0 else file._way(n) for n in (few, many)]
        worse, better = (way.fidelity[name] for way in ways)
        assert all(sign * (b - a) >= 0 for a, b in zip(vars(worse).values(), vars(better).values(), strict=True))


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-8, 1e2), st.floats(1, 100))
def test_a_higher_price_never_buys_more(price, times):
    for path in (PHOTO, VOICE, CLIP, DEMO / "text.txt"):
        file = plan.forecast(path, alone=False)
        assert file.at(price * times).tokens <= file.at(price).tokens


def test_the_mean_lies_within_its_spread():
    for path in (PHOTO, VOICE, CLIP):
        file = plan.forecast(path)
        for way in [*file.levels(), *file.budgets()]:
            for value in way.fidelity.values():
                assert value.low <= value.mean <= value.high
                assert value.low < value.high


def test_a_photo_never_measured_is_as_good_as_predicted():
    """One of five files lies outside the spread, so a little is allowed."""
    photo = media.open(PHOTO)
    for way in plan.forecast(PHOTO).budgets()[1::2]:
        (codes,) = budget.encode([photo], Wish(tokens=way.tokens))
        real, predicted = 10 * np.log10(255**2 / fault(photo, codes)), way.fidelity["psnr"]
        assert predicted.low - 1 < real < predicted.high + 1


def test_a_voice_never_measured_is_as_good_as_predicted():
    voice = media.open(VOICE)
    assert isinstance(voice, Audio)
    for way in plan.forecast(VOICE).budgets():
        (codes,) = budget.encode([voice], Wish(tokens=way.tokens))
        predicted = way.fidelity["mel_distance"]
        assert predicted.low - 1 < fault(voice, codes) < predicted.high + 1


# ---------------------------------------------------------------------------------------------------------------------
# One budget


@settings(deadline=None, max_examples=30)
@given(st.integers(150, 20_000))
def test_a_shared_budget_is_never_exceeded_and_pictures_take_the_rest(tokens):
    files = [plan.forecast(path, alone=False) for path in (PHOTO, VOICE)]
    ways = plan.split(files, tokens)
    total = sum(way.tokens for way in ways)
    everything = files[0].levels()[-1].tokens
    assert total == tokens or (total < tokens and ways[0].tokens == everything)


def test_the_split_is_near_to_what_encoding_does():
    files = [plan.forecast(path, alone=False) for path in (PHOTO, VOICE)]
    real = budget.encode([media.open(PHOTO), media.open(VOICE)], Wish(tokens=1500))
    for way, codes in zip(plan.split(files, 1500), real, strict=True):
        assert 0.6 < way.tokens / spent(codes) < 1.67


def test_the_least_budget_of_a_picture_can_be_had_and_no_less(folder):
    least = plan.forecast(folder / "picture.png").at(1e3).tokens
    (codes,) = budget.encode([media.open(folder / "picture.png")], Wish(tokens=least))
    assert spent(codes) <= least


def test_a_budget_too_small_says_what_would_do(folder, capsys):
    files = [folder / "picture.png", folder / "sound.wav"]
    code, out, err = run(capsys, *files, "--budget", 2)
    assert (code, out, err.count("\n")) == (2, "", 1)
    enough = int(err.split("takes ")[1].split(";")[0])
    assert run(capsys, *files, "--budget", enough)[0] == 0
    assert run(capsys, *files, "--budget", enough - 1)[0] == 2
    real = budget.encode([media.open(file) for file in files], Wish(tokens=enough))
    assert sum(map(spent, real)) <= enough


@pytest.mark.parametrize(("value", "words"), [("0", "at least 1"), ("-5", "at least 1"), ("many", "valid integer")])
def test_a_budget_that_is_none(folder, capsys, value, words):
    code, out, err = run(capsys, folder / "picture.png", "--budget", value)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


# ---------------------------------------------------------------------------------------------------------------------
# The command


def test_the_tables_name_files_options_and_what_they_rest_on(folder, capsys):
    code, out, err = run(capsys, *sorted(folder.iterdir()), "--budget", 700)
    assert (code, err) == (0, "")
    for path in folder.iterdir():
        assert out.count(path.name) == 2
    for word in ("--stride 32", "--depth 1", "about", "PSNR, dB", "mel distance, dB", "one budget of 700 tokens"):
        assert word in out
    flat = " ".join(out.split())
    assert "Predicted from sizes alone" in flat
    for modality in ("image", "audio", "video", "text"):
        assert f"{modality}: measured on" in flat


def test_json_is_one_object_a_file(folder, capsys):
    names = ["picture.png", "clip.mp4", "text.txt"]
    code, out, err = run(capsys, *(folder / name for name in names), "--budget", 500, "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [Path(one["file"]).name for one in found] == names
    assert [one["modality"] for one in found] == ["image", "video", "text"]
    assert sum(one["share"]["tokens"] for one in found) <= 500
    psnr = found[0]["levels"][0]["fidelity"]["psnr"]
    assert psnr["low"] <= psnr["mean"] <= psnr["high"]
    assert "share" not in json.loads(run(capsys, folder / "odd.png", "--json")[1])


def test_a_fault_of_one_file_is_one_line_and_the_others_go_on(folder, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    code, out, err = run(capsys, broken, folder / "odd.png", "--budget", 500)
    assert (code, err.count("\n")) == (2, 1)
    assert "broken.png" in err
    assert "odd.png" in out
    assert "one budget" not in out


def test_a_file_that_does_not_tell_its_length_is_refused(folder, monkeypatch):
    known = media.probe(folder / "sound.wav")
    monkeypatch.setattr(media, "probe", lambda _: type(known)("audio", rate=known.rate, channels=1))
    with pytest.raises(BudgetError, match="does not tell how long it is"):
        plan.forecast(folder / "sound.wav")
