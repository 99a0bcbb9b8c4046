"""Media to codes and back, with the shipped tokenizers: in memory, and from file to file.

The functions on files read and write sound and video piece by piece, so that memory does not grow with their length.
Not here: what a level is and how it is coded (`panglot.tokenizers`), and the bytes of a token file
(`panglot.tokenfile`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from panglot import budget, media, tokenfile
from panglot.budget import Wish
from panglot.media import Audio, Media, Video
from panglot.tokenfile import TokenFileError
from panglot.tokenizers import MODALITIES, tokenizer
from panglot.tokenizers.base import Alphabet, Codes, CodesError

Progress: TypeAlias = Callable[[float], None]
"""Called with the part that is done, 0 to 1."""

SUFFIXES = {
    "text": (".txt",),
    "image": (".png", ".jpg", ".jpeg", ".webp"),
    "audio": (".wav", ".flac", ".ogg"),
    "video": (".mp4",),
}
"""What decoded media can be saved as; the first is the default."""


PIECE = {"audio": 20.0, "video": 1.0}
"""Seconds of a file that are read and coded at once. Codes do not depend on it; sound in pieces of 1 s takes six times
as long, since the network's context is computed again for each."""


class OptionError(ValueError):
    """An option that is not on offer: a stride between two levels, a depth beyond the last code, a negative rate."""


@dataclass(frozen=True)
class Options:
    """What to leave out. None leaves nothing out; an option that a modality does not have is ignored for it.

    stride: the image pyramid ends at this stride in pixels (image, video).
    depth:  so many codes a frame of sound (audio, video).
    fps:    at most so many pictures a second (video).
    effort: rounds of search for better codes; leaves nothing out, takes time (image).
    wish:   a budget or a quality instead of all these (`panglot.budget`).
    """

    stride: int | None = None
    depth: int | None = None
    fps: float | None = None
    effort: int = 0
    wish: Wish | None = None

    def __post_init__(self):
        fixed = {"stride": self.stride, "depth": self.depth, "effort": self.effort or None}
        given = [f"--{name}" for name, value in fixed.items() if value is not None]
        if self.wish is not None and given:
            raise OptionError(f"{given[0]} and a budget contradict each other: the budget chooses it; leave one out")

    def of(self, modality: str) -> dict[str, Any]:
        """The options of one modality's `encode`. Raises OptionError for a value it does not offer."""
        chosen: dict[str, Any] = {}
        if self.stride is not None and modality in ("image", "video"):
            if self.stride not in strides():
                raise OptionError(f"--stride {self.stride}: choose one of {_listed(strides())}")
            chosen["stride"] = self.stride
        if not 0 <= self.effort <= 100:
            raise OptionError(f"--effort {self.effort}: choose a number of rounds from 0 to 100")
        if self.effort and modality == "image":
            chosen["effort"] = self.effort
        if self.depth is not None and modality in ("audio", "video"):
            if self.depth not in depths():
                raise OptionError(f"--depth {self.depth}: choose a number from 1 to {depths()[-1]}")
            chosen["depth"] = self.depth
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise OptionError(f"--fps {self.fps:g}: choose a number above 0")
        return chosen


def strides() -> tuple[int, ...]:
    """Strides of the image pyramid in pixels, coarse to fine."""
    return tuple(int(a.name.partition("/")[2]) for a in tokenizer("image").alphabets if a.name.startswith("image/"))


def depths() -> tuple[int, ...]:
    """Numbers of codes that a frame of sound can have: 1 to K."""
    return tuple(range(1, sum(a.name.startswith("audio/") for a in tokenizer("audio").alphabets) + 1))


def encode(media: Media, **options: Any) -> Codes:
    """The codes of one medium in memory.

    Options: `stride` (image, video), `depth` (audio, video), `effort` (image); or those of `panglot.budget.Wish`:
    `tokens` at most, `psnr` in dB, `fidelity` ("low", "medium", "high"), `focus`, `exact`. Raises BudgetError where a
    wish cannot be met.
    """
    if options.keys() & {field.name for field in fields(Wish)}:
        return encode_message([media], Wish(**options))[0]
    return tokenizer(media.modality).encode(media, **options)


def encode_message(message: Sequence[Media], wish: Wish) -> list[Codes]:
    """The codes of several media that share one budget, or are to be of one quality. Raises BudgetError."""
    return budget.encode(message, wish)


def decode(codes: Codes) -> Media:
    """The medium that codes stand for. Raises CodesError where they cannot be decoded."""
    if codes.modality not in MODALITIES:
        raise CodesError(f"codes of {codes.modality!r} are no medium; there are {', '.join(MODALITIES)}")
    return tokenizer(codes.modality).decode(codes)


def write_tokens(path: str | os.PathLike[str], codes: Codes | Sequence[Codes]) -> None:
    """Write one message, or several in order, to a token file (`docs/format.md`); all of it or nothing."""
    parts = [codes] if isinstance(codes, Codes) else list(codes)
    tokenfile.write(Path(path), parts, alphabets(part.modality for part in parts))


def read_tokens(path: str | os.PathLike[str]) -> list[Codes]:
    """The messages of a token file. Raises TokenFileError, which names the file and the fault, or OSError."""
    path = Path(path)
    modalities = {modality for modality, _ in tokenfile.peek(path).roots}
    if unknown := sorted(modalities - set(MODALITIES)):
        raise TokenFileError(f"{path}: holds codes of {unknown[0]!r}, which are no medium; update panglot")
    return tokenfile.read(path, alphabets(modalities))


def alphabets(modalities: Iterable[str]) -> tuple[Alphabet, ...]:
    """The alphabets of the tokenizers of these modalities, without repetition."""
    return tuple({a.name: a for modality in modalities for a in tokenizer(modality).alphabets}.values())


def encode_file(path: str | os.PathLike[str], options: Options, progress: Progress | None = None) -> Codes:
    """The codes of one file. Sound and video are read as a stream and never lie whole in memory."""
    if options.wish is not None:
        return encode_message([opened(path, options)], options.wish)[0]
    info = media.probe(path)
    chosen = options.of(info.modality)
    coder = tokenizer(info.modality)
    if info.modality in ("text", "image"):
        return coder.encode(media.open(path), **chosen)
    with media.open_stream(path, fps=options.fps, seconds=PIECE[info.modality]) as chunks:
        return coder.join(coder.encode_stream(reported(chunks, info.duration or 0.0, progress), **chosen))


def opened(path: str | os.PathLike[str], options: Options) -> Media:
    """A file in memory, as a budget needs it; video at most at the rate asked for.

    Raises OptionError where that is too much for the memory, MediaError where it cannot be read.
    """
    if media.probe(path).modality in ("text", "image"):
        return media.open(path)
    with media.open_stream(path, fps=options.fps) as chunks:
        try:
            return chunks.read()
        except media.TooLongError as error:
            remedy = "a budget needs it whole: leave the budget out, lower --fps, or cut the file"
            raise OptionError(f"{path}: {error.fault}; {remedy}") from None


def decode_file(codes: Codes, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
    """Decode codes into one file, its format chosen by the suffix of `path`; all of it or nothing."""
    if codes.modality in ("text", "image"):
        media.save(decode(codes), path)
    else:
        coder: Any = tokenizer(codes.modality)  # of sound or video, which decode as a stream too
        media.save_stream(reported(coder.decode_stream(codes), seconds(codes), progress), path)


def seconds(codes: Codes) -> float:
    """How long the sound or video of these codes lasts, from their header; 0 where they have no duration."""
    header = codes.header
    for length, rate in (("frames", "fps"), ("samples", "rate")):
        if header.get(length) and header.get(rate):
            return float(header[length] or 0) / float(header[rate] or 1)
    return 0.0


def reported(chunks: Iterable[Audio | Video], length: float, progress: Progress | None) -> Iterator[Audio | Video]:
    """Pass pieces of sound or video on, and say after each how far through their `length` (seconds) they are."""
    done = 0.0
    for chunk in chunks:
        yield chunk
        done += chunk.info.duration or 0.0
        if progress and length:
            progress(min(1.0, done / length))


def output_format(codes: Codes, wanted: str | None) -> str:
    """The suffix to decode into: the default of the modality, or `wanted` ("png", ".png") if it fits."""
    if wanted is None:
        return SUFFIXES[codes.modality][0]
    suffix = "." + wanted.lower().lstrip(".")
    if suffix not in SUFFIXES[codes.modality]:
        names = ", ".join(s[1:] for s in SUFFIXES[codes.modality])
        raise OptionError(f"--format {wanted}: {codes.modality} can be saved as {names}")
    return suffix


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
