"""Media to files: text, pictures, sound, and video with its sound in step.

Everything is written beside its destination and moved there when it is complete, so a failure or Ctrl-C leaves either
the old file or none. Sound and video are written piece by piece in bounded memory.

Not covered: settings of the encoders; who wants others converts a .png, .flac or .mp4.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panglot._containers import VORBIS_ORDER
from panglot._limits import MediaError, refuse

if TYPE_CHECKING:
    from panglot.media import Audio, Video

_IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 1}),  # a fifth of the time of the default 6, a fifth larger
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"quality": 95}),
}
_SOUNDS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_AAC_BITS_PER_CHANNEL = 96_000
_BLOCK_SECONDS = 1
_SYSTEM_ERROR = 2  # of libsndfile: a file that cannot be written
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in the same folder to write to; moved to `path` at the end, removed on any failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise refuse(str(path), f"cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _choice(path: Path, what: str, known: Iterable[str]) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise refuse(
            str(path), f"{what} cannot be saved as {suffix or 'a file without suffix'}", f"use {', '.join(known)}"
        )
    return suffix


def write_text(text: str, path: Path) -> None:
    """UTF-8, byte for byte."""
    _choice(path, "text", [".txt"])
    with _beside(path) as temporary:
        temporary.write_bytes(text.encode())


def write_image(pixels: np.ndarray, path: Path) -> None:
    """uint8 [H, W, 3] as PNG, JPEG or WebP."""
    from PIL import Image

    format, options = _IMAGES[_choice(path, "an image", _IMAGES)]
    whole = BytesIO()
    with _beside(path) as temporary:
        try:
            Image.fromarray(np.ascontiguousarray(pixels)).save(whole, format, **options)
        except ValueError as error:
            raise refuse(str(path), f"{format} cannot hold it ({error})", "use .png") from None
        temporary.write_bytes(whole.getbuffer())  # not by Pillow, which does not notice when a disk is full


def write_timed(chunks: Iterable[Audio | Video], path: Path) -> None:
    """Consecutive pieces of one sound (WAV, FLAC, OGG) or video (MP4)."""
    chunks = iter(chunks)
    first = next(chunks, None)
    if first is None:
        raise refuse(str(path), "there is nothing to save")
    known = [".mp4"] if first.modality == "video" else list(_SOUNDS)
    _choice(path, first.modality, known)
    write: Any = _write_video if first.modality == "video" else _write_sound
    with _beside(path) as temporary:
        write(first, _alike(first, chunks, path), temporary, path)


def _alike(first: Audio | Video, chunks: Iterator[Any], path: Path) -> Iterator[Any]:
    """All pieces, the first included, as long as they go together."""

    def kind(piece: Any) -> tuple[Any, ...]:
        if piece.modality == "audio":
            return "audio", piece.rate, piece.channels
        return "video", piece.fps, piece.frames.shape[1:], piece.audio and kind(piece.audio)

    for piece in chain([first], chunks):
        if kind(piece) != kind(first):
            raise refuse(str(path), f"a piece {kind(piece)} does not continue {kind(first)}")
        yield piece


def _write_sound(first: Audio, chunks: Iterable[Audio], temporary: Path, path: Path) -> None:
    import soundfile

    format, subtype = _SOUNDS[path.suffix.lower()]
    order = VORBIS_ORDER.get(first.channels) if format == "OGG" else None
    try:
        with soundfile.SoundFile(temporary, "w", first.rate, first.channels, subtype, format=format) as file:
            for chunk in chunks:
                samples = chunk.samples if order is None else chunk.samples[:, order]
                # libsndfile's Vorbis encoder keeps a whole block on the stack.
                for begin in range(0, len(samples), _BLOCK_SECONDS * first.rate):
                    file.write(samples[begin : begin + _BLOCK_SECONDS * first.rate])
    except (soundfile.LibsndfileError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        if isinstance(error, soundfile.LibsndfileError) and error.code == _SYSTEM_ERROR:
            raise refuse(str(path), "cannot be written", "is the disk full?") from None
        fault = f"{format} cannot hold {first.channels} channels at {first.rate} Hz ({error})"
        raise refuse(str(path), fault, "use .wav, or resample or mix it down first") from None


def _write_video(first: Video, chunks: Iterable[Video], temporary: Path, path: Path) -> None:
    import av
    from av.error import FFmpegError

    try:
        # The index goes to the front, so that players on the network can start at once.
        with av.open(str(temporary), "w", format="mp4", container_options={"movflags": "+faststart"}) as container:
            picture = _picture_track(container, first)
            sound = _sound_track(container, first.audio, path) if first.audio else None
            frames = samples = 0
            for chunk in chunks:
                for pixels in chunk.frames:
                    container.mux(picture.encode(_picture(pixels, picture, frames)))
                    frames += 1
                if sound is not None and chunk.audio is not None and len(chunk.audio.samples):
                    container.mux(sound.encode(_sound(chunk.audio, sound, samples)))
                    samples += len(chunk.audio.samples)
            for track in filter(None, (picture, sound)):
                container.mux(track.encode(None))
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise  # for `_beside`
        height, width = first.frames.shape[1:3]
        fault = f"MP4 cannot hold {width}x{height} at {first.fps:g} frames/s ({error.strerror})"
        raise refuse(str(path), fault, "resize it first") from None


def _picture_track(container: Any, first: Video) -> Any:
    height, width = first.frames.shape[1:3]
    rate = max(Fraction(1, 1001), Fraction(first.fps).limit_denominator(1001))
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
    # No B-frames, no weighted prediction: looking ahead for them, x264 reads memory that it has not set, and the same
    # video becomes other bytes each time.
    stream.options = {"preset": "veryfast", "crf": "17", "bf": "0", "weightp": "0"}
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709, as H.273 numbers it
    context.color_range = 1  # limited
    return stream


def _picture(pixels: np.ndarray, stream: Any, index: int) -> Any:
    import av
    from av.video.reformatter import Colorspace, Interpolation

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format=stream.pix_fmt,
        dst_colorspace=Colorspace.ITU709,
        src_color_range="JPEG",
        dst_color_range="MPEG",
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
    )
    frame.pts, frame.time_base = index, 1 / stream.codec_context.framerate
    return frame


def _sound_track(container: Any, sound: Audio, path: Path) -> Any:
    from av.codec import Codec

    if sound.channels not in _LAYOUTS:
        raise refuse(str(path), f"MP4 cannot hold {sound.channels} channels of sound", "mix it down to stereo first")
    rates = sorted(Codec("aac", "w").audio_rates or ())
    rate = next((r for r in rates if r >= sound.rate), rates[-1])  # libav resamples where AAC has no such rate
    stream = container.add_stream("aac", rate=rate, layout=_LAYOUTS[sound.channels])
    stream.bit_rate = _AAC_BITS_PER_CHANNEL * sound.channels
    return stream


def _sound(sound: Audio, stream: Any, position: int) -> Any:
    import av

    planes = np.ascontiguousarray(sound.samples.reshape(-1, sound.channels).T)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stream.codec_context.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = sound.rate, position, Fraction(1, sound.rate)
    return frame
