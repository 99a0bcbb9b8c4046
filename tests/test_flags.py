"""Split flags one at a time against `base.split_flags` and `base.join_flags`, which read and write them at once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panglot.tokenizers.base import ABSENT, join_flags, nested_in, split_flags
from panglot.tokenizers.flags import DIGITS, flags

PLENTY = 1 << 30


def read(shape, possible, symbols, budget=PLENTY):
    """Blocks that are there, by the coroutine; every symbol must be one that it offers."""
    reader = flags(shape, possible, budget)
    legal = next(reader)
    for symbol in symbols:
        assert symbol in legal
        try:
            legal = reader.send(symbol)
        except StopIteration as end:
            return end.value
    raise AssertionError("it wants more flags")


def levels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A level with gaps and the coarser one before it, whose gaps it keeps to half of the time."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 10, 2))
    coarser = np.where(rng.random(tuple(-(-n // 2) for n in shape)) < rng.random(), 5, ABSENT)
    finer = np.where(rng.random(shape) < rng.choice([0.0, 0.3, 0.9, 1.0]), 7, ABSENT)
    if rng.random() < 0.5:
        finer[~(coarser != ABSENT).repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]] = ABSENT
    return finer, coarser


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_what_base_writes_is_read(seed):
    finer, coarser = levels(seed)
    possible = nested_in(finer, coarser)
    symbols = split_flags(finer, possible)
    if symbols.size:
        there = read(finer.shape, possible, symbols.tolist())
        assert np.array_equal(there, finer != ABSENT)
        tokens = symbols.size + int(there.sum())
        read(finer.shape, possible, symbols.tolist(), tokens)
        with pytest.raises(AssertionError):
            read(finer.shape, possible, symbols.tolist(), tokens - 1)


def test_all_blocks_that_the_coarser_level_leaves():
    """The commonest nested level: every block is there that can be."""
    coarser = np.array([[3, ABSENT], [3, 3]])
    possible = (coarser != ABSENT).repeat(2, 0).repeat(2, 1)
    finer = np.where(possible, 9, ABSENT)
    assert np.array_equal(read((4, 4), possible, split_flags(finer, possible).tolist()), possible)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_offered_makes_sense_and_keeps_the_budget(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 10, 2))
    possible = None if rng.random() < 0.4 else rng.random(shape) < rng.random()
    budget = int(rng.integers(1, 40))
    reader, symbols = flags(shape, possible, budget), []
    try:
        legal = next(reader)
        while True:
            assert legal, f"a dead end after {symbols}"
            assert list(legal) == sorted(set(legal))
            symbols.append(int(rng.choice(legal)))
            legal = reader.send(symbols[-1])
    except StopIteration as end:
        there = end.value
    assert len(symbols) + there.sum() <= budget
    assert possible is None or not (there & ~possible).any()
    array = np.where(there, 1, ABSENT)
    assert split_flags(array, possible).tolist() == symbols
    rest = iter(symbols)
    assert np.array_equal(join_flags(shape, lambda n: np.array(list(itertools.islice(rest, n))), possible), there)


def test_every_arrangement_of_a_small_level_can_be_said():
    """All 2^9 levels of 3 x 3 but the whole one, which needs no flags, come out of one walk of all that is offered."""
    found = set()

    def walk(symbols):
        reader = flags((3, 3), None, PLENTY)
        legal = next(reader)
        try:
            for symbol in symbols:
                legal = reader.send(symbol)
        except StopIteration as end:
            found.add(end.value.tobytes())
            return
        for symbol in legal:
            walk([*symbols, symbol])

    walk([])
    assert len(found) == 2**9 - 1
    assert np.ones((3, 3), bool).tobytes() not in found


def test_a_budget_of_one_allows_no_block():
    reader = flags((5, 7), None, 1)
    assert next(reader) == (0,)
    with pytest.raises(StopIteration) as end:
        reader.send(0)
    assert not end.value.value.any()


def test_digits():
    assert DIGITS[1 + 2 * 3 + 0 * 9 + 2 * 27].tolist() == [1, 2, 0, 2]
