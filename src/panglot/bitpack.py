"""Integers of any bit width to bytes and back, most significant bit first, nothing between them.

A million integers take some 50 ms to pack and 25 ms to unpack, in bounded memory beside the result. Not here: what the
integers mean.
"""

from __future__ import annotations

import numpy as np

_SLICE = 1 << 18  # integers handled at once: 8 MiB of single bits


class BitWriter:
    """Collects integers; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._bits: list[np.ndarray] = []  # uint8 of 0 and 1
        self._waiting = 0

    def put(self, values: np.ndarray, width: int) -> None:
        """Append non-negative integers [n] of so many bits, 1 to 31 each."""
        for start in range(0, values.size, _SLICE):
            words = values[start : start + _SLICE].astype(">u4").view(np.uint8).reshape(-1, 4)
            bits = np.unpackbits(words, axis=1)[:, 32 - width :].ravel()
            self._bits.append(bits)
            self._waiting += bits.size
            if self._waiting >= 8 * _SLICE:
                self._flush()

    def finish(self) -> bytes:
        """All bytes; the last is filled up with zeros."""
        self._flush()
        rest = self._bits[0] if self._bits else np.zeros(0, np.uint8)
        return bytes(self._bytes + np.packbits(rest).tobytes())

    def _flush(self) -> None:
        if self._bits:
            bits = np.concatenate(self._bits)
            whole = bits.size - bits.size % 8
            self._bytes += np.packbits(bits[:whole]).tobytes()
            self._bits, self._waiting = [bits[whole:]], bits.size - whole


class BitReader:
    """The integers that `BitWriter` packed. The methods raise EOFError where the bytes do not fit."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._at = 0  # in bits

    def take(self, n: int, width: int) -> np.ndarray:
        """The next n integers of so many bits: int32 [n]."""
        if self._at + n * width > 8 * self._data.size:
            raise EOFError("the codes end too early")
        values = np.empty(n, np.int32)
        for start in range(0, n, _SLICE):
            part = values[start : start + _SLICE]
            first, last = self._at // 8, (self._at + part.size * width + 7) // 8
            bits = np.unpackbits(self._data[first:last])[self._at % 8 :][: part.size * width]
            words = np.zeros((part.size, 32), np.uint8)
            words[:, 32 - width :] = bits.reshape(-1, width)
            part[:] = np.packbits(words, axis=1).view(">u4")[:, 0]
            self._at += part.size * width
        return values

    def finish(self) -> None:
        """Raise EOFError unless only the zeros that fill the last byte are left."""
        left = 8 * self._data.size - self._at
        if left >= 8 or (left and int(self._data[-1]) & ((1 << left) - 1)):
            raise EOFError("something follows the last code")
