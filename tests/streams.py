"""Random codes of every kind that a layout holds, built without any media, for tests of streams."""

from __future__ import annotations

import numpy as np

from panglot.layout import FPS, RATES, Layout
from panglot.media import Text
from panglot.tokenizers import tokenizer
from panglot.tokenizers.audio import RUN, blocks, due_blocks
from panglot.tokenizers.base import ABSENT, Codes
from panglot.tokenizers.change import GROUP
from panglot.tokenizers.video import HOLD

LAYOUT = Layout.standard(depth=5, change=(32, 16, 8))


def any_parts(seed: int, layout: Layout = LAYOUT) -> list[Codes | str]:
    """Segments and marks in any order and number."""
    rng = np.random.default_rng(seed)
    makers = (any_text, any_image, any_audio, any_video, lambda *_: "ask", lambda *_: "give")
    return [makers[int(rng.integers(6))](rng, layout) for _ in range(rng.integers(0, 6))]


def text(words: str) -> Codes:
    return tokenizer("text").encode(Text(words))


def any_text(rng: np.random.Generator, layout: Layout = LAYOUT) -> Codes:
    return Codes("text", {}, {"text": symbols(rng, layout, "text", int(rng.integers(0, 9)))})


def symbols(rng: np.random.Generator, layout: Layout, name: str, shape: int | tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, layout.sizes[name], shape, np.int32)


def any_image(rng: np.random.Generator, layout: Layout = LAYOUT, size: tuple[int, int] | None = None) -> Codes:
    """A picture of one level or more, some of its blocks left out, perhaps coded at another size."""
    height, width = size or (int(n) for n in rng.integers(1, 200, 2))
    header = {"height": height, "width": width}
    if rng.random() < 0.3:
        height, width = (int(n) for n in rng.integers(1, 200, 2))
        header |= {"coded_height": height, "coded_width": width}
    count = int(rng.integers(1, 1 + len(layout.strides("image"))))
    return Codes("image", header, levels(rng, layout, "image", (height, width), count))


def levels(rng: np.random.Generator, layout: Layout, kind: str, size: tuple[int, int], count: int):
    """The first levels: whole, with gaps anywhere, or within the blocks of the coarser one: some of them, or all."""
    arrays: dict[str, np.ndarray] = {}
    within = None
    for stride in layout.strides(kind)[:count]:
        h, w = (-(-side // stride) for side in size)
        way = rng.integers(4)
        there = rng.random((h, w)) < rng.choice([0.0, 0.2, 0.8, 1.0]) if way else np.ones((h, w), bool)
        if way >= 2 and within is not None:
            there = within.repeat(2, 0).repeat(2, 1)[:h, :w] & (there if way == 2 else True)
        arrays[f"{kind}/{stride}"] = np.where(there, symbols(rng, layout, f"{kind}/{stride}", (h, w)), ABSENT)
        within = there
    return arrays


def any_audio(rng: np.random.Generator, layout: Layout = LAYOUT) -> Codes:
    """Sound of any rate; the same number of codes in each block, or spans of different numbers."""
    rate = int(rng.choice([*RATES[1:], 1, 12345, 768000]))
    samples = int(rng.integers(0, max(2, rate)))
    header, n = {"samples": samples, "rate": rate}, blocks(samples, rate)
    if n > 40 or (n and rng.random() < 0.4):
        children = []
        while n:
            depth, run = int(rng.integers(0, layout.depth + 1)), int(rng.integers(1, min(n, RUN) + 1))
            head = {"depth": np.array([depth * RUN + run - 1], np.int32)}
            children.append(Codes("span", {}, head | tracks(rng, layout, depth, run)))
            n -= run
        return Codes("audio", header, {}, tuple(children))
    return Codes("audio", header, tracks(rng, layout, int(rng.integers(1, layout.depth + 1)), n))


def tracks(rng: np.random.Generator, layout: Layout, depth: int, count: int) -> dict[str, np.ndarray]:
    return {f"audio/{k}": symbols(rng, layout, f"audio/{k}", count) for k in range(1, depth + 1)}


def any_video(rng: np.random.Generator, layout: Layout = LAYOUT) -> Codes:
    """All kinds of parts, some videos silent, some held at the end, sound shorter and longer than the pictures."""
    height, width = (int(n) for n in rng.integers(1, 100, 2))
    frames = int(rng.integers(1, 40))
    fps = float(rng.choice([*FPS[1:], 29.97, 1000 / 3, 0.3]))
    rate = None if rng.random() < 0.3 else int(rng.choice([16000, 44100, 22255]))
    samples = None if rate is None else int(rate * min(5.0, frames / fps) * rng.choice([0, 0.5, 1, 1.2]))
    waiting = blocks(samples or 0, rate or 1)
    depth, placed, shown = int(rng.integers(1, layout.depth + 1)), 0, 0
    children: list[Codes] = []

    def sound(n: int) -> int:
        if n:
            children.append(Codes("audio", {}, tracks(rng, layout, depth, n)))
        return n

    while shown < frames and (not shown or rng.random() < 0.9):
        part, count = _part(rng, layout, (height, width), frames - shown, first=not shown)
        children.append(part)
        shown += count
        placed += sound(max(0, min(due_blocks(shown, fps), waiting) - placed))
    sound(waiting - placed)
    header = {"height": height, "width": width, "frames": frames, "fps": fps, "samples": samples, "rate": rate}
    return Codes("video", header, {}, tuple(children))


def _part(rng, layout: Layout, size: tuple[int, int], left: int, first: bool) -> tuple[Codes, int]:
    kind = "image" if first else rng.choice(["image", "change", "same"])
    if kind == "image":
        return any_image(rng, layout, size), 1
    if kind == "same" and left >= GROUP:
        hold = int(rng.integers(min(HOLD, left // GROUP)))
        return Codes("same", {}, {"hold": np.array([hold], np.int32)}), (hold + 1) * GROUP
    span = int(rng.integers(min(GROUP, left)))
    count = int(rng.integers(0, 1 + len(layout.strides("change"))))
    more = levels(rng, layout, "change", size, count)
    return Codes("change", {}, {"span": np.array([span], np.int32)} | more), span + 1
