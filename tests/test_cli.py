"""The command line: what it writes, prints and refuses. In process for speed, as a process where that is the point."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import fakes
import numpy as np
import pytest

import panglot
from panglot import cli, convert, grid, media, tokenfile
from panglot.media import Text
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers.base import Alphabet, Codes

DEMO = Path(panglot.__file__).parent / "assets" / "demo"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    fakes.use(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files():
    Text("one two three\n").save("text.txt")
    some_image(40, 64).save("photo.png")
    some_audio(0.5, 16000).save("sound.wav")
    some_video(10, 32, 48, fps=20.0, rate=16000).save("film.mp4")
    return ["text.txt", "photo.png", "sound.wav", "film.mp4"]


@pytest.fixture
def panglot_(capfd):
    """Run a command line; returns its exit code, standard output and standard error."""

    def run(*args) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(a) for a in args])
        return code, *capfd.readouterr()

    return run


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2 and one line on standard error that has these words, and no output."""
    code, out, err = result
    assert code == 2
    assert err.startswith("panglot: "), err
    assert err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert out == ""


def listing(folder: str = ".") -> set[str]:
    return set(os.listdir(folder))


def test_every_kind_of_file_there_and_back(panglot_, files):
    assert panglot_("encode", *files, "-o", "tokens/")[0] == 0
    assert listing("tokens") == {"text.pgt", "photo.pgt", "sound.pgt", "film.pgt"}
    assert panglot_("decode", *sorted(Path("tokens").iterdir()), "-o", "back")[0] == 0
    assert listing("back") == {"text.txt", "photo.png", "sound.wav", "film.mp4"}
    assert Path("back/text.txt").read_bytes() == Path("text.txt").read_bytes()
    assert media.open("back/photo.png").pixels.shape == (40, 64, 3)
    assert len(media.open("back/sound.wav").samples) == 8000
    film = media.open("back/film.mp4")
    assert film.frames.shape == (10, 32, 48, 3)
    assert film.fps == 20
    assert film.audio is not None


def test_several_files_are_one_message(panglot_, files):
    code, out, err = panglot_("encode", *files, "-o", "message.pgt")
    assert (code, err) == (0, "")
    assert out.count("\n") == 4
    assert [c.modality for c in convert.read_tokens("message.pgt")] == ["text", "image", "audio", "video"]
    assert panglot_("decode", "message.pgt", "-o", "back")[0] == 0
    assert listing("back") == {"message-1.txt", "message-2.png", "message-3.wav", "message-4.mp4"}


def test_options_leave_codes_out(panglot_, files):
    panglot_("encode", *files, "-o", "t.pgt", "--stride", 16, "--depth", 1, "--fps", 10)
    _, image, sound, film = convert.read_tokens("t.pgt")
    assert list(image.arrays) == ["image/32", "image/16"]
    assert list(sound.arrays) == ["audio/1"]
    assert film.header["frames"] == 5
    assert {n for c in film.children for n in c.arrays} == {
        "image/32",
        "image/16",
        "audio/1",
    }


def test_streamed_codes_of_a_file_equal_those_of_the_whole(files):
    whole = fakes.FakeVideo().encode(media.open("film.mp4"))
    assert convert.encode_file("film.mp4", convert.Options()) == whole


def test_formats(panglot_, files):
    panglot_("encode", "photo.png", "-o", "p.pgt")
    panglot_("encode", "sound.wav", "-o", "s.pgt")
    assert panglot_("decode", "p.pgt", "-o", "back", "--format", "jpg")[0] == 0
    assert panglot_("decode", "s.pgt", "-o", "back", "--format", ".FLAC")[0] == 0
    assert listing("back") == {"p.jpg", "s.flac"}
    refused(panglot_("decode", "p.pgt", "-o", "back", "--format", "wav"), "p.pgt", "--format wav", "png")
    refused(panglot_("decode", "p.pgt", "-o", "back", "--format", "exe"), "p.pgt", "png")
    assert listing("back") == {"p.jpg", "s.flac"}


def test_json_is_an_object_a_file_and_nothing_else(panglot_, files):
    code, out, err = panglot_("encode", *files, "-o", "tokens/", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [r["file"] for r in rows] == files
    assert [r["modality"] for r in rows] == ["text", "image", "audio", "video"]
    for row in rows:
        (codes,) = convert.read_tokens(row["output"])
        assert row["tokens_per_alphabet"] == codes.tokens()
        assert row["tokens"] == sum(codes.tokens().values())
        assert row["bits"] == codes.bits(convert.alphabets([codes.modality]))
    code, out, err = panglot_("decode", *(r["output"] for r in rows), "-o", "back", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(rows)) == (0, "", 4)
    assert [Path(r["outputs"][0]["output"]).name for r in rows] == ["text.txt", "photo.png", "sound.wav", "film.mp4"]
    code, out, err = panglot_("inspect", *files, "--json", "--report", "page")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [len(r["levels"]) for r in rows] == [1, 3, 2, 3]
    assert Path("page/index.html").exists()
    assert err == "The page is page/index.html\n"


def test_inspect_prints_a_table_a_file(panglot_, files):
    code, out, err = panglot_("inspect", *files, "--stride", 32)
    assert (code, err) == (0, "")
    for words in ("photo.png: image, 64 x 40", "7,680 raw values", "stride 32", "depth 2", "PSNR", "STOI"):
        assert words in out
    assert "stride 16" not in out


def test_a_bad_file_does_not_stop_the_others(panglot_, files):
    Path("bad.png").write_bytes(Path("photo.png").read_bytes()[:100])
    code, out, err = panglot_("encode", "bad.png", "text.txt", "-o", "tokens/")
    assert code == 2
    assert listing("tokens") == {"text.pgt"}
    assert err.startswith("panglot: bad.png: ")
    assert err.count("\n") == 1
    assert "text.pgt" in out
    code, out, err = panglot_("inspect", "bad.png", "text.txt", "--json", "--report", "page")
    bad, good = map(json.loads, out.splitlines())
    assert code == 2
    assert bad["file"] == "bad.png"
    assert "bad.png" in bad["error"]
    assert good["file"] == "text.txt"
    assert Path("page/index.html").exists()


def test_a_message_with_a_bad_file_is_not_written(panglot_, files):
    Path("empty").touch()
    code, out, err = panglot_("encode", "text.txt", "empty", "-o", "message.pgt")
    assert code == 2
    assert out == ""
    assert "empty" in err
    assert "message.pgt: not written" in err
    assert "message.pgt" not in listing()


@pytest.mark.parametrize("command", ["encode", "inspect", "decode"])
def test_names_that_are_no_files(panglot_, command):
    out = [] if command == "inspect" else ["-o", "out"]
    Path("folder").mkdir()
    Path("empty.png").touch()
    refused(panglot_(command, "nowhere.png", *out), "nowhere.png")
    refused(panglot_(command, "folder", *out), "folder", "is a folder", "name the files")
    refused(panglot_(command, "-", *out), "standard input", "file")
    refused(panglot_(command, "empty.png", *out), "empty.png")


def test_media_and_token_files_mixed_up(panglot_, files):
    panglot_("encode", "text.txt", "-o", "t.pgt")
    code, _, err = panglot_("encode", "t.pgt", "-o", "tokens/")
    assert code == 2
    assert "t.pgt: is a token file" in err
    assert "panglot decode" in err
    refused(panglot_("decode", "photo.png", "-o", "back"), "photo.png", "panglot encode")


def test_damaged_token_files(panglot_, files):
    panglot_("encode", "photo.png", "-o", "t.pgt")
    whole = Path("t.pgt").read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        Path("d.pgt").write_bytes(damaged)
        refused(panglot_("decode", "d.pgt", "-o", "back"), "d.pgt")
    assert listing("back") == set()


def test_token_files_of_other_tokenizers(panglot_):
    tokenfile.write("smell.pgt", Codes("smell", {}, {"s": np.zeros(3, np.int32)}), [Alphabet("s", 9)])
    refused(panglot_("decode", "smell.pgt", "-o", "back"), "smell.pgt", "update panglot")
    other = Codes("image", {"height": 8, "width": 8}, {"image/32": np.zeros((1, 1), np.int32)})
    tokenfile.write("other.pgt", other, [Alphabet("image/32", 99)])
    refused(panglot_("decode", "other.pgt", "-o", "back"), "other.pgt", "99 symbols")


def test_outputs_that_cannot_be(panglot_, files):
    refused(panglot_("encode", "text.txt", "-o", "no/such/folder/t.pgt"), "no/such/folder", "make it first")
    refused(panglot_("encode", "text.txt", "-o", "t.png"), "t.png", ".pgt")
    refused(panglot_("encode", "text.txt", "-o", "-"), ".pgt")
    refused(panglot_("encode", "photo.png", "photo.png", "-o", "photo.png/"), "photo.png")
    Path("same.pgt").write_bytes(Path("text.txt").read_bytes())
    refused(panglot_("encode", "same.pgt", "-o", "same.pgt"), "same.pgt", "also an input")
    assert Path("same.pgt").read_bytes() == Path("text.txt").read_bytes()
    panglot_("encode", "text.txt", "-o", "t.pgt")
    refused(panglot_("decode", "t.pgt", "-o", "back.txt"), "back.txt", "--format")
    Path("plain").touch()
    refused(panglot_("decode", "t.pgt", "-o", "plain"), "plain", "is a file")
    refused(panglot_("inspect", "text.txt", "--report", "plain"), "plain", "is a file")
    if Path("/proc/self").exists():
        refused(panglot_("inspect", "text.txt", "--report", "/proc/page"), "/proc/page: cannot be made there")


def test_two_files_for_one_name(panglot_, files):
    some_image(8, 8).save("text.png")
    code, _, err = panglot_("encode", "text.txt", "text.png", "-o", "tokens/")
    assert code == 2
    assert "text.png: would overwrite" in err
    assert err.count("\n") == 1
    assert [c.modality for c in convert.read_tokens("tokens/text.pgt")] == ["text"]


def test_decoding_does_not_overwrite_its_input(panglot_, files):
    panglot_("encode", "text.txt", "-o", "t.pgt")
    Path("t.pgt").rename("t.txt")
    before = Path("t.txt").read_bytes()
    refused(panglot_("decode", "t.txt", "-o", "."), "t.txt", "another folder")
    assert Path("t.txt").read_bytes() == before


@pytest.mark.parametrize(
    "args",
    [
        ["frobnicate"],
        ["encode", "--strid", "8", "text.txt", "-o", "t.pgt"],
        ["encode", "text.txt"],
        ["encode", "-o", "t.pgt"],
        ["encode", "photo.png", "-o", "t/", "--stride", "12"],
        ["encode", "photo.png", "-o", "t/", "--stride", "coarse"],
        ["encode", "sound.wav", "-o", "t/", "--depth", "99"],
        ["encode", "film.mp4", "-o", "t/", "--fps", "0"],
        ["encode", "film.mp4", "-o", "t/", "--fps", "nan"],
        ["inspect", "sound.wav", "--depth", "0"],
    ],
)
def test_command_lines_that_mean_nothing(panglot_, files, args):
    refused(panglot_(*args))


def test_names_with_control_characters_and_brackets(panglot_):
    name = "[bold]a\x1b[31m\nb.txt"
    Text("x").save(name)
    code, out, err = panglot_("inspect", name)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "[bold]a?[31m?b.txt" in out
    refused(panglot_("encode", "no\nsuch\x1b[2J.png", "-o", "t/"), "no?such?[2J.png")


def test_an_interrupt_leaves_nothing_half_written(panglot_, files, monkeypatch):
    before = listing()
    with monkeypatch.context() as patch:
        patch.setattr(convert, "encode_file", _interrupted)
        assert panglot_("encode", "text.txt", "-o", "t.pgt")[0] == 130
        assert panglot_("demo", "-o", "demo")[0] == 130
    assert listing() == before
    panglot_("encode", "film.mp4", "-o", "film.pgt")
    whole = fakes.FakeVideo.decode_stream

    def half(self, codes):
        yield next(whole(self, codes))
        raise KeyboardInterrupt

    monkeypatch.setattr(fakes.FakeVideo, "decode_stream", half)
    assert panglot_("decode", "film.pgt", "-o", "back")[0] == 130
    assert listing("back") == set()


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs behind
from panglot import cli, convert
def slow(*_):
    print("started", flush=True)
    time.sleep(30)
convert.encode_file = slow
sys.argv = ["panglot", "encode", "text.txt", "-o", "t.pgt"]
cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_process(files, number, code):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SLOW], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err
    assert "t.pgt" not in listing()


def test_a_disk_that_takes_no_more(files):
    """A limit on the size of files stands in for a full disk: the write fails half-way."""
    Text("word " * 2000).save("long.txt")
    command = [sys.executable, "-m", "panglot.cli", "encode", "long.txt", "-o", "t.pgt"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("panglot: ")
    assert done.stderr.count("\n") == 1
    assert "t.pgt" in done.stderr
    assert not [name for name in listing() if "t.pgt" in name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_no_fault_of_the_file(files):
    command = f"{sys.executable} -m panglot.cli inspect text.txt --json > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("panglot: standard output: the disk is full")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_fault(files):
    Path("many").mkdir()
    for i in range(50):
        Text("x").save(f"many/{i}.txt")
    command = f"{sys.executable} -m panglot.cli inspect many/*.txt --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert json.loads(done.stdout)["modality"] == "text"
    assert done.stderr == ""


def test_help_is_fast_and_complete():
    """Processor time, the best of three: what the clock on the wall says depends on what else the machine does."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "panglot.cli", "--help"], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert all(verb in done.stdout for verb in ("encode", "decode", "inspect", "demo", "--version"))
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_version(panglot_):
    assert panglot_("--version") == (0, f"panglot {panglot.__version__}\n", "")


def test_demo(panglot_, monkeypatch):
    monkeypatch.setattr("panglot.grid.missing", lambda: True)  # what it answers is shown in test_grid
    code, out, err = panglot_("demo", "-o", "demo")
    assert code == 0
    assert err.startswith("panglot: this copy has no model in it")
    assert err.count("\n") == 1
    names = {"photo": "png", "voice": "wav", "music": "wav", "video": "mp4", "text": "txt"}
    expected = {f"{n}.pgt" for n in names} | {f"{n}.{suffix}" for n, suffix in names.items()}
    assert listing("demo") == expected | {"media", "index.html", "ATTRIBUTION.md"}
    assert out.splitlines()[-1].endswith(str(Path("demo/index.html").resolve()))
    assert Path("demo/text.txt").read_bytes() == (DEMO / "text.txt").read_bytes()


def test_the_demo_files_are_small_and_credited():
    credits = (DEMO / "ATTRIBUTION.md").read_text("utf-8")
    names = listing(str(DEMO)) - {"ATTRIBUTION.md"}
    asked = {f"{concept}{suffix}" for concept in grid.CONCEPTS for suffix in grid.MEDIA.values() if suffix}
    assert names == {*cli.DEMO, *asked}
    assert sum((DEMO / name).stat().st_size for name in asked) < 100_000
    assert all(f"`{name}`" in credits for name in names)
    assert sum((DEMO / name).stat().st_size for name in names) < 1_000_000


def test_a_name_that_failed_is_free(panglot_, files):
    """What could not be read has written nothing that another file of that name would overwrite."""
    Path("a.jpg").write_bytes(b"\xff\xd8\xff broken")
    some_image(8, 8).save("a.png")
    code, _, err = panglot_("encode", "a.jpg", "a.png", "-o", "tokens/")
    assert (code, err.count("\n")) == (2, 1)
    assert [c.modality for c in convert.read_tokens("tokens/a.pgt")] == ["image"]


def test_a_folder_may_have_a_version(panglot_, files):
    assert panglot_("encode", "text.txt", "-o", "results-1.0/")[0] == 0
    assert listing("results-1.0") == {"text.pgt"}


def test_a_budget_says_that_it_needs_the_whole(panglot_, files, monkeypatch):
    monkeypatch.setattr("panglot._limits.MAX_SECONDS", 0.1)
    code, out, err = panglot_("encode", "film.mp4", "--tokens", "500", "-o", "v.pgt")
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert "film.mp4" in first
    assert "leave the budget out" in first
    assert "v.pgt: not written" in second


def test_a_fault_of_a_message_names_the_file(panglot_, files):
    refused(panglot_("encode", "photo.png", "sound.wav", "--psnr", "10", "-o", "m.pgt"), "sound.wav: --psnr")
    refused(
        panglot_("encode", "photo.png", "text.txt", "--tokens", "50", "--focus", "0,0,5,5", "-o", "m.pgt"), "text.txt"
    )


def test_a_file_named_twice(panglot_, files):
    code, _, err = panglot_("encode", "photo.png", "photo.png", "-o", "two/")
    assert (code, err) == (2, "panglot: photo.png: is named twice; name it once\n")


def test_closed_outputs_are_no_fault(files):
    command = [sys.executable, "-m", "panglot.cli", "count", "photo.png"]
    closed = lambda: (os.close(1), os.close(2))  # noqa: E731
    done = subprocess.run(command, preexec_fn=closed, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("psnr", ["10000", "0", "-3", "nan"])
def test_no_such_quality(panglot_, files, psnr):
    refused(panglot_("encode", "photo.png", "--psnr", psnr, "-o", "i.pgt"), "--psnr", "up to 200")


def test_a_name_too_long_is_told_as_it_was_given(panglot_, files):
    name = "n" * 246 + ".pgt"
    refused(panglot_("encode", "text.txt", "-o", name), name)
