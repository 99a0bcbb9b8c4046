"""What other models charge for a file, by the formulas that their makers publish, and what panglot's own tokens are.

    count("dog.jpg", chosen("gpt-5.4,claude,panglot")).charges["claude"].tokens

All numbers stand in `assets/charges.json`, with source and date; here is one function for each kind of formula. They
take sizes alone, so nothing is decoded. Where nothing is published the answer is None, shown as "unknown", never a
guess. `docs/charges.md` tells how to add a model.

Not here: other models' tokens of text, which need their tokenizers, and prices, which only the user knows.
"""

from __future__ import annotations

import json
import math
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from panglot import media
from panglot.media import MediaInfo
from panglot.tokenizers import tokenizer

FILE = Path(__file__).with_name("assets") / "charges.json"
OWN = "panglot"
USUAL = "gpt-5.4,gpt-4o,claude,gemini-2.5,qwen3-vl,qwen2.5-vl,llama-4,llava-1.5,qwen3-omni,panglot"
"""What is compared unless somebody asks for something else."""


class ChargeError(ValueError):
    """A model or a price that cannot be used. The message is one line with the remedy."""


@dataclass(frozen=True)
class Size:
    """All that a formula may know. seconds and frames are None where a file does not tell them."""

    width: int = 0
    height: int = 0
    seconds: Fraction | None = None
    frames: int | None = None
    fps: float | None = None

    @classmethod
    def of(cls, info: MediaInfo) -> Size:
        seconds = None
        if info.modality == "audio" and info.samples is not None and info.rate:
            seconds = Fraction(info.samples, info.rate)
        elif info.duration is not None:
            seconds = Fraction(info.duration).limit_denominator(1_000_000)  # containers count in microseconds
        return cls(info.width or 0, info.height or 0, seconds, info.frames, info.fps)


@dataclass(frozen=True)
class Charge:
    """tokens: None where nothing is published. bound: "at most" or "about". covers: a part of the file, if not all."""

    tokens: int | None
    bound: str = ""
    covers: str = ""
    source: str = ""
    as_of: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.tokens is None:
            return "unknown"
        return " ".join(filter(None, (self.bound, f"{self.tokens:,}", self.covers)))


@dataclass(frozen=True)
class Counted:
    """A file and its charge by model."""

    path: Path
    info: MediaInfo
    charges: dict[str, Charge]

    def as_dict(self, prices: dict[str, Fraction], sources: bool) -> dict[str, Any]:
        """Ready for JSON; dollars where there is a price, source and note where they are wanted."""
        sizes = ("width", "height", "frames", "fps", "duration", "characters")
        known = {name: getattr(self.info, name) for name in sizes if getattr(self.info, name) is not None}
        charges = {}
        for model, charge in self.charges.items():
            row: dict[str, Any] = {"tokens": charge.tokens}
            row |= {k: v for k, v in (("bound", charge.bound), ("covers", charge.covers)) if v}
            if model in prices:
                row["dollars"] = None if charge.tokens is None else float(charge.tokens * prices[model] / 1_000_000)
            if sources:
                row |= {"source": charge.source or None, "as_of": charge.as_of or None, "note": charge.note or None}
            charges[model] = row
        return {"file": str(self.path), "modality": self.info.modality, **known, "charges": charges}


# ---------------------------------------------------------------------------------------------------------------------
# One function a kind of formula. The numbers come from the data file under the names of the keyword arguments.


def cells(length: int, cell: int) -> int:
    return -(-length // cell)


def fit(width: int, height: int, side: int | None) -> tuple[int, int]:
    """Scale down until the longer side is at most `side`, to whole pixels, the nearest ones."""
    longest = max(width, height)
    if side is None or longest <= side:
        return width, height
    return max(1, round(Fraction(width * side, longest))), max(1, round(Fraction(height * side, longest)))


def patches(width: int, height: int, patch: int, budget: int | None) -> int:
    """Patches that cover a picture, scaled down where they would be more than `budget`.

    Source: OpenAI, images and vision guide. With s = sqrt(patch^2 * budget / (w * h)), the guide counts whole patches
    along both sides, floor(w * s / patch) and floor(h * s / patch), and takes the larger of the two reductions that
    this asks for. w * s / patch is sqrt(budget * w / h), so whole numbers do.
    """
    n = cells(width, patch) * cells(height, patch)
    if budget is None or n <= budget:
        return n
    across, down = math.isqrt(budget * width // height), math.isqrt(budget * height // width)
    scale = min(Fraction(patch * max(1, across), width), Fraction(patch * max(1, down), height), Fraction(1))
    return min(budget, cells(int(width * scale), patch) * cells(max(1, int(height * scale)), patch))


def patch_charge(
    size: Size,
    *,
    patch: int,
    side: int | None,
    budget: int | None,
    multiplier: Fraction,
    agreed: int | None = None,
) -> int | None:
    """ceil(patches * multiplier). agreed: unknown beyond so many patches, since no current copy states a budget.

    Source: OpenAI, images and vision guide.
    """
    width, height = fit(size.width, size.height, side)
    n = patches(width, height, patch, budget)
    if agreed is not None and ((width, height) != (size.width, size.height) or n > agreed):
        return None
    return math.ceil(n * multiplier)


def tile_charge(
    size: Size, *, box: int, short: int, tile: int, base: int, each: int, square: int = 0, oblong: int = 0
) -> int:
    """Fit into a box, scale the shorter side down to `short`, then base + each * tiles, and an extra by the shape.

    Source: OpenAI, images and vision guide.
    """
    width, height = fit(size.width, size.height, box)
    if min(width, height) > short:
        scale = Fraction(short, min(width, height))
        width, height = round(width * scale), round(height * scale)
    extra = square if size.width == size.height else oblong
    return base + each * cells(width, tile) * cells(height, tile) + extra


def cell_charge(size: Size, *, cell: int, side: int, most: int) -> int:
    """Cells of the largest picture of the same shape that keeps to a longest side and to a number of cells.

    Source: Anthropic, vision guide, and its page on coordinates for how the size is found: whole pixels along the
    longer side, the shorter one rounded.
    """
    long, ratio = max(size.width, size.height), max(size.width, size.height) / min(size.width, size.height)

    def needed(edge: int) -> int:
        return cells(edge, cell) * cells(max(1, round(edge / ratio)), cell)

    fitting = bisect_left(range(1, min(long, side) + 1), most + 1, key=needed)
    return needed(max(1, fitting))


def area_charge(size: Size, *, per: int, side: int, most: int) -> int:
    """A token for so many pixels, after scaling down to a longest side and to at most `most` tokens.

    Source: Anthropic, vision guide, edition of 2025, which calls it an approximation.
    """
    scale = min(Fraction(1), Fraction(side, max(size.width, size.height)))
    return min(most, math.ceil(size.width * size.height * scale**2 / per))


def crop_charge(size: Size, *, small: int, divisor: Fraction, each: int) -> int:
    """One tile for a small picture, else square crops of floor(shorter side / divisor).

    Source: Google, Gemini API guide to understanding images.
    """
    if max(size.width, size.height) <= small:
        return each
    unit = max(1, int(min(size.width, size.height) / divisor))
    return each * cells(size.width, unit) * cells(size.height, unit)


def smart_resize(size: Size, factor: int, least: int, most: int, frames: int = 1, ratio: int = 200) -> tuple[int, int]:
    """Sides (width, height) as multiples of `factor`, with frames * area within [least, most]; (0, 0) if refused.

    A picture with one side over `ratio` times the other is refused. Source: the processors of Qwen2-VL and Qwen3-VL in
    transformers; in floating point like theirs, so that the same sides come out on the edge between two.
    """
    width, height = size.width, size.height
    if max(width, height) > ratio * min(width, height):
        return 0, 0
    even = round(frames / 2) * 2 if frames > 1 else 1
    across, down = round(width / factor), round(height / factor)
    volume = even * across * down * factor**2
    if volume > most:
        shrink = math.sqrt(frames * height * width / most)
        across, down = (max(1, math.floor(n / shrink / factor)) for n in (width, height))
    elif volume < least:
        grow = math.sqrt(least / (frames * height * width))
        across, down = (math.ceil(n * grow / factor) for n in (width, height))
    return across * factor, down * factor


def resize_charge(size: Size, *, factor: int, least: int, most: int) -> int | None:
    """Squares of `factor` pixels after `smart_resize`. Source: as there."""
    width, height = smart_resize(size, factor, least, most)
    return width // factor * (height // factor) or None


def sampled_charge(
    size: Size, *, rate: int, fewest: int, longest: int, step: int, factor: int, least: int, most: int
) -> int | None:
    """Frames taken at a rate, within limits of number and of volume; `step` frames share one grid of tokens.

    Source: the video processor of Qwen3-VL in transformers.
    """
    if not size.frames or not size.fps:
        return None
    frames = min(max(int(size.frames / size.fps * rate), fewest), longest, size.frames)
    if frames < step or not size.width or not size.height:
        return None
    scale = max(factor / size.height, factor / size.width, 1)
    grown = Size(int(size.width * scale), int(size.height * scale))
    width, height = smart_resize(grown, factor, least, most, frames)
    return cells(frames, step) * (width // factor) * (height // factor) or None


def grid_charge(size: Size, *, tile: int, each: int, most: int) -> int:
    """A canvas of R x C tiles, plus the whole picture as one tile more if there are several, plus their markers.

    Of all canvases with at most `most` tiles: the one that enlarges the picture least, or if all shrink it, the one
    that shrinks it least; among equals the smallest. Each row ends with a marker, tiles in a row have one between
    them, and three stand around the whole. Source: the image processor of Llama 4 in transformers.
    """
    canvases = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]

    def scale(canvas: tuple[int, int]) -> Fraction:
        return min(Fraction(tile * canvas[0], size.height), Fraction(tile * canvas[1], size.width))

    scales = [scale(canvas) for canvas in canvases]
    best = min((s for s in scales if s >= 1), default=max(scales))
    rows, columns = min((c for c, s in zip(canvases, scales, strict=True) if s == best), key=math.prod)
    if rows * columns == 1:
        return each + 3
    return each * (rows * columns + 1) + rows * (columns - 1) + rows + 3


def fixed_charge(size: Size, *, tokens: int) -> int:
    """The same for every picture."""
    return tokens


def rate_charge(size: Size, *, per_second: Fraction) -> int | None:
    """Tokens a second, the last one counted whole. Sources: OpenAI, realtime costs; Google, Gemini API guide."""
    return None if size.seconds is None else math.ceil(size.seconds * per_second)


def framed_charge(size: Size, *, fps: int, each: int) -> int | None:
    """Tokens a frame, at `fps` frames a second. Source: Google, Gemini API guides to video and media resolution."""
    return None if size.seconds is None else each * max(1, math.ceil(size.seconds * fps))


def halved_charge(size: Size, *, frames: int, longest: int) -> int | None:
    """Mel frames, begun ones too, halved by a convolution and again by pooling; over `longest` seconds is cut off.

    Source: the processor of Qwen2-Audio in transformers.
    """
    if size.seconds is None:
        return None
    n = math.ceil(min(size.seconds, Fraction(longest)) * frames)
    return max(0, ((n - 1) // 2 + 1 - 2) // 2 + 1)


def windowed_charge(size: Size, *, frames: int, window: int, each: int) -> int | None:
    """Whole mel frames in windows, `each` tokens a full one, the rest halved three times, rounding up.

    Source: the processor of Qwen3-Omni in transformers.
    """
    if size.seconds is None:
        return None
    full, rest = divmod(int(size.seconds * frames), window)
    for _ in range(3):
        rest = cells(rest, 2)
    return each * full + rest


KINDS = {
    "patch": patch_charge,
    "tile": tile_charge,
    "cell": cell_charge,
    "area": area_charge,
    "crop": crop_charge,
    "resize": resize_charge,
    "sampled": sampled_charge,
    "grid": grid_charge,
    "fixed": fixed_charge,
    "rate": rate_charge,
    "framed": framed_charge,
    "halved": halved_charge,
    "windowed": windowed_charge,
}
"""What the data file may name as the kind of a formula."""

SAID = ("kind", "source", "bound", "covers", "note")
"""Of a formula in the data file, what is not a number of it."""


# ---------------------------------------------------------------------------------------------------------------------
# Models, files, and how they are shown


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The data file; decimal numbers become exact fractions, so that 2,500 * 1.2 is 3,000 and no hair more."""
    return json.loads(FILE.read_text("utf-8"), parse_float=Fraction)


def models() -> tuple[str, ...]:
    return (*table()["models"], OWN)


def chosen(names: str) -> tuple[str, ...]:
    """The models of a list with commas, or all. Raises ChargeError with near matches for a name that is not there."""
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in names.split(",") if name.strip()))
    if wanted == ("all",):
        return models()
    for name in wanted:
        if name not in models():
            near = get_close_matches(name, models(), 4, 0.5)
            hint = f"did you mean {', '.join(near)}?" if near else "--for all lists every model"
            raise ChargeError(f"--for {name}: no formula of this name; {hint}")
    if not wanted:
        raise ChargeError(f"--for: names no model; give some of {USUAL}, or all")
    return wanted


def prices(texts: Iterable[str], wanted: Sequence[str]) -> dict[str, Fraction]:
    """Dollars a million tokens, by model, from "MODEL=DOLLARS". Raises ChargeError."""
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        name = name.strip().lower()
        plain = re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{0,12})?\s*", number, re.ASCII)
        if plain:
            found[name] = Fraction(number.strip())
        if not name or not plain:
            raise ChargeError(f"--price {text}: give MODEL=DOLLARS for a million tokens, such as gpt-5.4=2.5")
        if name not in wanted:
            raise ChargeError(f"--price {text}: {name} is not counted; add it to --for ({', '.join(wanted)})")
    return found


def charge(model: str, info: MediaInfo) -> Charge:
    """What one model but our own charges for a medium of this size."""
    formula = table()["models"][model].get(info.modality)
    if formula is None:
        return Charge(None)
    numbers = {name: value for name, value in formula.items() if name not in SAID}
    tokens = KINDS[formula["kind"]](Size.of(info), **numbers)
    source = table()["sources"][formula["source"]]
    words = {name: formula.get(name, "") for name in ("bound", "covers", "note")}
    return Charge(tokens, **words, source=source["title"], as_of=source["as_of"])


def own_charge(path: str | os.PathLike[str], info: MediaInfo) -> Charge:
    """The tokens that `panglot encode` writes without options; text is encoded, a video is bounded from above."""
    source = "panglot's own tokenizers, at their default stride and depth"
    coder = tokenizer(info.modality)
    if info.modality == "text":
        return Charge(sum(coder.encode(media.open(path)).tokens().values()), source=source)
    if (info.modality == "audio" and info.samples is None) or (info.modality == "video" and info.frames is None):
        return Charge(None, source=source, note="the file does not say how long it is")
    tokens = sum(coder.count(info).values())
    bound = "at most" if info.modality == "video" else ""
    return Charge(tokens, bound, source=source, note="what does not change costs nothing" if bound else "")


def count(path: str | os.PathLike[str], wanted: Sequence[str]) -> Counted:
    """The charge of each model for one file. Raises MediaError for a file that cannot be read."""
    info = media.probe(path)
    charges = {model: own_charge(path, info) if model == OWN else charge(model, info) for model in wanted}
    return Counted(Path(path), info, charges)


def grid(
    counted: Sequence[Counted], wanted: Sequence[str], dollars: dict[str, Fraction]
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of files and models; the longer of the two lists runs down."""

    def cell(model: str, file: Counted) -> str:
        charge = file.charges[model]
        if model not in dollars or charge.tokens is None:
            return str(charge)
        return f"{charge} = ${float(charge.tokens * dollars[model] / 1_000_000):.6f}"

    names = [file.path.name for file in counted]
    if len(counted) > len(wanted):
        rows = [[name, *(cell(m, file) for m in wanted)] for name, file in zip(names, counted, strict=True)]
        return ["file", *wanted], rows
    return ["model", *names], [[m, *(cell(m, file) for file in counted)] for m in wanted]


def sources(wanted: Sequence[str], modalities: Iterable[str], notes: bool) -> list[str]:
    """A line a source with its date and models, for what can be charged of these modalities; and the notes."""
    by_source: dict[str, list[str]] = {}
    said: list[str] = []
    for model in wanted:
        for modality in dict.fromkeys(modalities):
            formula = table()["models"].get(model, {}).get(modality)
            if formula is None:
                continue
            by_source.setdefault(formula["source"], []).append(model)
            if formula.get("note"):
                said.append(f"{model}, {modality}: {formula['note']}")
    lines = []
    for key, names in by_source.items():
        source = table()["sources"][key]
        address = f", {source['url']}" if notes else ""
        lines.append(f"{', '.join(dict.fromkeys(names))}: {source['title']}, as of {source['as_of']}{address}")
    if OWN in wanted:
        lines.append(f"{OWN}: its own tokenizers, at their default stride and depth")
    return lines + (said if notes else [])
