"""Media: every format in and out, time, limits, damage. All inputs are made here, but for a few real broken files."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow
from PIL import ImageOps

from panglot import _limits, media
from panglot.media import Audio, Image, MediaError, Text, Video, open_stream, probe, save, save_stream

MALFORMED = Path(__file__).parent / "data" / "malformed"


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth picture, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1).astype(np.uint8)


def tone(seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """float32 [T, C], each channel louder than the one before."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.1 * (c + 1) * np.sin(2 * np.pi * 90 * t) for c in range(channels)], 1).astype(np.float32)


def levels(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """[T, H, W, 3]: frame i is a flat grey of its own."""
    grey = (20 + np.arange(count) * 200 // count).astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (count, height, width, 3)).copy()


def write_sound(path: Path, samples: np.ndarray, rate: int, codec: str, format: str, layout: str = "mono") -> Path:
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_frames(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    format: str = "mp4",
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
    rotation: int = 0,
) -> Path:
    """times: milliseconds of each frame; by default 25 frames a second."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times[i], Fraction(1, 1000)) if times else (i, Fraction(1, 25))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def greys(video: Video) -> list[int]:
    return [round(float(frame.mean())) for frame in video.frames]


# Images


@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 8),
        ("AVIF", {"quality": 95}, 8),
        ("GIF", {}, 40),
    ],
)
def test_image_formats(tmp_path, format, options, tolerance):
    path = tmp_path / "misleading.mp3"
    Pillow.fromarray(gradient()).save(path, format, **options)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        image = media.open(source)
        assert isinstance(image, Image)
        assert np.abs(image.pixels.astype(int) - gradient()).max() <= tolerance
    info = probe(path)
    assert (info.modality, info.format, info.height, info.width) == ("image", format.lower(), 24, 40)
    assert info.values == 24 * 40 * 3
    assert info.bytes == path.stat().st_size


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, format, orientation):
    path = tmp_path / "turned"
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(gradient()).save(path, format, exif=exif)
    expected = Pillow.fromarray(gradient())
    expected.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(expected))
    np.testing.assert_array_equal(media.open(path).pixels, expected)
    assert (probe(path).height, probe(path).width) == expected.shape[:2]


def png(image: Pillow.Image, format: str = "PNG", **options) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return media.open(buffer.getvalue()).pixels


def test_alpha_is_composited_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 128, 255
    np.testing.assert_array_equal(png(Pillow.fromarray(rgba))[0, :, 0], [255, 127, 0])
    np.testing.assert_array_equal(png(Pillow.fromarray(rgba[..., 2:]))[0, :, 0], [255, 127, 0])
    palette = Pillow.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    np.testing.assert_array_equal(png(palette, transparency=0)[0], [[255, 255, 255], [10, 20, 30]])


def test_deep_and_grey_images_are_scaled():
    ramp = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    grey = np.array([0, 1, 128, 255])
    np.testing.assert_array_equal(png(Pillow.fromarray(ramp))[0], np.repeat(grey[:, None], 3, 1))
    np.testing.assert_array_equal(png(Pillow.fromarray(ramp), "TIFF")[0, :, 0], grey)
    np.testing.assert_array_equal(png(Pillow.fromarray(ramp.astype(np.int32)), "TIFF")[0, :, 0], grey)
    floats = (np.array([[0, 1, 128, 255]]) / 255).astype(np.float32)
    np.testing.assert_array_equal(png(Pillow.fromarray(floats), "TIFF")[0, :, 0], grey)
    np.testing.assert_array_equal(png(Pillow.fromarray(grey[None].astype(np.uint8)))[0, :, 2], grey)
    np.testing.assert_array_equal(png(Pillow.new("1", (2, 1), 1)), np.full((1, 2, 3), 255))


def test_cmyk():
    cmyk = png(Pillow.fromarray(gradient()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(cmyk.astype(int) - gradient()).max() <= 12


@pytest.mark.parametrize(("format", "suffix"), [("GIF", ".gif"), ("WEBP", ".webp"), ("PNG", ".png")])
def test_animation_opens_as_video(tmp_path, format, suffix):
    frames = [Pillow.fromarray(f) for f in levels(4)]
    path = tmp_path / f"moving{suffix}"
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(path, format, save_all=True, append_images=frames[1:], duration=[100, 300, 100, 200], **options)
    video = media.open(path)
    assert isinstance(video, Video)
    assert video.fps == 10
    assert greys(video) == [20, 70, 70, 70, 120, 170, 170]
    info = probe(path)
    assert (info.modality, info.frames, info.fps, info.duration) == ("video", 7, 10, pytest.approx(0.7))


# Sound


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")],
)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_sound_formats(tmp_path, format, subtype, rate, channels):
    path, samples = tmp_path / "sound", tone(0.7, rate, channels)
    soundfile.write(path, samples, rate, subtype, format=format)
    sound = media.open(path)
    assert isinstance(sound, Audio)
    assert (sound.rate, sound.channels, len(sound.samples)) == (rate, channels, len(samples))
    assert sound.samples.shape == ((len(samples),) if channels == 1 else (len(samples), channels))
    assert np.abs(sound.samples.reshape(samples.shape) - samples).max() < (0.05 if format == "OGG" else 0.01)
    info = probe(path)
    assert (info.modality, info.rate, info.channels, info.samples) == ("audio", rate, channels, len(samples))
    assert info.values == len(samples) * channels


@pytest.mark.parametrize(
    ("codec", "format", "rate"),
    [("aac", "mp4", 16000), ("aac", "mp4", 44100), ("libmp3lame", "mp3", 16000), ("libopus", "ogg", 48000)],
)
@pytest.mark.parametrize("count", [32000, 32768, 30001])
def test_padding_of_codecs_is_trimmed(tmp_path, codec, format, rate, count):
    samples = tone(count / rate, rate)
    path = write_sound(tmp_path / "sound", samples, rate, codec, format)
    sound = media.open(path)
    assert len(sound.samples) == count
    assert np.abs(sound.samples[2000:-2000] - samples[2000:-2000, 0]).max() < 0.03  # in place, not shifted


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_sound_round_trip_keeps_channels(tmp_path, suffix, channels):
    samples = tone(0.5, 24000, channels)
    Audio(samples[:, 0].copy() if channels == 1 else samples, 24000).save(tmp_path / f"a{suffix}")
    sound = media.open(tmp_path / f"a{suffix}")
    assert (sound.rate, sound.channels, len(sound.samples)) == (24000, channels, 12000)
    loudness = np.abs(sound.samples.reshape(-1, channels)).max(0)
    np.testing.assert_allclose(loudness, 0.1 * np.arange(1, channels + 1), rtol=0.2)


def test_sound_in_a_video_container_and_cover_art(tmp_path):
    for name, format in (("a.mp4", "mp4"), ("a.mkv", "matroska"), ("a.mov", "mov")):
        sound = media.open(write_sound(tmp_path / name, tone(), 16000, "aac", format))
        assert isinstance(sound, Audio)
    path = tmp_path / "cover.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone().T), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        picture = av.VideoFrame.from_ndarray(gradient(32, 32), format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
    assert isinstance(media.open(path), Audio)
    assert probe(path).modality == "audio"


# Video


@pytest.mark.parametrize(
    ("codec", "format"),
    [
        ("libx264", "mp4"),
        ("libx264", "mov"),
        ("libx264", "matroska"),
        ("libvpx", "webm"),
        ("mpeg2video", "mpeg"),
        ("mpeg4", "avi"),
    ],
)
def test_video_formats(tmp_path, codec, format):
    path = write_frames(tmp_path / "video", levels(10), codec, format)
    video = media.open(path)
    assert (video.frames.shape, video.fps, video.audio) == ((10, 32, 48, 3), 25, None)
    np.testing.assert_allclose(greys(video), levels(10)[:, 0, 0, 0], atol=4)
    assert (probe(path).modality, probe(path).fps) == ("video", 25)


def test_ten_bit(tmp_path):
    path = write_frames(tmp_path / "deep", levels(5), "libx264", "mp4", "yuv420p10le")
    np.testing.assert_allclose(greys(media.open(path)), levels(5)[:, 0, 0, 0], atol=3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation(tmp_path, rotation):
    frames = np.stack([gradient(32, 48)] * 3)
    video = media.open(write_frames(tmp_path / "v", frames, rotation=rotation))
    expected = np.rot90(gradient(32, 48), rotation // 90)  # both count counter-clockwise
    assert video.frames.shape[1:] == expected.shape
    assert np.abs(video.frames[0].astype(int) - expected).mean() < 6
    assert (probe(tmp_path / "v").height, probe(tmp_path / "v").width) == expected.shape[:2]


def test_variable_frame_rate_becomes_constant(tmp_path):
    # 10 frames/s, but for a frame that stays 0.5 s and one that comes 10 ms late.
    times = [0, 100, 200, 310, 400, 500, 1000, 1100, 1200, 1300]
    path = write_frames(tmp_path / "v", levels(10), times=times, format="matroska")
    pieces = list(open_stream(path, fps=10))
    seen = [g for piece in pieces for g in greys(piece)]
    fps = pieces[0].fps
    wanted = [levels(10)[np.searchsorted(times, i / fps * 1000 + 15, "right") - 1, 0, 0, 0] for i in range(len(seen))]
    np.testing.assert_allclose(seen, wanted, atol=4)
    assert len(seen) / fps == pytest.approx(1.4, abs=0.11)


@pytest.mark.parametrize("size", [(32, 48), (33, 48), (32, 47), (35, 51), (1, 1), (2, 2), (3, 200)])
def test_video_round_trip_keeps_the_size(tmp_path, size):
    frames = np.repeat(np.stack([gradient(*size)[..., 1:2]] * 6), 3, axis=3)
    Video(frames, 12.5).save(tmp_path / "v.mp4")
    video = media.open(tmp_path / "v.mp4")
    assert (video.frames.shape, video.fps, video.audio) == (frames.shape, 12.5, None)
    assert np.abs(video.frames.astype(int) - frames).mean() < 6


@pytest.mark.parametrize(("fps", "rate"), [(25.0, 44100), (30000 / 1001, 48000), (24.0, 16000), (10.0, 192000)])
def test_flash_and_click_stay_together(tmp_path, fps, rate):
    """A white frame and a click at the same moment are at the same moment after save and open."""
    count, at = round(3 * fps), [round(fps), round(2.2 * fps)]
    frames = np.zeros((count, 48, 64, 3), np.uint8)
    samples = np.zeros(media.sample_at(count, fps, rate), np.float32)
    for i in at:
        frames[i] = 255
        samples[media.sample_at(i, fps, rate) : media.sample_at(i, fps, rate) + rate // 200] = 0.9
    Video(frames, fps, Audio(samples, rate)).save(tmp_path / "v.mp4")
    video = media.open(tmp_path / "v.mp4")
    assert video.fps == pytest.approx(fps)
    assert len(video.frames) == count
    assert [i for i, g in enumerate(greys(video)) if g > 128] == at
    assert len(video.audio.samples) == media.sample_at(count, fps, video.audio.rate)
    assert video.audio.rate == min(rate, 96000)
    for i in at:
        begin = media.sample_at(i - 2, fps, video.audio.rate)
        loud = np.abs(video.audio.samples[begin : begin + round(6 / fps * video.audio.rate)])
        assert abs(2 / fps - (loud > 0.3).argmax() / video.audio.rate) < 0.005


def test_the_same_video_becomes_the_same_file_whatever_lies_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    noise = Pillow.fromarray(rng.integers(112, 144, (40, 40, 3), np.uint8))
    scene = np.asarray(noise.resize((600, 600), Pillow.Resampling.BICUBIC))
    video = Video(np.stack([scene[3 * i : 3 * i + 240, 5 * i : 5 * i + 320] for i in range(12)]), 8.0)
    made = set()
    for n in range(12):
        waste = [rng.integers(0, 256, int(rng.integers(1000, 3_000_000)), np.uint8) for _ in range(20)]
        del waste[:: n % 2 + 1]
        video.save(tmp_path / "v.mp4")
        made.add((tmp_path / "v.mp4").read_bytes())
    assert len(made) == 1


def test_sound_that_starts_late_and_ends_early(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.height, picture.width, picture.pix_fmt = 32, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for i, pixels in enumerate(levels(50)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(picture.encode(frame))
        click = np.full((1, 8000), 0.5, np.float32)
        frame = av.AudioFrame.from_ndarray(click, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 8000, Fraction(1, 16000)
        container.mux(sound.encode(frame))
        container.mux([*picture.encode(None), *sound.encode(None)])
    samples = media.open(path).audio.samples
    assert len(samples) == 32000
    assert np.abs(samples[:7000]).max() < 0.05
    assert samples[9000:15000].mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(samples[18000:]).max() < 0.05


# Streams


@pytest.mark.parametrize("seconds", [0.08, 0.333, 1.0, 100.0])
def test_stream_of_sound_is_the_whole(tmp_path, seconds):
    path = write_sound(tmp_path / "a", tone(2.0), 16000, "libmp3lame", "mp3")
    pieces = list(open_stream(path, seconds=seconds))
    assert all(len(p.samples) == min(32000, round(seconds * 16000)) for p in pieces[:-1])
    np.testing.assert_array_equal(np.concatenate([p.samples for p in pieces]), media.open(path).samples)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_stream_of_video_is_the_whole(tmp_path, monkeypatch, rate):
    path, fps = tmp_path / "v.mp4", 30000 / 1001
    Video(levels(50), fps, Audio(tone(50 / fps, rate, 2), rate)).save(path)
    whole = media.open(path)
    monkeypatch.setattr(_limits, "MAX_CHUNK_BYTES", 7 * 32 * 48 * 3 + 5)
    stream = open_stream(path)
    assert (stream.info.frames, stream.info.samples) == (50, media.sample_at(50, fps, rate))
    pieces = list(stream)
    assert [len(p.frames) for p in pieces] == [7] * 7 + [1]
    done = 0
    for piece in pieces:
        begin, end = media.sample_at(done, fps, rate), media.sample_at(done + len(piece.frames), fps, rate)
        np.testing.assert_array_equal(piece.audio.samples, whole.audio.samples[begin:end])
        np.testing.assert_array_equal(piece.frames, whole.frames[done : done + len(piece.frames)])
        done += len(piece.frames)
    assert done == len(whole.frames)


def test_fps_thins_and_never_adds(tmp_path):
    path = tmp_path / "v.mp4"
    Video(levels(50), 25.0, Audio(tone(2.0)[:, 0].copy(), 16000)).save(path)
    with open_stream(path, fps=5) as stream:
        assert (stream.info.fps, stream.info.frames) == (5, 10)
        thin = stream.read()
    np.testing.assert_allclose(greys(thin), levels(50)[::5, 0, 0, 0], atol=4)
    assert len(thin.audio.samples) == 32000
    with open_stream(path, fps=100) as stream:
        assert stream.info.fps == 25


def test_stream_memory_does_not_grow_with_length(tmp_path, monkeypatch):
    monkeypatch.setattr(_limits, "MAX_CHUNK_BYTES", 4 * 128 * 160 * 3)

    def peak(count: int) -> int:
        chunk = Video(np.zeros((10, 128, 160, 3), np.uint8), 25.0, Audio(np.zeros(6400, np.float32), 16000))
        save_stream((chunk for _ in range(count)), tmp_path / "v.mp4")
        tracemalloc.start()
        assert sum(len(piece.frames) for piece in open_stream(tmp_path / "v.mp4")) == 10 * count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)
    assert peak(24) < 1.3 * peak(6) < 40 * 128 * 160 * 3


def test_still_images_and_text_do_not_stream(tmp_path):
    Image(gradient()).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="does not move; use open"):
        open_stream(tmp_path / "a.png")
    with pytest.raises(MediaError, match="is text"):
        open_stream(b"words")


# Text


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_text_round_trip(text):
    assert media.open(text.encode()) == Text(text)


def test_text_info(tmp_path):
    Text("zwölf\r\n").save(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == "zwölf\r\n".encode()
    info = probe(tmp_path / "a.txt")
    assert (info.modality, info.characters, info.values, info.bytes) == ("text", 7, 7, 8)
    with pytest.raises(MediaError, match="lone surrogate"):
        Text("\ud800")


# Saving


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_round_trip(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("png") / "a.png"
    Image(pixels).save(path)
    np.testing.assert_array_equal(media.open(path).pixels, pixels)


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 50), st.integers(1, 3))), st.integers(4000, 96000))
def test_wav_round_trip(tmp_path_factory, values, rate):
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    Audio((values / 32768).astype(np.float32), rate).save(path)
    sound = media.open(path)
    assert sound.rate == rate
    np.testing.assert_array_equal(np.rint(sound.samples.reshape(values.shape) * 32768), values)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".png", ".JPG"])
def test_image_suffixes(tmp_path, suffix):
    Image(gradient()).save(tmp_path / f"a{suffix}")
    assert np.abs(media.open(tmp_path / f"a{suffix}").pixels.astype(int) - gradient()).mean() < 4


@pytest.mark.parametrize("fault", [RuntimeError("decoder"), KeyboardInterrupt()])
@pytest.mark.parametrize("suffix", [".mp4", ".wav"])
def test_interrupted_save_leaves_the_old_file(tmp_path, fault, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def chunks():
        for _ in range(3):
            sound = Audio(np.zeros(6400, np.float32), 16000)
            yield sound if suffix == ".wav" else Video(levels(10), 25.0, sound)
        raise fault

    with pytest.raises(type(fault)):
        save_stream(chunks(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_saved(tmp_path):
    sound = Audio(np.zeros((100, 9), np.float32), 16000)
    cases = [
        (Image(gradient()), "a.mp3", r"image cannot be saved as \.mp3; use \.png"),
        (Image(gradient()), "a", "without suffix"),
        (sound, "a.mp4", r"use \.wav"),
        (Text("a"), "a.png", r"use \.txt"),
        (Image(np.zeros((1, 20000, 3), np.uint8)), "a.webp", "WEBP cannot hold it"),
        (sound, "a.flac", "FLAC cannot hold 9 channels"),
        (Video(levels(2), 25.0, sound), "a.mp4", "mix it down"),
        (Text("a"), "missing/a.txt", "cannot be written"),
    ]
    for value, name, message in cases:
        with pytest.raises(MediaError, match=message):
            save(value, tmp_path / name)
    with pytest.raises(MediaError, match="nothing to save"):
        save_stream([], tmp_path / "a.wav")
    with pytest.raises(MediaError, match="does not continue"):
        save_stream([Audio(np.zeros(9, np.float32), r) for r in (8000, 16000)], tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


# Limits and damage


def test_values_check_their_arrays():
    with pytest.raises(MediaError, match="an image is uint8"):
        Image(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(MediaError, match="sound is float32"):
        Audio(np.zeros(3), 16000)
    with pytest.raises(MediaError, match="video is uint8"):
        Video(np.zeros((0, 2, 2, 3), np.uint8), 25.0)


def test_limits_name_file_fault_and_remedy(tmp_path, monkeypatch):
    Image(gradient()).save(tmp_path / "a.png")
    Video(levels(10), 10.0).save(tmp_path / "v.mp4")
    Audio(tone(2.0)[:, 0].copy(), 16000).save(tmp_path / "a.wav")
    cases = [
        ("MAX_PIXELS", 959, "a.png", "40x24 pixels are over the limit.*; reduce"),
        ("MAX_SECONDS", 1.5, "a.wav", "lasts over 1.5 s.*; use open_stream"),
        ("MAX_MEMORY", 9 * 32 * 48 * 3, "v.mp4", "decoded, the limit.*; use open_stream"),
        ("MAX_FRAME_PIXELS", 32 * 47, "v.mp4", "damaged or incomplete"),
        ("MAX_RATE", 8000, "a.wav", "16000 Hz are over"),
    ]
    for constant, value, name, message in cases:
        with monkeypatch.context() as patch:
            patch.setattr(_limits, constant, value)
            with pytest.raises(MediaError, match=f"{name}: .*{message}"):
                media.open(tmp_path / name)
    monkeypatch.setattr(_limits, "MAX_SECONDS", 1.5)
    assert sum(len(p.samples) for p in open_stream(tmp_path / "a.wav")) == 32000
    monkeypatch.setattr(_limits, "MAX_BYTES", 3)
    with pytest.raises(MediaError, match="pass its path"):
        media.open(io.BytesIO(b"text"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/file.jpg", "No such file"),
        (".", "not a regular file"),
        (b"", "is empty"),
        (b"\x00\x01\x02", "no known media format.*NUL"),
        ("Grüße".encode("latin-1"), "byte 2 is not UTF-8"),
        ("Grüße".encode("utf-16"), "not UTF-8"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "damaged image"),
        (b"fLaC" + bytes(100), "damaged or incomplete"),
        (b"II*\0" + bytes(100), "damaged image"),
    ],
)
def test_what_cannot_be_opened(source, message):
    for read in (media.open, probe, open_stream):
        with pytest.raises(MediaError, match=message) as caught:
            read(source)
        assert "\n" not in str(caught.value)


def test_truncated_files(tmp_path):
    Image(gradient(200, 300)).save(tmp_path / "a.png")
    Pillow.fromarray(gradient(200, 300)).save(tmp_path / "a.tif", compression="tiff_lzw")
    Video(levels(30), 25.0).save(tmp_path / "v.mp4")
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        media.open(data)
        with pytest.raises(MediaError, match="<bytes>: damaged"):
            media.open(data[: len(data) // 4])


@pytest.mark.parametrize("path", sorted(MALFORMED.iterdir()), ids=lambda path: path.name)
def test_malformed(path, capfd):
    """Real broken files: refused in one line, nothing on the terminal."""
    with pytest.raises(MediaError) as caught:
        media.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_crashing_decoder_ends_as_an_error(tmp_path, monkeypatch):
    Pillow.fromarray(gradient(2000, 2000)).save(tmp_path / "a.tif", compression="tiff_lzw")
    monkeypatch.setattr("panglot._isolate._COMMAND", [sys.executable, "-c", "import os; os.abort()"])
    with pytest.raises(MediaError, match=r"a\.tif: the TIFF decoder crashed"):
        media.open(tmp_path / "a.tif")


def test_importing_media_is_light():
    code = "import sys, panglot.media; print(*{'torch', 'av', 'PIL', 'soundfile', 'soxr'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_damage_in_a_png_is_seen():
    """Pillow's reader of EXIF data decodes a PNG on the way and keeps the faults to itself."""
    buffer = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(MediaError, match="damaged image"):
        media.open(bytes(data))


def test_a_probe_decodes_no_picture(monkeypatch):
    buffer = io.BytesIO()
    Pillow.new("RGB", (80, 60)).save(buffer, "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    info = media.probe(buffer.getvalue())
    assert (info.height, info.width) == (60, 80)


def test_the_decoder_of_tiff_runs_no_code_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "tempfile.py").write_text("open('was here', 'w').close()")
    Pillow.new("RGB", (20, 10), "red").save(tmp_path / "t.tif")
    monkeypatch.chdir(tmp_path)
    assert media.open("t.tif").pixels.shape == (10, 20, 3)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    "text",
    ["The free software movement", "The wide river", "Can skip this", "ID3 tags are stored", "A - moov", "I saw mdat"],
)
def test_text_that_begins_like_media_is_text(text):
    assert media.open(text.encode()) == Text(text)


def test_a_picture_shown_for_hours_is_refused():
    buffer = io.BytesIO()
    frames = [Pillow.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=[11, 16_777_215], lossless=True)
    with pytest.raises(MediaError, match="one picture for over 3600 s"):
        media.open(buffer.getvalue())


def test_rates_that_cannot_be(tmp_path):
    video = Video(levels(4), 10.0)
    video.save(tmp_path / "v.mp4")
    for fps in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="frame rate"):
            media.open_stream(tmp_path / "v.mp4", fps=fps)
        with pytest.raises(ValueError, match="frame rate"):
            Video(levels(1), fps)
    with media.open_stream(tmp_path / "v.mp4", fps=0.0004) as stream:
        assert len(stream.read().frames) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "wav", "mp4"])
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, suffix):
    """A limit on the size of files stands in for a full disk."""
    made = {"jpg": "Image(noise[0])", "png": "Image(noise[0])", "mp4": "Video(noise, 10.0)"}
    code = f"""if True:
        import numpy as np, resource, signal
        from panglot.media import *
        noise = np.random.default_rng(0).integers(0, 256, (12, 120, 160, 3), np.uint8)
        medium = {made.get(suffix, "Audio(np.zeros(100_000, np.float32), 16000)")}
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        try:
            save(medium, "out.{suffix}")
        except MediaError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(f"out.{suffix}: cannot be written"), done
    assert not list(tmp_path.iterdir())
