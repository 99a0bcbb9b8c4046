"""The README's Python and its command lines are run as they stand, with the shipped tokenizers."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import panglot
from panglot import cli, media

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DEMO = Path(panglot.__file__).parent / "assets" / "demo"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    media.Image(media.open(DEMO / "photo.jpg").pixels[:160, :200].copy()).save(folder / "dog.jpg")
    voice = media.open(DEMO / "voice.ogg")
    media.Audio(voice.samples[: voice.rate], voice.rate).save(folder / "bark.wav")
    shutil.copy(DEMO / "text.txt", folder / "story.txt")
    return folder


def test_the_readme_has_what_is_run_here():
    assert len(blocks("python")) == 1
    assert len(list(filter(None, blocks("python")[0].splitlines()))) == 4
    assert len(COMMANDS) >= 6


def test_the_lines_of_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert media.open("back.png").pixels.shape == media.open("dog.jpg").pixels.shape
    assert media.open("word.wav").info.duration > 0


def test_the_command_lines_in_their_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        program, *args = shlex.split(command)
        assert program == "panglot"
        assert cli.run(args) == 0, f"{command}: {capsys.readouterr().err}"
    written = ("dog.pgt", "back/dog.png", "tokens/bark.pgt", "message.pgt", "message/message-3.txt", "look/index.html")
    written += ("rooster.png", "film.mp4")
    assert [name for name in written if not Path(name).exists()] == []


def test_every_file_and_target_the_readme_names_is_there():
    targets = re.findall(r"^    make (\w+)", README, re.M)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    paths = set(re.findall(r"\b(?:docs|recipes|benchmarks|tests|src)/[\w./-]*\w", README))
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    modules = re.findall(r"`((?:tokenizers/)?\w+\.py|tokenizers/)`", README)
    assert [
        m for m in modules if not any((ROOT / "src/panglot" / base / m).exists() for base in ("", "tokenizers"))
    ] == []
