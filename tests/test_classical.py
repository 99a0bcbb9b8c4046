"""Classical codecs at a rate: payloads without their containers, budgets that hold, and what is not installed."""

import io
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import features

from panglot import classical, measure
from panglot.classical import FORMATS, Movies, Pictures
from panglot.media import Audio, Image, Text
from panglot.peers import FACTORS, Unavailable, error, factors
from panglot.testing import some_audio, some_image, some_text, some_video

PAYLOAD = {form.name: form.payload for form in FORMATS}
needs_codec2 = pytest.mark.skipif(shutil.which("c2enc") is None, reason="codec2 is not installed")


def written(name: str, pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, name, quality=60, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_metadata_is_no_payload(form):
    pixels = some_image(64, 96).pixels
    bare = written(form.name, pixels)
    payload = form.payload(bare)
    assert 0 < payload < len(bare)
    laden = written(form.name, pixels, icc_profile=bytes(3000))
    assert len(laden) > len(bare) + 2000
    assert form.payload(laden) == payload


def test_the_scan_of_a_jpeg_is_all_between_its_header_and_its_end():
    data = written("JPEG", some_image(64, 96).pixels)
    scan = data.rindex(b"\xff\xda")
    length = struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    assert PAYLOAD["JPEG"](data) == len(data) - 2 - (scan + 2 + length)
    progressive = written("JPEG", some_image(64, 96).pixels, progressive=True)
    assert progressive.count(b"\xff\xda") > 1
    assert 0.5 < PAYLOAD["JPEG"](progressive) / PAYLOAD["JPEG"](data) < 1.5
    restarts = written("JPEG", some_image(64, 96).pixels, restart_marker_blocks=1)
    assert PAYLOAD["JPEG"](restarts) > PAYLOAD["JPEG"](data)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("data", [b"", b"no picture at all", bytes(200), b"\xff\xd8\xff\xd9", b"RIFF0000WEBP"])
def test_what_is_no_such_file_has_no_payload(form, data):
    with pytest.raises(ValueError, match=f"not an? {form.name} file"):
        form.payload(data)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_pictures_stay_within_their_bits_and_use_them(form):
    image = some_image(96, 128)
    search = Pictures(image, form)
    faults = []
    for bits in (2_000, 5_000, 14_000):
        coded = search.nearest(bits)
        assert coded.medium.pixels.shape == image.pixels.shape
        assert 0.6 * bits < coded.bits <= bits
        faults.append(error(image.pixels, coded.medium.pixels))
    assert faults == sorted(faults, reverse=True)
    assert measure.psnr(image.pixels, coded.medium.pixels) > 25


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_where_nothing_is_small_enough_the_smallest_is_taken_and_says_so(form):
    coded = Pictures(some_image(40, 64), form).nearest(0)
    assert 0 < coded.bits < 2000
    assert coded.medium.pixels.shape == (40, 64, 3)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_the_smallest_picture_there_is(form):
    assert Pictures(Image(np.full((1, 1, 3), 77, np.uint8)), form).nearest(100).medium.pixels.shape == (1, 1, 3)


def test_a_picture_wider_than_a_format_can_hold_is_a_note():
    strip = Image(np.zeros((2, 17_000, 3), np.uint8))
    with pytest.raises(Unavailable, match="WebP cannot"):
        Pictures(strip, FORMATS[1]).nearest(1e6)


def test_a_format_that_pillow_lacks(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(Unavailable, match="AVIF is not in this build"):
        Pictures(some_image(8, 8), FORMATS[2])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(0, 2500))
def test_the_best_setting_is_found(steps, budget):
    sizes = list(np.cumsum(steps))
    asked = []
    found = classical.best_setting(range(100, 100 + len(sizes)), budget, lambda s: asked.append(s) or sizes[s - 100])
    fitting = [s for s in range(100, 100 + len(sizes)) if sizes[s - 100] <= budget]
    if found is None:
        assert fitting == []
    else:
        assert found == fitting[-1] or 0.98 * budget <= sizes[found - 100] <= budget
    assert len(asked) == len(set(asked))


def test_the_sizes_that_are_tried():
    assert factors(1000, 1e9, 0.5) == list(FACTORS)  # more bits than any picture needs: first at full size
    assert factors(6_000_000, 0, 0.5) == list(FACTORS[::-1])
    assert factors(1_000_000, 25_000, 0.1)[0] == 0.5
    assert set(factors(1_000_000, 25_000, 0.1)) == set(FACTORS)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2)])
def test_opus(rate, channels):
    audio = some_audio(2.0, rate, channels=channels)
    coded = [classical.opus(audio, bit_rate) for bit_rate in (6000, 24_000)]
    for one in coded:
        assert one.medium.rate == rate
        assert abs(len(one.medium.samples) - len(audio.samples)) < 0.2 * rate
    assert 3000 < coded[0].bits / 2 < 9000
    assert coded[0].bits * 2 < coded[1].bits
    assert heard(audio, coded[1].medium) < heard(audio, coded[0].medium)


def heard(audio: Audio, decoded: Audio) -> float:
    x, y = measure.align(measure.mono(audio), decoded.samples, audio.rate // 5)
    return measure.mel_distance(Audio(x, audio.rate), Audio(y, audio.rate))


@needs_codec2
def test_codec2_takes_the_bits_of_its_mode():
    audio = some_audio(2.0, 16_000)
    for mode, rate in (("700C", 700), ("1300", 1300), ("2400", 2400)):
        coded = classical.codec2(audio, mode)
        assert coded.bits == pytest.approx(2 * rate, rel=0.03)
        assert coded.medium.rate == audio.rate
        assert len(coded.medium.samples) == pytest.approx(len(audio.samples), rel=0.03)


def test_codec2_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="apt-get install codec2"):
        classical.codec2(some_audio(0.1, 8000), "1300")


def test_x264_stays_within_its_bits():
    video = some_video(12, 49, 65, rate=None)
    search = Movies(video)
    faults = []
    for bits in (3_000, 8_000, 17_000):
        coded = search.nearest(bits)
        assert coded.medium.frames.shape == video.frames.shape
        assert 0.3 * bits < coded.bits <= bits
        faults.append(error(video.frames, coded.medium.frames))
    assert faults == sorted(faults, reverse=True)
    assert search.nearest(0).bits > 0


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (16, 16)])
def test_x264_on_small_frames(size):
    video = some_video(3, *size, rate=None)
    assert Movies(video).nearest(4000).medium.frames.shape == (3, *size, 3)


def test_information_messages_are_no_payload():
    unit, sei = b"\x00\x00\x01\x65" + bytes(range(1, 50)), b"\x00\x00\x00\x01\x06" + bytes(range(1, 100))
    assert classical.without_sei(unit) == len(unit)
    assert classical.without_sei(sei + unit) == len(unit)
    assert classical.without_sei(b"\x00" + unit + sei + unit) == 2 * len(unit) + 1
    assert classical.without_sei(b"") == 0


@pytest.mark.parametrize("code", [classical.deflate, classical.lzma_raw])
def test_text_comes_back_and_repetition_is_cheap(code):
    text = some_text(words=50)
    assert code(text).medium == text
    assert code(Text("again and " * 400)).bits < 8 * 100
