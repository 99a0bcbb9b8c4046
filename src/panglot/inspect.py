"""What one file becomes: tokens, bits, fidelity and time at every level that its tokenizer offers.

A level is a choice of what to leave out: a stride at which the image pyramid stops, or a number of codes a frame of
sound. Each level is encoded and decoded for itself, so its times are what a user of that level pays. Sound and video
are compared with the original as a stream; memory does not grow with their length.

Not here: the definitions of the measures (`panglot.measure`) and the page that shows the result (`panglot.report`).
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from panglot import convert, measure, media
from panglot.convert import Options
from panglot.media import Audio, Image, MediaInfo, Text, Video
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes

SOUND_SECONDS = 30
"""Sound is measured in windows of this length; a longer one gets the mean over its windows, weighted by length."""
FRAMES = 50
"""At most about so many evenly spaced frames of a video are measured."""

PLAYABLE = {"text": ".txt", "image": ".png", "audio": ".flac", "video": ".mp4"}
"""What the files of a report are saved as: formats that every browser shows, lossless where there is one."""

Told = Callable[[str, float], None]
"""Called with the name of a level and the part of it that is done."""


@dataclass(frozen=True, eq=False)
class Level:
    """One way to encode the file, and what it costs and keeps.

    fidelity: "psnr" (dB), "ssim", "mel_distance" (dB), "stoi", as `panglot.measure` defines them, or "identical".
    decoded:  the decoded file, where a folder for it was given.
    """

    name: str
    codes: Codes
    bits: int
    fidelity: dict[str, float | bool]
    encode_seconds: float
    decode_seconds: float
    decoded: Path | None = None

    @property
    def tokens(self) -> int:
        return sum(self.codes.tokens().values())


@dataclass(frozen=True, eq=False)
class Inspection:
    """A file and its levels, coarse to fine; `original` is a copy that browsers show, where a folder was given."""

    path: Path
    info: MediaInfo
    levels: tuple[Level, ...]
    original: Path | None = None

    @property
    def raw_bits(self) -> int:
        """Bits of the raw values: 8 a colour value, 16 a sample of sound, 8 a byte of text."""
        if self.info.modality == "text":
            return 8 * (self.info.bytes or 0)
        sound = (self.info.samples or 0) * (self.info.channels or 0)
        return 8 * (self.info.values - sound) + 16 * sound

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON; what is not finite (the PSNR of equal pictures) is None."""
        return {
            "file": str(self.path),
            "modality": self.info.modality,
            "bytes": self.info.bytes,
            "values": self.info.values,
            "raw_bits": self.raw_bits,
            "levels": [self._level(level) for level in self.levels],
        }

    def _level(self, level: Level) -> dict[str, Any]:
        return {
            "level": level.name,
            "tokens": level.tokens,
            "tokens_per_alphabet": level.codes.tokens(),
            "bits": level.bits,
            "values_per_token": _ratio(self.info.values, level.tokens),
            "raw_bits_per_bit": _ratio(self.raw_bits, level.bits),
            **{k: v if isinstance(v, bool) or math.isfinite(v) else None for k, v in level.fidelity.items()},
            "encode_seconds": round(level.encode_seconds, 4),
            "decode_seconds": round(level.decode_seconds, 4),
        }


def inspect(
    path: str | os.PathLike[str], options: Options | None = None, folder: Path | None = None, told: Told | None = None
) -> Inspection:
    """Encode, decode and measure one file at every level, or at the one that `options` names.

    folder: where to write the original and each decoded level for a browser; nothing is written without it.
    Raises MediaError for a file that cannot be read, OptionError for an option that no tokenizer has.
    """
    info = media.probe(path)
    options = options or Options()
    told = told or (lambda name, part: None)
    levels = []
    for name, choice in _choices(info.modality, options):
        target = folder / (name.replace(" ", "-") + PLAYABLE[info.modality]) if folder else None
        measured = _whole if info.modality in ("text", "image") else _streamed
        told(name, 0.0)
        levels.append(measured(Path(path), name, choice, target, lambda part, name=name: told(name, part)))
    original = folder / ("original" + PLAYABLE[info.modality]) if folder else None
    if original and info.modality in ("text", "image"):
        media.save(media.open(path), original)
    elif original:
        with media.open_stream(path, fps=options.fps) as chunks:
            media.save_stream(chunks, original)
    return Inspection(Path(path), info, tuple(levels), original)


def _choices(modality: str, options: Options) -> Iterator[tuple[str, Options]]:
    options.of(modality)  # complains about values that are not on offer
    if modality in ("image", "video"):
        for stride in (options.stride,) if options.stride else convert.strides():
            yield f"stride {stride}", replace(options, stride=stride)
    elif modality == "audio":
        for depth in (options.depth,) if options.depth else convert.depths():
            yield f"depth {depth}", Options(depth=depth)
    else:
        yield "text", Options()


def _whole(path: Path, name: str, choice: Options, target: Path | None, done: convert.Progress) -> Level:
    """A level of a picture or a text, which fit in memory."""
    original = media.open(path)
    coder = tokenizer(original.modality)
    start = perf_counter()
    codes = coder.encode(original, **choice.of(original.modality))
    middle = perf_counter()
    decoded = coder.decode(codes)
    end = perf_counter()
    fidelity: dict[str, float | bool] = {}
    if isinstance(original, Image):
        fidelity["psnr"] = measure.psnr(original.pixels, decoded.pixels)
        fidelity["ssim"] = measure.ssim(original.pixels, decoded.pixels)
    elif isinstance(original, Text):
        fidelity["identical"] = original.text == decoded.text
    if target:
        media.save(decoded, target)
    done(1.0)
    return Level(name, codes, codes.bits(coder.alphabets), fidelity, middle - start, end - middle, target)


def _streamed(path: Path, name: str, choice: Options, target: Path | None, done: convert.Progress) -> Level:
    """A level of sound or video, read twice: once to encode it, once beside the decoded stream to compare."""
    info = media.probe(path)
    coder: Any = tokenizer(info.modality)  # of sound or video, which decode as a stream too
    length = info.duration or 0.0
    reading, decoding = Stopwatch(), Stopwatch()
    start = perf_counter()
    with media.open_stream(path, fps=choice.fps, seconds=convert.PIECE[info.modality]) as chunks:
        source = convert.reported(reading.over(chunks), length, lambda part: done(part / 2))
        codes = coder.join(coder.encode_stream(source, **choice.of(info.modality)))
    encode_seconds = perf_counter() - start - reading.seconds

    every = max(1, int(codes.header.get("frames") or 0) // FRAMES)
    with media.open_stream(path, fps=choice.fps) as chunks:
        meter = Meter(Reference(chunks), every)
        decoded = convert.reported(decoding.over(coder.decode_stream(codes)), length, lambda p: done((1 + p) / 2))
        if target:
            media.save_stream(meter.over(decoded), target)
        else:
            deque(meter.over(decoded), maxlen=0)
    bits = codes.bits(coder.alphabets)
    return Level(name, codes, bits, meter.fidelity(), encode_seconds, decoding.seconds, target)


class Stopwatch:
    """Adds up the time that is spent inside an iterator."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(items)
        while True:
            start = perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += perf_counter() - start
            yield item


class Reference:
    """The original as a stream, read on only as far as the decoded side has come."""

    def __init__(self, chunks: Iterable[Audio | Video]) -> None:
        self._chunks = iter(chunks)
        self._frames: deque[np.ndarray] = deque()
        self._sound: list[np.ndarray] = []

    def frame(self) -> np.ndarray | None:
        """The next frame uint8 [H, W, 3], or None after the last."""
        while not self._frames and self._read():
            pass
        return self._frames.popleft() if self._frames else None

    def sound(self, samples: int) -> np.ndarray:
        """The next samples mixed to mono, float32 [n], n = `samples` or what is left."""
        while sum(map(len, self._sound)) < samples and self._read():
            pass
        joined = np.concatenate([np.zeros(0, np.float32), *self._sound])
        self._sound = [joined[samples:]]
        return joined[:samples]

    def _read(self) -> bool:
        chunk = next(self._chunks, None)
        if isinstance(chunk, Video):
            self._frames.extend(chunk.frames)
        sound = chunk.audio if isinstance(chunk, Video) else chunk
        if sound is not None:
            self._sound.append(measure.mono(sound))
        return chunk is not None


@dataclass
class Meter:
    """Compares decoded pieces with the original as they pass; every `every`-th frame, and sound by the window."""

    reference: Reference
    every: int
    _seen: int = 0
    _rate: int = 0
    _sound: list[np.ndarray] = field(default_factory=list)
    _errors: list[float] = field(default_factory=list)
    _ssim: list[float] = field(default_factory=list)
    _windows: list[tuple[int, float, float]] = field(default_factory=list)

    def over(self, chunks: Iterable[Audio | Video]) -> Iterator[Audio | Video]:
        for chunk in chunks:
            if isinstance(chunk, Video):
                self._add_frames(chunk.frames)
            sound = chunk.audio if isinstance(chunk, Video) else chunk
            if sound is not None:
                self._rate = sound.rate
                self._sound.append(measure.mono(sound))
                if sum(map(len, self._sound)) >= SOUND_SECONDS * self._rate:
                    self._add_window()
            yield chunk
        self._add_window()

    def fidelity(self) -> dict[str, float | bool]:
        """PSNR of the mean squared error over the frames, and means of the other measures."""
        found: dict[str, float | bool] = {}
        if self._errors:
            error = float(np.mean(self._errors))
            found["psnr"] = 10 * math.log10(255**2 / error) if error else math.inf
            found["ssim"] = float(np.mean(self._ssim))
        if self._windows:
            lengths, mel, stoi = map(np.array, zip(*self._windows, strict=True))
            found["mel_distance"] = float(np.average(mel, weights=lengths))
            known = ~np.isnan(stoi)
            found["stoi"] = float(np.average(stoi[known], weights=lengths[known])) if known.any() else math.nan
        return found

    def _add_frames(self, frames: np.ndarray) -> None:
        for frame in frames:
            original = self.reference.frame()
            if original is not None and self._seen % self.every == 0:
                self._errors.append(measure.mean_squared_error(original, frame))
                self._ssim.append(measure.ssim(original, frame))
            self._seen += 1

    def _add_window(self) -> None:
        decoded = np.concatenate([np.zeros(0, np.float32), *self._sound])
        self._sound = []
        original = self.reference.sound(len(decoded))
        n = min(len(original), len(decoded))
        if n:
            pair = Audio(original[:n], self._rate), Audio(decoded[:n], self._rate)
            self._windows.append((n, measure.mel_distance(*pair), measure.stoi(*pair)))


def _ratio(a: int, b: int) -> float | None:
    return round(a / b, 3) if b else None
