"""`panglot compare`: every code has its row at every rate, the page is whole, faults are one line."""

import json
import math
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import panglot
from panglot import classical, cli, compare, compare_report, measure, media
from panglot.compare import ADAPTIVE, OWN, Row
from panglot.media import Audio, Image, MediaError, Text, Video
from panglot.peers import Coded, Unavailable
from panglot.testing import some_audio, some_video
from panglot.tokenizers import tokenizer

DEMO = Path(panglot.__file__).parent / "assets" / "demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    Image(media.open(DEMO / "photo.jpg").pixels[:128, :160].copy()).save(folder / "dog.png")
    voice = media.open(DEMO / "voice.ogg")
    Audio(voice.samples[: voice.rate * 6 // 5], voice.rate).save(folder / "bark.wav")
    some_video(6, 48, 64, rate=16000).save(folder / "film.mp4")
    Text("one two three, one two three\n").save(folder / "story.txt")
    return folder


@pytest.fixture(scope="module")
def picture(folder):
    return compare.compare(folder / "dog.png").parts[0]


@pytest.fixture(scope="module")
def sound(folder):
    return compare.compare(folder / "bark.wav").parts[0]


def rows(part, code: str) -> list[Row]:
    return [row for row in part.rows if row.code == code]


def test_every_code_has_a_row_at_every_rate_of_ours(picture):
    rates = {row.rate for row in rows(picture, OWN)}
    assert len(rates) == 3
    for code in ("linear", "JPEG", "WebP", "AVIF"):
        assert {row.rate for row in rows(picture, code)} >= rates - {min(rates)}
        assert all(row.bits <= row.rate for row in rows(picture, code) if row.rate != min(rates))
    assert [row.rate for row in picture.rows] == sorted(row.rate for row in picture.rows)


def test_our_own_rows_are_what_the_tokenizer_gives(picture, folder):
    coder, original = tokenizer("image"), media.open(folder / "dog.png")
    for row, stride in zip(rows(picture, OWN), (32, 16, 8), strict=True):
        codes = coder.encode(original, stride=stride)
        assert row.setting == f"stride {stride}"
        assert (row.tokens, row.bits) == (sum(codes.tokens().values()), codes.bits(coder.alphabets))
        assert row.fidelity["psnr"] == pytest.approx(measure.psnr(original.pixels, coder.decode(codes).pixels))
        assert row.encode_seconds > 0
        assert row.decode_seconds > 0


def test_budgets_are_kept(picture, sound):
    for part, setting in ((picture, "stride 16"), (sound, "depth 5")):
        (like,) = [row.tokens for row in rows(part, OWN) if row.setting == setting]
        adaptive = [row for row in rows(part, ADAPTIVE) if row.setting == f"at most {like:,}"]
        assert len(adaptive) == 1
        assert 0.5 * like < adaptive[0].tokens <= like


def test_only_codes_with_tokens_have_some(picture, sound):
    for row in (*picture.rows, *sound.rows):
        assert (row.tokens is None) == (row.code not in (OWN, ADAPTIVE, "linear"))


def test_detail_is_given_for_the_kinds_there_are(picture):
    there = {kind for kind, share in picture.kinds.items() if share}
    assert 0 < len(there) < 4
    head, lines = compare_report.columns(picture)
    for row, cells in zip(picture.rows, filter(None, lines), strict=True):
        assert set(row.detail) == there
        for kind in picture.kinds:
            shown = cells[head.index(f"{kind}, dB")]
            assert shown == (f"{row.detail[kind]:.2f}" if kind in there else "-")


def test_sound_with_the_codecs_that_are_installed(sound):
    assert [row.setting for row in rows(sound, OWN)] == [f"depth {n}" for n in (1, 2, 5, 10)]
    assert [row.setting for row in rows(sound, "Opus")] == ["6k", "9k", "16k"]
    for row in sound.rows:
        assert 0 < row.fidelity["mel_distance"] < 40
    best, worst = rows(sound, "Opus")[-1], rows(sound, OWN)[0]
    assert best.fidelity["mel_distance"] < worst.fidelity["mel_distance"]
    assert best.fidelity["stoi"] > 0.9
    heard = {row.rate for row in rows(sound, OWN)}
    assert not heard & {row.rate for row in rows(sound, "Opus")}  # ten times the bits are no near rate


def test_a_codec_that_is_missing_is_a_note(monkeypatch, folder):
    monkeypatch.setattr(classical.shutil, "which", lambda name: None)
    monkeypatch.setattr(compare, "DEPTHS", (1,))
    (part,) = compare.compare(folder / "bark.wav").parts
    assert rows(part, "Codec2") == []
    assert part.notes == (
        "Codec2 left out: Codec2 needs the programs c2enc and c2dec; on Debian: apt-get install codec2",
    )


def test_a_delay_is_taken_off_before_a_sound_is_measured(folder):
    bench = compare._Bench(some_audio(1.0, 16000), None, lambda part: None)
    late = Audio(np.concatenate([np.zeros(900, np.float32), bench.medium.samples]), 16000)
    assert bench._measured(late)[0]["mel_distance"] == 0


def test_a_video_is_compared_as_pictures_and_as_sound(folder):
    pictures, heard = compare.compare(folder / "film.mp4").parts
    assert {row.code for row in pictures.rows} == {OWN, ADAPTIVE, "linear", "x264"}
    assert all(math.isfinite(row.fidelity["psnr"]) for row in pictures.rows)
    assert {"panglot", "linear", "Opus"} <= {row.code for row in heard.rows}
    assert "6 frames" in pictures.said
    assert heard.said.startswith("sound, 16,000 Hz")


def test_frames_that_a_budget_left_out_are_held():
    film = some_video(7, 16, 16, fps=20.0, rate=None)
    thin = Video(film.frames[::3], 20 / 3)
    held = compare._held(thin, film).frames
    assert [int(np.abs(held[i].astype(int) - film.frames[i // 3 * 3]).max()) for i in range(7)] == [0] * 7


def test_text_comes_back_and_costs_bits(folder):
    (part,) = compare.compare(folder / "story.txt").parts
    assert {row.code for row in part.rows} == {"panglot", "bytes", "Deflate", "LZMA"}
    assert all(row.fidelity == {"identical": True} for row in part.rows)
    assert rows(part, "bytes")[0].bits == 8 * 29


@pytest.mark.parametrize(
    ("limit", "value", "name", "said"),
    [
        ("PICTURE_PIXELS", 4000, "dog.png", "picture, 70 x 56, scaled from 160 x 128"),
        ("SOUND_SECONDS", 0.5, "bark.wav", "the first 0.5 of 1.2 s"),
        ("VIDEO_FRAMES", 2, "film.mp4", "2 frames, the first 0.1 of 0.2 s"),
        ("FRAME_PIXELS", 1000, "film.mp4", "36 x 28, scaled from 64 x 48"),
    ],
)
def test_what_is_large_is_compared_in_part_and_says_so(monkeypatch, folder, limit, value, name, said):
    monkeypatch.setattr(compare, limit, value)
    medium, told = compare._opened(folder / name, media.probe(folder / name))[0]
    assert said in told
    if limit == "VIDEO_FRAMES":
        assert len(medium.frames) == 2


def test_nothing_to_compare(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    with pytest.raises(MediaError, match="empty"):
        compare.compare(empty)
    silence = tmp_path / "none.wav"
    Audio(np.zeros(0, np.float32), 16000).save(silence)
    with pytest.raises(MediaError, match=r"none\.wav"):
        compare.compare(silence)


def test_a_picture_of_one_pixel(tmp_path):
    Image(np.full((1, 1, 3), 77, np.uint8)).save(tmp_path / "dot.png")
    found = compare.compare(tmp_path / "dot.png")
    assert {row.code for row in found.parts[0].rows} >= {OWN, "linear", "JPEG"}
    json.dumps(found.as_dict(), allow_nan=False)
    compare_report.plot([found], tmp_path / "dot-rates.png")


def test_rates_that_are_nearly_the_same_are_one():
    assert compare._rates([100, 220, 110, 200, 1000]) == [110, 220, 1000]
    assert compare._rates([100, 114, 130]) == [114, 130]


def test_rows_join_the_nearest_rate_or_stand_alone():
    def row(code: str, bits: float, rate: float) -> Row:
        return Row(code, "", rate, None, bits, {}, {}, 0.0, 0.0)

    placed = compare._arranged(
        [row("a", 90, 90), row("b", 900, 100), row("b", 900, 500), row("c", 9000, 9000)], [100, 500]
    )
    assert [(r.code, r.rate) for r in placed] == [("a", 100), ("b", 500), ("c", 9000)]


# --- the command, the plot and the page


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """Run `panglot compare` in an empty folder, with few settings; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "STRIDES", (32, 16))
    monkeypatch.setattr(compare, "DEPTHS", (5,))
    monkeypatch.setattr(compare, "BUDGETS", ())

    def run(*args) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["compare", *(str(a) for a in args)])
        return code, *capsys.readouterr()

    return run


def test_each_file_is_one_object_with_all_codecs(folder, run):
    code, out, err = run(folder / "dog.png", folder / "bark.wav", "--json")
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert {row["code"] for row in first["parts"][0]["rows"]} == {OWN, ADAPTIVE, "linear", "JPEG", "WebP", "AVIF"}
    assert {OWN, ADAPTIVE, "linear", "Opus"} <= {row["code"] for row in second["parts"][0]["rows"]}
    row = first["parts"][0]["rows"][0]
    assert {"tokens", "bits", "psnr", "ssim", "psnr_by_kind", "encode_seconds", "decode_seconds"} <= set(row)


def test_a_broken_file_is_one_line_and_the_others_go_on(folder, run):
    Path("broken.png").write_bytes((folder / "dog.png").read_bytes()[:100])
    code, out, err = run("broken.png", "none.wav", folder / "bark.wav")
    assert code == 2
    assert len(err.splitlines()) == 2
    assert "broken.png" in err.splitlines()[0]
    assert "none.wav" in err.splitlines()[1]
    assert "Opus" in out


@pytest.mark.parametrize("target", ["rates.jpg", "none/rates.png", "."])
def test_a_plot_that_cannot_be_is_refused_before_anything_runs(run, monkeypatch, folder, target):
    monkeypatch.setattr(compare, "compare", lambda *args: pytest.fail("was run"))
    code, out, err = run(folder / "dog.png", "--plot", target)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "--plot" in err


def test_the_plot_and_the_page_are_whole(folder, run):
    odd = Path("a $x$ <b>\u00e9\u4e16.png")
    odd.write_bytes((folder / "dog.png").read_bytes())
    code, out, _ = run(odd, folder / "bark.wav", folder / "story.txt", "--plot", "rates.png", "--report", "look")
    assert code == 0
    assert "look/index.html" in out
    assert sorted(p.name for p in Path().iterdir()) == sorted([odd.name, "look", "rates.png"])
    drawn = media.open("rates.png").pixels
    assert drawn.std() > 20
    page = Path("look/index.html").read_text("utf-8")
    assert "<b>" not in page
    links = {unquote(link) for link in re.findall(r'(?:src|href)="([^"#][^"]*)"', page)}
    assert all((Path("look") / link).is_file() for link in links)
    kept = {p.relative_to("look").as_posix() for p in Path("look").rglob("*") if p.is_file()} - {"index.html"}
    assert kept == links
    assert {Path(link).suffix for link in links} == {".png", ".flac"}
    assert page.count("<table>") == 3
    assert "rule on colour" in page


def test_the_original_on_the_page_is_what_was_compared(folder, tmp_path, picture):
    (part,) = compare.compare(folder / "dog.png", tmp_path).parts
    assert np.array_equal(media.open(part.original).pixels, media.open(folder / "dog.png").pixels)
    shown = [row for row in part.rows if row.decoded]
    assert {row.code for row in shown} == {OWN, ADAPTIVE, "linear", "JPEG", "WebP", "AVIF"}
    for row in shown:
        decoded = media.open(row.decoded).pixels
        assert measure.psnr(media.open(part.original).pixels, decoded) == pytest.approx(row.fidelity["psnr"])


def test_what_is_not_a_number_is_shown_as_such():
    row = Row(OWN, "", 8.0, 1, 8.0, {"psnr": math.inf, "ssim": math.nan}, {"colour": math.inf}, 0.0, 0.0)
    part = compare.Part("image", "picture", 0.0, (row,), {"colour": 1.0}, ())
    assert compare_report.columns(part)[1] == [[OWN, "", "1", "1", "equal", "-", "equal", "0.000", "0.000"]]
    assert row.as_dict()["psnr"] is None
    assert row.as_dict()["ssim"] is None


def test_a_fault_of_one_code_leaves_the_others(monkeypatch, folder):
    def fails(self, bits: float) -> Coded:
        raise Unavailable("no such thing")

    monkeypatch.setattr(classical.Pictures, "nearest", fails)
    (part,) = compare.compare(folder / "dog.png").parts
    assert {row.code for row in part.rows} == {OWN, ADAPTIVE, "linear"}
    assert part.notes == tuple(f"{name} left out: no such thing" for name in ("JPEG", "WebP", "AVIF"))


def test_progress_rises_to_the_end(folder):
    told: list[float] = []
    compare.compare(folder / "film.mp4", told=told.append)
    assert told == sorted(told)
    assert 0 <= told[0] < 0.2
    assert told[-1] == pytest.approx(1.0)
