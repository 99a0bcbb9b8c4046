"""The network behind images and video changes: one picture as levels of codes, coarse to fine, closed loop.

Each level codes what the coarser levels could not, at its own stride. Analysis and synthesis of a level begin as the
KLT (PCA) of its residual patches with a least-squares decoder, and every network output begins at zero: an untrained
pyramid *is* the linear codec, and training only adds to it. Blocks of a finer level may be absent; the decoder then
sees a learned "absent" vector instead of a code.

Not here: tiles, padding and sizes of real pictures (`image.py`, `video.py`), how the weights were found (`recipes/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panglot.tokenizers.quantize import FSQ, allocate_levels, fit_linear, principal_components

STRIDES = (32, 16, 8)
HIDDEN = 3
"""Width of a block's inner layer, as a multiple of its outer width."""

LARGE, PART = 2**25, 2**23
"""Bytes: an inner layer over LARGE is computed in parts of PART, unless it is trained. The C library gives larger
tensors back to the system and asks for their pages again each time, and they do not stay in the processor's cache."""


@dataclass(frozen=True)
class PyramidConfig:
    """What fixes the shape of a pyramid. levels, widths and depths go by stride, coarse to fine.

    channels: of the picture (3, or 12 for four frames). context: channels of a picture both sides already have
    (0, or 3 for the last decoded frame). depths: blocks in the encoder and in the decoder.
    """

    levels: tuple[tuple[int, ...], ...]
    channels: int = 3
    context: int = 0
    widths: tuple[int, ...] = (256, 224, 144)
    encoder_depths: tuple[int, ...] = (1, 3, 2)
    decoder_depths: tuple[int, ...] = (3, 5, 3)
    output_depth: int = 2

    @classmethod
    def from_dict(cls, values: Mapping) -> PyramidConfig:
        return cls(**{k: cast(Any, _tuples(v)) for k, v in values.items()})

    def to_dict(self) -> dict:
        return asdict(self)


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


class Pointwise(nn.Module):
    """A linear map of the channels. The weight is a matrix [out, in], so that Muon can treat it as one."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False):
        super().__init__()
        self.weight = nn.Parameter(
            torch.zeros(outputs, inputs) if zero else torch.randn(outputs, inputs) * inputs**-0.5
        )
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022, arXiv 2201.03545): depthwise 5x5, norm, inner layer; begins as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.inner = Pointwise(width, HIDDEN * width)
        self.outer = Pointwise(HIDDEN * width, width, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x)
        y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        row = 4 * HIDDEN * y.shape[0] * y.shape[1] * y.shape[3]
        if torch.is_grad_enabled() or row * y.shape[2] <= LARGE:
            return x + self.outer(F.gelu(self.inner(y)))
        out = torch.empty_like(y)
        for top in range(0, y.shape[2], rows := max(1, PART // row)):
            part = slice(top, top + rows)
            out[:, :, part] = self.outer(F.gelu(self.inner(y[:, :, part])))
        return out.add_(x)


def blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width) for _ in range(depth)))


class Up(nn.Module):
    """Twice the height and width: [B, C, h, w] -> [B, D, 2h, 2w]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.map = Pointwise(inputs, 4 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.map(x), 2)


class Down(nn.Module):
    """Half the height and width: [B, C, 2h, 2w] -> [B, D, h, w]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.map = Pointwise(4 * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(F.pixel_unshuffle(x, 2))


class Level(nn.Module):
    """One level of codes: linear analysis and synthesis of its patches, and the quantiser between them.

    The networks reach it through `hidden` (features in, features out); what they add begins at zero.
    """

    def __init__(self, channels: int, stride: int, levels: Sequence[int], width: int, encoder_width: int):
        super().__init__()
        self.stride = stride
        self.fsq = FSQ(levels)
        pixels, dims = channels * stride * stride, len(levels)
        self.analysis = Pointwise(pixels, dims)
        self.synthesis = Pointwise(dims, pixels)
        self.head_in = Pointwise(encoder_width, width)
        self.head_out = Pointwise(width, dims, zero=True)
        self.embed = Pointwise(dims, width)
        self.absent = nn.Parameter(torch.zeros(width))

    def patches(self, picture: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C*s*s, H/s, W/s]"""
        return F.pixel_unshuffle(picture, self.stride)

    def quantise(self, residual: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B, D, h, w] and codes [B, h, w] of a residual picture, given what the networks see."""
        z = self.analysis(self.patches(residual)) + self.head_out(F.gelu(self.head_in(features)))
        return self.fsq(z)

    def hidden(self, values: Tensor, present: Tensor | None) -> Tensor:
        h = self.embed(values.contiguous(memory_format=torch.channels_last))
        return h if present is None else torch.where(present, h, self.absent.view(1, -1, 1, 1).to(h.dtype))

    def picture(self, values: Tensor, present: Tensor | None) -> Tensor:
        """The linear part of the decoded residual, [B, C, H, W]; nothing where blocks are absent."""
        out = self.synthesis(values)
        return F.pixel_shuffle(out if present is None else out * present, self.stride)

    def fit(self, patches: Tensor) -> None:
        """Start from the linear optimum of these patches [N, C*s*s]."""
        a, s = self.analysis, self.synthesis
        fit_linear(patches, self.fsq, a.weight, a.bias, s.weight, s.bias)


Choice = Callable[[int, Tensor | None], Tensor | None]


@dataclass
class Decoded:
    """State of a decode after some levels: the picture so far [B, C, H, W], and features for the next level."""

    picture: Tensor
    features: Tensor


class Pyramid(nn.Module):
    """Encoder, three levels of codes, decoder. Pictures are float [B, C, H, W] in [-1, 1], H and W multiples of 32."""

    def __init__(self, config: PyramidConfig):
        super().__init__()
        self.config = config
        w32, w16, w8 = config.widths
        e32, e16, e8 = config.encoder_depths
        d32, d16, d8 = config.decoder_depths
        c = config.channels
        self.encode8 = nn.Sequential(Pointwise(64 * (c + config.context), w8), blocks(w8, e8))
        self.encode16 = nn.Sequential(Down(w8, w16), blocks(w16, e16))
        self.encode32 = nn.Sequential(Down(w16, w32), blocks(w32, e32))
        self.level32 = Level(c, 32, config.levels[0], w32, w32)
        self.level16 = Level(c, 16, config.levels[1], w16, 2 * w16)
        self.level8 = Level(c, 8, config.levels[2], w8, 2 * w8)
        if config.context:
            self.context8 = nn.Sequential(Pointwise(64 * config.context, w8), blocks(w8, 1))
            self.context16 = Down(w8, w16)
            self.context32 = Down(w16, w32)
        self.decode32 = blocks(w32, d32)
        self.decode16 = blocks(w16, d16)
        self.decode16to8 = blocks(w8, config.output_depth)
        self.decode8 = blocks(w8, d8)
        self.up16 = Up(w32, w16)
        self.up8 = Up(w16, w8)
        self.out32 = Pointwise(w32, 64 * c, zero=True)
        self.out16 = Pointwise(w8, 64 * c, zero=True)
        self.out8 = Pointwise(w8, 64 * c, zero=True)

    @property
    def levels(self) -> tuple[Level, Level, Level]:
        return self.level32, self.level16, self.level8

    def features(self, picture: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the encoder networks see at strides 32, 16 and 8."""
        both = picture if context is None else torch.cat([picture, context], 1)
        f8 = self.encode8(F.pixel_unshuffle(both, 8))
        f16 = self.encode16(f8)
        return self.encode32(f16), f16, f8

    def context(self, context: Tensor | None) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        """What the decoder networks see of the picture both sides already have, at strides 32, 16 and 8."""
        if context is None:
            return 0.0, 0.0, 0.0
        c8 = self.context8(F.pixel_unshuffle(context, 8))
        c16 = self.context16(c8)
        return self.context32(c16), c16, c8

    def step32(self, past: Decoded | None, values: Tensor, present: Tensor | None, context: Tensor | float) -> Decoded:
        h = self.decode32(self.level32.hidden(values, present) + context)
        coarse = F.interpolate(F.pixel_shuffle(self.out32(h), 8), scale_factor=4, mode="bilinear")
        return Decoded(self.level32.picture(values, present) + coarse, self.up16(h))

    def step16(self, past: Decoded, values: Tensor, present: Tensor | None, context: Tensor | float) -> Decoded:
        h = self.decode16(past.features + self.level16.hidden(values, present) + context)
        h = self.decode16to8(self.up8(h))
        picture = past.picture + self.level16.picture(values, present) + F.pixel_shuffle(self.out16(h), 8)
        return Decoded(picture, h)

    def step8(self, past: Decoded, values: Tensor, present: Tensor | None, context: Tensor | float) -> Decoded:
        h = self.decode8(past.features + self.level8.hidden(values, present) + context)
        picture = past.picture + self.level8.picture(values, present) + F.pixel_shuffle(self.out8(h), 8)
        return Decoded(picture, h)

    def forward(
        self,
        picture: Tensor,
        context: Tensor | None = None,
        choose: Choice = lambda level, state: None,
        stride: int = 8,
        effort: int = 0,
        finish: bool = True,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Encode and decode in one closed loop, down to `stride`.

        effort: rounds of `improve` after the networks have spoken. finish: also decode the last level; without, its
        picture is only the linear part, which costs next to nothing.

        choose(level, picture so far) says which blocks of level 0, 1, 2 to keep: bool [B, 1, h, w], or None for all.
        Returns the pictures after each level and the codes int64 [B, h, w] of each level, -1 where absent.
        """
        seen = self.features(picture, context)
        known = self.context(context)
        pictures: list[Tensor] = []
        codes: list[Tensor] = []
        state: Decoded | None = None
        steps = (self.step32, self.step16, self.step8)
        for i, (s, level, step) in enumerate(zip(STRIDES, self.levels, steps, strict=True)):
            if stride > s:
                break
            residual = picture if state is None else picture - state.picture.to(picture.dtype)
            features = seen[i] if state is None else torch.cat([seen[i], state.features], 1)
            present = choose(i, None if state is None else state.picture)
            values, code = level.quantise(residual, features)
            if effort:
                past, hint = state, known[i]
                values = improve(
                    lambda v, past=past, hint=hint, step=step: step(past, v, None, hint).picture,  # type: ignore[misc]
                    values,
                    level,
                    picture,
                    effort,
                )
                code = level.fsq.codes(values)
            if not torch.is_grad_enabled():
                values = level.fsq.values(code)  # what `decode` will see, to the bit
            if finish or s > stride:
                state = step(state, values, present, known[i])  # type: ignore[arg-type]
                pictures.append(state.picture)
            else:
                linear = level.picture(values, present)
                pictures.append(linear if state is None else state.picture + linear)
            codes.append(code if present is None else torch.where(present[:, 0], code, -1))
        return pictures, codes

    def decode(self, codes: Sequence[Tensor], context: Tensor | None = None) -> list[Tensor]:
        """The pictures after each level, from int64 codes [B, h, w] of a prefix of the levels; -1 marks absent."""
        known = self.context(context)
        steps = (self.step32, self.step16, self.step8)
        pictures: list[Tensor] = []
        state: Decoded | None = None
        for level, step, code, hint in zip(self.levels, steps, codes, known, strict=False):
            present = None if bool((code >= 0).all()) else (code >= 0).unsqueeze(1)
            values = level.fsq.values(code.clamp(min=0))
            state = step(state, values, present, hint)  # type: ignore[arg-type]
            pictures.append(state.picture)
        return pictures

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Set every level to the linear optimum for these pictures [N, C, H, W], coarse to fine, closed loop."""
        decoded = torch.zeros_like(pictures)
        for level in self.levels:
            patches = level.patches(pictures - decoded).movedim(1, -1).reshape(-1, level.analysis.weight.shape[1])
            level.fit(patches[: 40 * patches.shape[1] + 20000])
            values, _ = level.fsq(level.analysis(level.patches(pictures - decoded)))
            decoded += level.picture(values, None)


def improve(decode: Callable[[Tensor], Tensor], values: Tensor, level: Level, target: Tensor, rounds: int) -> Tensor:
    """Better codes for a level than its networks chose: search by trial decoding. Returns values like those given.

    decode: values [1, D, h, w] -> picture [1, C, H, W]. Each round the gradient of the squared error proposes, for
    every other block, the one coordinate whose move by one level promises most; a move stays if the error in and
    around its block fell. A round costs two decodes and a gradient of the level.
    """
    step = 2 / level.fsq.column(values)
    curvature = 2 * (level.synthesis.weight**2).sum(0).view(1, -1, 1, 1)
    h, w = values.shape[-2:]
    parity = (torch.arange(h)[:, None] + torch.arange(w)) % 2

    def error(picture: Tensor) -> Tensor:
        blocks = F.avg_pool2d(((picture - target) ** 2).mean(1, keepdim=True), level.stride)
        return F.avg_pool2d(blocks, 3, 1, 1)

    for i in range(rounds):
        with torch.enable_grad():
            moved = values.detach().clone().requires_grad_()
            picture = decode(moved)
            (gradient,) = torch.autograd.grad(((picture - target) ** 2).sum(), moved)
        direction = -torch.sign(gradient) * step
        promise = gradient.abs() * step - 0.5 * curvature * step**2
        promise = torch.where((values + direction).abs() < 1, promise, -torch.inf)
        best, which = promise.max(1, keepdim=True)
        chosen = torch.zeros_like(promise).scatter_(1, which, 1.0) * ((best > 0) & (parity == i % 2))
        tried = values + direction * chosen
        better = error(decode(tried)) < error(picture.detach())
        values = torch.where(better, tried, values)
    return values


def plan_levels(pictures: Tensor, bits: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """The FSQ levels that reverse water-filling gives each stride of a linear pyramid on these pictures."""
    chosen: list[tuple[int, ...]] = []
    decoded = torch.zeros_like(pictures)
    channels = pictures.shape[1]
    for stride, b in zip(STRIDES, bits, strict=True):
        residual = pictures - decoded
        patches = F.pixel_unshuffle(residual, stride).movedim(1, -1).reshape(-1, channels * stride * stride)
        levels = tuple(allocate_levels(principal_components(patches)[1][:64].numpy(), b))
        level = Level(channels, stride, levels, 1, 1)
        level.fit(patches)
        values, _ = level.fsq(level.analysis(level.patches(residual)))
        decoded = decoded + level.picture(values, None)
        chosen.append(levels)
    return tuple(chosen)
