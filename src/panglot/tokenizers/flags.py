"""Split flags read one at a time, with what may come next and a budget that is never broken.

`base.join_flags` reads the flags of a file at once; a model that writes them symbol by symbol needs to know before each
which ones make sense: no block where there can be none, no quarter that contradicts its parent, and nothing that would
need more tokens than are left. The meaning of a flag is in `base`.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from panglot.tokenizers.base import ALL, NONE, SOME

DIGITS = np.arange(81)[:, None] // np.array([1, 3, 9, 27]) % 3
"""[81, 4]: what each symbol says of its four quarters."""


def flags(
    shape: tuple[int, int], possible: np.ndarray | None, budget: int
) -> Generator[tuple[int, ...], int, np.ndarray]:
    """A coroutine that yields the legal symbols, is sent one, and returns which blocks are there: bool [h, w].

    possible: bool [h, w], where blocks can be (`nested_in`), everywhere if None. budget: tokens at most, these flags
    and one code for each block that is there; at least 1.
    """
    room = [np.ones(shape, bool) if possible is None else possible]
    whole = bool(room[0].all())  # such a level needs no flags once all its blocks are there
    while len(room) == 1 or room[-1].size > 1:
        room.append(np.asarray(_quarters(room[-1]).any(-1)))
    counts, least = _costs(room)
    state = np.full((1, 1), SOME, np.int8)
    slack = budget - 1  # what is left when every open cell takes its cheapest way; the root's is to have no blocks
    for depth in range(len(room) - 2, -1, -1):
        fits, blocks = _quarters(room[depth]), _quarters(counts[depth])
        cheapest = _quarters(least[depth])
        h, w = room[depth].shape
        quarters = np.where(fits & (state == ALL)[..., None], ALL, NONE).astype(np.int8)
        top = depth == len(room) - 2
        for y, x in zip(*np.nonzero(state == SOME), strict=True):
            paid = 1 if top else int(least[depth + 1][y, x])
            legal, price = _legal(fits[y, x], blocks[y, x], cheapest[y, x], top, whole)
            affordable = tuple(int(s) for s in legal[price - paid <= slack])
            symbol = yield affordable
            slack -= int(price[int(np.searchsorted(legal, symbol))]) - paid
            quarters[y, x] = DIGITS[symbol]
        state = quarters.reshape(*state.shape, 2, 2).transpose(0, 2, 1, 3).reshape(2 * len(state), -1)[:h, :w]
    return state == ALL


def _legal(
    fits: np.ndarray, blocks: np.ndarray, cheapest: np.ndarray, top: bool, everywhere: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The symbols, rising, that make sense for a cell, and the tokens each needs at least, itself included.

    top: whether it is the root, which may also say that all blocks are there, unless there can be blocks everywhere.
    """
    none, whole, some = DIGITS == NONE, DIGITS == ALL, DIGITS == SOME
    sense = (none | fits).all(1) & (~some | (cheapest > 0)).all(1)
    full = (whole | ~fits).all(1) & bool(fits.any())
    if not top:
        sense &= ~full & ~none.all(1)
    elif everywhere:
        sense &= ~full
    legal = np.flatnonzero(sense)
    return legal, 1 + (whole[legal] * blocks + some[legal] * cheapest).sum(1)


def _costs(room: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each cell of each depth: its possible blocks, and the tokens it needs if some but not all of them are there.

    The latter is 0 where that cannot be, for a cell of fewer than two blocks.
    """
    counts, least = [room[0].astype(np.int64)], [np.zeros(room[0].shape, np.int64)]
    while len(counts) < len(room):
        blocks, some = _quarters(counts[-1]), _quarters(least[-1])
        several = (blocks > 0).sum(-1) > 1
        ways = np.where((blocks > 0) & several[..., None], blocks, np.iinfo(np.int64).max)
        ways = np.where(some > 0, np.minimum(ways, some), ways).min(-1)
        counts.append(blocks.sum(-1))
        least.append(np.where(counts[-1] > 1, 1 + ways, 0))
    return counts, least


def _quarters(cells: np.ndarray) -> np.ndarray:
    """[h, w] -> [ceil(h/2), ceil(w/2), 4], padded with 0"""
    h, w = cells.shape
    padded = np.pad(cells, ((0, h % 2), (0, w % 2))) if h % 2 or w % 2 else cells
    return padded.reshape((h + 1) // 2, 2, (w + 1) // 2, 2).transpose(0, 2, 1, 3).reshape((h + 1) // 2, -1, 4)
