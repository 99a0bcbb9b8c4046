"""Media brought to the sizes that a model has learned: a square of pixels, a rate, a length.

A small model learns from small media. `Fit` says which, is written into the data set and from there into the
checkpoint, and is applied to whatever a user gives. Not here: tokens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from panglot import media
from panglot.media import Audio, Image, Media, MediaError, MediaInfo, Video
from panglot.tokenizers.image import resized
from panglot.tokenizers.spectrum import BLOCK, RATE, Resampler

LOUD = 0.7
"""Peak that a sound is brought to."""


@dataclass(frozen=True)
class Fit:
    """What media become; None leaves a thing as it is.

    side: of the square that pictures and frames are cropped to, in pixels. seconds: of sound at most, the loudest part
    of a longer one; it is mixed down and resampled to 16 kHz, brought to an even level, and fills whole blocks of 80
    ms. fps: pictures a second of video at most; frames: pictures of a video at most, the first ones, with their sound.
    """

    side: int | None = None
    seconds: float | None = None
    fps: float | None = None
    frames: int | None = None

    def __post_init__(self):
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < 1e6:
                raise ValueError(f"{name} {value}: choose a number above 0")
        if self.seconds is not None and self.seconds < BLOCK / RATE:
            raise ValueError(f"seconds {self.seconds:g}: choose at least {BLOCK / RATE:g}, one block of sound")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fit:
        return cls(**{field.name: value.get(field.name) for field in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __call__(self, medium: Media) -> Media:
        """The medium at these sizes."""
        if isinstance(medium, Image):
            return Image(square(medium.pixels, self.side)) if self.side else medium
        if isinstance(medium, Audio):
            return fitted_sound(medium, self.seconds) if self.seconds else medium
        return self._video(medium) if isinstance(medium, Video) else medium

    def open(self, path: str | os.PathLike[str]) -> Media:
        """The medium of a file at these sizes; of a video no more is read than is kept. Raises MediaError."""
        if not self.frames or media.probe(path).modality != "video":
            return self(media.open(path))
        frames: list[np.ndarray] = []
        sounds: list[Audio] = []
        with media.open_stream(path) as stream:
            for piece in stream:
                assert isinstance(piece, Video)
                frames += [square(frame, self.side) if self.side else frame for frame in piece.frames]
                sounds += [piece.audio] if piece.audio is not None else []
                fps = piece.fps
                if len(frames) >= self.frames * max(1.0, fps / (self.fps or fps)) + 1:
                    break
        if not frames:
            raise MediaError(f"{path}: holds no video; leave it out")
        audio = Audio(np.concatenate([s.samples for s in sounds]), sounds[0].rate) if sounds else None
        return self(Video(np.stack(frames), fps, audio))

    def info(self, info: MediaInfo) -> MediaInfo:
        """What a medium of this size will be; a size that its file does not tell stays unknown."""
        if info.modality == "audio" and self.seconds and info.samples and info.rate:
            samples = min(-(-info.samples * RATE // info.rate), _longest(self.seconds))
            return replace(info, samples=-(-samples // BLOCK) * BLOCK, rate=RATE, channels=1)
        if info.modality == "video":
            frames, fps, samples, rate = info.frames, info.fps, info.samples, info.rate
            if frames and fps and self.fps and self.fps < fps:
                frames, fps = len(np.arange(0, frames / fps, 1 / self.fps)), self.fps
            if frames and fps and self.frames:
                frames = min(frames, self.frames)
                if samples and rate:
                    samples, rate = min(-(-samples * RATE // rate), round(frames / fps * RATE)), RATE
            info = replace(info, frames=frames, fps=fps, samples=samples, rate=rate)
        return replace(info, width=self.side, height=self.side) if self.side and info.width else info

    def _video(self, video: Video) -> Video:
        frames, fps, audio = video.frames, video.fps, video.audio
        if self.fps and self.fps < fps:
            shown = np.floor(np.arange(0, len(frames) / fps, 1 / self.fps) * fps).astype(int)
            frames, fps = frames[np.minimum(shown, len(frames) - 1)], self.fps
        if self.frames:
            frames = frames[: self.frames]
            if audio is not None:
                audio = Audio(_leveled(resampled(audio)[: round(len(frames) / fps * RATE)]), RATE)
        if self.side:
            frames = np.stack([square(frame, self.side) for frame in frames])
        return Video(frames, fps, audio)


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [side, side, 3]: the middle of the picture."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    y, x = (height - short) // 2, (width - short) // 2
    return resized(np.ascontiguousarray(pixels[y : y + short, x : x + short]), side, side)


def fitted_sound(audio: Audio, seconds: float) -> Audio:
    """The loudest `seconds` of a sound, mono at 16 kHz, of even level, filled up to whole blocks of 80 ms."""
    mono = resampled(audio)
    longest = _longest(seconds)
    if len(mono) > longest:
        energy = np.concatenate([[0], np.cumsum(mono.astype(np.float64) ** 2)])
        starts = np.arange(0, len(mono) - longest + 1, BLOCK // 4)
        best = int(starts[int((energy[starts + longest] - energy[starts]).argmax())])
        mono = mono[best : best + longest]
    return Audio(_leveled(np.pad(mono, (0, -len(mono) % BLOCK))), RATE)


def _longest(seconds: float) -> int:
    return round(seconds * RATE) // BLOCK * BLOCK


def resampled(audio: Audio) -> np.ndarray:
    """float32 [T], mono at 16 kHz."""
    mono = audio.samples if audio.samples.ndim == 1 else audio.samples.mean(1)
    if audio.rate == RATE:
        return mono.astype(np.float32)
    return Resampler(audio.rate, RATE).push(mono.astype(np.float64), last=True).astype(np.float32)


def _leveled(samples: np.ndarray) -> np.ndarray:
    peak = float(np.abs(samples).max(initial=0.0))
    return samples.astype(np.float32) if peak < 1e-4 else (samples * (LOUD / peak)).astype(np.float32)
