"""The contract's value types: equality, counting, and the quadtree of present blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from panglot.tokenizers.base import ABSENT, Alphabet, Codes, CodesError, Tokenizer, join_flags, nested_in, split_flags

levels = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(-1, 1))


def taker(symbols):
    """take(n) over an array; returns fewer than n only when there are no more."""
    position = 0

    def take(n):
        nonlocal position
        position += n
        return symbols[position - n : position]

    take.left = lambda: len(symbols) - position
    return take


@pytest.mark.parametrize(("size", "bits"), [(1, 1), (2, 1), (3, 2), (4096, 12), (4097, 13)])
def test_alphabet_bits(size, bits):
    assert Alphabet("a", size).bits == bits


def test_codes_are_equal_element_by_element():
    a = Codes("image", {"height": 2}, {"x": np.array([1, 2])}, (Codes("audio"),))
    assert a == Codes("image", {"height": 2}, {"x": np.array([1, 2], np.int64)}, (Codes("audio"),))
    for other in (
        Codes("video", {"height": 2}, {"x": np.array([1, 2])}, (Codes("audio"),)),
        Codes("image", {"height": 3}, {"x": np.array([1, 2])}, (Codes("audio"),)),
        Codes("image", {"height": 2}, {"x": np.array([1, 3])}, (Codes("audio"),)),
        Codes("image", {"height": 2}, {"x": np.array([[1, 2]])}, (Codes("audio"),)),
        Codes("image", {"height": 2}, {"y": np.array([1, 2])}, (Codes("audio"),)),
        Codes("image", {"height": 2}, {"x": np.array([1, 2])}),
        "image",
    ):
        assert a != other


def test_tokens_and_bits_count_present_codes_and_flags_of_all_parts():
    level = np.array([[5, ABSENT], [ABSENT, ABSENT]])
    codes = Codes("video", {}, {}, (Codes("image", {}, {"x": level}), Codes("image", {}, {"x": np.array([[1, 2, 3]])})))
    assert codes.tokens() == {"x": 4, "split": 1}
    assert codes.bits([Alphabet("x", 6)]) == 4 * 3 + 7


def test_flags_of_one_corner():
    level = np.full((16, 8), ABSENT)
    level[9, 6] = 0
    # The root, 16 x 16: some in the bottom left quarter; there in its top right; there in its top right again; of these
    # four the bottom left is all there.
    assert split_flags(level).tolist() == [18, 6, 6, 9]


def test_a_whole_group_needs_no_flags_of_its_own():
    level = np.full((64, 64), ABSENT)
    level[:32] = 0
    assert split_flags(level).tolist() == [1 + 3]
    level[40, 40] = 0
    assert split_flags(level).size == 6


def test_no_flags_without_absent_blocks_or_planes():
    assert split_flags(np.zeros((9, 9), np.int32)).size == 0
    assert split_flags(np.array([ABSENT, 1])).size == 0


@settings(deadline=None)
@given(levels)
def test_flags_round_trip(level):
    flags = split_flags(level)
    if (level == ABSENT).any():
        take = taker(flags)
        assert np.array_equal(join_flags(level.shape, take), level != ABSENT)
        assert take.left() == 0
    else:
        assert flags.size == 0


@settings(deadline=None)
@given(levels, st.integers(0, 2**32 - 1))
def test_flags_inside_a_coarser_level_round_trip_and_are_no_more(level, seed):
    h, w = level.shape
    coarser = np.random.default_rng(seed).integers(ABSENT, 2, (-(-h // 2), -(-w // 2)))
    inside = (coarser != ABSENT).repeat(2, 0).repeat(2, 1)[:h, :w]
    nested = np.where(inside, level, ABSENT)
    possible = nested_in(nested, coarser)
    if inside.all():
        assert possible is None
        return
    assert possible is not None
    assert np.array_equal(possible, inside)
    flags = split_flags(nested, possible)
    take = taker(flags)
    assert np.array_equal(join_flags(level.shape, take, possible), nested != ABSENT)
    assert take.left() == 0
    assert flags.size <= split_flags(nested).size


def test_a_level_is_nested_only_in_one_of_half_its_size_that_covers_it():
    coarser = np.array([[0, ABSENT]])
    assert nested_in(np.full((2, 4), ABSENT), coarser) is not None
    assert nested_in(np.array([[ABSENT, ABSENT, ABSENT, 1]] * 2), coarser) is None
    assert nested_in(np.full((2, 5), ABSENT), coarser) is None
    assert nested_in(np.full((2, 4), ABSENT), np.array([[0, 0]])) is None


def test_a_large_empty_plane_costs_one_flag():
    assert split_flags(np.full((80, 160), ABSENT)).tolist() == [0]


@pytest.mark.parametrize(
    ("shape", "symbols", "fault"),
    [
        ((4, 4), [2, 0], "parent that some"),
        ((4, 4), [2, 40], "parent that some"),
        ((3, 3), [6, 3], "can be none"),
        ((2, 2), [2], "can be none"),
        ((2, 2), [81], "there are 81"),
    ],
)
def test_impossible_flags_are_refused(shape, symbols, fault):
    with pytest.raises(CodesError, match=fault):
        join_flags(shape, taker(np.array(symbols)))


class OnlyAlphabets(Tokenizer):
    modality = "video"
    alphabets = (Alphabet("x", 4),)
    encode = decode = count = encode_stream = join = lambda self, *_: NotImplemented


@pytest.mark.parametrize(
    ("name", "array", "fault"),
    [
        ("x", [4], "run from 4 to 4"),
        ("x", [-2], "run from -2"),
        ("y", [0], "not one of this tokenizer's: x"),
        ("x", [0.5], "must be integers"),
    ],
)
def test_check_refuses(name, array, fault):
    bad = Codes("video", {}, {}, (Codes("image", {}, {name: np.array(array)}),))
    with pytest.raises(CodesError, match=fault):
        OnlyAlphabets().check(bad)


def test_check_accepts_the_whole_range_and_absent():
    OnlyAlphabets().check(Codes("video", {}, {"x": np.array([ABSENT, 0, 3])}))
    OnlyAlphabets().check(Codes("video", {}, {"x": np.zeros((0, 4), np.int32)}))
