"""Sound and video out of any container, through PyAV (Ogg Vorbis: libsndfile), in bounded memory and in step.

Time is what the file's timestamps say, not what counting frames would give: pictures are put on a constant frame rate,
sound is put where it belongs beside them, and the padding that AAC, MP3 and Opus add is cut off. Time zero of a
video is its first frame.

Not covered: subtitles, further tracks (the first of each kind is read), pixels that are not square (pixels are given as
stored), deinterlacing, tone mapping of HDR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from panglot import _limits
from panglot._images import ImageFile, on_white
from panglot._limits import MediaError, refuse

_USUAL_RATE = Fraction(25)
_SYNC_TOLERANCE = 0.05
"""Seconds by which sound may stray from its timestamps before silence is put in or samples are cut."""
_PADDING = 4096
"""Samples at the end of an MP4 track that its stated duration may leave out as padding."""
_THREADS = 4
VORBIS_ORDER = {3: [0, 2, 1], 5: [0, 2, 1, 3, 4], 6: [0, 2, 1, 4, 5, 3], 7: [0, 2, 1, 5, 6, 4, 3]}
VORBIS_ORDER[8] = [0, 2, 1, 6, 7, 4, 5, 3]
"""By channels: the order of Vorbis I, 4.3.9 for what WAV, FLAC and libav keep as left, right, centre, low, ..."""

Frame = tuple[Fraction, Fraction, np.ndarray]
"""Start and duration in seconds, uint8 [H, W, 3]."""


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn every fault of libav into a MediaError."""
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, ValueError, LookupError, ArithmeticError, MemoryError, RuntimeError) as error:
        if isinstance(error, MediaError):
            raise
        fault = getattr(error, "strerror", None) or error
        raise refuse(name, f"damaged or incomplete ({fault})", "play it, or convert it with ffmpeg, to see") from None


class Pictures(Protocol):
    """A picture track. height, width: as displayed; fps: its own constant or typical rate; zero: when it begins."""

    height: int
    width: int
    fps: Fraction
    zero: Fraction

    def frames(self) -> Iterator[Frame]: ...


@dataclass(frozen=True)
class Opened:
    """A sound or video file, opened, the first frame of each track decoded; at least one track is there.

    duration: seconds by the file's own account, or None.
    """

    name: str
    format: str
    duration: float | None
    picture: Pictures | None
    sound: Sounds | Vorbis | None
    close: Callable[[], None]


def open_container(source: Path | BinaryIO, second: Path | BinaryIO, format: str, name: str) -> Opened:
    """Open what libav calls `format`. `second` is the same file once more.

    Picture and sound are read through two handles, each at its own pace: however far apart the file keeps them, nothing
    queues up in between.
    """
    with ExitStack() as stack:
        first = stack.enter_context(_demuxer(source, format, name))
        picture, sound = _track(first, "video", name), _track(first, "audio", name)
        if picture is None and sound is None:
            raise refuse(name, "holds neither sound nor video")
        duration = _duration(first, picture or sound)
        pictures = _Pictures(first, picture, name) if picture is not None else None
        if sound is not None and picture is not None:
            first = stack.enter_context(_demuxer(second, format, name))
            sound = _track(first, "audio", name)
        frames = _decoded(first, sound, name) if sound is not None else iter(())
        opening = next(frames, None)
        if opening is None and pictures is None:
            raise refuse(name, "holds no sound")
        sounds = Sounds(first, sound, opening, frames, name) if opening is not None else None
        return Opened(name, first.format.name.split(",")[0], duration, pictures, sounds, stack.pop_all().close)


def _demuxer(source: Path | BinaryIO, format: str, name: str) -> Any:
    import av

    with _decoding(name):
        return av.open(
            str(source.absolute()) if isinstance(source, Path) else source,
            format=format,
            options={"max_pixels": str(_limits.MAX_FRAME_PIXELS)},
            metadata_errors="ignore",
        )


def _track(container: Any, kind: str, name: str) -> Any:
    """The first track of a kind that is no cover art, or None."""
    from av.stream import Disposition

    for stream in container.streams:
        if stream.type != kind or stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            continue
        if stream.codec_context is None:
            raise refuse(name, f"its {kind} is in a codec that cannot be decoded", "convert it with ffmpeg")
        return stream
    return None


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    if container.duration and container.duration > 0:
        return container.duration / 1_000_000
    return None


def _decoded(container: Any, stream: Any, name: str) -> Iterator[Any]:
    """The frames of one track. Packets that cannot be decoded are left out, as players do, unless all are like that."""
    from av.error import InvalidDataError

    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = _THREADS
    stream.codec_context.options = {"max_pixels": str(_limits.MAX_FRAME_PIXELS)}
    packets = container.demux(stream)
    fault, found = None, False
    while True:
        with _decoding(name):
            try:
                packet = next(packets, None)
                frames = packet.decode() if packet is not None else []
            except InvalidDataError as error:
                fault = error
                continue
        if packet is None:
            break
        found = found or bool(frames)
        yield from frames
    if fault is not None and not found:
        with _decoding(name):
            raise fault


class _Pictures:
    """The picture track: RGB frames, upright, with their times from zero."""

    def __init__(self, container: Any, stream: Any, name: str) -> None:
        self.name = name
        self.fps = _frame_rate(stream)
        self._stream = stream
        self._source = _decoded(container, stream, name)
        first = next(self._source, None)
        if first is None:
            raise refuse(name, "holds no frame of video")
        with _decoding(name):
            self._first = first
            self._size = self._first.width, self._first.height
            self.zero = _time(self._first) or Fraction(0)
            # Read once: a frame whose side data was looked at is freed by the garbage collector only, megabytes late.
            matrix = first.side_data.get("DISPLAYMATRIX")
            self._matrix = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)
            self.height, self.width = self._rgb(first).shape[:2]

    def frames(self) -> Iterator[Frame]:
        usual = 1 / self.fps
        end = Fraction(0)
        with _decoding(self.name):
            for frame in self._all():
                time = _time(frame)
                start = end if time is None else max(time - self.zero, Fraction(0))
                duration = Fraction(frame.duration or 0) * (frame.time_base or 0)
                end = start + (duration if 0 < duration <= _limits.MAX_GAP else usual)
                yield start, end - start, self._rgb(frame)

    def _rgb(self, frame: Any) -> np.ndarray:
        """uint8 [H, W, 3]: 8 bits, alpha on white, scaled to the first frame's size, turned as the file asks."""
        from av.video.reformatter import Colorspace, Interpolation

        unspecified = frame.colorspace == 2 and not frame.format.is_rgb
        alpha = any(component.is_alpha for component in frame.format.components)
        pixels = frame.reformat(
            width=self._size[0],
            height=self._size[1],
            format="rgba" if alpha else "rgb24",
            # Files that do not name their colour matrix follow the custom: BT.709 for HD, BT.601 below.
            src_colorspace=Colorspace.ITU709 if unspecified and frame.height >= 720 else None,
            src_color_range=frame.color_range,
            dst_color_range="JPEG",
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
        ).to_ndarray()
        return _turn(on_white(pixels) if alpha else pixels, self._matrix)

    def _all(self) -> Iterator[Any]:
        yield self._first
        del self._first
        yield from self._source


def _time(frame: Any) -> Fraction | None:
    return None if frame.pts is None or not frame.time_base else frame.pts * Fraction(frame.time_base)


def _frame_rate(stream: Any) -> Fraction:
    """The rate that gives nearly every frame its own tick: that of the timestamps' grid where it is well filled."""
    average, base = (Fraction(rate or 0) for rate in (stream.average_rate, stream.base_rate))
    if 0 < base <= 240 and 0.8 < average / base < 1.02:
        return base
    return average if 0 < average <= 1000 else _USUAL_RATE


def _turn(pixels: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Apply a display matrix (ISO/IEC 14496-12, 8.3.2): x' = a x + c y, y' = b x + d y. Quarter turns and flips."""
    if matrix is None:
        return pixels
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) < abs(b):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def constant_rate(frames: Iterator[Frame], native: Fraction, fps: Fraction, name: str) -> Iterator[np.ndarray]:
    """Frames at times i / fps, i = 0, 1, ...: of `frames`, the one on display then.

    native: the rate of `frames`; half of its period is how far a timestamp may be late and still count for its tick.
    A frame shown for longer is repeated, one that no tick meets is left out.
    """
    slack = fps / native / 2
    shown: np.ndarray | None = None
    index = last = 0
    for start, duration, pixels in frames:
        tick = ceil(start * fps - slack)
        if tick - index > _limits.MAX_GAP * fps:
            raise refuse(name, f"its timestamps jump to {float(start):.0f} s", "rewrite it with ffmpeg -c copy")
        while shown is not None and index < tick:
            yield shown
            index += 1
        shown, last = pixels, floor((start + duration) * fps + Fraction(1, 2))
    while shown is not None and index < max(last, 1):
        yield shown
        index += 1


class Sounds:
    """The sound track: float32 [n, C] pieces with the time of their first sample."""

    def __init__(self, container: Any, stream: Any, first: Any, source: Iterator[Any], name: str) -> None:
        """first: the first frame of `source`, taken from it."""
        self.name = name
        self._first, self._source = first, source
        self.rate, self.channels = first.sample_rate, len(first.layout.channels)
        if not 0 < self.rate <= _limits.MAX_RATE or not 0 < self.channels <= _limits.MAX_CHANNELS:
            raise _beyond_limits(name, self.channels, self.rate)
        # Only MP4 states the duration, in ticks of its edit list, 1/600 s at the coarsest; elsewhere it is a guess.
        stated = stream.duration and container.format.name.startswith("mov")
        self._stated = round(stream.duration * stream.time_base * self.rate) if stated else 0
        self._rounding = self.rate // 600 + 1

    def _pieces(self) -> Iterator[tuple[Fraction | None, np.ndarray]]:
        with _decoding(self.name):
            frame, self._first = self._first, None
            while frame is not None:
                if (frame.sample_rate, len(frame.layout.channels)) != (self.rate, self.channels):
                    raise refuse(self.name, "its sound changes rate or channels midway", "convert it with ffmpeg")
                following = next(self._source, None)
                samples = _floats(frame)
                if following is None:
                    samples = samples[: _stated_samples(frame)]
                yield _time(frame), samples
                frame = following

    def trimmed(self) -> Iterator[np.ndarray]:
        """The pieces in a row, without what lies past the duration the file states, if that is a few samples only."""
        position = 0
        beyond: list[np.ndarray] = []
        for _, samples in self._pieces():
            keep = max(0, self._stated - position) if self._stated else len(samples)
            position += len(samples)
            if keep:
                yield samples[:keep]
            if keep < len(samples):
                beyond.append(samples[keep:])
            if beyond and position - self._stated > _PADDING:
                yield from beyond
                self._stated, beyond = 0, []
        if position - self._stated <= self._rounding:
            yield from beyond

    def placed(self, zero: Fraction) -> Iterator[tuple[int, np.ndarray]]:
        """(index of the first sample counted from time `zero`, samples); jitter of the timestamps is evened out."""
        expected: int | None = None
        for time, samples in self._pieces():
            start = expected or 0 if time is None else round((time - zero) * self.rate)
            if expected is not None and abs(start - expected) <= _SYNC_TOLERANCE * self.rate:
                start = expected
            expected = start + len(samples)
            yield start, samples


def _beyond_limits(name: str, channels: int, rate: int) -> MediaError:
    return refuse(name, f"{channels} channels at {rate} Hz are over the limits", "resample it first")


def _stated_samples(frame: Any) -> int:
    """Samples of the last frame that belong to the sound; the encoder filled it up with others."""
    base = frame.time_base
    if not base or not frame.duration or base * frame.sample_rate > 1:  # coarser than a sample: not the full story
        return frame.samples
    return min(frame.samples, round(frame.duration * base * frame.sample_rate))


_INTEGER_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}


def _floats(frame: Any) -> np.ndarray:
    """float32 [n, C] in [-1, 1] of a libav frame of any sample format."""
    values = frame.to_ndarray()
    channels = len(frame.layout.channels)
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype.kind != "f":
        values = values / _INTEGER_SCALE[values.dtype.str[1:]] - (1 if values.dtype.kind == "u" else 0)
    return np.nan_to_num(np.clip(values, -1, 1)).astype(np.float32, order="C")


class Vorbis:
    """Sound of an Ogg Vorbis file, through libsndfile: libav loses the end of those shorter than a page."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name
        self.rate, self.channels = file.samplerate, file.channels

    def trimmed(self) -> Iterator[np.ndarray]:
        order = np.argsort(VORBIS_ORDER.get(self.channels, range(self.channels)))
        with _decoding(self._name):
            while len(samples := self._file.read(self.rate, dtype="float32", always_2d=True)):
                yield np.nan_to_num(samples[:, order].clip(-1, 1))


def open_vorbis(source: Path | BinaryIO, name: str) -> Opened:
    """Open an Ogg Vorbis file."""
    import soundfile

    with _decoding(name):
        file = soundfile.SoundFile(source)
        sound = Vorbis(file, name)
        if not 0 < sound.rate <= _limits.MAX_RATE or not 0 < sound.channels <= _limits.MAX_CHANNELS:
            file.close()
            raise _beyond_limits(name, sound.channels, sound.rate)
        return Opened(name, "ogg", file.frames / sound.rate, None, sound, file.close)


class SoundTrack:
    """The sound beside a picture, handed out in order; silence where there is none."""

    def __init__(self, sound: Sounds, zero: Fraction) -> None:
        self.rate, self.channels = sound.rate, sound.channels
        self._pieces = sound.placed(zero)
        self._piece: tuple[int, np.ndarray] | None = None
        self._position = 0

    def take(self, count: int) -> np.ndarray:
        """The next `count` samples, float32 [count, C]."""
        out = np.zeros((count, self.channels), np.float32)
        begin, end = self._position, self._position + count
        while True:
            if self._piece is None:
                self._piece = next(self._pieces, None)
            if self._piece is None or self._piece[0] >= end:
                break
            start, samples = self._piece
            low, high = max(start, begin), min(start + len(samples), end)
            if low < high:
                out[low - begin : high - begin] = samples[low - start : high - start]
            if start + len(samples) > end:
                break
            self._piece = None
        self._position = end
        return out


class _Moving:
    """The frames of a moving GIF, WebP, PNG or AVIF. Its shortest frame lasts one tick."""

    zero = Fraction(0)

    def __init__(self, image: ImageFile, fps: Fraction) -> None:
        self.height, self.width, self.fps = image.height, image.width, fps
        self.frames = image.frames


def open_animation(image: ImageFile, format: str) -> Opened:
    """An image that moves, as a silent video. Closes the image when that fails."""
    try:
        durations = image.durations()
    except MediaError:
        image.close()
        raise
    picture = _Moving(image, 1 / min(durations))
    return Opened(image.name, format, float(sum(durations)), picture, None, image.close)
