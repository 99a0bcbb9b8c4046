"""The linear baseline: a Karhunen-Loeve transform with optimal scalar quantisers, trained once and measured anywhere.

A vector (a patch of a picture, a block of a log-mel spectrogram) is projected on its principal components; component i
is quantised to L_i levels by a Lloyd-Max quantiser (Lloyd, IEEE Trans. Inf. Theory 1982) and the levels are shared out
so that the error is smallest while sum(log2 L_i) stays within the bits of one vector: reverse water-filling with
integers (Shoham and Gersho, IEEE Trans. ASSP 1988; greedy, by error saved per bit). The decoder adds up centroids
times components, which is the least-squares decoder for them.

Not here: any medium, entropy coding (a panglot code is not entropy coded either).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

MAX_LEVELS = 256


@dataclass
class Klt:
    """Principal components of training vectors, and the scalar quantisers of as many as were needed so far.

    mean [d]; basis [d, k], components by falling variance; samples [k, n], their training coefficients, sorted.
    """

    mean: np.ndarray
    basis: np.ndarray
    samples: np.ndarray
    _quantisers: dict[tuple[int, int], tuple[np.ndarray, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, vectors: np.ndarray, keep: int) -> Klt:
        """From training vectors [n, d]; `keep` is the largest number of components that may get bits."""
        mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
        centred = vectors - mean
        covariance = centred.T @ centred / len(vectors)
        _, basis = np.linalg.eigh(covariance)
        basis = np.ascontiguousarray(basis[:, ::-1][:, :keep], np.float32)
        return cls(mean, basis, np.sort((centred @ basis).T, axis=1))

    def quantiser(self, component: int, levels: int) -> tuple[np.ndarray, float]:
        """Centroids [levels] and mean squared error of the Lloyd-Max quantiser of one component."""
        key = (component, levels)
        if key not in self._quantisers:
            self._quantisers[key] = lloyd_max(self.samples[component], levels)
        return self._quantisers[key]

    def levels(self, bits: float) -> list[int]:
        """Levels per component, with sum(log2) <= bits, that leave the least error; trailing ones are cut off."""
        count = self.samples.shape[0]
        levels = [1] * count
        left = bits
        heap = [(-self._gain(i, 1), i) for i in range(count)]
        heapq.heapify(heap)
        while heap:
            _, i = heapq.heappop(heap)
            cost = math.log2((levels[i] + 1) / levels[i])
            if cost > left + 1e-9 or levels[i] == MAX_LEVELS:
                continue
            levels[i] += 1
            left -= cost
            heapq.heappush(heap, (-self._gain(i, levels[i]), i))
        used = max((i for i in range(count) if levels[i] > 1), default=-1)
        return levels[: used + 1]

    def _gain(self, component: int, levels: int) -> float:
        """Error saved per bit by one more level."""
        saved = self.quantiser(component, levels)[1] - self.quantiser(component, levels + 1)[1]
        return saved / math.log2((levels + 1) / levels)

    def code(self, vectors: np.ndarray, bits: float) -> np.ndarray:
        """Encode and decode: vectors [n, d] -> their reconstruction [n, d] from at most `bits` bits each."""
        levels = self.levels(bits)
        basis = self.basis[:, : len(levels)]
        coefficients = (vectors - self.mean) @ basis
        for i, count in enumerate(levels):
            centroids = self.quantiser(i, count)[0]
            edges = (centroids[1:] + centroids[:-1]) / 2
            coefficients[:, i] = centroids[np.searchsorted(edges, coefficients[:, i])]
        return coefficients @ basis.T + self.mean


def lloyd_max(samples: np.ndarray, levels: int, rounds: int = 200) -> tuple[np.ndarray, float]:
    """The scalar quantiser with the least squared error on sorted samples [n]: centroids [levels], and that error.

    Starts from the cube root of the density, where the optimum for many levels lies (Panter and Dite, Proc. IRE 1951).
    """
    values = samples.astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(values)])
    square = float(values @ values)
    counts, bins = np.histogram(values, 1000)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    centroids = np.interp((np.arange(levels) + 0.5) / levels * share[-1], share, bins)
    error = math.inf
    for _ in range(rounds):
        edges = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(values)]])
        counts = np.diff(edges)
        sums = np.diff(total[edges])
        centroids = np.where(counts > 0, sums / np.maximum(counts, 1), centroids)
        before, error = error, (square - float((sums * centroids)[counts > 0].sum())) / len(values)
        if before - error <= 1e-6 * error:
            break
    return centroids.astype(np.float32), error
