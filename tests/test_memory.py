"""Freed memory goes back to the system, also from between what is kept."""

import numpy as np
import pytest

from panglot import _memory


@pytest.mark.skipif(_memory._trim() is None or not _memory.resident(), reason="not glibc on Linux")
def test_holes_between_what_is_kept_are_given_back():
    pieces = [np.ones(100_000, np.uint8) for _ in range(1000)]  # each below the size that is mapped by itself
    full = _memory.resident()
    kept = pieces[::20]
    del pieces
    _memory.give_back(above=0)
    assert full - _memory.resident() > 70_000_000
    assert all(piece.all() for piece in kept)


def test_a_small_process_is_left_alone(monkeypatch):
    called = []
    monkeypatch.setattr(_memory, "_trim", lambda: called.append)
    monkeypatch.setattr(_memory, "resident", lambda: 1000)
    _memory.give_back()
    assert not called
    _memory.give_back(above=999)
    assert called == [0]


def test_without_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda name: object())
    _memory._trim.cache_clear()
    try:
        assert _memory._trim() is None
        _memory.give_back(above=0)
    finally:
        _memory._trim.cache_clear()
