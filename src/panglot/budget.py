"""How many tokens each part of a message gets: one budget, or one quality, over pictures, sounds and videos together.

All media of a message answer to one price a token (`panglot.detail`), and the price that meets the budget is found by
bisection. A quality is met by decoding what a budget, or a price, gives and looking at it.

Not here: what a price buys in one medium (`panglot.detail`), what sizes alone tell (`panglot.plan`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from panglot import measure
from panglot.allocation import bisect
from panglot.detail import (
    BudgetError,
    Focus,
    ImagePlan,
    Plan,
    SoundPlan,
    TextPlan,
    VideoPlan,
    complete,
    scale_for,
    scales,
)
from panglot.media import Audio, Image, Media, Text, Video
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes

T = TypeVar("T")

HELD_BACK = {"low": 3.0, "medium": 1.5, "high": 0.5}
"""dB of PSNR below full detail that each --fidelity may cost a picture or a video."""

ENOUGH = 255**2 / 10**3.8
"""Squared error, 38 dB, that is good enough for any --fidelity: on a flat picture no detail is worth its tokens."""

MORE_DISTANCE = {"low": 1.2, "medium": 0.5, "high": 0.15}
"""dB of mel distance above all codes that each --fidelity may cost a sound."""


@dataclass(frozen=True)
class Wish:
    """What the user asked for: at most so many tokens in all, a PSNR in dB, or "low", "medium", "high" fidelity."""

    tokens: int | None = None
    psnr: float | None = None
    fidelity: str | None = None
    focus: Focus | None = None
    exact: bool = False

    def __post_init__(self):
        if self.fidelity is not None and self.fidelity not in HELD_BACK:
            raise BudgetError(f"--fidelity {self.fidelity}: choose {', '.join(HELD_BACK)}")
        if self.psnr is not None and self.fidelity is not None:
            raise BudgetError("--psnr and --fidelity both name a quality: give one of them")
        if self.psnr is not None and not 0 < self.psnr <= 200:
            raise BudgetError(f"--psnr {self.psnr:g}: give a number of dB above 0 and up to 200")
        if self.tokens is not None and self.tokens < 1:
            raise BudgetError(f"--tokens {self.tokens}: give at least 1")

    @property
    def any(self) -> bool:
        return any(value is not None for value in (self.tokens, self.psnr, self.fidelity, self.focus))


LOWEST, HIGHEST = 1e-9, 1e3
"""Prices between which the one that meets a budget lies: nearly all detail, and none."""


def encode(message: Sequence[Media], wish: Wish) -> list[Codes]:
    """The codes of a message under one budget or at one quality.

    Raises BudgetError where it cannot be had; its `medium` is the number of the medium at fault, where it is one.
    """
    if wish.psnr is None and wish.fidelity is None:
        plans = _each(message, lambda medium: plan(medium, wish, len(message) == 1))
        return _within(plans, wish.tokens) if wish.tokens is not None else [p.codes(LOWEST) for p in plans]
    found = _each(message, lambda medium: _reached(medium, wish))
    total = sum(map(_tokens, found))
    if wish.tokens is not None and total > wish.tokens:
        asked = f"--psnr {wish.psnr:g}" if wish.psnr is not None else f"--fidelity {wish.fidelity}"
        raise BudgetError(f"{asked} needs {total} tokens, over --tokens {wish.tokens}: ask for less, or allow {total}")
    return found


def _each(message: Sequence[Media], do: Callable[[Media], T]) -> list[T]:
    out = []
    for number, medium in enumerate(message):
        try:
            out.append(do(medium))
        except BudgetError as error:
            error.medium = number
            raise
    return out


def _tokens(codes: Codes) -> int:
    return sum(codes.tokens().values())


def plan(medium: Media, wish: Wish, alone: bool) -> Plan:
    """The plan of one medium. `alone`: the budget is all its own, so that the size of a picture follows from it."""
    if isinstance(medium, Image):
        height, width = medium.pixels.shape[:2]
        weights = None if wish.focus is None else wish.focus.weights(height, width)
        tried = [1.0]
        if wish.tokens is not None and alone:
            best = scale_for(height, width, wish.tokens)
            # With a region to look at, tokens gather there and a larger picture is worth it.
            larger = {best, min(1.0, 1.6 * best)} if weights is not None else {best}
            tried = sorted({*larger, *((min(1.0, 1.2 * best), 0.84 * best) if wish.exact else ())})
        elif wish.tokens is not None:
            tried = scales(height, width)
        return ImagePlan(medium, tried, weights, wish.exact)
    if wish.focus is not None:
        raise BudgetError(f"--focus is of pictures, and this is {medium.modality}: leave out --focus, or the file")
    if isinstance(medium, Audio):
        return SoundPlan(medium)
    return VideoPlan(medium) if isinstance(medium, Video) else TextPlan(medium)


def _within(plans: Sequence[Plan], budget: int) -> list[Codes]:
    """One price for all plans that fits the budget; a picture takes what is left in the end."""

    def tokens(price: float) -> int:
        return sum(p.at(price)[0] for p in plans)

    least = tokens(HIGHEST)
    if least > budget:
        raise BudgetError(f"--tokens {budget} are too few: the coarsest takes {least}; allow at least that")
    price = bisect(tokens, budget, LOWEST, HIGHEST)
    rest = budget - tokens(price)
    out = []
    for p in plans:
        limit = p.at(price)[0] + rest if isinstance(p, ImagePlan) else None
        out.append(p.codes(price, limit))
        rest -= sum(out[-1].tokens().values()) - p.at(price)[0]
    return out


def _reached(medium: Media, wish: Wish) -> Codes:
    """The cheapest codes found that are as good as wished, by decoding them."""
    if isinstance(medium, Image):
        return _picture_reached(medium, wish)
    p = plan(medium, wish, True)
    if isinstance(medium, Text):
        return p.codes(LOWEST)
    if isinstance(medium, Audio) and wish.psnr is not None:
        raise BudgetError("--psnr is of pictures: give --fidelity or --tokens for sound")
    found, low, high = p.codes(LOWEST), LOWEST, HIGHEST
    goal = _goal(medium, fault(medium, found), wish)
    for _ in range(9):
        # Bisection in the price; both ends stay such that `low` is good enough.
        middle = math.sqrt(low * high)
        codes = p.codes(middle)
        if fault(medium, codes) <= goal:
            found, low = codes, middle
        else:
            high = middle
    return found


def _picture_reached(image: Image, wish: Wish) -> Codes:
    """The codes of the smallest budget that is good enough, to one per cent of its tokens.

    Budgets, not prices, since the best scale changes with either: what a price buys jumps there by a third.
    """
    found = tokenizer("image").encode(image)
    goal = _goal(image, fault(image, found), wish)
    low, high = 0, _tokens(found)
    while high - low > max(1, high // 100):
        tokens = (low + high) // 2 if low else max(1, int(0.6 * high))
        codes = next((c for c in _ways(image, wish, tokens) if fault(image, c) <= goal), None)
        if codes is None:
            low = tokens
        else:
            found, high = codes, _tokens(codes)
    return found


def _ways(image: Image, wish: Wish, tokens: int) -> Iterator[Codes]:
    """What so many tokens buy: the best blocks at the best scale, and all blocks of a smaller picture."""
    within = replace(wish, tokens=tokens, psnr=None, fidelity=None)
    yield _within([plan(image, within, True)], tokens)[0]
    height, width = image.pixels.shape[:2]
    for scale in scales(height, width, step=0.95):
        if complete(height, width, scale) <= tokens:
            yield ImagePlan(image, (scale,)).scaled[0].codes
            return


def _goal(medium: Media, best: float, wish: Wish) -> float:
    if wish.psnr is not None:
        goal = 255**2 / 10 ** (wish.psnr / 10)
        if goal < best:
            most = 10 * math.log10(255**2 / best)
            raise BudgetError(f"--psnr {wish.psnr:g} is out of reach: all detail gives {most:.2f} dB; ask for less")
        return goal
    assert wish.fidelity is not None
    if isinstance(medium, Audio):
        return best + MORE_DISTANCE[wish.fidelity]
    return max(best * 10 ** (HELD_BACK[wish.fidelity] / 10), ENOUGH)


def fault(medium: Any, codes: Codes) -> float:
    """What decoding leaves wrong: mean squared error of pictures, mel distance in dB of sound."""
    decoded: Any = tokenizer(medium.modality).decode(codes)
    if isinstance(medium, Audio):
        return measure.mel_distance(medium, decoded)
    if isinstance(medium, Image):
        return float(((decoded.pixels.astype(np.float32) - medium.pixels) ** 2).mean())
    every = max(1, round(medium.fps / decoded.fps))
    shown = np.minimum(np.arange(len(medium.frames)) // every, len(decoded.frames) - 1)
    pairs = zip(medium.frames, shown, strict=True)
    return float(np.mean([((true.astype(np.float32) - decoded.frames[i]) ** 2).mean() for true, i in pairs]))
