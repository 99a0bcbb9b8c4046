"""What changes between two frames, as operations on tensors: where it is coded, and how it becomes frames.

Frames are float32 in [-1, 1], padded to whole blocks. Not here: networks (`pyramid`), the order of things in a stream
(`video`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from panglot.tokenizers.image import to_tensor
from panglot.tokenizers.pyramid import STRIDES

GROUP = 4
"""Frames that are coded together."""

PASS = 1 << 20
"""Pixels of a frame that go through the network at once; larger frames go in strips, with MARGIN rows of context."""

MARGIN = 128


def strips(height: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Rows that go through the network at once, with their margins, and without: bounds memory for large frames."""
    rows = max(STRIDES[0], PASS // width // STRIDES[0] * STRIDES[0])
    parts = -(-height // rows)
    rows = -(-height // parts // STRIDES[0]) * STRIDES[0]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        yield (max(0, top - MARGIN), min(height, bottom + MARGIN)), (top, bottom)


def where_wrong(
    target: Tensor, threshold: Tensor, size: tuple[int, int] | None = None
) -> Callable[[int, Tensor | None], Tensor]:
    """The blocks whose squared error so far exceeds a threshold, finer ones only inside coarser ones.

    target: [B, GROUP * 3, H, W]; threshold: [B, 1, H/8, W/8], or [B, 1, 1, 1] for all blocks alike. size: height and
    width without padding, in which no block is chosen. The worst frame of a group decides, and at the coarsest stride
    the worst quarter of a block, so that what is still hides no motion.
    """
    chosen: list[Tensor] = []
    everywhere = threshold.expand(len(target), 1, target.shape[-2] // 8, target.shape[-1] // 8)

    def choose(level: int, picture: Tensor | None) -> Tensor:
        rest = target if picture is None else target - picture
        b, _, h, w = rest.shape
        frames = (rest.float() ** 2).reshape(b * GROUP, 3, h, w).mean(1, keepdim=True)
        stride = STRIDES[max(1, level)]
        blocks = F.avg_pool2d(frames, stride).unflatten(0, (b, GROUP))
        worth = blocks.amax(1) > F.avg_pool2d(everywhere, stride // 8)
        if level == 0:
            worth = F.max_pool2d(worth.float(), 2).bool()
        if chosen:
            worth &= F.interpolate(chosen[-1].float(), scale_factor=2).bool()
        if size is not None:
            worth[:, :, -(-size[0] // STRIDES[level]) :] = False
            worth[:, :, :, -(-size[1] // STRIDES[level]) :] = False
        chosen.append(worth)
        return worth

    return choose


def changed(last: Tensor, change: Tensor, codes: list[Tensor]) -> Tensor:
    """The frames [GROUP, 3, H, W] after `last` [1, 3, H, W], once the network has said [1, GROUP * 3, H, W] of change.

    With a loop filter: noise of single pixels that the network makes is outside what codes can correct, and would grow
    from group to group.
    """
    covered = coverage(codes)
    frames = add_change(last, change, covered)[0]
    return quantised(torch.where(covered[0] > 0, smoothed(frames), frames))


def error(decoded: Tensor, frames: np.ndarray) -> float:
    """Mean squared error, in the networks' unit, of padded frames [N, 3, H', W'] from true ones uint8 [N, H, W, 3]."""
    height, width = frames.shape[1:3]
    pairs = zip(decoded, frames, strict=True)
    return float(np.mean([((d - to_tensor(f)[0])[:, :height, :width] ** 2).mean() for d, f in pairs]))


def coverage(codes: list[Tensor]) -> Tensor:
    """float [1, 1, H, W]: 1 where a block of any level is coded. Elsewhere the old frame stays, to the bit."""
    whole = torch.zeros(())
    for s, code in zip(STRIDES, codes, strict=False):
        present = (code >= 0).float().unsqueeze(1)
        whole = torch.maximum(whole, F.interpolate(present, scale_factor=s))
    return whole


def add_change(last: Tensor, change: Tensor, covered: Tensor) -> Tensor:
    """Frames [B, GROUP, 3, H, W] from the last frame [B, 3, H, W], the change [B, GROUP * 3, H, W] and its coverage."""
    frames = (change * covered).reshape(len(last), GROUP, 3, *last.shape[-2:])
    return last.unsqueeze(1) + frames


def smoothed(frames: Tensor) -> Tensor:
    """Frames [N, 3, H, W] under the 3x3 binomial window."""
    line = torch.tensor([0.25, 0.5, 0.25])
    window = (line[:, None] * line).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), window, groups=3)


def quantised(frames: Tensor) -> Tensor:
    """Rounded to the 256 values that pixels have, so that encoder and decoder go on from the same frame."""
    return frames.add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)
