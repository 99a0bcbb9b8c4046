"""Samples to segments: each text and medium of a sample, packed for a stream, in several variants.

A medium is encoded with more tokens and with fewer, so that a model learns to read and to draw at any number of them:

- A picture: all levels down to `stride`; all but the finest; then each time a random number of tokens between the
  coarsest level and all, spent where they save most (`panglot.detail`), the picture at its full size.
- A sound: `depth` codes a block; then other depths from 2 on, in random order. A video: one code fewer, changes at
  stride 16, and keyframes at `stride`; then fewer codes, and in every second variant keyframes at 16 too.
- A text: once.

The same sample and options give the same segments. Not here: which samples there are (`panglot.folders`), whole data
sets (`panglot.prepare`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from panglot import media
from panglot._source import identify
from panglot.convert import OptionError
from panglot.detail import ImagePlan
from panglot.fitting import Fit
from panglot.folders import MEDIA, NO_MEDIUM, Sample, Skipped
from panglot.layout import Layout
from panglot.media import Image, MediaError, MediaInfo, Text
from panglot.shards import Segment
from panglot.stream import pack_segment
from panglot.tokenizers import tokenizer
from panglot.tokenizers.audio import blocks
from panglot.tokenizers.base import Codes, CodesError
from panglot.tokenizers.pyramid import STRIDES

METHOD = 2
"""To be raised whenever the same sample and options are to give other segments, so that data sets are never a mix."""

VIDEO_STRIDE = 16
"""The finest stride of what changes in a video; its finest level would be most of its tokens."""

PIECE = 20.0
"""Seconds of sound or video read at once."""

HEAD = 24
"""More than the marks and the header of a picture take."""

LONGEST_TOKEN = 33 * 4
"""Bytes of text that one token can stand for."""

LEAST_PRICE = 1e-9
"""A price a token, in shares of a picture's error at its coarsest, at which everything that helps at all is kept."""


@dataclass(frozen=True)
class Options:
    """How a data set is made. Raises OptionError for what is not possible.

    join:       "text": samples of the same text are one group, and a model may be shown any of their media together.
    variants:   ways in which each medium is encoded.
    stride:     of the finest level of pictures and keyframes: 32, 16 or 8. depth: codes a block of sound at most.
    held:       part of the samples that is held out, 0 to 1, chosen by the seed and their name, or column `origin`:
                crops of one photograph, cuts of one recording stay together.
    max_tokens: segments that are longer are left out.
    fit:        sizes that media are brought to first; the model made from the data set asks the same of its inputs.
    """

    join: str | None = None
    variants: int = 2
    stride: int = 8
    depth: int = 4
    held: float = 0.02
    seed: int = 0
    max_tokens: int = 2048
    fit: Fit = field(default_factory=Fit)

    def __post_init__(self) -> None:
        if self.join not in (None, "text"):
            raise OptionError(f"--join {self.join}: samples can be joined by text only")
        if not 1 <= self.variants <= 100:
            raise OptionError(f"--variants {self.variants}: choose a number from 1 to 100")
        if self.stride not in STRIDES:
            raise OptionError(f"--stride {self.stride}: choose one of {', '.join(map(str, STRIDES))}")
        most = sum(a.name.startswith("audio/") for a in tokenizer("audio").alphabets)
        if not 1 <= self.depth <= most:
            raise OptionError(f"--depth {self.depth}: choose a number from 1 to {most}")
        if not 0 <= self.held <= 1:
            raise OptionError(f"--held {self.held:g}: choose a part from 0 to 1")
        if self.max_tokens < 1:
            raise OptionError(f"--max-tokens {self.max_tokens}: choose at least 1")

    @property
    def video_stride(self) -> int:
        return max(VIDEO_STRIDE, self.stride)

    def strides(self, modality: str) -> tuple[int, ...]:
        """The levels of a picture or of what changes in a video, coarse to fine."""
        finest = self.video_stride if modality == "video" else self.stride
        return tuple(s for s in STRIDES if s >= finest)

    def depths(self, modality: str) -> tuple[int, ...]:
        """The numbers of codes that a block of sound may get, the most first."""
        most = max(1, self.depth - 1) if modality == "video" else self.depth
        return tuple(range(most, min(2, most) - 1, -1))

    def videos(self, silent: bool) -> tuple[tuple[int, int], ...]:
        """The variants of a video, the largest first: codes a block of sound, and the finest stride of keyframes."""
        depths = self.depths("video")[:1] if silent else self.depths("video")
        keyframes = (self.stride, self.video_stride)[: 1 + (self.stride < self.video_stride)]
        if len(depths) < len(keyframes):
            depths = depths[:1] * len(keyframes)
        return tuple((depth, keyframes[i % len(keyframes)]) for i, depth in enumerate(depths))[: self.variants]

    def layout(self) -> Layout:
        """The id space of what is made."""
        return Layout.standard(self.depth, self.strides("image"), self.strides("video"))


class _TooLong(Exception):
    """A medium that has more tokens than are allowed however it is encoded."""


class Encoder:
    """Samples to segments. Faults of a file are told, not raised."""

    def __init__(self, options: Options, layout: Layout) -> None:
        self.options, self.layout = options, layout

    def sample(self, number: int, sample: Sample) -> tuple[list[Segment], list[Skipped]]:
        """The segments of one sample, and what of it is left out."""
        group = sample.text if self.options.join and sample.text else sample.name
        split = "held" if self._random(sample.origin, "held").random() < self.options.held else "train"
        segments: list[Segment] = []
        skipped: list[Skipped] = []
        if sample.text is not None:
            segments, skipped = self._packed(
                lambda: iter([(0, self._text(sample.text or ""))]), sample.folder, sample.name
            )
        texts = len(segments)
        for part, file in enumerate(sample.files, 1):
            rng, name = self._random(sample.name, str(part)), sample.relative(file)
            packed, left_out = self._packed(lambda file=file, rng=rng: self._encoded(file, rng), file, name)
            segments += [replace(s, part=part, kind=sample.kind or "", file=name) for s in packed]
            skipped += left_out
            if self.options.join and sample.text is None and packed and packed[0].modality == "text":
                group = media.open(file).text.strip() or group  # type: ignore[union-attr]
        if sample.files and len(segments) == texts:
            return [], skipped  # a caption of nothing
        return [replace(s, group=group, sample=number, split=split) for s in segments], skipped

    def _random(self, name: str, what: str) -> np.random.Generator:
        """Random numbers that depend on nothing but the seed and what they are for."""
        said = f"{self.options.seed}\0{what}\0{name}".encode("utf-8", "replace")
        return np.random.default_rng(int.from_bytes(hashlib.sha256(said).digest()[:8]))

    def _packed(
        self, encoded: Callable[[], Iterator[tuple[int, Codes]]], path: Path, name: str
    ) -> tuple[list[Segment], list[Skipped]]:
        """The variants of one medium as segments that know their modality, variant and ids."""
        limit, segments, long = self.options.max_tokens, [], []
        try:
            for variant, codes in encoded():
                ids = pack_segment(codes, self.layout)
                if len(ids) > limit:
                    long.append(Skipped(name, f"variant {variant} is over --max-tokens {limit}"))
                else:
                    segments.append(Segment("", 0, 0, codes.modality, "", variant, "", ids, ""))
            if long and not segments:
                raise _TooLong
            return segments, long
        except _TooLong:
            why = f"is over --max-tokens {limit}; make it smaller or shorter, or allow more"
        except (MediaError, CodesError, OSError) as error:
            why = fault(error, path)
        except MemoryError:
            why = "needs more memory than there is"
        return [], [Skipped(name, why)]

    def _encoded(self, path: Path, rng: np.random.Generator) -> Iterator[tuple[int, Codes]]:
        """(variant, codes) of one file."""
        kind = identify(path).kind
        if kind == "image":
            info = media.probe(path)
            if info.modality == "image":
                return self._image(path, info, rng)
        if kind == "text":
            if path.suffix.lower() in MEDIA:
                raise MediaError(f"{path}: {NO_MEDIUM}")
            if path.stat().st_size > LONGEST_TOKEN * self.options.max_tokens:
                raise _TooLong
            text = media.open(path)
            assert isinstance(text, Text)
            if not text.text.strip():
                raise MediaError(f"{path}: empty text")
            return iter([(0, self._text(text.text))])
        return self._timed(path, rng)

    def _text(self, text: str) -> Codes:
        if len(text) > LONGEST_TOKEN * self.options.max_tokens:
            raise _TooLong
        return tokenizer("text").encode(Text(text))

    def _image(self, path: Path, info: MediaInfo, rng: np.random.Generator) -> Iterator[tuple[int, Codes]]:
        if self.options.fit.side:
            info = replace(info, height=self.options.fit.side, width=self.options.fit.side)
        least = sum(tokenizer("image").count(info, stride=STRIDES[0]).values())
        if least > self.options.max_tokens:
            raise _TooLong
        picture = self.options.fit(media.open(path))
        assert isinstance(picture, Image)
        plan = ImagePlan(picture)
        whole = plan.scaled[0].codes
        names = [f"image/{s}" for s in self.options.strides("image")]
        if names[-1] != "image/8":
            plan.scaled = [replace(plan.scaled[0], gain8=np.zeros_like(plan.scaled[0].gain8))]
        most = min(sum(whole.arrays[name].size for name in names), self.options.max_tokens - HEAD)
        for variant in range(self.options.variants):
            if variant < 2:
                kept = names[: len(names) - variant]
                if kept:
                    yield variant, replace(whole, arrays={name: whole.arrays[name] for name in kept})
            elif most > least:
                yield variant, within(plan, int(rng.integers(least, most + 1)))

    def _timed(self, path: Path, rng: np.random.Generator) -> Iterator[tuple[int, Codes]]:
        """Of a sound in its depths, of a video in those and with finer and coarser keyframes."""
        codes = self._whole(path)
        if codes.modality == "video":
            for variant, (depth, keyframe) in enumerate(self.options.videos(silent=codes.header["rate"] is None)):
                yield variant, shallower(coarser(codes, keyframe), depth)
            return
        depths = self.options.depths("audio")
        chosen = [depths[0], *(depths[1 + i] for i in rng.permutation(len(depths) - 1))]
        for variant, depth in enumerate(chosen[: self.options.variants]):
            yield variant, shallower(codes, depth)

    def _whole(self, path: Path) -> Codes:
        """A sound or video at its greatest depth: in one piece where it is short, as most are that are not too long."""
        if self.options.fit != Fit():
            medium = self.options.fit.open(path)
            options = {"depth": self.options.depths(medium.modality)[0]}
            if medium.modality == "video":
                options |= {"stride": self.options.video_stride, "keyframe": self.options.stride}
            return tokenizer(medium.modality).encode(medium, **options)
        with media.open_stream(path, seconds=PIECE) as stream:
            info = stream.info
            depths = self.options.depths(info.modality)
            coder = tokenizer(info.modality)
            options: dict[str, Any] = {"depth": depths[0]}
            if info.modality == "video":
                options |= {"stride": self.options.video_stride, "keyframe": self.options.stride}
            elif blocks(info.samples or 0, info.rate or 1) * depths[-1] > self.options.max_tokens:
                raise _TooLong
            first, second = next(stream, None), next(stream, None)
            if first is None:
                raise MediaError(f"{path}: holds no {info.modality}; leave it out")
            if second is None:
                return coder.encode(first, **options)
            pieces = chain((first, second), stream)
            return coder.join(self._bounded(coder.encode_stream(pieces, **options), depths[-1]))

    def _bounded(self, pieces: Iterable[Codes], depth: int) -> Iterator[Codes]:
        """The pieces of a sound or video, as long as it may be short enough at its least depth."""
        total = 0
        for piece in pieces:
            total += sum(shallower(coarser(piece, self.options.video_stride), depth).tokens().values())
            if total > self.options.max_tokens:
                raise _TooLong
            yield piece


def within(plan: ImagePlan, limit: int) -> Codes:
    """The codes of a picture at its full size, of at most `limit` tokens and not many fewer; its coarsest at the least.

    The price is guessed as if blocks were chosen one by one and flags cost nothing, then raised while that is too much:
    a tenth of the time of bisecting for it (`panglot.budget`), and 4 tokens further from the limit in a picture of 84.
    """
    scaled = plan.scaled[0]
    gains = np.sort(np.concatenate([scaled.gain16.ravel(), scaled.gain8.ravel()]))[::-1]
    wanted = min(limit - scaled.base, len(gains) - 1)
    while True:
        present = scaled.pick(max(float(gains[wanted]), LEAST_PRICE) if wanted > 0 else 1.0)
        over = scaled.spent(present) - limit
        if over <= 0 or wanted <= 0:
            return scaled.chosen(present)
        wanted -= max(1, over // 2)


def shallower(codes: Codes, depth: int) -> Codes:
    """The same sound, or the same video, with the first `depth` codes of each block of sound."""
    if codes.modality == "audio":
        return replace(codes, arrays=dict(list(codes.arrays.items())[:depth]))
    return replace(codes, children=tuple(shallower(child, depth) for child in codes.children))


def coarser(codes: Codes, stride: int) -> Codes:
    """The same video with keyframes that have no level finer than `stride`.

    Changes stay as they were coded, behind the finer keyframes, which costs little (`docs/log.md`).
    """

    def cut(child: Codes) -> Codes:
        if child.modality != "image":
            return child
        kept = {name: codes for name, codes in child.arrays.items() if int(name.partition("/")[2]) >= stride}
        return replace(child, arrays=kept)

    return replace(codes, children=tuple(cut(child) for child in codes.children))


def fault(error: Exception, path: Path) -> str:
    """What is wrong with a file, without its place on this machine."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or type(error).__name__})"
    return " ".join(str(error).split()).removeprefix(" ".join(f"{path}: ".split()) + " ")
