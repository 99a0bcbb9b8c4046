"""Tokenizers side by side on a file of the user's own: panglot at several settings, the linear baseline at the same
bits, and the classical codecs at their nearest rates: tokens, bits, fidelity and time of each.

A file has one or two parts: a picture, a sound, a text; of a video the pictures and the sound, each against codecs of
its own kind. Rows are arranged by rate: panglot's settings make the rates, and every peer is asked for each of them.
So that a comparison ends soon, large pictures are scaled down and long media cut to their start before anything is
coded; the part says so. Bits are payload alone, for panglot the raw tokens, without any entropy coding.

Not here: the peers (`panglot.linear`, `panglot.classical`), the kinds of regions (`panglot.regions`), table, plot and
page (`panglot.compare_report`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from panglot import budget, classical, measure, media, regions
from panglot.budget import BudgetError, Wish
from panglot.linear import TOKEN_BITS, Linear
from panglot.media import Audio, Image, Media, MediaError, MediaInfo, Text, Video
from panglot.peers import Coded, Unavailable, timed
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes
from panglot.tokenizers.image import resized

PICTURE_PIXELS = 1_500_000
"""Larger pictures are scaled down to this before they are compared."""

SOUND_SECONDS = 20.0
VIDEO_SECONDS, VIDEO_FRAMES, FRAME_PIXELS = 4.0, 120, 480 * 360
"""Of longer media the start is compared; larger frames are scaled down."""

STRIDES = (32, 16, 8)
DEPTHS = (1, 2, 5, 10)
BUDGETS = (256, 576)
"""Tokens of a picture that are tried besides as many as stride 16 takes; only where they are fewer than that."""

SAME_RATE = 1.15
"""Settings whose bits differ by less than this factor are one rate."""

MAX_LAG = 0.15
"""Seconds by which a codec may delay a sound; taken off before it is measured."""

SSIM_FRAMES = 8
PLAYABLE = {"image": ".png", "audio": ".flac", "video": ".mp4"}
OWN, ADAPTIVE = "panglot", "panglot, adaptive"

Told = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Row:
    """One code at one setting.

    rate:     bits of the group of rows that it belongs to
    tokens:   symbols of its alphabets; None for a codec that writes bytes
    fidelity: "psnr" (dB), "ssim", "mel_distance" (dB), "stoi" or "identical", as `panglot.measure` defines them
    detail:   of pictures, PSNR in dB in the blocks of each kind (`panglot.regions`) that there are
    decoded:  the decoded file, where it was kept
    """

    code: str
    setting: str
    rate: float
    tokens: int | None
    bits: float
    fidelity: dict[str, float | bool]
    detail: dict[str, float]
    encode_seconds: float
    decode_seconds: float
    decoded: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON; what is not finite (the PSNR of equal pictures) is None."""
        found: dict[str, Any] = {"code": self.code, "setting": self.setting, "rate_bits": round(self.rate)}
        found |= {"tokens": self.tokens, "bits": round(self.bits), **_finite(self.fidelity)}
        if self.detail:
            found["psnr_by_kind"] = _finite(self.detail)
        return found | {
            "encode_seconds": round(self.encode_seconds, 4),
            "decode_seconds": round(self.decode_seconds, 4),
        }


@dataclass(frozen=True, eq=False)
class Part:
    """What was compared of a file, and its rows by rising rate; `kinds` are the shares of kinds of regions, 0 to 1."""

    modality: str
    said: str
    seconds: float
    rows: tuple[Row, ...]
    kinds: dict[str, float]
    notes: tuple[str, ...]
    original: Path | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """A file and its parts; `folder` holds what was kept to be seen and heard."""

    path: Path
    info: MediaInfo
    parts: tuple[Part, ...]
    folder: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        parts = [
            {"part": p.modality, "compared": p.said, "kinds": p.kinds, "rows": [row.as_dict() for row in p.rows]}
            | {"notes": list(p.notes)}
            for p in self.parts
        ]
        return {"file": str(self.path), "modality": self.info.modality, "bytes": self.info.bytes, "parts": parts}


def compare(path: str | os.PathLike[str], folder: Path | None = None, told: Told | None = None) -> Comparison:
    """Run every code on one file. Raises MediaError for a file that cannot be read.

    folder: where to keep the original and what is to be seen and heard of the decoded; nothing is written without it.
    """
    info = media.probe(path)
    whole = _opened(path, info)
    told, found = told or (lambda part: None), []
    for number, (medium, said) in enumerate(whole):

        def done(part: float, number: int = number) -> None:
            told((number + part) / len(whole))

        found.append(_Bench(medium, folder, done).part(said))
    return Comparison(Path(path), info, tuple(found), folder)


# --- what is compared


def _opened(path: str | os.PathLike[str], info: MediaInfo) -> list[tuple[Media, str]]:
    """The parts of a file as they are compared, each with a line on what that is."""
    if info.modality == "text":
        medium = media.open(path)
        assert isinstance(medium, Text)
        if not medium.text:
            raise MediaError(f"{path}: is empty; there is nothing to compare")
        return [(medium, f"text, {len(medium.text.encode()):,} bytes")]
    if info.modality == "image":
        return [_picture(path)]
    frames, sounds, fps = _start(path, SOUND_SECONDS if info.modality == "audio" else VIDEO_SECONDS)
    parts: list[tuple[Media, str]] = []
    if frames:
        still, shown = np.stack(frames), f"{info.width} x {info.height}"
        height, width = still.shape[1:3]
        size = shown if (width, height) == (info.width, info.height) else f"{width} x {height}, scaled from {shown}"
        length = _length(len(still) / fps, info)
        parts.append((Video(still, fps), f"pictures of a video, {size}, {len(still)} frames, {length}"))
    if sounds and sum(len(s.samples) for s in sounds):
        sound = Audio(np.concatenate([measure.mono(s) for s in sounds]), sounds[0].rate)
        parts.append((sound, f"sound, {sound.rate:,} Hz, mono, {_length(sound.duration, info)}"))
    if not parts:
        raise MediaError(f"{path}: holds no pictures and no sound; there is nothing to compare")
    return parts


def _picture(path: str | os.PathLike[str]) -> tuple[Media, str]:
    medium = media.open(path)
    assert isinstance(medium, Image)
    height, width = medium.pixels.shape[:2]
    shown, factor = f"{width} x {height}", math.sqrt(PICTURE_PIXELS / (height * width))
    if factor >= 1:
        return medium, f"picture, {shown}"
    height, width = (max(1, int(side * factor)) for side in (height, width))
    return Image(resized(medium.pixels, height, width)), f"picture, {width} x {height}, scaled from {shown}"


def _start(path: str | os.PathLike[str], seconds: float) -> tuple[list[np.ndarray], list[Audio], float]:
    """The first seconds of a sound or video: frames, pieces of sound, frames a second."""
    frames: list[np.ndarray] = []
    sounds: list[Audio] = []
    length, fps = 0.0, 0.0
    with media.open_stream(path) as chunks:
        for chunk in chunks:
            if isinstance(chunk, Video):
                fps = chunk.fps
                most = min(VIDEO_FRAMES, max(1, round(seconds * fps))) - len(frames)
                frames += [_small(frame) for frame in chunk.frames[:most]]
            sound = chunk.audio if isinstance(chunk, Video) else chunk
            if sound is not None:
                left = round(seconds * sound.rate) - sum(len(s.samples) for s in sounds)
                sounds.append(Audio(sound.samples[:left], sound.rate))
            length += chunk.info.duration or 0.0
            if length >= seconds:
                break
    return frames, sounds, fps


def _small(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    factor = math.sqrt(FRAME_PIXELS / (height * width))
    return frame if factor >= 1 else resized(frame, *(max(2, round(side * factor / 2) * 2) for side in (height, width)))


def _length(seconds: float, info: MediaInfo) -> str:
    if info.duration is not None and info.duration > seconds + 0.1:
        return f"the first {seconds:.1f} of {info.duration:.1f} s"
    return f"{seconds:.1f} s"


# --- what it is compared with


@dataclass
class _Trial:
    """One code at one setting: the bits it belongs to (None: those it turns out to take), and how to run it."""

    code: str
    setting: str
    rate: float | None
    run: Callable[[], tuple[Coded, int | None]]
    kept: bool = False


@dataclass
class _Bench:
    """Runs every code on one medium and measures what comes back."""

    medium: Any
    folder: Path | None
    told: Told
    notes: list[str] = field(default_factory=list)
    kinds: np.ndarray | None = None

    def part(self, said: str) -> Part:
        medium = self.medium
        if isinstance(medium, Image):
            self.kinds = regions.kinds(medium.pixels)
        self._warm()
        own = [row for row in map(self._row, self._own()) if row is not None]
        rates = _rates([row.bits for row in own])
        seen = next((_nearest(row.bits, rates) for row in own if row.decoded), None)
        trials = list(self._peers(rates, seen))
        rows = list(own)
        for number, trial in enumerate(trials, 1):
            row = self._row(trial)
            rows += [row] if row is not None else []
            self.told(0.5 + number / len(trials) / 2)
        shares = regions.shares(self.kinds) if self.kinds is not None else {}
        seconds = medium.duration if isinstance(medium, Audio | Video) else 0.0
        notes = tuple(dict.fromkeys(self.notes))
        return Part(
            medium.modality, said, seconds, _arranged(rows, rates), shares, notes, self._keep(medium, "original")
        )

    def _warm(self) -> None:
        """Load weights and libraries before the clock runs, on a small piece."""
        medium = self.medium
        if isinstance(medium, Image):
            medium = Image(np.ascontiguousarray(medium.pixels[:64, :64]))
        elif isinstance(medium, Video):
            medium = Video(medium.frames[:2, :64, :64], medium.fps)
        elif isinstance(medium, Audio):
            medium = Audio(medium.samples[: medium.rate // 5], medium.rate)
        coder = tokenizer(medium.modality)
        coder.decode(coder.encode(medium))
        if not isinstance(medium, Text):
            Linear.load().code(medium, 100)

    def _own(self) -> Iterator[_Trial]:
        """panglot's settings, and a budget of as many tokens as the one in the middle takes."""
        modality, coder = self.medium.modality, tokenizer(self.medium.modality)
        settings: Sequence[tuple[str, dict[str, int]]] = [("", {})]
        if modality in ("image", "video"):
            settings = [(f"stride {s}", {"stride": s}) for s in STRIDES]
        elif modality == "audio":
            settings = [(f"depth {d}", {"depth": d}) for d in DEPTHS]
        middle = {"stride 16", "depth 5"}
        spent: dict[str, int] = {}
        for number, (name, options) in enumerate(settings):
            self.told(number / len(settings) / 3)

            def run(name: str = name, options: dict[str, int] = options) -> tuple[Coded, int]:
                coded, tokens = self._through(lambda: coder.encode(self.medium, **options))
                spent[name] = tokens
                return coded, tokens

            yield _Trial(OWN, name, None, run, modality == "audio" or name in middle)
        few = [n for n in BUDGETS if n < spent.get("stride 16", 0)] if modality == "image" else []
        for n in [*few, *(spent[name] for name in ("depth 2", "depth 5", "stride 16") if name in spent)]:
            kept = modality == "audio" or n == spent.get("stride 16")
            yield _Trial(ADAPTIVE, f"at most {n:,}", None, lambda n=n: self._through(lambda: self._within(n)), kept)

    def _within(self, tokens: int) -> Codes:
        (codes,) = budget.encode([self.medium], Wish(tokens=tokens))
        return codes

    def _through(self, encode: Callable[[], Codes]) -> tuple[Coded, int]:
        coder = tokenizer(self.medium.modality)
        codes, encoding = timed(encode)
        decoded, decoding = timed(lambda: coder.decode(codes))
        if isinstance(decoded, Video):
            decoded = _held(decoded, self.medium)
        coded = Coded(decoded, codes.bits(coder.alphabets), "", encoding, decoding)
        return coded, sum(codes.tokens().values())

    def _peers(self, rates: Sequence[float], seen: float | None) -> Iterator[_Trial]:
        """The other codes at each rate; `seen` is the rate whose decoded pictures are kept."""
        medium = self.medium
        if isinstance(medium, Text):
            raw = Coded(medium, 8 * len(medium.text.encode()), "UTF-8", 0.0, 0.0)
            yield _Trial("bytes", "", None, lambda: (raw, None))
            yield _Trial("Deflate", "", None, lambda: (classical.deflate(medium), None))
            yield _Trial("LZMA", "", None, lambda: (classical.lzma_raw(medium), None))
            return
        kept = isinstance(medium, Audio)
        for rate in rates:
            yield _Trial("linear", "", rate, lambda rate=rate: self._linear(rate), kept or rate == seen)
        for name, nearest in self._codecs():
            for rate in rates:
                yield _Trial(name, "", rate, lambda rate=rate, nearest=nearest: (nearest(rate), None), rate == seen)
        if isinstance(medium, Audio):
            for mode in classical.CODEC2_MODES:
                yield _Trial("Codec2", "", None, lambda mode=mode: (classical.codec2(medium, mode), None), True)
            for bit_rate in classical.OPUS_RATES:
                yield _Trial("Opus", "", None, lambda b=bit_rate: (classical.opus(medium, b), None), True)

    def _codecs(self) -> Iterator[tuple[str, Callable[[float], Coded]]]:
        """The codecs of pictures, each a function of the bits it may take."""
        if isinstance(self.medium, Image):
            for form in classical.FORMATS:
                try:
                    yield form.name, classical.Pictures(self.medium, form).nearest
                except Unavailable as fault:
                    self.notes.append(f"{form.name} left out: {fault}")
        elif isinstance(self.medium, Video):
            yield "x264", classical.Movies(self.medium).nearest

    def _linear(self, rate: float) -> tuple[Coded, int]:
        coded = Linear.load().code(self.medium, rate)
        return coded, math.ceil(coded.bits / TOKEN_BITS[self.medium.modality])

    def _row(self, trial: _Trial) -> Row | None:
        """Run one code and measure it; one that cannot be run here becomes a note."""
        try:
            coded, tokens = trial.run()
        except (Unavailable, BudgetError) as fault:
            self.notes.append(f"{trial.code} left out: {fault}")
            return None
        fidelity, detail = self._measured(coded.medium)
        setting = " ".join(filter(None, (trial.setting, coded.how)))
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{trial.code} {setting} {round(coded.bits / 8)}")
        decoded = self._keep(coded.medium, name) if trial.kept else None
        seconds = coded.encode_seconds, coded.decode_seconds
        rate = trial.rate or coded.bits
        return Row(trial.code, setting, rate, tokens, coded.bits, fidelity, detail, *seconds, decoded)

    def _measured(self, decoded: Media) -> tuple[dict[str, float | bool], dict[str, float]]:
        original = self.medium
        if isinstance(original, Image) and isinstance(decoded, Image):
            a, b = original.pixels, decoded.pixels
            detail = regions.detail(self.kinds, a, b) if self.kinds is not None else {}
            return {"psnr": measure.psnr(a, b), "ssim": measure.ssim(a, b)}, detail
        if isinstance(original, Video) and isinstance(decoded, Video):
            a, b = original.frames, decoded.frames
            some = range(0, len(a), -(-len(a) // SSIM_FRAMES))
            ssim = float(np.mean([measure.ssim(a[i], b[i]) for i in some]))
            return {"psnr": measure.psnr(a, b), "ssim": ssim}, {}
        if isinstance(original, Audio) and isinstance(decoded, Audio):
            x, y = measure.align(original.samples, measure.mono(decoded), round(MAX_LAG * original.rate))
            pair = Audio(x, original.rate), Audio(y, original.rate)
            return {"mel_distance": measure.mel_distance(*pair), "stoi": measure.stoi(*pair)}, {}
        return {"identical": original == decoded}, {}

    def _keep(self, medium: Media, name: str) -> Path | None:
        """Save what is to be seen or heard, where there is a folder for it."""
        if self.folder is None or isinstance(medium, Text):
            return None
        path = self.folder / f"{medium.modality}-{name}{PLAYABLE[medium.modality]}"
        media.save(medium, path)
        return path


def _held(decoded: Video, original: Video) -> Video:
    """As many frames as the original has; those that a budget left out are shown until the next one comes."""
    count = len(original.frames)
    if len(decoded.frames) == count:
        return decoded
    every = max(1, round(original.fps / decoded.fps))
    shown = np.minimum(np.arange(count) // every, len(decoded.frames) - 1)
    return Video(decoded.frames[shown], original.fps)


def _rates(bits: Sequence[float]) -> list[float]:
    """The distinct rates among bits, rising: of those that are nearly the same, the highest."""
    groups: list[list[float]] = []
    for value in sorted(bits):
        if groups and value < groups[-1][0] * SAME_RATE:
            groups[-1].append(value)
        else:
            groups.append([value])
    return [group[-1] for group in groups]


def _nearest(bits: float, rates: Sequence[float]) -> float:
    return min(rates, key=lambda rate: abs(math.log(max(bits, 1) / max(rate, 1))))


def _arranged(rows: Sequence[Row], rates: Sequence[float]) -> tuple[Row, ...]:
    """Rows by rate, each with the nearest if that is within a factor of 2, or else alone; none twice.

    A codec whose smallest file is over several rates was asked for each of them, and gave the same.
    """
    placed = {}
    for row in rows:
        rate = row.rate if row.rate in rates and _near(row.bits, row.rate) else _nearest(row.bits, rates)
        placed[row.code, row.setting, row.bits] = replace(row, rate=rate if _near(row.bits, rate) else row.bits)
    return tuple(sorted(placed.values(), key=lambda row: row.rate))


def _near(bits: float, rate: float) -> bool:
    return 0.5 <= max(bits, 1) / max(rate, 1) <= 2


def _finite(values: dict[str, float | bool]) -> dict[str, float | bool | None]:
    return {k: v if isinstance(v, bool) or math.isfinite(v) else None for k, v in values.items()}
