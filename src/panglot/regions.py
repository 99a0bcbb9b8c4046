"""Kinds of regions in a picture, by rules on blocks of 16 x 16 pixels, and how much detail a code keeps in each.

A mean over a picture hides what a code does to the few blocks that matter: letters, a face. Each block is the first of
these that it fits, or none (plain):

  text-like   dense strong edges between two grey values: of its pixels, 15 % or more stand at a step of 48 or more, and
              70 % or more lie near the darkest or the brightest, which are 80 or more apart
  face-like   smooth and of the colour of skin: 75 % or more of its pixels within the range of Cb and Cr that Chai and
              Ngan give for skin (IEEE Trans. CSVT 1999), few fine edges. A rule on colour, NOT a detector: sand, wood
              and peaches are face-like too, and a face in coloured light is not
  colour      saturated: the mean of max(R, G, B) - min(R, G, B) is 80 or more
  texture     fine energy all over without strong edges: grass, cloth, water; steps of 48 at 10 % of the pixels or
              fewer, and 40 % or more of them 2 or more away from the mean of the 3 x 3 around them

Grey values are luma, 0 to 255. Not here: finding objects, letters or people.
"""

from __future__ import annotations

import math

import numpy as np

KINDS = ("text-like", "face-like", "colour", "texture")
PLAIN = -1
BLOCK = 16

STEP, TEXT_STEPS, TEXTURE_STEPS, SKIN_STEPS = 48.0, 0.15, 0.10, 0.02
TEXT_CONTRAST, TEXT_NEAR, TEXT_SHARE = 80.0, 0.25, 0.70
SKIN_CB, SKIN_CR, SKIN_LUMA, SKIN_SHARE, SKIN_FINE = (77, 127), (133, 173), 60, 0.75, 5.0
SATURATED = 80.0
TEXTURE_FINE, TEXTURE_SHARE = 2.0, 0.40


def kinds(pixels: np.ndarray) -> np.ndarray:
    """The kind of each whole block of uint8 [H, W, 3]: int8 [H // 16, W // 16], an index of KINDS, or PLAIN."""
    height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
    rgb = pixels[:height, :width].astype(np.float32)
    if not rgb.size:
        return np.zeros((height // BLOCK, width // BLOCK), np.int8)
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    steps, fine = _mean(_step(luma) >= STEP), _fine(luma)
    found = np.full(steps.shape, PLAIN, np.int8)
    rules = (
        _bimodal(luma) & (steps >= TEXT_STEPS),
        (_mean(_skin(rgb, luma)) >= SKIN_SHARE) & (_mean(fine**2) <= SKIN_FINE**2) & (steps <= SKIN_STEPS),
        _mean(rgb.max(-1) - rgb.min(-1)) >= SATURATED,
        (_mean(fine >= TEXTURE_FINE) >= TEXTURE_SHARE) & (steps <= TEXTURE_STEPS),
    )
    for kind in range(len(KINDS) - 1, -1, -1):
        found[rules[kind]] = kind
    return found


def shares(found: np.ndarray) -> dict[str, float]:
    """The share of the blocks that are of each kind, 0 to 1; nothing for a picture without a whole block."""
    return {name: float((found == kind).mean()) for kind, name in enumerate(KINDS)} if found.size else {}


def detail(found: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """PSNR in dB over the blocks of each kind that the picture has.

    found: `kinds` of the original a; a, b: uint8 [H, W, 3]. Equal blocks have inf.
    """
    width = found.shape[1] * BLOCK
    wrong = np.zeros(found.shape)
    for row in range(found.shape[0]):  # a row of blocks at a time: copies of a whole photo would not fit in the cache
        rows = slice(row * BLOCK, (row + 1) * BLOCK)
        squares = np.square(a[rows, :width].astype(np.int32) - b[rows, :width]).sum((0, 2))
        wrong[row] = squares.reshape(-1, BLOCK).sum(1)
    out = {}
    for kind, name in enumerate(KINDS):
        if (found == kind).any():
            error = float(wrong[found == kind].mean()) / (3 * BLOCK * BLOCK)
            out[name] = 10 * math.log10(255**2 / error) if error else math.inf
    return out


def _blocks(values: np.ndarray) -> np.ndarray:
    """[H, W] -> [h, w, 256]"""
    h, w = values.shape[0] // BLOCK, values.shape[1] // BLOCK
    return values.reshape(h, BLOCK, w, BLOCK).swapaxes(1, 2).reshape(h, w, BLOCK * BLOCK)


def _mean(values: np.ndarray) -> np.ndarray:
    return _blocks(values).mean(-1, dtype=np.float32)


def _step(luma: np.ndarray) -> np.ndarray:
    """How far each pixel is from its right or lower neighbour, whichever is farther."""
    across = np.abs(np.diff(luma, axis=1, append=luma[:, -1:]))
    down = np.abs(np.diff(luma, axis=0, append=luma[-1:]))
    return np.maximum(across, down)


def _fine(luma: np.ndarray) -> np.ndarray:
    """How far each pixel is from the mean of the 3 x 3 around it."""
    padded = np.pad(luma, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.abs(luma - (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9)


def _bimodal(luma: np.ndarray) -> np.ndarray:
    """Whether most pixels of a block are near its darkest or its brightest (2nd and 98th percentile), far apart."""
    values = np.sort(_blocks(luma), axis=-1)
    dark, bright = values[..., 5:6], values[..., -6:-5]
    contrast = bright - dark
    near = (values <= dark + TEXT_NEAR * contrast) | (values >= bright - TEXT_NEAR * contrast)
    return (contrast[..., 0] >= TEXT_CONTRAST) & (near.mean(-1) >= TEXT_SHARE)


def _skin(rgb: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """Whether each pixel is within the colour range of skin, and not too dark to tell."""
    cb = 128 + 0.564 * (rgb[..., 2] - luma)
    cr = 128 + 0.713 * (rgb[..., 0] - luma)
    inside = (cb >= SKIN_CB[0]) & (cb <= SKIN_CB[1]) & (cr >= SKIN_CR[0]) & (cr <= SKIN_CR[1])
    return inside & (luma >= SKIN_LUMA)
