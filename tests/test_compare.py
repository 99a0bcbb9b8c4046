"""`panglot compare` on small real files: every tokenizer has its row, rates are kept, faults are one line."""

import json
from pathlib import Path

import pytest

import panglot
from panglot import cli, media

DEMO = Path(panglot.__file__).parent / "assets" / "demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    media.Image(media.open(DEMO / "photo.jpg").pixels[:128, :160].copy()).save(folder / "dog.png")
    voice = media.open(DEMO / "voice.ogg")
    media.Audio(voice.samples[: 2 * voice.rate], voice.rate).save(folder / "bark.wav")
    return folder


def test_each_file_is_one_object_with_all_codecs(folder, capsys):
    assert cli.run(["compare", str(folder / "dog.png"), str(folder / "bark.wav"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    text = [json.dumps(line) for line in lines]
    assert all(name in text[0] for name in ("panglot", "linear", "JPEG", "WebP", "AVIF"))
    assert all(name in text[1] for name in ("panglot", "linear", "Opus"))


def test_the_plot_and_the_page(folder, tmp_path, capsys):
    plot, page = tmp_path / "rd.png", tmp_path / "look"
    assert cli.run(["compare", str(folder / "dog.png"), "--plot", str(plot), "--report", str(page)]) == 0
    assert "JPEG" in capsys.readouterr().out
    assert plot.read_bytes()[:4] == b"\x89PNG"
    html = (page / "index.html").read_text("utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "dog.png" in html


def test_a_broken_file_is_one_line_and_the_others_go_on(folder, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes((folder / "dog.png").read_bytes()[:100])
    assert cli.run(["compare", str(broken), str(folder / "bark.wav")]) == 2
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert "broken.png" in told.err
    assert "Opus" in told.out
