"""`panglot scan` and `panglot prepare`: what they print, write and refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from panglot import cli, media
from panglot.shards import open_shards
from panglot.testing import some_audio, some_image


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def panglot_(capfd):
    """Run a command line; returns its exit code, standard output and standard error."""

    def run(*args) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(a) for a in args])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def folder():
    for word, seed in (("dog", 1), ("cat", 2)):
        Path("set", word).mkdir(parents=True)
        some_image(40, 40, seed).save(f"set/{word}/1.png")
        some_audio(0.3, 16000, seed).save(f"set/{word}/1.wav")
    Path("set/cat/bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    return "set"


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and one line on standard error that has these words, and no output."""
    code, out, err = result
    assert code == 2
    assert err.startswith("panglot: "), err
    assert err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert out == ""


def test_scan(panglot_, folder):
    code, out, err = panglot_("scan", folder, "--plot", "out.png")
    assert (code, err) == (0, "")
    for words in ("3 samples", "coverage", "tokens by alphabet", "left out: 1", "cat/bad.png", "1,500 tokens a second"):
        assert words in out
    assert media.probe("out.png").modality == "image"


def test_scan_as_json(panglot_, folder):
    code, out, err = panglot_("scan", folder, "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["files"] == {"image": 2, "audio": 2}
    assert said["group_pairs"]["image"] == {"text": 2, "image": 2, "audio": 2}
    few = json.loads(panglot_("scan", folder, "--json", "--variants", 1, "--stride", 16, "--depth", 1)[1])
    assert set(few["tokens"]) == {"text", "headers", "image/32", "image/16", "audio/1"}


def test_prepare(panglot_, folder):
    code, out, err = panglot_("prepare", folder, "-o", "tokens", "--join", "text", "--workers", 1, "--held", 0)
    assert code == 0
    assert "3 samples -> tokens  1 shards" in out
    assert "left out: 1" in err
    assert "cat/bad.png: " in err
    data = open_shards("tokens", checksums=True)
    assert f"{len(data):,} segments, {len(data.ids):,} tokens" in out
    assert set(data.rows.group.names) == {"dog", "cat"}
    code, out, err = panglot_("prepare", folder, "-o", "tokens", "--join", "text", "--workers", 1, "--held", 0)
    assert code == 0
    assert "1 of them were there" in out


def test_prepare_as_json(panglot_, folder):
    args = ("--variants", 1, "--stride", 32, "--depth", 1, "--held", 1, "--seed", 5, "--max-tokens", 60, "--workers", 1)
    code, out, err = panglot_("prepare", folder, "-o", "tokens", "--json", *args)
    assert (code, err) == (0, "")
    said = json.loads(out)
    data = open_shards(said["output"])
    assert (said["samples"], said["segments"], said["tokens"]) == (3, len(data), len(data.ids))
    assert [row["name"] for row in said["skipped"]] == ["cat/bad.png"]
    assert data.rows.split.names == ("held",)
    options = data.manifest.options
    assert [options[n] for n in ("variants", "stride", "depth", "held", "seed", "max_tokens")] == [1, 32, 1, 1, 5, 60]


def test_what_is_refused(panglot_, folder):
    refused(panglot_("scan", "missing"), "missing", "does not exist")
    refused(panglot_("prepare", "missing", "-o", "tokens"), "missing", "does not exist")
    refused(panglot_("scan", folder, "--plot", "out.jpg"), "out.jpg", "PNG")
    refused(panglot_("scan", folder, "--stride", 5), "--stride 5", "32, 16, 8")
    refused(panglot_("prepare", folder, "-o", "tokens", "--join", "name"), "--join name")
    refused(panglot_("prepare", folder, "-o", "tokens", "--workers", 0), "--workers 0")
    refused(panglot_("prepare", folder, "-o", "set/tokens", "--workers", 1), "set/tokens", "lies in")
    refused(panglot_("prepare", "set/cat/bad.png", "-o", "tokens"), "bad.png", "is a file")
    assert not Path("tokens").exists()
    Path("bad").mkdir()
    Path("bad/x.png").write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    refused(panglot_("prepare", "bad", "-o", "tokens", "--workers", 1), "nothing could be prepared", "x.png")


def test_the_verbs_cost_nothing_before_they_run():
    code = "import sys, panglot.cli_model; print(sorted({'torch', 'numpy', 'pyarrow', 'av'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
