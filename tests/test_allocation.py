"""The arithmetic of budgets, against plain search over everything where that is possible."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panglot.allocation import best_blocks, best_depths, best_detail, bisect, cost
from panglot.tokenizers.audio import RUN


def value(gain, present, price, coarser=None):
    return gain[present].sum() - price * cost(present, coarser)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_blocks_are_the_best_of_all_subsets(height, width, seed):
    rng = np.random.default_rng(seed)
    gain = rng.exponential(1.0, (height, width)) * rng.choice([0, 1, 3], (height, width))
    price = rng.uniform(0.2, 2)
    subsets = itertools.product([False, True], repeat=height * width)
    best = max(value(gain, np.array(s).reshape(height, width), price) for s in subsets)
    assert value(gain, best_blocks(gain, price), price) == pytest.approx(best)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_blocks_within_a_coarser_level_are_the_best_of_all_subsets(seed):
    rng = np.random.default_rng(seed)
    coarser = rng.random((2, 2)) < 0.5
    room = coarser.repeat(2, 0).repeat(2, 1)[:3, :3]
    gain, price = rng.exponential(1.0, (3, 3)), rng.uniform(0.2, 1.5)
    best = 0.0
    for s in itertools.product([False, True], repeat=9):
        present = np.array(s).reshape(3, 3)
        if not (present & ~room).any():
            best = max(best, value(gain, present, price, coarser))
    got = best_blocks(gain, price, room)
    assert not (got & ~room).any()
    if coarser.any() and not coarser.all():
        assert value(gain, got, price, coarser) == pytest.approx(best)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_fewer_tokens_for_a_higher_price_and_finer_within_coarser(seed):
    rng = np.random.default_rng(seed)
    gain16, gain8 = rng.exponential(2, (5, 7)), rng.exponential(1, (10, 13))
    last = 10**9
    for price in (0.01, 0.5, 1, 2, 5, 50):
        coarse, fine = best_detail(gain16, gain8, price)
        inside = coarse.repeat(2, 0).repeat(2, 1)[:10, :13]
        assert not (fine & ~inside).any()
        tokens = cost(coarse) + cost(fine, coarse)
        assert tokens <= last
        last = tokens
    assert last == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_depths_are_the_best_of_all(blocks, seed):
    rng = np.random.default_rng(seed)
    distortion, price = np.sort(rng.exponential(1, (blocks, 3)), 1)[:, ::-1], rng.uniform(0.05, 1)

    def total(depths):
        runs = sum(1 for _ in itertools.groupby(depths))
        return distortion[np.arange(blocks), list(depths)].sum() + price * (sum(depths) + runs)

    best = min(total(d) for d in itertools.product(range(3), repeat=blocks))
    assert total(tuple(best_depths(distortion, price))) == pytest.approx(best)


def test_long_runs_cost_a_token_each():
    depths = best_depths(np.tile([1.0, 0.0], (3 * RUN + 1, 1)), 0.01)
    assert depths.tolist() == [1] * (3 * RUN + 1)


def test_bisection_finds_the_least_price_that_fits():
    assert bisect(lambda price: round(1000 / price), 100, 1e-3, 1e3) == pytest.approx(9.95, rel=1e-2)
    assert bisect(lambda price: 10, 5, 1e-3, 1e3) == 1e3
