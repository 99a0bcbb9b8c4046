"""Media at the sizes of a model."""

import numpy as np
import pytest

from panglot import media
from panglot.fitting import LOUD, Fit, fitted_sound, resampled, square
from panglot.media import Audio, MediaInfo, Text, Video
from panglot.testing import some_audio, some_image, some_video

FIT = Fit(side=48, seconds=1.0, fps=8, frames=5)


def test_nothing_is_changed_without_sizes():
    for medium in (Text("dog"), some_image(30, 40), some_audio(0.3), some_video(3, 20, 30)):
        fitted = Fit()(medium)
        assert type(fitted) is type(medium)
        if isinstance(medium, Video):
            assert np.array_equal(fitted.frames, medium.frames)
            assert (fitted.fps, fitted.audio) == (medium.fps, medium.audio)
        else:
            assert fitted is medium
    assert FIT(Text("dog")) == Text("dog")


def test_pictures_are_squares_of_their_middle():
    assert FIT(some_image(100, 30)).pixels.shape == (48, 48, 3)
    assert FIT(some_image(10, 9)).pixels.shape == (48, 48, 3)
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[:, 20:80] = 200
    assert (square(picture, 48) == 200).all()
    assert (square(np.ascontiguousarray(picture.transpose(1, 0, 2)), 48) == 200).all()
    exact = some_image(48, 48).pixels
    assert np.array_equal(square(exact, 48), exact)


@pytest.mark.parametrize(("seconds", "rate", "channels"), [(0.3, 16000, 1), (0.61, 44100, 2), (3.0, 8000, 1)])
def test_sound_is_mono_in_whole_blocks_of_even_level(seconds, rate, channels):
    found = FIT(some_audio(seconds, rate, channels=channels))
    assert found.rate == 16000
    assert found.samples.ndim == 1
    assert len(found.samples) % 1280 == 0
    assert len(found.samples) == min(-(-round(seconds * 16000) // 1280), 12) * 1280
    assert np.abs(found.samples).max() == pytest.approx(LOUD, abs=1e-4)
    assert found.samples.dtype == np.float32


def test_the_loudest_part_of_a_longer_sound_is_kept():
    samples = some_audio(4.0, 16000).samples * 0.02
    samples[40000:48000] = some_audio(0.5, 16000).samples
    found = fitted_sound(Audio(samples, 16000), 0.8).samples
    whole = samples / np.abs(samples[30000:60000]).max() * LOUD
    start = int(np.abs(np.correlate(whole, found, "valid")).argmax())
    assert start <= 40000
    assert start + 12800 >= 48000
    assert np.allclose(whole[start : start + 12800], found, atol=1e-5)


@pytest.mark.parametrize(
    "fit", [Fit(), FIT, Fit(seconds=1.6), Fit(fps=3), Fit(frames=2), Fit(side=20, frames=50, fps=60)]
)
def test_sizes_are_known_before(fit):
    """`panglot scan` tells the tokens of media that nobody has opened."""
    for medium in (
        some_image(100, 30),
        some_audio(0.3, 8000),
        some_audio(2.7, 44100, channels=2),
        some_audio(0.001, 48000),
        some_video(7, 20, 30),
        some_video(1, 30, 20),
    ):
        told, found = fit.info(medium.info), fit(medium).info
        for name in ("modality", "width", "height", "frames", "fps", "samples", "rate"):
            assert getattr(told, name) == getattr(found, name), name
    silent = Video(some_video(7, 20, 30).frames, 25.0, None)
    assert fit.info(silent.info).samples is None
    unknown = MediaInfo("video", width=20, height=20)
    assert (fit.info(unknown).frames, fit.info(MediaInfo("text", characters=3)).characters) == (None, 3)


def test_silence_stays_silent():
    found = fitted_sound(Audio(np.zeros(1000, np.float32), 16000), 1.0)
    assert found.samples.shape == (1280,)
    assert not found.samples.any()
    assert len(fitted_sound(Audio(np.zeros(0, np.float32), 16000), 1.0).samples) == 0


def test_resampled():
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
    found = resampled(Audio(np.stack([tone, 0 * tone], 1), 44100))
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert found.shape == (16000,)
    assert np.abs(found - wanted)[500:-500].max() < 0.01


@pytest.mark.parametrize(("fps", "count"), [(25.0, 40), (8.0, 40), (8.0, 3), (6.0, 9), (30.0, 1)])
def test_video_has_so_many_pictures_and_sound_as_long(fps, count):
    video = some_video(count, 60, 90, fps=fps, rate=22050)
    found = FIT(video)
    assert found.fps == min(fps, 8)
    assert found.frames.shape == (min(5, -(-count * min(fps, 8) // fps)), 48, 48, 3)
    assert found.audio.rate == 16000
    assert found.audio.samples.ndim == 1
    wanted = len(found.frames) / found.fps * 16000
    assert len(found.audio.samples) == pytest.approx(min(wanted, count / fps * 16000), abs=2)
    if np.abs(found.audio.samples).max() > 1e-3:
        assert np.abs(found.audio.samples).max() == pytest.approx(LOUD, abs=1e-4)


def test_fewer_pictures_a_second_are_those_shown_at_that_time():
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] + np.zeros((20, 8, 8, 3), np.uint8)
    found = Fit(fps=5)(Video(frames, 10.0, None))
    assert found.frames[:, 0, 0, 0].tolist() == list(range(0, 20, 2))
    assert (found.fps, found.audio) == (5, None)


def test_a_silent_video_stays_silent():
    assert FIT(some_video(4, 20, 20, rate=None)).audio is None


def test_json_there_and_back():
    assert Fit.from_json(FIT.to_json()) == FIT
    assert Fit.from_json({}) == Fit()
    assert Fit.from_json({"side": 64, "more": 1}) == Fit(side=64)


@pytest.mark.parametrize("sizes", [{"side": 0}, {"fps": -1}, {"frames": 0}, {"seconds": float("nan")}])
def test_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match="choose a number above 0"):
        Fit(**sizes)


def test_less_than_a_block_of_sound_cannot_be():
    with pytest.raises(ValueError, match=r"seconds 0\.05: choose at least 0\.08, one block of sound"):
        Fit(seconds=0.05)


@pytest.mark.parametrize("fit", [FIT, Fit(frames=3), Fit(side=32, fps=5, frames=9), Fit(frames=100), Fit(side=16)])
@pytest.mark.parametrize("rate", [16000, None])
def test_a_video_is_read_as_far_as_it_is_kept(tmp_path, fit, rate, monkeypatch):
    some_video(60, 40, 60, 3, fps=12.0, rate=rate).save(tmp_path / "film.mp4")
    whole = fit(media.open(tmp_path / "film.mp4"))
    monkeypatch.setattr(media, "open", lambda path: pytest.fail("read whole") if fit.frames else whole)
    found = fit.open(tmp_path / "film.mp4")
    assert np.array_equal(found.frames, whole.frames)
    assert found.fps == whole.fps
    assert (found.audio is None) == (rate is None)
    if rate:
        assert np.allclose(found.audio.samples, whole.audio.samples, atol=1e-6)


def test_other_media_are_opened_whole(tmp_path):
    some_image(30, 40).save(tmp_path / "a.png")
    some_audio(2.0).save(tmp_path / "a.wav")
    assert np.array_equal(FIT.open(tmp_path / "a.png").pixels, FIT(some_image(30, 40)).pixels)
    assert len(FIT.open(tmp_path / "a.wav").samples) == len(FIT(some_audio(2.0)).samples)
