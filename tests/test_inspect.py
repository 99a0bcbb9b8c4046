"""Inspection and the report page, over tokenizers whose codes can be worked out by hand."""

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import fakes
import numpy as np
import pytest

from panglot import inspect, measure, media, report
from panglot.convert import OptionError, Options
from panglot.media import Audio, Image, Text, Video
from panglot.testing import some_audio, some_image, some_video


@pytest.fixture(autouse=True)
def _fake_tokenizers(monkeypatch):
    fakes.use(monkeypatch)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    some_image(70, 100).save(path)
    return path


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.wav"
    some_audio(1.0, 16000, channels=2).save(path)
    return path


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.mp4"
    some_video(30, 48, 64, fps=20.0, rate=16000).save(path)
    return path


def test_a_picture_at_every_level(photo):
    found = inspect.inspect(photo)
    assert [level.name for level in found.levels] == ["stride 32", "stride 16", "stride 8"]
    assert found.info.values == 70 * 100 * 3
    assert found.raw_bits == 8 * 70 * 100 * 3
    assert [level.tokens for level in found.levels] == [12, 12 + 35, 12 + 35 + 117]
    assert [level.bits for level in found.levels] == [12 * level.tokens for level in found.levels]
    original = media.open(photo).pixels
    for level in found.levels:
        decoded = fakes.FakeImage().decode(level.codes).pixels
        assert level.fidelity == {"psnr": measure.psnr(original, decoded), "ssim": measure.ssim(original, decoded)}
    psnr = [level.fidelity["psnr"] for level in found.levels]
    assert psnr == sorted(psnr)


def test_the_numbers_of_a_level(photo):
    (level,) = inspect.inspect(photo, Options(stride=32)).as_dict()["levels"]
    assert level["tokens_per_alphabet"] == {"image/32": 12}
    assert level["values_per_token"] == 70 * 100 * 3 / 12
    assert level["raw_bits_per_bit"] == pytest.approx(8 * 70 * 100 * 3 / 144, abs=1e-3)
    assert level["encode_seconds"] >= 0
    assert level["decode_seconds"] >= 0


def test_sound_at_every_depth(sound):
    found = inspect.inspect(sound)
    assert [level.name for level in found.levels] == ["depth 1", "depth 2"]
    assert found.raw_bits == 16 * 16000 * 2
    mono = Audio(measure.mono(media.open(sound)), 16000)
    for level in found.levels:
        decoded = fakes.FakeAudio().decode(level.codes)
        assert level.fidelity["mel_distance"] == pytest.approx(measure.mel_distance(mono, decoded), rel=1e-6)
        assert level.fidelity["stoi"] == pytest.approx(measure.stoi(mono, decoded), rel=1e-6)


def test_long_sound_is_measured_window_by_window(sound, monkeypatch):
    """Three windows of unequal length: the mean is weighted by length."""
    monkeypatch.setattr(inspect, "SOUND_SECONDS", 0.4)
    (level,) = inspect.inspect(sound, Options(depth=2)).levels
    mono, decoded = measure.mono(media.open(sound)), fakes.FakeAudio().decode(level.codes).samples
    ends = [0]
    for size in map(len, np.array_split(decoded, len(level.codes.arrays["audio/1"]))):  # the fake decodes by blocks
        ends.append(ends[-1] + size)
    cuts, start = [], 0
    for end in ends[1:]:
        if end - start >= 0.4 * 16000:
            cuts.append((start, end))
            start = end
    cuts.append((start, len(decoded)))
    assert len(cuts) == 3
    parts = [measure.mel_distance(Audio(mono[a:b], 16000), Audio(decoded[a:b], 16000)) for a, b in cuts]
    assert level.fidelity["mel_distance"] == pytest.approx(
        np.average(parts, weights=[b - a for a, b in cuts]), rel=1e-6
    )


def test_video_is_compared_frame_by_frame_and_its_sound_too(film):
    found = inspect.inspect(film, Options(stride=16))
    (level,) = found.levels
    original = media.open(film)
    decoded = [fakes.FakeImage().decode(c).pixels for c in level.codes.children if c.modality == "image"]
    assert len(decoded) == len(original.frames) == 30
    errors = [measure.mean_squared_error(a, b) for a, b in zip(original.frames, decoded, strict=True)]
    assert level.fidelity["psnr"] == pytest.approx(10 * math.log10(255**2 / np.mean(errors)))
    ssim = [measure.ssim(a, b) for a, b in zip(original.frames, decoded, strict=True)]
    assert level.fidelity["ssim"] == pytest.approx(np.mean(ssim))
    assert level.fidelity["mel_distance"] > 0
    sound = found.info.samples * found.info.channels
    assert found.raw_bits == 8 * 30 * 48 * 64 * 3 + 16 * sound


def test_of_many_frames_some_are_measured(film, monkeypatch):
    monkeypatch.setattr(inspect, "FRAMES", 10)
    seen = []
    monkeypatch.setattr(measure, "ssim", lambda a, b: seen.append(1) or 0.5)
    (level,) = inspect.inspect(film, Options(stride=32)).levels
    assert len(seen) == 10
    assert level.fidelity["ssim"] == 0.5


def test_thinned_video_is_compared_with_the_thinned_original(film):
    (level,) = inspect.inspect(film, Options(stride=32, fps=10)).levels
    assert level.codes.header["frames"] == 15
    assert level.fidelity["psnr"] > 15


def test_text_comes_back_as_it_was(tmp_path):
    path = tmp_path / "text.txt"
    Text("so it goes").save(path)
    found = inspect.inspect(path)
    assert [level.fidelity for level in found.levels] == [{"identical": True}]
    assert found.info.values == 10
    assert found.raw_bits == 80


@pytest.mark.parametrize("options", [Options(stride=12), Options(stride=0), Options(fps=0), Options(fps=math.nan)])
def test_options_that_are_not_on_offer(photo, options):
    with pytest.raises(OptionError, match="choose"):
        inspect.inspect(photo, options)


def test_depths_that_are_not_on_offer(sound):
    for depth in (0, 3, -1):
        with pytest.raises(OptionError, match="1 to 2"):
            inspect.inspect(sound, Options(depth=depth))


def test_what_is_not_finite_is_null_in_json(tmp_path):
    path = tmp_path / "flat.png"
    Image(np.full((64, 64, 3), 17, np.uint8)).save(path)  # 17 is a value that the fake keeps exactly
    found = inspect.inspect(path)
    assert found.levels[0].fidelity["psnr"] == math.inf
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["levels"][0]["psnr"] is None


class Page(HTMLParser):
    """Every reference of a page and all its text; complains about tags that do not match."""

    VOID = frozenset({"meta", "img", "wbr", "br"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def written(files, folder) -> tuple[str, Page]:
    with report.staged(folder) as work:
        found = [inspect.inspect(f, None, report.media_folder(work, i, f)) for i, f in enumerate(files)]
        report.write(found, work)
    source = (folder / report.PAGE).read_text("utf-8")
    return source, Page(source)


def test_the_page_shows_every_level_and_needs_nothing_from_outside(photo, sound, film, tmp_path):
    text = tmp_path / "text.txt"
    Text("less < more & <script>alert('é')</script>").save(text)
    folder = tmp_path / "deep" / "page"
    source, page = written([photo, sound, film, text], folder)
    assert not re.search(r"https?:|//cdn|@import|url\(", source)
    local = [unquote(r) for r in page.references if not r.startswith("#")]
    assert local
    assert all((folder / r).is_file() for r in local)
    shown = {Path(r).name for r in local}
    assert {"original.png", "stride-32.png", "stride-16.png", "stride-8.png", "stride-8-tokens.png"} <= shown
    assert {"original.flac", "depth-1.flac", "depth-2.flac", "depth-1-spectrogram.png", "depth-2-tokens.png"} <= shown
    assert {"original.mp4", "stride-32.mp4", "stride-16.mp4", "stride-8.mp4", "stride-8-tokens.png"} <= shown
    assert "<script" not in source
    assert "less < more & <script>alert('é')</script>" in "".join(page.text)
    for number in ("12", "21,000", "image/32"):
        assert number in "".join(page.text)
    assert {p.name for p in tmp_path.joinpath("deep").iterdir()} == {"page"}, "the staging folder is gone"


def test_a_token_map_has_a_pixel_a_token(photo, tmp_path):
    _, page = written([photo], tmp_path / "page")
    name = next(r for r in page.references if r.endswith("stride-16-tokens.png"))
    pixels = media.open(tmp_path / "page" / unquote(name)).pixels
    codes = fakes.FakeImage().encode(media.open(photo), 16).arrays["image/16"]
    assert pixels.shape[:2] == codes.shape
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == len(np.unique(codes))


def test_a_hostile_file_name_stays_text(photo, tmp_path):
    name = """<img src=x onerror=alert(1)> & "é" '%20#?.png"""
    hostile = tmp_path / name
    photo.rename(hostile)
    source, page = written([hostile], tmp_path / "page")
    assert "<img src=x" not in source
    assert name in page.text
    assert all((tmp_path / "page" / unquote(r)).is_file() for r in page.references if not r.startswith("#"))


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux")
def test_a_file_name_that_is_not_utf8(photo, tmp_path):
    strange = tmp_path / "caf\udce9.png"
    photo.rename(strange)
    _, page = written([strange], tmp_path / "page")
    assert "caf?.png" in page.text


def test_a_failed_report_leaves_nothing(tmp_path):
    def interrupted():
        with report.staged(tmp_path / "page") as work:
            (work / report.PAGE).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_report_replaces_a_report_but_no_other_page(photo, tmp_path):
    folder = tmp_path / "page"
    written([photo], folder)
    written([photo], folder)
    (folder / report.PAGE).write_text("<title>my home page</title>")
    with pytest.raises(FileExistsError, match="choose another folder"):
        written([photo], folder)
    assert (folder / report.PAGE).read_text() == "<title>my home page</title>"


def test_a_silent_video_without_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    Video(some_video(5, 32, 32, rate=None).frames, 10.0).save(path)
    found = inspect.inspect(path, Options(stride=8))
    assert set(found.levels[0].fidelity) == {"psnr", "ssim"}
    source, _ = written([path], tmp_path / "page")
    assert "mel distance" not in source
