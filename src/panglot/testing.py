"""For tests, ours and other people's: the contract suite of tokenizers, and made-up media that have structure.

    from panglot.testing import TokenizerContract, some_image

    class TestMine(TokenizerContract):
        def tokenizer(self): return MyTokenizer.load()
        def samples(self): return [some_image(64, 48), some_image(33, 7)]

pytest collects the properties when a class whose name begins with "Test" derives from the suite. Not here: how good a
tokenizer is, only that it keeps the contract of `panglot.tokenizers.base`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from panglot import tokenfile
from panglot.media import Audio, Image, Text, Video, sample_at
from panglot.tokenizers.base import ABSENT, Codes, CodesError, Tokenizer

CUTS: tuple[tuple[float, ...], ...] = ((), (0.5,), (0.1, 0.11, 0.5, 0.93), tuple(np.linspace(0, 1, 24)[1:-1]))
"""Where streams are cut, as fractions of the whole: not at all, in two, unevenly, into many."""


class TokenizerContract:
    """The properties of `panglot.tokenizers.base.Tokenizer`, one test method each.

    Override `tokenizer` and `samples`; the rest where a medium needs it. They are called often: cache what is slow.
    """

    counts_exactly: ClassVar[bool] = True
    """Whether `count` equals the tokens of `encode`; if not, it is an upper bound."""
    media_alone_sizes_codes: ClassVar[bool] = True
    """Whether `count` is as exact from a `MediaInfo`, which holds no content, as from the medium."""
    prefixes_decode: ClassVar[bool] = False
    """Whether the first k arrays of the codes decode too (levels of a picture, depths of sound)."""
    blocks_may_be_absent: ClassVar[bool] = False
    """Whether any blocks of a finer level may be ABSENT: of every array [h, w] of a part but the first."""

    def tokenizer(self) -> Tokenizer[Any]:
        """The tokenizer under test."""
        raise NotImplementedError("return the tokenizer under test")

    def samples(self) -> Sequence[Any]:
        """Two or more different media, small; odd sizes among them."""
        raise NotImplementedError("return a few media")

    def options(self) -> Sequence[Mapping[str, Any]]:
        """Keyword arguments of `encode` to test with."""
        return ({},)

    def split(self, media: Any, at: Sequence[float]) -> list[Any]:
        """Consecutive pieces of a medium, cut at fractions of it; as `encode_stream` takes them."""
        return cut(media, at)

    def test_samples_give_codes(self) -> None:
        """Not a property but a guard: tests on no samples, or on samples without codes, would pass on nothing."""
        assert len(self.samples()) >= 2, "give two samples or more"
        assert any(sum(codes.tokens().values()) for _, codes in self._encoded()), "no sample has any codes"

    def test_encoding_is_deterministic(self) -> None:
        tokenizer = self.tokenizer()
        for options in self.options():
            for media in self.samples():
                assert tokenizer.encode(media, **options) == tokenizer.encode(media, **options)

    def test_batch_equals_single(self) -> None:
        tokenizer, samples = self.tokenizer(), self.samples()
        for options in self.options():
            single = [tokenizer.encode(media, **options) for media in samples]
            assert tokenizer.encode_batch(samples, **options) == single
            assert tokenizer.encode_batch(samples[::-1], **options) == single[::-1]

    def test_streamed_equals_whole(self) -> None:
        tokenizer = self.tokenizer()
        for options in self.options():
            for media in self.samples():
                whole = tokenizer.encode(media, **options)
                for at in CUTS:
                    pieces = list(tokenizer.encode_stream(iter(self.split(media, at)), **options))
                    assert tokenizer.join(pieces) == whole, f"cut at {at}"

    def test_codes_are_in_range(self) -> None:
        tokenizer = self.tokenizer()
        for _, codes in self._encoded():
            assert codes.modality == tokenizer.modality
            tokenizer.check(codes)

    def test_codes_fit_in_a_token_file(self) -> None:
        alphabets = self.tokenizer().alphabets
        for _, codes in self._encoded():
            assert tokenfile.loads(tokenfile.dumps(codes, alphabets), alphabets) == [codes]

    def test_decoding_returns_size_rate_and_duration(self) -> None:
        tokenizer = self.tokenizer()
        for media, codes in self._encoded():
            assert size(tokenizer.decode(codes)) == size(media)

    def test_decoding_is_deterministic(self) -> None:
        tokenizer = self.tokenizer()
        for _, codes in self._encoded():
            assert _same(tokenizer.decode(codes), tokenizer.decode(codes))

    def test_count_agrees_with_encode(self) -> None:
        tokenizer = self.tokenizer()
        for options in self.options():
            for media in self.samples():
                tokens = _nonzero(tokenizer.encode(media, **options).tokens())
                for source in (media, media.info):
                    count = _nonzero(tokenizer.count(source, **options))
                    exact = self.counts_exactly and (source is media or self.media_alone_sizes_codes)
                    assert count == tokens if exact else all(n <= count.get(name, 0) for name, n in tokens.items())

    def test_every_legal_array_decodes(self) -> None:
        tokenizer = self.tokenizer()
        for media, codes in self._encoded():
            for seed in range(3):
                decoded = tokenizer.decode(random_codes(codes, tokenizer, seed))
                assert type(decoded) is type(media)
                if tokenizer.modality != "text":  # how long a text is follows from its codes
                    assert size(decoded) == size(media)

    def test_any_prefix_decodes(self) -> None:
        if not self.prefixes_decode:
            return
        tokenizer = self.tokenizer()
        for media, codes in self._encoded():
            for k in range(1, max(len(part.arrays) for part in codes.walk())):
                prefix = mapped(codes, lambda part, k=k: dict(list(part.arrays.items())[:k]))
                assert size(tokenizer.decode(prefix)) == size(media)

    def test_any_blocks_may_be_absent(self) -> None:
        if not self.blocks_may_be_absent:
            return
        tokenizer, rng = self.tokenizer(), np.random.default_rng(0)

        def thinned(part: Codes, share: float) -> Mapping[str, np.ndarray]:
            if not part.arrays:
                return {}
            _, *finer = part.arrays
            planes = {name: part.arrays[name] for name in finer if part.arrays[name].ndim == 2}
            gaps = {name: np.where(rng.random(a.shape) < share, a, ABSENT) for name, a in planes.items()}
            return {**part.arrays, **gaps}

        for media, codes in self._encoded():
            for share in (0.0, 0.3, 0.9):
                thin = mapped(codes, lambda part, share=share: thinned(part, share))
                assert size(tokenizer.decode(thin)) == size(media)

    def test_illegal_codes_raise_codes_error(self) -> None:
        tokenizer = self.tokenizer()
        for _, codes in self._encoded():
            for fault, bad in illegal_codes(codes, tokenizer):
                refusal = _refusal(tokenizer, bad)
                assert refusal is not None, f"decoded codes with {fault}"
                assert "\n" not in refusal, f"more than one line about {fault}"

    def _encoded(self) -> Iterator[tuple[Any, Codes]]:
        for options in self.options():
            for media in self.samples():
                yield media, self.tokenizer().encode(media, **options)


def size(media: Any) -> tuple[Any, ...]:
    """What decoding must return exactly: a text itself; else height and width, frames and rate, samples and rate."""
    if isinstance(media, Text):
        return (media.text,)
    if isinstance(media, Image):
        return media.pixels.shape
    if isinstance(media, Audio):
        return len(media.samples), media.rate
    return *media.frames.shape, media.fps, media.audio and size(media.audio)


def cut(media: Any, at: Sequence[float]) -> list[Any]:
    """A medium cut at ascending fractions of its characters, rows of pixels, samples or frames; at most one piece each.

    A piece of video carries the sound of its own time span.
    """
    row = {Text: "text", Image: "pixels", Audio: "samples", Video: "frames"}[type(media)]
    whole = getattr(media, row)
    if not len(whole):
        return [media]
    ends = sorted({0, len(whole), *(round(fraction * len(whole)) for fraction in at)})
    pieces = [replace(media, **{row: whole[a:b]}) for a, b in pairwise(ends)]
    if isinstance(media, Video) and media.audio is not None:
        sound, last = media.audio, len(media.frames)
        marks = [len(sound.samples) if end == last else sample_at(end, media.fps, sound.rate) for end in ends]
        spans = [replace(sound, samples=sound.samples[a:b]) for a, b in pairwise(marks)]
        pieces = [replace(piece, audio=span) for piece, span in zip(pieces, spans, strict=True)]
    return pieces


def mapped(codes: Codes, arrays: Callable[[Codes], Mapping[str, np.ndarray]]) -> Codes:
    """The same tree with the arrays that a function gives for each part."""
    return replace(codes, arrays=arrays(codes), children=tuple(mapped(child, arrays) for child in codes.children))


def random_codes(codes: Codes, tokenizer: Tokenizer[Any], seed: int) -> Codes:
    """Codes of the same shapes with any symbols of their alphabets; absent blocks stay absent."""
    rng = np.random.default_rng(seed)
    sizes = {a.name: a.size for a in tokenizer.alphabets}

    def drawn(part: Codes) -> dict[str, np.ndarray]:
        symbols = {name: rng.integers(0, sizes[name], a.shape, np.int32) for name, a in part.arrays.items()}
        return {name: np.where(a == ABSENT, a, symbols[name]) for name, a in part.arrays.items()}

    return mapped(codes, drawn)


def illegal_codes(codes: Codes, tokenizer: Tokenizer[Any]) -> Iterator[tuple[str, Codes]]:
    """Codes that no tokenizer could have produced, each with its fault; one fault at a time."""
    yield "another modality", replace(codes, modality="smell")
    yield "an unknown alphabet", replace(codes, arrays={**codes.arrays, "smell": np.zeros(3, np.int32)})
    if codes.header:
        yield "no header", replace(codes, header={})
    for name, value in codes.header.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            for bad in (-1, "x", None, float("nan"), *([0.5] if isinstance(value, int) else [])):
                yield f"{name} = {bad!r}", replace(codes, header={**codes.header, name: bad})
    for alphabet in tokenizer.alphabets:
        for fault, code in (("a code over the range", alphabet.size), ("a code under the range", ABSENT - 1)):
            changed = mapped(codes, lambda part, a=alphabet.name, c=code: _first_set(part, a, c))
            if changed != codes:
                yield f"{fault} of {alphabet.name}", changed
    for name, array in codes.arrays.items():
        yield f"a further side of {name}", replace(codes, arrays={**codes.arrays, name: array[None]})
        yield f"fractions in {name}", replace(codes, arrays={**codes.arrays, name: array + 0.5})


def _first_set(part: Codes, name: str, code: int) -> dict[str, np.ndarray]:
    arrays = dict(part.arrays)
    if name in arrays and arrays[name].size:
        arrays[name] = arrays[name].copy()
        arrays[name].flat[0] = code
    return arrays


def _refusal(tokenizer: Tokenizer[Any], codes: Codes) -> str | None:
    """What the CodesError says that decoding raises; None when it raises none."""
    try:
        tokenizer.decode(codes)
    except CodesError as error:
        return str(error)
    return None


def _nonzero(count: Mapping[str, int]) -> dict[str, int]:
    return {name: n for name, n in count.items() if n}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Text):
        return a == b
    if isinstance(a, Image):
        return np.array_equal(a.pixels, b.pixels)
    if isinstance(a, Audio):
        return np.array_equal(a.samples, b.samples)
    return np.array_equal(a.frames, b.frames) and (a.audio is None or _same(a.audio, b.audio))


# --- made-up media: structure, not noise, so that a tokenizer has something to work on


def some_text(seed: int = 0, *, words: int = 12) -> Text:
    """Words of several scripts, numbers, signs and emoji."""
    rng = np.random.default_rng(seed)
    known = (
        "a",
        "dog",
        "barks,",
        "the",
        "violin:",
        "zwölf",
        "Äpfel",
        "часы",
        "3.14",
        "猫が",
        "हिन्दी",
        "كلب",
        "🐕",
        "👩\u200d🚀",
    )
    known += ("<image>", "don't", "2026\n", "")
    return Text(" ".join(known[i] for i in rng.integers(0, len(known), words)))


def some_image(height: int, width: int, seed: int = 0) -> Image:
    """Coloured shapes on a gradient: uint8 [height, width, 3]."""
    return Image(_scene(height, width, seed, 0.0))


def some_audio(seconds: float, rate: int = 24000, seed: int = 0, *, channels: int = 1) -> Audio:
    """A rising chirp, a chord with an envelope, and a faint noise: float32 [T], or [T, channels] for more than one."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    low, high = rng.uniform(100, 300), rng.uniform(800, 0.2 * rate)
    sound = 0.3 * np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * max(seconds, 1e-9))))
    for harmonic, pitch in enumerate(rng.uniform(150, 600, 3)):
        sound += 0.15 * np.sin(2 * np.pi * pitch * t) * (np.sin(2 * np.pi * (1 + harmonic) * t) > 0)
    sound += 0.01 * rng.standard_normal(t.size)
    samples = np.clip(sound, -1, 1).astype(np.float32)
    if channels > 1:
        samples = np.stack([samples * (1 - 0.2 * c) for c in range(channels)], axis=1)
    return Audio(samples, rate)


def some_video(
    frames: int, height: int, width: int, seed: int = 0, *, fps: float = 25.0, rate: int | None = 24000
) -> Video:
    """The shapes of `some_image` moving: uint8 [frames, height, width, 3], with `some_audio` unless rate is None."""
    pictures = np.stack([_scene(height, width, seed, i / fps) for i in range(frames)])
    sound = None
    if rate is not None:
        samples = some_audio(frames / fps, rate, seed).samples[: sample_at(frames, fps, rate)]
        sound = Audio(samples, rate)
    return Video(pictures, fps, sound)


def _scene(height: int, width: int, seed: int, seconds: float) -> np.ndarray:
    """A gradient with three discs and a box, which drift with time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    corners = rng.uniform(40, 215, (3, 3))
    picture = corners[0] + y[..., None] * (corners[1] - corners[0]) + x[..., None] * (corners[2] - corners[0])
    for shape in range(4):
        centre, drift = rng.uniform(0.1, 0.9, 2), rng.uniform(-0.3, 0.3, 2)
        radius, colour = rng.uniform(0.08, 0.25), rng.uniform(0, 255, 3)
        dy, dx = y - (centre + drift * seconds)[0] % 1, x - (centre + drift * seconds)[1] % 1
        inside = dy**2 + dx**2 < radius**2 if shape else np.maximum(abs(dy), abs(dx)) < radius
        picture[inside] = colour
    return picture.clip(0, 255).round().astype(np.uint8)
