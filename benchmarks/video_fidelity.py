"""Video: panglot's keyframes and changes against every frame coded as an image, and against x264 and x265.

    python benchmarks/video_fidelity.py --data DATA [--json] [--only 'panglot*,x264*']

The first 75 frames of the clips of bench/grid and bench/bbb5, without sound, at most 480x360 (larger ones are scaled
down before anything is measured). For each clip and stride: tokens and PSNR (mean over frames) of the video tokenizer;
the tokens that the image tokenizer needs frame by frame for the same PSNR, interpolated between its strides (log tokens
against dB); and the PSNR that x264 and x265 reach with the same bytes as the raw codes. A still picture held for
five seconds is compared with the picture alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from _common import Cell, Missing, Options, Table, each, entries, load, mean, options, report, rows_or_notes, tokenizer
from _movies import ENCODERS, best_within_apart, mean_psnr, resized

from panglot.measure import psnr
from panglot.media import Image, Video
from panglot.tokenizers.base import Codes

FOLDERS = ("bench/grid", "bench/bbb5")
FRAMES = 75
LARGEST = (480, 360)
SAMPLED = 15
"""Every so many-th frame stands for the others when frames are coded as images; their tokens are counted exactly."""
STRIDES = (32, 16, 8)
BYTES = {32: 2_000, 16: 6_000, 8: 20_000}
"""Budgets a clip for x264 and x265 where panglot has no weights to set them."""
STILL_FPS, STILL_SECONDS = 25.0, 5
WANTED_RATIO, WANTED_STILL = 3.0, 5.0


def clips(opts: Options) -> dict[str, Video]:
    """Silent videos by file name, the first FRAMES frames, at most LARGEST, with even sides."""
    found = {}
    for row in [row for name in FOLDERS for row in entries(opts.folder(name))][: opts.limit]:
        video = load(row["path"], Video)
        frames = video.frames[:FRAMES]
        height, width = frames.shape[1:3]
        scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
        frames = resized(frames, *(2 * round(side * scale / 2) for side in (width, height)))
        found[row["path"].name] = Video(frames, video.fps)
    return found


def same_quality(points: list[tuple[float, float]], target: float) -> tuple[float, str]:
    """Tokens at which a codec reaches `target` dB, from (dB, tokens) points, and a mark: "", "<=" or ">=".

    Interpolates log tokens over dB. Below the first point its tokens are returned as "<=": fewer might do. Above the
    last as ">=": more would be needed.
    """
    points = sorted(points)
    decibels, tokens = [p[0] for p in points], [math.log(p[1]) for p in points]
    mark = "<=" if target < decibels[0] else ">=" if target > decibels[-1] else ""
    return math.exp(float(np.interp(target, decibels, tokens))), mark


def total(codes: Codes) -> int:
    return sum(codes.tokens().values())


class Rows:
    """The measurements by row name: panglot/STRIDE, x264/STRIDE and x265/STRIDE (at panglot's bytes), still/STRIDE."""

    def __init__(self, opts: Options) -> None:
        self.opts = opts
        self.clips = clips(opts)
        self._videos: dict[int, dict[str, tuple[int, float, float]]] = {}
        self._images: dict[str, list[tuple[float, float]]] = {}
        self.details = Table("Clip by clip")

    @cached_property
    def ours(self) -> Any:
        return tokenizer("video")

    @cached_property
    def image(self) -> Any:
        return tokenizer("image")

    def coded(self, stride: int) -> dict[str, tuple[int, float, float]]:
        """Tokens, bytes and PSNR of every clip through the video tokenizer."""
        if stride not in self._videos:
            ours, found = self.ours, {}
            for name, clip in self.clips.items():
                codes = ours.encode(clip, stride=stride)
                score = mean_psnr(clip.frames, ours.decode(codes).frames)
                found[name] = (total(codes), codes.bits(ours.alphabets) / 8, score)
            self._videos[stride] = found
        return self._videos[stride]

    def framewise(self, name: str) -> list[tuple[float, float]]:
        """(dB, tokens) of one clip for each stride, every frame an image."""
        if name not in self._images:
            frames = self.clips[name].frames
            points = []
            for stride in STRIDES:
                coded = [self.image.encode(Image(frame), stride=stride) for frame in frames[::SAMPLED]]
                pairs = zip(frames[::SAMPLED], coded, strict=True)
                score = mean(psnr(frame, self.image.decode(codes).pixels) for frame, codes in pairs)
                points.append((score, total(coded[0]) * len(frames)))
            self._images[name] = points
        return self._images[name]

    def panglot(self, stride: int) -> dict[str, Cell]:
        ratios = []
        for name, (tokens, size, score) in self.coded(stride).items():
            wanted, mark = same_quality(self.framewise(name), score)
            ratios.append(wanted / tokens)
            self.details.add(
                clip=name,
                stride=stride,
                tokens=tokens,
                bytes=size,
                **{"PSNR dB": score, "frames as images, same PSNR": f"{mark}{wanted:.0f}", "times fewer": ratios[-1]},
            )
        values = list(self.coded(stride).values())
        return {
            "tokens": mean(v[0] for v in values),
            "bytes": mean(v[1] for v in values),
            "PSNR dB": mean(v[2] for v in values),
            "times fewer tokens, mean": mean(ratios),
            "least": min(ratios),
        }

    def classical(self, codec: str, stride: int) -> dict[str, Cell]:
        try:
            budgets = {name: size for name, (_, size, _) in self.coded(stride).items()}
        except Missing:
            budgets = dict.fromkeys(self.clips, float(BYTES[stride]))

        def one(name: str) -> tuple[float, float] | None:
            clip = self.clips[name]
            coded = best_within_apart(clip.frames, clip.fps, codec, budgets[name])
            return coded and (coded.bytes, mean_psnr(clip.frames, coded.frames))

        found = each(one, list(self.clips), self.opts.jobs)
        kept = [f for f in found if f is not None]
        if len(kept) < len(found):
            raise Missing(f"{len(found) - len(kept)} clips do not fit in panglot's bytes at any setting tried")
        return {"bytes": mean(f[0] for f in kept), "PSNR dB": mean(f[1] for f in kept)}

    def still(self, stride: int) -> dict[str, Cell]:
        """A picture held for STILL_SECONDS: tokens beyond those of the picture, in percent."""
        picture = next(iter(self.clips.values())).frames[0]
        held = Video(np.repeat(picture[None], round(STILL_FPS * STILL_SECONDS), 0), STILL_FPS)
        alone = total(self.image.encode(Image(picture), stride=stride))
        tokens = total(self.ours.encode(held, stride=stride))
        return {"tokens": tokens, "more tokens than the picture, %": 100 * (tokens / alone - 1)}

    def all(self) -> dict[str, Callable[[], Mapping[str, Cell]]]:
        found: dict[str, Callable[[], Mapping[str, Cell]]] = {}
        for stride in STRIDES:
            found[f"panglot/{stride}"] = lambda s=stride: self.panglot(s)
            for codec in ENCODERS:
                found[f"{codec}/{stride}"] = lambda c=codec, s=stride: self.classical(c, s)
            found[f"still/{stride}"] = lambda s=stride: self.still(s)
        return found


def row_names() -> list[str]:
    return [f"{row}/{s}" for s in STRIDES for row in ("panglot", *ENCODERS, "still")]


def main() -> None:
    opts = options(__doc__ or "", row_names())
    rows = Rows(opts)
    sizes = ", ".join(sorted({f"{c.frames.shape[2]}x{c.frames.shape[1]}" for c in rows.clips.values()}))
    table = Table(f"Video, mean of {len(rows.clips)} clips, first {FRAMES} frames, {sizes}, no sound")
    for name, cells in rows_or_notes(rows.all(), opts, table):
        table.add(code=name, **cells)
    table.notes += [
        "NAME/S: stride S; x264 and x265 at panglot's bytes (preset medium, information messages not counted).",
        f"still: the first picture held for {STILL_SECONDS} s; wanted: at most {WANTED_STILL:g} % more tokens.",
        f"Wanted: at least {WANTED_RATIO:g} times fewer tokens than every frame as an image at the same PSNR.",
        "Frames as images: <= where even stride 32 is better than the video, >= where stride 8 does not reach it.",
    ]
    report("video_fidelity", [table, rows.details] if rows.details.rows else [table], opts)


if __name__ == "__main__":
    main()
