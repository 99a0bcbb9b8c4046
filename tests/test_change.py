"""Change between frames: blocks are chosen where they are wrong, nothing else moves, strips cover everything once."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from panglot.tokenizers.base import ABSENT
from panglot.tokenizers.change import (
    GROUP,
    MARGIN,
    add_change,
    changed,
    coverage,
    error,
    quantised,
    strips,
    where_wrong,
)
from panglot.tokenizers.pyramid import STRIDES


@given(st.integers(1, 40), st.integers(1, 60))
def test_strips_cover_every_row_once_and_have_margins(rows, columns):
    height, width = rows * 32, columns * 512
    parts = list(strips(height, width))
    assert [top for _, (top, _) in parts] == [0, *(bottom for _, (_, bottom) in parts[:-1])]
    assert parts[-1][1][1] == height
    for (y0, y1), (top, bottom) in parts:
        assert y0 == max(0, top - MARGIN)
        assert y1 == min(height, bottom + MARGIN)
        assert not any(n % 32 for n in (y0, y1, top))


def test_blocks_are_chosen_where_the_worst_frame_is_wrong_and_inside_coarser_ones():
    target = torch.zeros(1, GROUP * 3, 64, 64)
    target[0, 3:6, 0:16, 0:16] = 1.0  # one frame, one block of 16
    choose = where_wrong(target, torch.full((1, 1, 1, 1), 0.1))
    assert choose(0, None)[0, 0].tolist() == [[True, False], [False, False]]
    fine = choose(1, torch.zeros_like(target))[0, 0]
    assert fine.nonzero().tolist() == [[0, 0]]
    assert not bool(choose(2, target).any())  # all is right by now


def test_blocks_of_the_padding_are_never_chosen():
    target = torch.ones(1, GROUP * 3, 64, 64)
    choose = where_wrong(target, torch.zeros(1, 1, 1, 1), (30, 64))
    assert choose(0, None)[0, 0].tolist() == [[True, True], [False, False]]


def test_what_is_not_coded_stays_to_the_bit():
    last = quantised(torch.rand(1, 3, 64, 64) * 2 - 1)
    codes = [torch.full((1, 64 // s, 64 // s), ABSENT) for s in STRIDES[:2]]
    codes[0][0, 0, 1] = 5
    frames = changed(last, torch.full((1, GROUP * 3, 64, 64), 0.25), codes)
    covered = coverage(codes)[0, 0] > 0
    assert covered[:32, 32:].all()
    assert int(covered.sum()) == 32 * 32
    assert all(torch.equal(frame[:, ~covered], last[0][:, ~covered]) for frame in frames)
    assert not any(torch.equal(frame[:, covered], last[0][:, covered]) for frame in frames)


def test_change_is_added_and_error_is_of_the_true_size():
    last, change = torch.zeros(1, 3, 32, 32), torch.full((1, GROUP * 3, 32, 32), 0.5)
    frames = add_change(last, change, torch.ones(1, 1, 32, 32))[0]
    assert torch.equal(frames, torch.full((GROUP, 3, 32, 32), 0.5))
    true = np.full((GROUP, 20, 30, 3), 255, np.uint8)
    assert error(frames, true) == 0.25
