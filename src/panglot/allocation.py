"""The arithmetic of a token budget: which blocks of a pyramid and which codes of a sound are worth their price.

Everything here is a Lagrangian choice: with a price a token, keep what lowers distortion by more than it costs, flags
included. Quadtrees are pruned bottom up (generalised BFOS, Chou, Lookabaugh & Gray 1989) and runs of a sound are found
by dynamic programming, so each choice is the best there is for its price; a budget is met by bisecting the price
(Shoham & Gersho 1988). Distortions are additive numbers, of any unit.

Not here: where distortions come from and what they mean (`panglot.budget`), and how choices are written as tokens
(`split_flags` in `tokenizers.base`, `spans` in `tokenizers.audio`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from panglot.tokenizers.audio import RUN
from panglot.tokenizers.base import split_flags


def best_blocks(gain: np.ndarray, price: float, possible: np.ndarray | None = None) -> np.ndarray:
    """Which blocks of one level to keep: bool [h, w].

    gain: [h, w], the distortion that each block saves; possible: bool [h, w], where blocks can be (`nested_in`).
    """
    room = np.ones(gain.shape, bool) if possible is None else possible
    value = np.where(room, gain - price, 0.0)
    whole, best = [value], [np.maximum(value, 0)]
    while len(whole) == 1 or whole[-1].size > 1:
        parts = _fours(best[-1]).sum(-1) - price
        whole.append(_fours(whole[-1]).sum(-1))
        best.append(np.maximum(np.maximum(parts, whole[-1]), 0))
    total = float(whole[-1][0, 0]) - (0.0 if room.all() else price)
    parts = float(_fours(best[-2]).sum()) - price
    if total >= max(parts, 0.0):
        return room
    if parts <= 0:
        return np.zeros(gain.shape, bool)
    # From the root down: 0 none, 1 all, 2 look at the quarters.
    state = np.full((1, 1), 2, np.uint8)
    for finer_whole, finer_best in zip(whole[-2::-1], best[-2::-1], strict=True):
        h, w = finer_whole.shape
        above = state.repeat(2, 0).repeat(2, 1)[:h, :w]
        own = np.where(finer_best <= 0, 0, np.where(finer_whole >= finer_best, 1, 2))
        state = np.where(above == 2, own, above).astype(np.uint8)
    return (state == 1) & room


def best_detail(gain16: np.ndarray, gain8: np.ndarray, price: float) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks of the levels at strides 16 and 8 to keep, the finer ones within the coarser: two bool arrays.

    gain16 [h, w] and gain8 [about 2h, 2w]: the distortion that each block saves once the coarser levels are there.
    """
    fours = _fours(gain8 - price)
    worth = np.maximum(np.maximum(fours.sum(-1), np.maximum(fours, 0).sum(-1) - price), 0)
    present16 = best_blocks(gain16 + worth, price)
    inside = present16.repeat(2, 0).repeat(2, 1)[: gain8.shape[0], : gain8.shape[1]]
    if not inside.any():
        return present16, np.zeros(gain8.shape, bool)
    return present16, best_blocks(gain8, price, None if inside.all() else inside)


def cost(present: np.ndarray, coarser: np.ndarray | None = None) -> int:
    """Tokens of one level: its codes and its split flags. A level without blocks is left out, and free."""
    if not present.any():
        return 0
    array = np.where(present, 0, -1)
    possible = None
    if coarser is not None and not coarser.all():
        possible = coarser.repeat(2, 0).repeat(2, 1)[: present.shape[0], : present.shape[1]]
    return int(present.sum()) + split_flags(array, possible).size


def best_depths(distortion: np.ndarray, price: float) -> np.ndarray:
    """How many codes each block of a sound keeps: int [T].

    distortion: [T, K+1], what is left of each block with 0 .. K codes. A run of up to RUN blocks of one depth costs one
    token more, so depths change only where that pays.
    """
    blocks, choices = distortion.shape
    step = distortion + price * np.arange(choices)
    summed = np.concatenate([np.zeros((1, choices)), np.cumsum(step, 0)])
    total = np.zeros(blocks + 1)
    back = np.zeros((blocks + 1, 2), np.int64)
    for end in range(1, blocks + 1):
        starts = np.arange(max(0, end - RUN), end)
        ways = total[starts, None] + price + summed[end] - summed[starts]
        start, depth = np.unravel_index(int(ways.argmin()), ways.shape)
        total[end], back[end] = ways[start, depth], (starts[start], depth)
    depths, end = np.zeros(blocks, np.int64), blocks
    while end:
        start, depth = back[end]
        depths[start:end] = depth
        end = int(start)
    return depths


def bisect(tokens: Callable[[float], int], budget: int, low: float, high: float, rounds: int = 40) -> float:
    """The least price from low to high at which tokens(price), which falls with the price, is within the budget.

    Returns `high` where even that price costs more.
    """
    for _ in range(rounds):
        middle = (low * high) ** 0.5
        if tokens(middle) <= budget:
            high = middle
        else:
            low = middle
        if high / low < 1 + 1e-6:
            break
    return high


def _fours(cells: np.ndarray) -> np.ndarray:
    """[h, w] -> [ceil(h/2), ceil(w/2), 4], padded with 0."""
    h, w = cells.shape
    padded = np.pad(cells, ((0, h % 2), (0, w % 2))) if h % 2 or w % 2 else cells
    return padded.reshape((h + 1) // 2, 2, (w + 1) // 2, 2).transpose(0, 2, 1, 3).reshape((h + 1) // 2, -1, 4)
