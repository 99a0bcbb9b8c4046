"""What files will cost in tokens, and what a budget will buy, before anything is encoded: from their sizes alone.

    files = [forecast("dog.jpg", alone=False), forecast("bark.wav", alone=False)]
    files[0].levels()                 # exact tokens of each level of detail, and the fidelity to expect
    files[0].budgets()                # what --tokens N will buy
    split(files, 2000)                # how one budget will be shared, by the rule of `panglot.budget`

Tokens of the levels of pictures and sounds are exact. Everything else is a prediction: the mean over files that
`recipes/measure_curves.py` has measured, with their 10th and 90th percentile, since what is in a file shows only once
it is decoded. The curves stand in `assets/curves.json`, with what they were measured on; between their points lines
are drawn over the logarithm of tokens, so more tokens never predict less.

Not here: what a file is really worth (`panglot.budget`), how it is printed (`panglot.cli`).
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from panglot import media
from panglot.allocation import bisect
from panglot.budget import HIGHEST, LOWEST
from panglot.detail import BudgetError, VideoPlan, coded_size, scale_for
from panglot.media import MediaInfo
from panglot.tokenizers import tokenizer
from panglot.tokenizers.audio import RUN, blocks
from panglot.tokenizers.pyramid import STRIDES

FILE = Path(__file__).with_name("assets") / "curves.json"
WEIGHTS = {
    "image": "image.safetensors",
    "audio": "audio.safetensors",
    "video": "video.safetensors",
    "text": "text.json",
}

BLOCK_BUDGETS = (0.25, 1, 4, 13)
"""Tokens for 32x32 pixels of a picture whose worth is told."""

SECOND_BUDGETS = (4, 12, 32, 64)
"""Tokens for a second of sound whose worth is told."""

PRICES = tuple(np.geomspace(1, 1e-8, 200))


@lru_cache(maxsize=1)
def curves() -> dict[str, Any]:
    return json.loads(FILE.read_text("utf-8"))


def digest(modality: str) -> str:
    """Which weights are shipped: the first 12 digits of their SHA-256. Curves of others predict something else."""
    return hashlib.sha256(FILE.with_name(WEIGHTS[modality]).read_bytes()).hexdigest()[:12]


@dataclass(frozen=True)
class Range:
    """A prediction: the mean over the files measured, and what 8 of 10 of them lie between."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, curve: dict[str, Any], at: int | None = None) -> Range:
        values = (curve[name] if at is None else curve[name][at] for name in ("mean", "low", "high"))
        return cls(*values)

    def scaled(self, by: float, plus: float = 0.0) -> Range:
        return Range(*(plus + by * value for value in (self.mean, self.low, self.high)))


@dataclass(frozen=True)
class Way:
    """One way to encode a file, what it costs and how good it will be.

    option:   the option that asks for it, such as "--stride 16" or "--tokens 600"; how: what a budget will choose.
    between:  tokens that 8 of 10 files lie between, where they are a prediction themselves; None where exact.
    most:     tokens that it can never exceed, where that is known and more than `tokens`.
    parts:    tokens by modality, of a video with sound.
    fidelity: "psnr" or "mel_distance", dB; empty for text, which comes back as it was.
    beyond:   fewer tokens than were measured: it will be worse than `fidelity` says.
    """

    option: str
    tokens: int
    between: tuple[int, int] | None = None
    most: int | None = None
    parts: dict[str, int] = field(default_factory=dict)
    fidelity: dict[str, Range] = field(default_factory=dict)
    how: str = ""
    beyond: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON, without what does not apply."""
        out: dict[str, Any] = {"option": self.option, "tokens": self.tokens}
        if self.between is not None:
            out |= {"low": self.between[0], "high": self.between[1]}
        optional = {"most": self.most, "parts": self.parts, "how": self.how, "beyond_measured": self.beyond}
        out |= {name: value for name, value in optional.items() if value}
        fidelity = {name: {k: round(v, 3) for k, v in vars(r).items()} for name, r in self.fidelity.items()}
        return out | ({"fidelity": fidelity} if fidelity else {})


class Forecast(ABC):
    """What is known of one file from its size. A price is distortion a token, as in `panglot.detail`."""

    def __init__(self, path: Path, info: MediaInfo):
        self.path, self.info = path, info

    @property
    @abstractmethod
    def size(self) -> str:
        """In words."""

    @abstractmethod
    def levels(self) -> list[Way]:
        """Every level of detail that the options of `panglot encode` offer, coarse to fine."""

    @abstractmethod
    def budgets(self) -> list[Way]:
        """What budgets of its own buy, small to large."""

    @abstractmethod
    def at(self, price: float) -> Way:
        """What this price buys; tokens fall as it rises."""

    def filled(self, way: Way, rest: int) -> Way:
        """The way with what a budget has left, where the medium can use it."""
        return way

    def as_dict(self) -> dict[str, Any]:
        sizes = ("width", "height", "frames", "fps", "rate", "duration", "bytes")
        known = {name: getattr(self.info, name) for name in sizes if getattr(self.info, name) is not None}
        ways = {"levels": [w.as_dict() for w in self.levels()], "budgets": [w.as_dict() for w in self.budgets()]}
        return {"file": str(self.path), "modality": self.info.modality, **known, **ways}


def forecast(path: str | os.PathLike[str], alone: bool = True) -> Forecast:
    """What a file will cost. alone: a budget would be all its own. Raises MediaError, and BudgetError where the file
    does not tell its length.
    """
    info, path = media.probe(path), Path(path)
    if info.modality == "image":
        return PictureForecast(path, info, alone)
    if info.modality == "text":
        return TextForecast(path, info)
    kind = SoundForecast if info.modality == "audio" else VideoForecast
    if (info.samples if info.modality == "audio" else info.frames) is None:
        remedy = "`panglot encode` reads it to its end; or convert it to FLAC or MP4, which tell"
        raise BudgetError(f"{path}: does not tell how long it is, so nothing can be planned; {remedy}")
    return kind(path, info)


def split(files: Sequence[Forecast], budget: int) -> list[Way]:
    """What each file gets of one budget: one price for all that fits, then pictures take what is left.

    That is what `budget.encode` does with distortions that it has measured. Raises BudgetError.
    """
    if budget < 1:
        raise BudgetError(f"--budget {budget}: give at least 1")

    def tokens(price: float) -> int:
        return sum(file.at(price).tokens for file in files)

    least = [file.at(HIGHEST) for file in files]
    needed = sum(way.tokens for way in least)
    if needed > budget:
        about = any(way.between for way in least)
        enough = sum(way.between[1] if way.between else way.tokens for way in least)
        said = f"about {needed}; allow {enough}, enough for 9 of 10 such files" if about else f"{needed}; allow that"
        raise BudgetError(f"--budget {budget} is too small: the coarsest takes {said}")
    price = bisect(tokens, budget, LOWEST, HIGHEST)
    rest = budget - tokens(price)
    out = []
    for file in files:
        way = file.at(price)
        out.append(file.filled(way, rest))
        rest -= out[-1].tokens - way.tokens
    return [replace(way, option="") for way in out]


def read(curve: dict[str, Any], name: str, x: float, over: str = "rate") -> Range:
    """A measured curve at `x`, along straight lines over its logarithm; its ends beyond them."""
    where = np.log(curve[over])
    return Range(*(float(np.interp(np.log(x), where, curve[name][k])) for k in ("mean", "low", "high")))


def rate_at(prices: dict[str, Any], price: float) -> float:
    """Tokens a unit that a price a token and unit buys on average."""
    return float(np.interp(np.log(price), np.log(prices["price"]), prices["rate"]))


class PictureForecast(Forecast):
    """`alone`: with a budget of its own its scale follows from it. Even a token will do, for 32x32 pixels."""

    least = 1

    def __init__(self, path: Path, info: MediaInfo, alone: bool):
        super().__init__(path, info)
        self.alone = alone
        self.height, self.width = info.height or 1, info.width or 1
        self.blocks = self.height * self.width / 32**2
        classes = [c for c in curves()["image"] if min(self.height, self.width) >= c["shorter_side_from"]]
        self.curve = classes[-1]
        self.full = self._count(self.height, self.width, STRIDES[-1])

    def _count(self, height: int, width: int, stride: int) -> int:
        return sum(tokenizer("image").count(MediaInfo("image", height=height, width=width), stride=stride).values())

    def _scaled(self, tokens: int) -> tuple[int, int]:
        return coded_size(self.height, self.width, scale_for(self.height, self.width, tokens))

    @property
    def size(self) -> str:
        return f"{self.width} x {self.height} pixels"

    def levels(self) -> list[Way]:
        return [
            Way(
                f"--stride {stride}",
                self._count(self.height, self.width, stride),
                fidelity={"psnr": Range.of(self.curve["levels"], i)},
            )
            for i, stride in enumerate(STRIDES)
        ]

    def budgets(self) -> list[Way]:
        wanted = {round(rate * self.blocks) for rate in BLOCK_BUDGETS}
        return [self._way(n, alone=True) for n in sorted(wanted) if self.least <= n < self.full]

    def _way(self, tokens: int, alone: bool) -> Way:
        curve, rate = self.curve["budget"], tokens / self.blocks
        size, how = self._scaled(tokens), ""
        if alone and size != (self.height, self.width):
            how = f"as {size[1]} x {size[0]}"
        below = rate < 0.8 * curve["rate"][0]
        return Way(f"--tokens {tokens}", tokens, fidelity={"psnr": read(curve, "psnr", rate)}, how=how, beyond=below)

    def at(self, price: float) -> Way:
        tokens = round(rate_at(self.curve["prices"], price * self.blocks) * self.blocks)
        if price >= HIGHEST:
            tokens = self.least
        return self._way(min(self.full, max(self.least, tokens)), self.alone)

    def filled(self, way: Way, rest: int) -> Way:
        return self._way(min(self.full, way.tokens + rest), self.alone)


class SoundForecast(Forecast):
    def __init__(self, path: Path, info: MediaInfo):
        super().__init__(path, info)
        self.blocks = blocks(info.samples or 0, info.rate or 1)
        self.seconds = max(1, self.blocks) * 0.08
        self.least = -(-self.blocks // RUN)
        coder: Any = tokenizer("audio")
        self.full = self.blocks * coder.depth + self.least
        self.curve = curves()["audio"]

    @property
    def size(self) -> str:
        return f"{self.info.duration or 0:.2f} s"

    def levels(self) -> list[Way]:
        depths = range(1, len(self.curve["levels"]["mean"]) + 1)
        return [Way(f"--depth {d}", d * self.blocks, fidelity=self.at_depth(d)) for d in depths]

    def at_depth(self, depth: int) -> dict[str, Range]:
        return {"mel_distance": Range.of(self.curve["levels"], depth - 1)}

    def budgets(self) -> list[Way]:
        wanted = {round(rate * self.seconds) for rate in SECOND_BUDGETS}
        return [self._way(n) for n in sorted(wanted) if max(1, self.least) <= n < self.full]

    def _way(self, tokens: int) -> Way:
        curve, rate = self.curve["budget"], max(tokens, 1) / self.seconds
        below = rate < 0.8 * curve["rate"][0]
        fidelity = {"mel_distance": read(curve, "mel_distance", rate)} if self.blocks else {}
        how = f"{max(0, tokens - self.least) / max(1, self.blocks):.1f} codes a block on average"
        return Way(f"--tokens {tokens}", tokens, fidelity=fidelity, how=how, beyond=below)

    def at(self, price: float) -> Way:
        tokens = round(rate_at(self.curve["prices"], price * self.seconds) * self.seconds)
        return self._way(self.least if price >= HIGHEST else min(self.full, max(self.least, tokens)))


class VideoForecast(Forecast):
    """Its first keyframe costs what it costs; what each further second costs in a block has been measured."""

    def __init__(self, path: Path, info: MediaInfo):
        super().__init__(path, info)
        self.frames, self.fps = info.frames or 1, info.fps or 1.0
        self.silent = replace(info, rate=None, channels=None, samples=None)
        self.sound = SoundForecast(path, info) if info.rate and info.samples else None
        measured = curves()["video"]["ways"]
        self.ways = [way for way in measured if way["every"] == 1 or way["every"] < self.frames]
        self.tokens = [self._tokens(way) for way in self.ways]
        self.depths = VideoPlan.DEPTHS if self.sound else (0,)

    def _tokens(self, way: dict[str, Any]) -> tuple[int, int, int, int]:
        """Of the pictures alone: low, median, high, and at most."""
        info = replace(self.silent, frames=-(-self.frames // way["every"]), fps=self.fps / way["every"])
        most = sum(tokenizer("video").count(info, stride=way["stride"]).values())
        key = sum(tokenizer("image").count(info, stride=way["stride"]).values())
        span = (self.frames - 1) / self.fps * (info.height or 1) * (info.width or 1) / 32**2
        low, median, high = (min(most, round(key + way["rate"][k] * span)) for k in ("low", "median", "high"))
        return low, median, high, most

    @property
    def size(self) -> str:
        sound = "with sound" if self.sound else "silent"
        return f"{self.info.width} x {self.info.height} pixels, {self.frames} frames at {self.fps:.4g}/s, {sound}"

    def levels(self) -> list[Way]:
        coder: Any = tokenizer("audio")
        depth = coder.depth if self.sound else 0
        return [
            self._way(i, depth, f"--stride {way['stride']}", False)
            for i, way in enumerate(self.ways)
            if way["every"] == 1
        ]

    def budgets(self) -> list[Way]:
        chosen = dict.fromkeys(self._chosen(price) for price in PRICES)
        return [self._way(*choice) for choice in chosen]

    def _chosen(self, price: float) -> tuple[int, int]:
        """Which way of pictures and how many codes of sound, as `VideoPlan` chooses among those it has measured."""
        best = min(range(len(self.ways)), key=lambda i: self.ways[i]["share"] + price * self.tokens[i][1])
        if self.sound is None:
            return best, 0
        each = self.sound.blocks
        return best, min(self.depths, key=lambda d: curves()["audio"]["share"][d] + price * d * each)

    def _way(self, index: int, depth: int, option: str = "", explained: bool = True) -> Way:
        way, (low, median, high, most) = self.ways[index], self.tokens[index]
        heard = depth * self.sound.blocks if self.sound else 0
        fidelity = {"psnr": Range.of(way["psnr"])} | (self.sound.at_depth(depth) if self.sound else {})
        every = {1: "every frame", 2: "every 2nd frame"}.get(way["every"], f"every {way['every']}th frame")
        how = f"stride {way['stride']}, {every}" + (f", depth {depth}" if self.sound else "")
        return Way(
            option or f"--tokens {median + heard}",
            median + heard,
            None if low == median == high else (low + heard, high + heard),
            most + heard,
            {"image": median, "audio": heard} if self.sound else {},
            fidelity,
            how if explained else "",
        )

    def at(self, price: float) -> Way:
        return self._way(*self._chosen(price))


class TextForecast(Forecast):
    def __init__(self, path: Path, info: MediaInfo):
        super().__init__(path, info)
        self.bytes = info.bytes or 0

    @property
    def size(self) -> str:
        return f"{self.bytes:,} bytes"

    def levels(self) -> list[Way]:
        each = curves()["text"]["bytes_a_token"]
        low, tokens, high = (round(self.bytes / each[name]) for name in ("high", "mean", "low"))
        return [Way("all of it", min(self.bytes, max(min(1, self.bytes), tokens)), (low, min(self.bytes, high)))]

    def budgets(self) -> list[Way]:
        return []

    def at(self, price: float) -> Way:
        return self.levels()[0]


# ---------------------------------------------------------------------------------------------------------------------
# How forecasts are shown

NAMES = {"psnr": "PSNR, dB", "mel_distance": "mel distance, dB"}
SHOWN = 6
"""Rows at most of what budgets buy a video; --json has all."""


def _count(way: Way) -> str:
    return f"about {way.tokens:,} ({way.between[0]:,} to {way.between[1]:,})" if way.between else f"{way.tokens:,}"


def _quality(way: Way, name: str) -> list[str]:
    if name not in way.fidelity:
        return ["", ""]
    value = way.fidelity[name]
    word = {"psnr": "under ", "mel_distance": "over "}[name] if way.beyond else ""
    return [f"{word}{value.mean:.1f}", f"{value.low:.1f} to {value.high:.1f}"]


def grid(file: Forecast) -> tuple[str, list[str], list[list[str]]]:
    """Title, head and rows of a table of what one file will cost and be like, few tokens to many."""
    levels, budgets = file.levels(), file.budgets()
    if len(levels) > 5:  # of sound; --json has all
        levels = [levels[d - 1] for d in VideoPlan.DEPTHS]
    if len(budgets) > SHOWN:
        budgets = [budgets[round(i * (len(budgets) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
    ways = sorted([*levels, *budgets], key=lambda way: way.tokens)
    names = [name for name in NAMES if any(name in way.fidelity for way in ways)]
    heard, explained = any("audio" in way.parts for way in ways), any(way.how for way in ways)
    head = ["way", "tokens", *(["of them sound"] if heard else [])]
    head += [column for name in names for column in (NAMES[name], "8 of 10 files")]
    rows = []
    for way in ways:
        row = [way.option, _count(way), *([f"{way.parts['audio']:,}"] if heard else [])]
        row += [cell for name in names for cell in _quality(way, name)]
        rows.append([*row, *([way.how] if explained else [])])
    title = f"{file.path.name}: {file.info.modality}, {file.size}"
    return title, [*head, *(["chosen"] if explained else [])], rows


def split_grid(files: Sequence[Forecast], ways: Sequence[Way], budget: int) -> tuple[str, list[str], list[list[str]]]:
    """The same of one budget over all files, and the sum."""
    names = [name for name in NAMES if any(name in way.fidelity for way in ways)]
    head = ["file", "tokens", "of all detail"]
    head += [column for name in names for column in (NAMES[name], "8 of 10 files")]
    rows = []
    for file, way in zip(files, ways, strict=True):
        row = [file.path.name, _count(way), _count(file.levels()[-1])]
        rows.append([*row, *(cell for name in names for cell in _quality(way, name)), way.how])
    total = sum(way.tokens for way in ways)
    about = "about " if any(way.between for way in ways) else ""
    rows.append(["all", f"{about}{total:,}", *[""] * (2 * len(names) + 2)])
    return f"one budget of {budget:,} tokens", [*head, "chosen"], rows


def basis(files: Sequence[Forecast]) -> list[str]:
    """What the predictions rest on, a line a modality."""
    used = {file.info.modality for file in files}
    if any(isinstance(file, VideoForecast) and file.sound for file in files):
        used.add("audio")
    on, as_of = curves()["measured_on"], curves()["as_of"]
    said = "Predicted from sizes alone, before anything is encoded: means, and what 8 of 10 measured files lie between."
    lines = (
        f"{name}: measured on {_measured(name)} files: {on[name]}; {as_of[name]}" for name in WEIGHTS if name in used
    )
    return [said, *lines]


def _measured(modality: str) -> int:
    """How many files the curves of a modality rest on."""
    found = curves()[modality]
    return sum(part["files"] for part in (found if isinstance(found, list) else [found]))
