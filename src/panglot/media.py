"""Text, images, sound and video as plain values, from files and to files.

    photo = open("dog.jpg")                  # Image: uint8 [H, W, 3]
    for chunk in open_stream("talk.mp4"):    # Video chunks, each with its own sound
        ...
    save(photo, "dog.png")

What a file is, is found out by its content. Whatever cannot be read or written ends in a `MediaError` of one line.
All limits on untrusted input are constants in `_limits`. Reading itself is in `_images` and `_containers`, writing of
sound and video in `_writers`.

Not covered: cameras, microphones, network addresses, metadata, colour management, tokens.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from panglot import _limits
from panglot._limits import MediaError, TooLongError, refuse
from panglot._memory import give_back
from panglot._source import File, Source, identify

if TYPE_CHECKING:
    from panglot._containers import Opened, Pictures, Sounds, Vorbis
    from panglot._images import ImageFile

__all__ = [
    "Audio",
    "Image",
    "Media",
    "MediaError",
    "MediaInfo",
    "MediaStream",
    "Source",
    "Text",
    "Video",
    "open",
    "open_stream",
    "probe",
    "sample_at",
    "save",
    "save_stream",
]


@dataclass(frozen=True)
class MediaInfo:
    """What a medium is, known without decoding it whole. What does not apply, or the file does not say, is None.

    format:   "jpeg", "flac", "matroska", ...; None for a value in memory.
    bytes:    size of the file.
    frames, samples, duration (seconds): of a file of sound or video, by its own account.
    """

    modality: str
    format: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    rate: int | None = None
    channels: int | None = None
    samples: int | None = None
    duration: float | None = None
    characters: int | None = None

    @property
    def values(self) -> int:
        """Raw values: characters, or subpixels of all frames plus samples of all channels."""
        picture = (self.height or 0) * (self.width or 0) * 3
        if self.modality == "video":
            picture *= self.frames or 0
        return (self.characters or 0) + picture + (self.samples or 0) * (self.channels or 0)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MediaError(message)


@dataclass(frozen=True)
class Text:
    """text: any string that UTF-8 can hold."""

    modality: ClassVar[str] = "text"
    text: str

    def __post_init__(self) -> None:
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise MediaError(f"the text holds a lone surrogate at character {error.start}; replace it first") from None

    @property
    def info(self) -> MediaInfo:
        return MediaInfo("text", characters=len(self.text))

    def save(self, path: str | os.PathLike[str]) -> None:
        save(self, path)


@dataclass(frozen=True, eq=False)
class Image:
    """pixels: uint8 [H, W, 3], RGB, H and W at least 1."""

    modality: ClassVar[str] = "image"
    pixels: np.ndarray

    def __post_init__(self) -> None:
        p = self.pixels
        ok = p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 and p.size > 0
        _require(ok, f"an image is uint8 [H, W, 3], not {p.dtype} {list(p.shape)}")

    @property
    def info(self) -> MediaInfo:
        return MediaInfo("image", height=self.pixels.shape[0], width=self.pixels.shape[1])

    def save(self, path: str | os.PathLike[str]) -> None:
        save(self, path)


@dataclass(frozen=True, eq=False)
class Audio:
    """samples: float32 [T] (mono) or [T, C], in [-1, 1]; rate: samples a second."""

    modality: ClassVar[str] = "audio"
    samples: np.ndarray
    rate: int

    def __post_init__(self) -> None:
        s = self.samples
        ok = s.dtype == np.float32 and (s.ndim == 1 or (s.ndim == 2 and s.shape[1] > 0))
        _require(ok, f"sound is float32 [T] or [T, C], not {s.dtype} {list(s.shape)}")
        _require(self.rate > 0, f"a sampling rate of {self.rate} Hz is not possible")

    @property
    def channels(self) -> int:
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.rate

    @property
    def info(self) -> MediaInfo:
        return MediaInfo(
            "audio", rate=self.rate, channels=self.channels, samples=len(self.samples), duration=self.duration
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        save(self, path)


@dataclass(frozen=True, eq=False)
class Video:
    """frames: uint8 [T, H, W, 3], T at least 1; fps: frames a second; audio: the sound of the same span, or None."""

    modality: ClassVar[str] = "video"
    frames: np.ndarray
    fps: float
    audio: Audio | None = None

    def __post_init__(self) -> None:
        f = self.frames
        ok = f.dtype == np.uint8 and f.ndim == 4 and f.shape[3] == 3 and f.size > 0
        _require(ok, f"video is uint8 [T, H, W, 3], not {f.dtype} {list(f.shape)}")
        _require(0 < self.fps < math.inf, f"a frame rate of {self.fps} is not possible")

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.frames) / self.fps

    @property
    def info(self) -> MediaInfo:
        count, height, width, _ = self.frames.shape
        sound = self.audio
        return MediaInfo(
            "video",
            height=height,
            width=width,
            frames=count,
            fps=self.fps,
            rate=sound.rate if sound else None,
            channels=sound.channels if sound else None,
            samples=len(sound.samples) if sound else None,
            duration=self.duration,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        save(self, path)


Media = Text | Image | Audio | Video


def sample_at(frame: int, fps: float, rate: int) -> int:
    """Index of the first sample that belongs to frame number `frame` of a video with sound at `rate` Hz."""
    return round(frame * rate / fps)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _read_text(file: File) -> Text:
    if file.size > _limits.MAX_BYTES:
        raise refuse(file.name, f"is over the limit of {_limits.MAX_BYTES >> 20} MiB for text", "split it")
    data = file.data.read_bytes() if isinstance(file.data, Path) else file.data
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text, fault = "\0", f"byte {error.start} is not UTF-8"
    else:
        fault = "holds NUL bytes"
    if "\0" in text:
        remedy = "convert it to JPEG, PNG, WAV, FLAC, MP4 or another format that panglot reads, or text to UTF-8"
        raise refuse(file.name, f"is in no known media format, nor is it text ({fault})", remedy)
    return Text(text)


def open(source: Source) -> Media:
    """Read a medium whole, under the limits of `_limits`.

    source: a path, the bytes of a file, or a binary file object. Pictures that move open as Video, whatever the format.
    Text is UTF-8, kept byte for byte. Raises MediaError.
    """
    file = identify(source)
    if file.kind == "text":
        return _read_text(file)
    if file.kind == "image":
        image = _image(file)
        if not image.animated:
            return _still(file, image)
        image.close()
    with _stream(file, None, 1.0) as stream:
        return stream.read()


def probe(source: Source) -> MediaInfo:
    """What a medium is, from headers and at most one frame (animations are walked through, text is read).

    Raises MediaError. A file that `probe` accepts may still turn out damaged when it is decoded.
    """
    file = identify(source)
    if file.kind == "text":
        return MediaInfo("text", "text", file.size, characters=len(_read_text(file).text))
    if file.kind == "image":
        image = _image(file)
        image.close()
        if not image.animated:
            return MediaInfo("image", file.format.lower(), file.size, image.width, image.height)
    with _stream(file, None, 1.0) as stream:
        return stream.info


def open_stream(source: Source, *, fps: float | None = None, seconds: float = 1.0) -> MediaStream:
    """Read sound or video piece by piece, in memory that does not grow with its length.

    fps:     thin the video to this frame rate; a rate above the file's own changes nothing.
    seconds: length of a piece. A piece of video is shorter when its frames would take over `MAX_CHUNK_BYTES`.

    The pieces in a row are what `open` returns, frame for frame and sample for sample. Raises MediaError, also while
    iterating.
    """
    _require(fps is None or 0 < fps < math.inf, f"a frame rate of {fps} is not possible")
    _require(seconds > 0, f"pieces of {seconds} s are not possible")
    file = identify(source)
    if file.kind == "text":
        _read_text(file)
        raise refuse(file.name, "is text, not sound or video", "use open")
    return _stream(file, fps, seconds)


def _image(file: File) -> ImageFile:
    from panglot._images import ImageFile

    return ImageFile(file.handle(), file.format, file.name)


def _still(file: File, image: ImageFile) -> Image:
    if file.format == "TIFF":
        from panglot._isolate import decode

        image.close()
        return Image(decode(file.data, file.format, file.name))
    try:
        return Image(image.pixels())
    finally:
        image.close()


def _stream(file: File, fps: float | None, seconds: float) -> MediaStream:
    from panglot._containers import open_animation, open_container, open_vorbis

    if file.kind == "image":
        image = _image(file)
        if not image.animated:
            image.close()
            raise refuse(file.name, "is an image that does not move", "use open")
        opened = open_animation(image, file.format.lower())
    elif file.format == "vorbis":
        opened = open_vorbis(file.handle(), file.name)
    else:
        opened = open_container(file.handle(), file.handle(), file.format, file.name)
    return MediaStream(opened, file.size, fps, seconds)


class MediaStream(Iterator["Audio | Video"]):
    """Consecutive pieces of one sound or video file, made by `open_stream`.

    info: what the whole is, at the frame rate of the pieces; counts are by the file's own account.

    A piece of video that begins at frame i and ends before frame j carries exactly the samples from `sample_at(i)` to
    `sample_at(j)`. The file is closed when the pieces end; a stream left early wants `close` or `with`.
    """

    info: MediaInfo

    def __init__(self, opened: Opened, size: int, fps: float | None, seconds: float) -> None:
        self._opened = opened
        self._seconds = seconds
        picture, sound, span = opened.picture, opened.sound, opened.duration
        if picture is not None:
            rate = picture.fps if fps is None else min(picture.fps, _as_rate(fps))
            self._pieces: Iterator[Audio | Video] = self._video(picture, rate)
            frames = max(1, round(span * rate)) if span is not None else None
            samples = sample_at(frames, float(rate), sound.rate) if frames and sound else None
        else:
            assert sound is not None
            self._pieces = self._audio(sound)
            rate = frames = None
            samples = round(span * sound.rate) if span is not None else None
        self.info = MediaInfo(
            modality="video" if picture else "audio",
            format=opened.format,
            bytes=size,
            width=picture.width if picture else None,
            height=picture.height if picture else None,
            frames=frames,
            fps=float(rate) if rate else None,
            rate=sound.rate if sound else None,
            channels=sound.channels if sound else None,
            samples=samples,
            duration=span,
        )

    def __next__(self) -> Audio | Video:
        give_back()  # what coding the piece before has left
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MediaStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. More pieces cannot be had after that."""
        self._pieces = iter(())
        self._opened.close()

    def read(self) -> Audio | Video:
        """The remaining pieces as one value. Raises MediaError when that is over `MAX_SECONDS` or `MAX_MEMORY`."""
        if self.info.duration is not None:
            self._check(self.info.duration, 0)
        pictures: list[np.ndarray] = []
        sounds: list[np.ndarray] = []
        seconds, size = 0.0, 0
        for piece in self:
            audio = piece if isinstance(piece, Audio) else piece.audio
            if isinstance(piece, Video):
                pictures.append(piece.frames)
                size += piece.frames.nbytes
            if audio is not None:
                sounds.append(audio.samples)
                size += audio.samples.nbytes
            seconds += piece.duration
            self._check(seconds, size)
        audio = Audio(_joined(sounds), self.info.rate) if sounds and self.info.rate else None
        if pictures and self.info.fps:
            return Video(_joined(pictures), self.info.fps, audio)
        if audio is None:
            raise refuse(self._opened.name, "holds no sound that can be decoded")
        return audio

    def _check(self, seconds: float, size: int) -> None:
        name = self._opened.name
        remedy = "use open_stream or `panglot encode`, which read it in pieces"
        if seconds > _limits.MAX_SECONDS:
            raise TooLongError(name, f"lasts over {_limits.MAX_SECONDS} s, the limit for reading it whole", remedy)
        if size > _limits.MAX_MEMORY:
            limit = _limits.MAX_MEMORY / 2**30
            raise TooLongError(name, f"takes over {limit:.1f} GiB decoded, the limit for reading it whole", remedy)

    def _audio(self, sound: Sounds | Vorbis) -> Iterator[Audio]:
        count = max(1, round(self._seconds * sound.rate))
        held: list[np.ndarray] = []
        size = 0
        for samples in sound.trimmed():
            held.append(samples)
            size += len(samples)
            if size >= count:
                whole = np.concatenate(held)
                for begin in range(0, size - count + 1, count):
                    yield _audio(whole[begin : begin + count], sound.rate)
                held, size = [whole[size - size % count :]], size % count
        if size:
            yield _audio(np.concatenate(held), sound.rate)

    def _video(self, picture: Pictures, rate: Fraction) -> Iterator[Video]:
        from panglot._containers import Sounds, SoundTrack, constant_rate

        fps, name = float(rate), self._opened.name
        room = _limits.MAX_CHUNK_BYTES // (picture.height * picture.width * 3)
        count = max(1, min(round(self._seconds * fps), room))
        sound = self._opened.sound
        track = SoundTrack(sound, picture.zero) if isinstance(sound, Sounds) else None
        done = held = 0
        block = np.empty((count, picture.height, picture.width, 3), np.uint8)

        def piece() -> Video:
            audio = None
            if track is not None:
                span = sample_at(done + held, fps, track.rate) - sample_at(done, fps, track.rate)
                audio = _audio(track.take(span), track.rate)
            return Video(block if held == count else block[:held].copy(), fps, audio)

        for frame in constant_rate(picture.frames(), picture.fps, rate, name):
            if held == count:
                yield piece()
                done, held = done + count, 0
                block = np.empty_like(block)
            block[held] = frame
            held += 1
        if held:
            yield piece()


def _as_rate(fps: float) -> Fraction:
    """A rate of frames as a fraction that containers can hold."""
    return max(Fraction(1, 1001), Fraction(fps).limit_denominator(1001))


def _audio(samples: np.ndarray, rate: int) -> Audio:
    return Audio(np.ascontiguousarray(samples[:, 0] if samples.shape[1] == 1 else samples), rate)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenation that frees each part once it is copied, so that no second copy of the whole exists."""
    out = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    end = len(out)
    while parts:
        part = parts.pop()
        out[end - len(part) : end] = part
        end -= len(part)
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def save(media: Media, path: str | os.PathLike[str]) -> None:
    """Write a medium; the suffix says how. The file appears whole or not at all.

    Text: .txt (UTF-8). Image: .png, .jpg, .webp. Audio: .wav and .flac (16 bits), .ogg (Vorbis). Video: .mp4 (H.264 and
    AAC; 4:4:4 where height or width is odd, which 4:2:0 cannot hold). Raises MediaError.
    """
    from panglot import _writers

    if isinstance(media, (Audio, Video)):
        save_stream([media], path)
    elif isinstance(media, Image):
        _writers.write_image(media.pixels, Path(path))
    else:
        _writers.write_text(media.text, Path(path))


def save_stream(chunks: Iterable[Audio | Video], path: str | os.PathLike[str]) -> None:
    """Write consecutive pieces of one sound or video as they come; formats and errors as `save`."""
    from panglot import _writers

    _writers.write_timed(chunks, Path(path))
