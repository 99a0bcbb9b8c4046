"""`panglot generate` and `panglot train`: what they print and write, the names of answers, what is refused and when."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from panglot import checkpoint, cli, cli_generate, media
from panglot.fitting import Fit
from panglot.layout import Layout
from panglot.model import ModelConfig, Transformer
from panglot.testing import some_audio, some_image

LAYOUT = Layout.standard(2, (32, 16), (32,))
FIT = Fit(side=32, seconds=0.4, fps=8, frames=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model that has learned nothing, so that every kind of answer comes quickly."""
    folder = tmp_path_factory.mktemp("model") / "model"
    torch.manual_seed(0)
    made = Transformer(ModelConfig(LAYOUT.size, 32, 2, 2, 1, 16, 48, 1024))
    card = {
        "data": {"options": {"fit": FIT.to_json()}, "tokens": dict.fromkeys(("text", "image", "audio", "video"), 1)}
    }
    checkpoint.save(folder, made, LAYOUT.to_json(), card, torch.float16)
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_with_two_files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    some_image(40, 40, 1).save("dog.png")
    some_audio(0.3, 16000, 1).save("bark.wav")
    Path("folder").mkdir()


@pytest.fixture
def generate(capfd, model):
    """Run `panglot generate` with the small model; returns its exit code, standard output and standard error."""

    def run(*args) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(["generate", *map(str, args), "--model", str(model)])
        return code, *capfd.readouterr()

    return run


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, no output, and one line on standard error that has these words."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("panglot: "), err
    assert err.count("\n") == 1, err
    assert all(word in err for word in words), err


def files() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()} - {"dog.png", "bark.wav"}


@pytest.mark.parametrize(
    ("want", "out", "n", "made"),
    [
        ("image", (), 1, {"answer-1.png"}),
        ("image", ("-o", "a.png"), 1, {"a.png"}),
        ("image", ("-o", "a.webp"), 2, {"a-1.webp", "a-2.webp"}),
        ("audio", ("-o", "a.OGG"), 2, {"a-1.OGG", "a-2.OGG"}),
        ("audio", ("-o", "a"), 1, {"a.wav"}),
        ("audio", ("-o", "new"), 2, {"new/answer-1.wav", "new/answer-2.wav"}),
        ("image,audio", ("-o", "a.flac"), 1, {"a-1.png", "a-2.flac"}),
        ("video", ("-o", "."), 1, {"answer-1.mp4"}),
        ("text", ("-o", "a.txt"), 1, {"a.txt"}),
    ],
)
def test_names_of_answers(generate, want, out, n, made):
    code, said, _ = generate("dog.png", "--want", want, "--tokens", 24, "--n", n, *out)
    assert code == 0
    assert files() == made
    assert all(name in said for name in made)
    assert {media.open(name).modality for name in made} == set(want.split(","))


def test_a_text_goes_to_standard_output(generate):
    code, said, err = generate("bark.wav", "--want", "text", "--tokens", 12)
    assert code == 0
    assert files() == set()
    assert said.endswith("\n")
    assert err.endswith(" s\n")
    whole = json.loads(generate("bark.wav", "--want", "text", "--tokens", 12, "--json")[1])
    (part,) = whole["parts"]
    assert part["modality"] == "text"
    assert part["tokens"] <= 12


def test_of_several_texts_the_one_that_is_kept_is_printed(generate, monkeypatch):
    """And not, as it comes, the likeliest one, with which the others are compared."""
    request = ("dog.png", "--want", "text", "--tokens", 6)
    likeliest = generate(*request, "--tries", 1)[1]
    monkeypatch.setattr("panglot.generate.likelihoods", lambda *args: np.arange(len(args[2]), dtype=float))
    kept = json.loads(generate(*request, "--json")[1])["parts"][0]["text"]
    said = generate(*request)[1]
    assert said == cli_generate._printable(kept) + "\n"
    assert said != likeliest


def test_a_word_that_is_the_name_of_a_folder_too(generate):
    assert generate("folder", "--want", "image", "--tokens", 8)[0] == 0
    assert files() == {"answer-1.png"}


def test_a_name_that_no_answer_will_have_may_be_given(generate):
    some_image(40, 40, 2).save("a-1.png")
    assert generate("a-1.png", "--want", "image", "--tokens", 8, "-o", "a.png")[0] == 0
    assert files() == {"a-1.png", "a.png"}


def test_what_a_model_says_cannot_steer_a_terminal():
    assert cli_generate._printable("one\ntwo\tthree \x1b[31m\u202e") == "one\ntwo\tthree ?[31m?"


def test_as_json(generate):
    code, said, err = generate("a dog", "--want", "image", "--tokens", 24, "--n", 2, "--json")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["answer"] for line in lines] == [0, 1]
    assert [part["output"] for line in lines for part in line["parts"]] == ["answer-1.png", "answer-2.png"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("dog.png", "--want", "smell"), ("--want smell", "text, image, audio, video")),
        (("dog.png", "--n", 0), ("--n 0", "at least 1")),
        (("dog.png", "--want", "image", "-o", "none/a.png"), ("none/a.png", "does not exist")),
        (("dog.png", "--want", "image", "-o", "dog.png"), ("dog.png", "is given and would be written")),
        (("./dog.png", "--want", "image", "-o", "dog.png"), ("dog.png", "is given and would be written")),
        (("dog-2.png", "--want", "image", "--n", 2, "-o", "dog.png"), ("dog-2.png", "is given and would be written")),
        (("answer-1.png", "--want", "image"), ("answer-1.png", "is given and would be written")),
        (("dog.png", "-o", "dog.png"), ("dog.png", "is given and would be written")),
        (("dog.png", "--want", "audio", "-o", "a.png"), ("a.png", "audio cannot be saved", ".wav, .flac, .ogg")),
        (("dog.png", "--want", "text", "-o", "a.md"), ("a.md", "text cannot be saved", ".txt")),
        (("cat.png", "--want", "text"), ("cat.png", "does not exist")),
        (("folder/", "--want", "text"), ("folder", "is a folder")),
        ((" ", "--want", "text"), ("an empty text",)),
        (("dog.png", "--temperature", -1), ("--temperature -1",)),
        (("dog.png", "--top-p", 0), ("--top-p 0",)),
        (("dog.png", "--guidance", 0), ("--guidance 0",)),
        (("dog.png", "--tokens", 0), ("--tokens 0",)),
        (("dog.png", "--seed", -1), ("--seed -1",)),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(generate, args, words):
    before = Path("dog.png").read_bytes()
    refused(generate(*args), *words)
    assert files() == set()
    assert Path("dog.png").read_bytes() == before


def test_a_broken_input_and_a_broken_model(generate, capfd):
    Path("bad.png").write_bytes(Path("dog.png").read_bytes()[:60])
    refused(generate("bad.png", "--want", "text"), "bad.png")
    capfd.readouterr()
    code = cli.run(["generate", "dog.png", "--want", "text", "--model", "nowhere"])
    refused((code, *capfd.readouterr()), "nowhere")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--size", "huge"), ("--size huge", "mini, small, base")),
        (("--steps", 0), ("--steps 0",)),
        (("--rows", 0), ("--rows 0",)),
        (("--length", 0), ("--length 0",)),
        (("--seed", -1), ("--seed -1", "0 to 4294967295")),
        (("--lr", 0), ("--lr 0", "above 0, below 1")),
        (("--lr", "nan"), ("--lr nan",)),
        ((), ("shards", "does not exist")),
    ],
)
def test_training_that_cannot_be_is_refused_before_anything_is_written(capfd, args, words):
    capfd.readouterr()
    code = cli.run(["train", "shards", "-o", "run", *map(str, args)])
    refused((code, *capfd.readouterr()), *words)
    assert not Path("run").exists()
