"""Measure what tokens buy: `python recipes/measure_curves.py --data DATA`; about five minutes on one thread.

Writes `src/panglot/assets/curves.json`, from which `panglot plan` predicts, knowing nothing of a file but its size. Run
it again whenever weights changed; `--only audio` if only those did. Everything goes through `panglot.budget` and
`panglot.detail`, as a user's files do:

- pictures, small and large ones apart: PSNR at each level and under budgets, over tokens a block of 32x32 pixels;
- sounds: mel distance at each depth and under budgets, over tokens a second;
- videos: tokens a second and block beyond the first keyframe, PSNR, for each stride and rate of frames;
- texts: bytes a token.

Means, and the 10th and 90th percentile over files. Besides, the tokens that each price buys on average, so that one
budget can be split as `budget.encode` does. The material is that of training, so that `DATA/bench` stays unseen;
fidelity on it may be a little better than on other files.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from data import listed
from PIL import Image as Pillow
from train_text import captions

from panglot import budget, media
from panglot.budget import Wish, fault
from panglot.detail import SoundPlan, VideoPlan
from panglot.media import Audio, Image, Text, Video
from panglot.plan import FILE, WEIGHTS, digest
from panglot.tokenizers import tokenizer

PICTURES = {"small": {"caltech101": 7, "grocery": 5}, "large": {"skimage": 7, "mdn_video": 2}}
"""Files of each set, evenly spaced; of a clip, its middle frame."""

FROM = {"small": 0, "large": 250}
"""Shorter side in pixels from which a class of pictures stands; measured are 128, and 300 to 1411."""

SOUNDS = {"commonvoice": 6, "ljspeech": 2, "esc10": 4, "philharmonia": 3, "librosa": 2, "maxaudio": 1}
CLIPS = {"asl_words": 3, "mdn_video": 3, "sam2vid": 2}
MEASURED_ON = {
    "image": "photos of 128 px (Caltech 101, groceries) and of 300 to 1411 px (scikit-image, stills), shorter side",
    "audio": "4 s of speech, environmental sounds, instruments and music",
    "video": "1.5 s of clips of 30 frames/s, reduced to 192 px: a signer, people, water, things on a table; "
    "what hardly moves, such as a head before a wall, costs half as much or less",
    "text": "captions and transcripts of 40 bytes or more, in 14 languages",
}
SOUND_SECONDS, CLIP_SECONDS, CLIP_SIDE = 4.0, 1.5, 192

BLOCK_RATES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 0.25, 0.5, 1, 2, 4, 8, 13, 16, 21)
"""Tokens a block of 32x32."""

SECOND_RATES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 80, 100, 125)
"""Tokens a second of sound."""

PRICES = tuple(float(f"{p:.3g}") for p in np.geomspace(1e-6, 10, 36))
"""Prices a token, times blocks or seconds, so that they mean the same for files of any size."""


def spread(values: Iterable[Sequence[float]]) -> dict[str, list[float]]:
    """Mean and percentiles over files of rows [points]; better with every point, as they are on average."""
    rows = np.array(list(values), np.float64)
    found = {"mean": rows.mean(0), "low": np.percentile(rows, 10, 0), "high": np.percentile(rows, 90, 0)}
    return {name: rounded(row) for name, row in found.items()}


def rounded(row: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in row]


def monotone(values: dict[str, list[float]], rising: bool) -> dict[str, list[float]]:
    """The curves without what small samples or a changing number of them may turn the wrong way."""
    best = np.maximum.accumulate if rising else np.minimum.accumulate
    return {name: best(row).tolist() for name, row in values.items()}


def along(rates: Sequence[float], curve: Sequence[tuple[float, float]]) -> list[float]:
    """A file's measured points (tokens a unit, fidelity) read at `rates`; nan below the first one."""
    x, y = np.array(sorted(curve)).T
    read = np.interp(np.log(rates), np.log(x), y)
    return np.where(np.array(rates) < 0.8 * x[0], np.nan, read).tolist()


def over_files(rates: Sequence[float], curves: Sequence[Sequence[tuple[float, float]]], name: str) -> dict[str, Any]:
    """One curve over the rates that all files reach."""
    rows = np.array([along(rates, curve) for curve in curves])
    whole = ~np.isnan(rows).any(0)
    return {"rate": np.array(rates)[whole].tolist(), name: monotone(spread(rows[:, whole]), rising=name == "psnr")}


def at_prices(rows: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Mean tokens a unit at each of PRICES."""
    return {"price": list(PRICES), "rate": rounded(np.mean(rows, 0))}


def some(data: Path, sets: dict[str, int], limit: int | None) -> list[Path]:
    out = []
    for name, number in sets.items():
        paths = [path for path, _ in listed(data / "train" / name)]
        wanted = min(number, limit or number, len(paths))
        out += [paths[i * len(paths) // wanted] for i in range(wanted)]
    return out


# --- pictures


def picture(path: Path) -> Image:
    medium = media.open(path)
    return Image(medium.frames[len(medium.frames) // 2].copy()) if isinstance(medium, Video) else medium  # type: ignore[return-value]


def psnr(medium: Any, codes: Any) -> float:
    return float(10 * np.log10(255**2 / max(fault(medium, codes), 0.05)))


def image_curves(paths: Sequence[Path], sizes_from: int) -> dict[str, Any]:
    levels, curves, prices = [], [], []
    for image in map(picture, paths):
        blocks = image.pixels.shape[0] * image.pixels.shape[1] / 32**2
        whole = tokenizer("image").encode(image)
        arrays = list(whole.arrays.items())
        levels.append([psnr(image, replace(whole, arrays=dict(arrays[:n]))) for n in (1, 2, 3)])
        curve = []
        for rate in BLOCK_RATES:
            tokens = round(rate * blocks)
            if tokens >= 1:
                (codes,) = budget.encode([image], Wish(tokens=tokens))
                curve.append((sum(codes.tokens().values()) / blocks, psnr(image, codes)))
        curves.append([*curve, (sum(whole.tokens().values()) / blocks, levels[-1][-1])])
        plan = budget.plan(image, Wish(tokens=1), alone=False)
        prices.append([plan.at(price / blocks)[0] / blocks for price in PRICES])
    found = {"shorter_side_from": sizes_from, "files": len(curves), "levels": spread(levels)}
    return found | {"budget": over_files(BLOCK_RATES, curves, "psnr"), "prices": at_prices(prices)}


# --- sounds


def sound(path: Path) -> Audio:
    medium = media.open(path)
    assert isinstance(medium, Audio)
    return Audio(medium.samples[: round(SOUND_SECONDS * medium.rate)], medium.rate)


def audio_curves(paths: Sequence[Path]) -> dict[str, Any]:
    depths, shares, curves, prices = [], [], [], []
    for audio in map(sound, paths):
        plan, seconds = SoundPlan(audio), audio.duration
        arrays = list(plan.whole.arrays.items())
        ways = [replace(plan.whole, arrays=dict(arrays[:depth])) for depth in range(1, len(arrays) + 1)]
        depths.append([fault(audio, codes) for codes in ways])
        shares.append(plan.distortion.sum(0) / plan.unit)
        spent = [plan.at(price / seconds)[0] for price in PRICES]
        prices.append([tokens / seconds for tokens in spent])
        curve = {}
        for price, tokens in zip(PRICES, spent, strict=True):
            if not any(0.85 < tokens / known < 1.18 for known in curve):  # near ones tell nothing new
                curve[tokens] = fault(audio, plan.codes(price / seconds))
        curves.append([(tokens / seconds, distance) for tokens, distance in curve.items()])
    found = {"files": len(curves), "levels": monotone(spread(depths), rising=False)}
    found["share"] = monotone({"mean": rounded(np.mean(shares, 0))}, rising=False)["mean"]
    return found | {"budget": over_files(SECOND_RATES, curves, "mel_distance"), "prices": at_prices(prices)}


# --- videos


def stretch(path: Path) -> Video:
    """The start of a clip, small enough to measure, without sound."""
    clip = media.open(path)
    assert isinstance(clip, Video)
    scale = min(1.0, CLIP_SIDE / min(clip.frames.shape[1:3]))
    size = round(clip.frames.shape[2] * scale), round(clip.frames.shape[1] * scale)
    frames = clip.frames[: round(CLIP_SECONDS * clip.fps)]
    small = [np.asarray(Pillow.fromarray(f).resize(size, Pillow.Resampling.BOX)) for f in frames]
    return Video(np.stack(small), clip.fps)


def video_curves(paths: Sequence[Path]) -> dict[str, Any]:
    rows: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for video in map(stretch, paths):
        plan = VideoPlan(video)
        height, width = video.frames.shape[1:3]
        spans = (len(video.frames) - 1) / video.fps * height * width / 32**2
        coarsest = max(plan.pictures, key=lambda way: way.distortion)
        unit = fault(video, coarsest.codes) / coarsest.distortion
        for way in plan.pictures:
            key = sum(tokenizer("image").count(video.info, stride=way.stride).values())
            row = (way.tokens - key) / spans, 10 * np.log10(255**2 / (way.distortion * unit)), way.distortion
            rows.setdefault((way.stride, way.every), []).append(row)
    ways = []
    for (stride, every), values in rows.items():
        tokens, quality, share = np.array(values).T
        rate = dict(zip(("low", "median", "high"), rounded(np.percentile(tokens, (10, 50, 90))), strict=True))
        one = {name: value[0] for name, value in spread(quality[:, None]).items()}
        ways.append({"stride": stride, "every": every, "rate": rate, "psnr": one, "share": rounded([share.mean()])[0]})
    return {"files": len(next(iter(rows.values()))), "ways": ways}


# --- texts


def text_curves(data: Path, limit: int | None) -> dict[str, Any]:
    texts = list(dict.fromkeys(t for rows in captions(data / "train").values() for t in rows if len(t.encode()) >= 40))
    texts = texts[:: max(1, len(texts) // (100 * limit))] if limit else texts
    sizes = np.array([len(text.encode()) for text in texts])
    tokens = np.array([tokenizer("text").count(Text(text))["text"] for text in texts])
    low, high = np.percentile(sizes / tokens, (10, 90))
    mean, low, high = rounded((sizes.sum() / tokens.sum(), low, high))
    return {"files": len(texts), "bytes_a_token": {"mean": mean, "low": low, "high": high}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--only", nargs="+", choices=WEIGHTS, default=list(WEIGHTS), help="the others stay as they are")
    parser.add_argument("--limit", type=int, help="at most so many files of each set, to try it out")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, limit = options.data, options.limit
    works: dict[str, Callable[[], Any]] = {
        "image": lambda: [image_curves(some(data, PICTURES[size], limit), FROM[size]) for size in PICTURES],
        "audio": lambda: audio_curves(some(data, SOUNDS, limit)),
        "video": lambda: video_curves(some(data, CLIPS, limit)),
        "text": lambda: text_curves(data, limit),
    }
    found: dict[str, Any] = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    found["how"] = "recipes/measure_curves.py: encoded under budgets, decoded and compared; mean, 10th, 90th percentile"
    for name in options.only:
        start, weights = process_time(), digest(name)
        curve = works[name]()
        tried = f" (tried out: at most {limit} files of each set)" if limit else ""
        facts = {"measured_on": MEASURED_ON[name] + tried, "as_of": datetime.date.today().isoformat()}
        for fact, value in (facts | {"weights": weights}).items():
            found.setdefault(fact, {})[name] = value
        found[name] = curve
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
        options.out.write_text(f"{{\n{lines}\n}}\n", "utf-8")
        print(f"{name}: {process_time() - start:.0f} s of processor time -> {options.out}", flush=True)


if __name__ == "__main__":
    main()
