"""Where tokens go: uniform, random, variance, the predictor and the oracle at equal tokens, split flags included.

    python benchmarks/allocation.py --data DATA [--json] [--only 'image*,focus'] [--limit 12] [--fixed WEIGHTS]

Pictures of bench/kodak and bench/dreambooth. At each budget - the tokens of uniform stride 16, and half of all - every
way of choosing blocks gets the same tokens and the same scaled picture, but for the uniform rows, which keep the
pictures' size and whole levels (`uniform`), or scale the picture until all levels fit (`uniform scaled`); `one budget`
is the predictor with the tokens of all pictures together, as for a message. Then: the tokens to be within 0.5 dB of all
detail; a focus region; sounds of bench/esc10 and speech with pauses; videos of bench/grid; a flat picture and noise; a
photo of 3000x2000 in 576 tokens beside thumbnails of the same bits.
Intervals are 95 % by bootstrap over files. Not measured: how it looks.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from _common import Cell, Missing, Options, Table, choose, entries, load, options, report, rows_or_notes, tokenizer
from PIL import Image as Pil

from panglot import budget, detail
from panglot.allocation import bisect
from panglot.budget import Wish
from panglot.measure import psnr, ssim
from panglot.media import Audio, Image, Video
from panglot.tokenizers.base import Codes
from panglot.tokenizers.image import ImageTokenizer

SETS = ("bench/kodak", "bench/dreambooth")
PAUSE = 0.5
"""Seconds of silence before, between and after the pieces of speech of `sound/speech with pauses`, a third in all."""
WAYS = ("random", "variance", "predictor", "oracle")
NEAR = 0.5


def total(codes: Codes) -> int:
    return sum(codes.tokens().values())


def interval(values: list[float]) -> str:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.array(values), (2000, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{low:.2f} .. {high:.2f}"


def number(what: str, values: list[float], wanted: str) -> dict[str, Cell]:
    """A row: the mean of one value a file, with its interval."""
    return {"what": what, "value": float(np.mean(values)), "95 %": interval(values), "wanted": wanted}


class Pictures:
    """PSNR of every way at a budget, picture by picture."""

    def __init__(self, opts: Options):
        rows = [row for name in SETS for row in choose(entries(opts.folder(name)), opts.limit or 12, opts.seed)]
        self.images = [load(row["path"], Image) for row in rows]
        self.tok: Any = tokenizer("image")
        self.fixed: Path | None = opts.extra["fixed"]
        self.rng = np.random.default_rng(opts.seed)

    def db(self, image: Image, codes: Codes) -> float:
        return psnr(image.pixels, self.tok.decode(codes).pixels)

    @cached_property
    def full(self) -> list[tuple[int, float]]:
        """Tokens and PSNR of all detail."""
        found = [self.tok.encode(image) for image in self.images]
        return [(total(codes), self.db(image, codes)) for image, codes in zip(self.images, found, strict=True)]

    def budget(self, image: Image, which: str) -> int:
        counts = list(self.tok.count(image).values())
        return counts[0] + counts[1] if which == "stride 16" else sum(counts) // 2

    def chosen(self, image: Image, way: str, tokens: int) -> Codes:
        """The codes of one picture under one way of choosing."""
        if way == "uniform":
            return self.tok.encode(image, stride=16)
        height, width = image.pixels.shape[:2]
        if way == "uniform scaled":
            scale = min(1.0, math.sqrt(tokens / sum(self.tok.count(image).values())))
            while True:
                plan = detail.ImagePlan(image, (scale,))
                if total(plan.scaled[0].codes) <= tokens:
                    return plan.scaled[0].codes
                scale *= 0.98
        plan = detail.ImagePlan(image, (detail.scale_for(height, width, tokens),), exact=way != "predictor")
        scaled = plan.scaled[0]
        if way == "random":
            gains = (self.rng.random(scaled.gain16.shape) + 1, self.rng.random(scaled.gain8.shape))
            scaled = replace(scaled, gain16=gains[0], gain8=gains[1])
        elif way == "variance":
            scaled = replace(scaled, **self.variances(image, scaled))
        plan.scaled = [scaled]
        return plan.codes(bisect(lambda p: plan.at(p)[0], tokens, 1e-9, 1e6), tokens)

    @staticmethod
    def variances(image: Image, scaled: Any) -> dict[str, np.ndarray]:
        header = scaled.codes.header
        size = header.get("coded_height", header["height"]), header.get("coded_width", header["width"])
        grey = np.asarray(Pil.fromarray(image.pixels).resize(size[::-1], Pil.Resampling.LANCZOS), float).mean(-1)
        found = {}
        for name, side in (("gain16", 16), ("gain8", 8)):
            h, w = getattr(scaled, name).shape
            padded = np.pad(grey, ((0, h * side - size[0]), (0, w * side - size[1])), mode="edge")
            found[name] = padded.reshape(h, side, w, side).var((1, 3)) * side * side
        return found

    def table(self, which: str) -> Table:
        table = Table(f"{len(self.images)} pictures, tokens of {which}")
        scores: dict[str, list[float]] = {}
        ways = ("uniform scaled", *WAYS, "one budget")
        if which == "stride 16":
            ways = ("uniform", *ways)
        for way in ways:
            limits = [self.budget(image, which) for image in self.images]
            if way == "one budget":
                codes = budget.encode(self.images, Wish(tokens=sum(limits)))
                over = sum(map(total, codes)) - sum(limits)
            else:
                codes = [self.chosen(image, way, limit) for image, limit in zip(self.images, limits, strict=True)]
                over = max(total(c) - limit for c, limit in zip(codes, limits, strict=True))
            scores[way] = [self.db(i, c) for i, c in zip(self.images, codes, strict=True)]
            gain = [a - b for a, b in zip(scores[way], scores[ways[0]], strict=True)]
            table.add(
                way=way,
                **{
                    "PSNR dB": float(np.mean(scores[way])),
                    "5th percentile": float(np.percentile(scores[way], 5)),
                    f"more than {ways[0]}": float(np.mean(gain)),
                    "95 %": interval(gain),
                    "5th percentile of the gain": float(np.percentile(gain, 5)),
                    "tokens over the budget": max(over, 0),
                },
            )
        gains = [np.mean(scores[way]) - np.mean(scores["random"]) for way in ("predictor", "oracle")]
        table.notes.append(
            f"predictor: {100 * gains[0] / gains[1]:.1f} % of the oracle's gain over random (wanted: 95)"
        )
        base = [np.mean(scores[way]) - np.mean(scores[ways[0]]) for way in ("predictor", "oracle")]
        table.notes.append(
            f"predictor: {100 * base[0] / base[1]:.1f} % of the oracle's gain over {ways[0]} (wanted: 95)"
        )
        return table

    def near(self) -> dict[str, Cell]:
        """Tokens to come within NEAR dB of all detail."""
        ratios = []
        for image, (tokens, best) in zip(self.images, self.full, strict=True):
            (codes,) = budget.encode([image], Wish(psnr=best - NEAR, exact=True))
            ratios.append(tokens / total(codes))
        return number(f"times fewer tokens within {NEAR} dB of all detail", ratios, "2")

    def predictor_time(self) -> dict[str, Cell]:
        """Encoding with the predictor's gains against plain encoding, alternately."""
        plain, with_gains = [], []
        for image in self.images[:6]:
            for times, run in (
                (plain, lambda i=image: self.tok.encode(i)),
                (with_gains, lambda i=image: detail.ImagePlan(i)),
            ):
                start = perf_counter()
                run()
                times.append(perf_counter() - start)
        extra = 100 * (sum(with_gains) / sum(plain) - 1)
        return {"what": "extra encode time of the predictor, %", "value": extra, "wanted": "< 20"}

    def tax(self) -> dict[str, Cell]:
        """What one model for all budgets costs, against one that was trained for the tokens of stride 16 alone."""
        if self.fixed is None:
            raise Missing("name the weights that `recipes/train_image.py --stride 16` made, with --fixed")
        single = ImageTokenizer.load(self.fixed)
        more = []
        for image in self.images:
            decoded = [tok.decode(tok.encode(image, stride=16)) for tok in (single, self.tok)]
            more.append(psnr(image.pixels, decoded[0].pixels) - psnr(image.pixels, decoded[1].pixels))
        return number("dB more at stride 16 of a model trained for it alone", more, "-")

    def focus(self) -> dict[str, Cell]:
        """PSNR inside a quarter of the sides, at the tokens of uniform stride 16."""
        gains = []
        for image in self.images:
            h, w = image.pixels.shape[:2]
            region = detail.Focus(3 * w // 8, 3 * h // 8, w // 4, h // 4)
            inside = (slice(region.y, region.y + region.height), slice(region.x, region.x + region.width))
            uniform = self.tok.encode(image, stride=16)
            (codes,) = budget.encode([image], Wish(tokens=total(uniform), focus=region))
            pair = [psnr(image.pixels[inside], self.tok.decode(c).pixels[inside]) for c in (codes, uniform)]
            gains.append(pair[0] - pair[1])
        return number("focus: dB more inside than uniform stride 16", gains, "3")


class Sounds:
    """Tokens that the allocation needs for the mel distance of a uniform depth."""

    def __init__(self, opts: Options):
        self.opts = opts

    def clips(self, folder: str, pauses: bool) -> list[Audio]:
        found = []
        for row in choose(entries(self.opts.folder(folder)), self.opts.limit or 12, self.opts.seed):
            sound = load(row["path"], Audio)
            mono = sound.samples if sound.samples.ndim == 1 else sound.samples.mean(1)
            mono = mono[: 6 * sound.rate].astype(np.float32)
            if pauses:
                gap = np.zeros(len(mono) // 6, np.float32)
                half = len(mono) // 2
                mono = np.concatenate([gap, mono[:half], gap, mono[half:], gap])
            found.append(Audio(mono, sound.rate))
        return found

    def row(self, what: str, folder: str, pauses: bool, depth: int) -> dict[str, Cell]:
        tok: Any = tokenizer("audio")
        ratios = []
        for clip in self.clips(folder, pauses):
            uniform = tok.encode(clip, depth=depth)
            goal = budget.fault(clip, uniform)
            plan, low, high, best = detail.SoundPlan(clip), budget.LOWEST, budget.HIGHEST, total(tok.encode(clip))
            for _ in range(9):
                middle = math.sqrt(low * high)
                codes = plan.codes(middle)
                if budget.fault(clip, codes) <= goal:
                    low, best = middle, total(codes)
                else:
                    high = middle
            ratios.append(total(uniform) / best)
        wanted = "1.5" if pauses else "-"
        return number(f"sound, {what}: times fewer tokens at the mel distance of {depth} codes a block", ratios, wanted)


def videos(opts: Options) -> dict[str, Cell]:
    """A video under the tokens of its stride 16, against stride 16 itself."""
    tok: Any = tokenizer("video")
    gains = []
    for row in entries(opts.folder("bench/grid"))[: min(4, opts.limit or 4)]:
        video = load(row["path"], Video)
        clip = Video(video.frames[:48], video.fps)
        uniform = tok.encode(clip, stride=16)
        (codes,) = budget.encode([clip], Wish(tokens=total(uniform)))
        faults = [budget.fault(clip, c) for c in (uniform, codes)]
        gains.append(10 * math.log10(faults[0] / faults[1]))
    return number("video: dB more than stride 16 at its tokens", gains, "-")


def control(name: str) -> dict[str, Cell]:
    """A flat picture, or noise, of 512x512 at --fidelity high."""
    rng = np.random.default_rng(0)
    pixels = {
        "flat": np.full((512, 512, 3), 118, np.uint8),
        "noise": rng.integers(0, 256, (512, 512, 3)).astype(np.uint8),
    }
    (codes,) = budget.encode([Image(pixels[name])], Wish(fidelity="high"))
    what = f"control, {name} 512x512: tokens at high fidelity (all detail 5,376, coarsest 256)"
    return {"what": what, "value": total(codes), "wanted": "about 256" if name == "flat" else "-"}


def large_photo(opts: Options) -> Table:
    """18,000,000 values in 576 tokens, beside thumbnails of no more bits, scaled back.

    The photo is the second of Kodak's, enlarged: the data has no real one of that size.
    """
    tok: Any = tokenizer("image")
    small = load(entries(opts.folder("bench/kodak"))[1]["path"], Image)
    image = Image(np.array(Pil.fromarray(small.pixels).resize((3000, 2000), Pil.Resampling.LANCZOS)))
    (codes,) = budget.encode([image], Wish(tokens=576, exact=True))
    bits = codes.bits(tok.alphabets)
    table = Table("A photo of 3000x2000 in 576 tokens")
    decoded = tok.decode(codes).pixels
    score = {"PSNR dB": psnr(image.pixels, decoded), "SSIM": ssim(image.pixels, decoded)}
    table.add(
        code="panglot", tokens=total(codes), bytes=bits / 8, **{"values a token": 18_000_000 / total(codes)}, **score
    )
    for name in ("raw thumbnail", "JPEG thumbnail", "WebP thumbnail"):
        small, size = thumbnail(image.pixels, name, bits // 8)
        back = np.asarray(Pil.fromarray(small).resize((3000, 2000), Pil.Resampling.LANCZOS))
        table.add(code=f"{name} {small.shape[1]}x{small.shape[0]}", bytes=size,
                  **{"PSNR dB": psnr(image.pixels, back), "SSIM": ssim(image.pixels, back)})  # fmt: skip
    return table


def thumbnail(pixels: np.ndarray, name: str, budget_bytes: int) -> tuple[np.ndarray, int]:
    """The best thumbnail within the bytes: uint8 pixels after coding, and the bytes (whole files, but for raw)."""
    best: tuple[float, np.ndarray, int] | None = None
    picture = Pil.fromarray(pixels)
    widths = [round(math.sqrt(budget_bytes / 3 * 1.5))] if name == "raw thumbnail" else range(24, 400, 8)
    for width in widths:
        small = picture.resize((width, round(width * 2 / 3)), Pil.Resampling.LANCZOS)
        if name == "raw thumbnail":
            return np.asarray(small), small.width * small.height * 3
        for quality in (5, 15, 30, 50, 70):
            buffer = io.BytesIO()
            small.save(buffer, name.split()[0].lower(), quality=quality)
            if buffer.tell() > budget_bytes:
                break
            coded = np.asarray(Pil.open(buffer).convert("RGB"))
            back = Pil.fromarray(coded).resize((750, 500), Pil.Resampling.LANCZOS)
            score = psnr(np.asarray(picture.resize((750, 500), Pil.Resampling.BOX)), np.asarray(back))
            if best is None or score > best[0]:
                best = (score, coded, buffer.tell())
    assert best is not None, "not even the smallest thumbnail fits"
    return best[1], best[2]


TABLES = ("image/stride 16", "image/half")
SINGLE = ("near", "predictor time", "tax", "focus", "sound/esc10", "sound/speech with pauses", "video", "flat", "noise")


def singles(opts: Options, pictures: Callable[[], Pictures]) -> dict[str, Callable[[], Mapping[str, Cell]]]:
    sounds = Sounds(opts)
    return {
        "near": lambda: pictures().near(),
        "predictor time": lambda: pictures().predictor_time(),
        "tax": lambda: pictures().tax(),
        "focus": lambda: pictures().focus(),
        "sound/esc10": lambda: sounds.row("bench/esc10", "bench/esc10", False, 5),
        "sound/speech with pauses": lambda: sounds.row("speech with pauses", "bench/commonvoice", True, 5),
        "video": lambda: videos(opts),
        "flat": lambda: control("flat"),
        "noise": lambda: control("noise"),
    }


def main() -> None:
    fixed = {"type": Path, "help": "image weights trained for stride 16 alone"}
    opts = options(__doc__ or "", [*TABLES, *SINGLE, "photo"], fixed=fixed)
    made: list[Pictures] = []

    def pictures() -> Pictures:
        if not made:
            made.append(Pictures(opts))
        return made[0]

    tables = []
    for name in TABLES:
        if opts.wants(name):
            tables.append(pictures().table("stride 16" if name == TABLES[0] else "half of all"))
    single = Table("One number each")
    for _, row in rows_or_notes(singles(opts, pictures), opts, single):
        single.add(**row)
    tables.append(single)
    if opts.wants("photo"):
        tables.append(large_photo(opts))
    report("allocation", [t for t in tables if t.rows or t.notes], opts)


if __name__ == "__main__":
    main()
