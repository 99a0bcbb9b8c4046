"""Sound as nested codes, one block of 80 ms at a time, causal.

A block is eight log-mel spectra (16 kHz, hop 10 ms, window 40 ms). Code 1 of a block is a few coefficients of its KLT,
each rounded to a few levels; code k does the same to what codes 1 .. k-1 left over, so any prefix of the codes
decodes. To this linear codec, networks are added that begin at zero: one sees past blocks and moves the coefficients
before rounding, the other turns the codes of past and present into a full magnitude spectrum. Phases are recovered by
Griffin-Lim from that spectrum. No convolution runs at the sample rate.

Delay: one block plus 15 ms (95 ms until the first codes). Not here: the sound of a video's time spans (`video.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panglot._limits import MAX_RATE
from panglot.media import Audio
from panglot.tokenizers import spectrum as sp
from panglot.tokenizers.base import Alphabet, Codes, CodesError, Tokenizer, header_int
from panglot.tokenizers.quantize import FSQ, allocate_levels, fit_linear, principal_components
from panglot.tokenizers.weights import ASSETS, read_weights

KERNEL = 5
SEGMENT = 256
"""Blocks that one pass of the network covers (20 s); longer sound goes segment by segment, with context."""

GRIFFIN_LIM = 16
"""Iterations of phase recovery; twice as many move STOI by less than 0.005 and mel distance by 0.01 dB."""


@dataclass(frozen=True)
class AudioConfig:
    """levels: the FSQ levels of each nested code. width, depths: of the networks at block rate; hop_*: at hop rate.

    floor: added to a magnitude before its logarithm; a full-scale sine has magnitude 1. High floors gain STOI, low ones
    keep quiet recordings: a linear code has STOI 0.755 at 1e-4 and 0.767 at 1e-3 (1,250 bit/s, 12 clips).
    """

    levels: tuple[tuple[int, ...], ...]
    width: int = 256
    encoder_depth: int = 3
    decoder_depth: int = 4
    hop_width: int = 192
    hop_depth: int = 3
    floor: float = 2e-5

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AudioConfig:
        levels = tuple(tuple(stage) for stage in values["levels"])
        return cls(**{**values, "levels": levels})

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


class CausalBlock(nn.Module):
    """ConvNeXt block over time that sees only the past: [B, T, C] -> [B, T, C]; begins as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, KERNEL, groups=width)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 3 * width)
        self.outer = nn.Linear(3 * width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self._depthwise(x))
        return x + self.outer(F.gelu(self.inner(y)))

    def _depthwise(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return self.depthwise(F.pad(x.transpose(1, 2), (KERNEL - 1, 0))).transpose(1, 2)
        # The library's convolution goes channel by channel in float64, which takes half of the time of encoding.
        past, weight = F.pad(x, (0, 0, KERNEL - 1, 0)), self.depthwise.weight[:, 0]
        bias = self.depthwise.bias
        assert bias is not None
        y = bias.expand_as(x)
        for k in range(KERNEL):
            y = torch.addcmul(y, past[:, k : k + x.shape[1]], weight[:, k])
        return y


class Stage(nn.Module):
    """One nested code: linear analysis and synthesis of a feature block [.., HOPS * BANDS] around an FSQ."""

    def __init__(self, features: int, levels: tuple[int, ...], width: int):
        super().__init__()
        self.fsq = FSQ(levels)
        self.analysis = nn.Linear(features, len(levels))
        self.synthesis = nn.Linear(len(levels), features)
        self.head = nn.Linear(width, len(levels))
        self.embed = nn.Linear(len(levels), width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def quantise(self, residual: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, F] and [B, T, C] -> values [B, T, D] and codes int64 [B, T]"""
        values, codes = self.fsq((self.analysis(residual) + self.head(hidden)).movedim(-1, 1))
        return values.movedim(1, -1), codes


class SpectrumCodec(nn.Module):
    """The network: log-mel blocks [B, T, HOPS * BANDS] to nested codes to log-magnitude spectra [B, T * HOPS, BINS]."""

    mean: Tensor

    def __init__(self, config: AudioConfig):
        super().__init__()
        self.config = config
        features, width = sp.HOPS * sp.BANDS, config.width
        self.register_buffer("mean", torch.zeros(features))
        self.encoder_in = nn.Linear(features, width)
        self.encoder = nn.Sequential(*(CausalBlock(width) for _ in range(config.encoder_depth)))
        self.nested = [Stage(features, levels, width) for levels in config.levels]
        self.stages = nn.ModuleList(self.nested)
        self.decoder = nn.Sequential(*(CausalBlock(width) for _ in range(config.decoder_depth)))
        self.hop_in = nn.Linear(width, sp.HOPS * config.hop_width)
        self.hop_mel = nn.Linear(sp.BANDS, config.hop_width)
        self.hop = nn.Sequential(*(CausalBlock(config.hop_width) for _ in range(config.hop_depth)))
        self.spread = nn.Linear(sp.BANDS, sp.BINS)
        self.out = nn.Linear(config.hop_width, sp.BINS)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @torch.no_grad()
    def fit(self, features: Tensor, log_magnitudes: Tensor) -> None:
        """Set all linear parts to their optimum for these blocks [N, HOPS * BANDS] and spectra [N * HOPS, BINS]."""
        self.mean.copy_(features.mean(0))
        x = features - self.mean
        for stage in self.nested:
            a, s = stage.analysis, stage.synthesis
            fit_linear(x, stage.fsq, a.weight, a.bias, s.weight, s.bias)
            x = x - s(stage.fsq(a(x))[0])
        bands = features.reshape(-1, sp.BANDS).double()
        design = torch.cat([bands, torch.ones(len(bands), 1)], 1)
        solution = torch.linalg.lstsq(design, log_magnitudes.double()).solution.float()
        self.spread.weight.copy_(solution[:-1].T)
        self.spread.bias.copy_(solution[-1])

    @property
    def encoder_context(self) -> int:
        """Blocks of the past that can still change a code."""
        return (KERNEL - 1) * self.config.encoder_depth

    @property
    def decoder_context(self) -> int:
        """Blocks of the past that can still change a decoded spectrum."""
        hops = (KERNEL - 1) * self.config.hop_depth
        return (KERNEL - 1) * self.config.decoder_depth + -(-hops // sp.HOPS)

    def encode(self, features: Tensor, depth: int | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Values [B, T, D_k] and codes int64 [B, T] of the first `depth` stages."""
        x = features - self.mean
        hidden = self.encoder(self.encoder_in(x))
        values, codes = [], []
        for stage in self.nested[:depth]:
            v, c = stage.quantise(x, hidden)
            x = x - stage.synthesis(v).to(x.dtype)
            values.append(v)
            codes.append(c)
        return values, codes

    def linear(self, values: list[Tensor], keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The linear decode [B, T, HOPS * BANDS] (less the mean) and the summed embeddings [B, T, C] of a prefix.

        keep: int [B] or [B, T], how many codes of each sound or block are used (all by default).
        """
        block = embedded = torch.zeros((), dtype=self.mean.dtype)
        for k, (stage, v) in enumerate(zip(self.nested, values, strict=False)):
            mask = 1.0 if keep is None else (keep > k).to(v.dtype).view(len(keep), -1, 1)
            block = block + stage.synthesis(v) * mask
            embedded = embedded + stage.embed(v) * mask
        return block, embedded

    def spectrum(self, values: list[Tensor], keep: Tensor | None = None) -> Tensor:
        """Log magnitudes [B, T * HOPS, BINS] of the values of a prefix of the codes; a block without any is silent."""
        block, embedded = self.linear(values, keep)
        hidden = self.decoder(embedded)
        b, t = block.shape[:2]
        mel = block.reshape(b, t * sp.HOPS, sp.BANDS)
        x = self.hop_in(hidden).reshape(b, t * sp.HOPS, -1) + self.hop_mel(mel)
        base = self.spread((block + self.mean).reshape(b, t * sp.HOPS, sp.BANDS))
        out = base + self.out(self.hop(x))
        if keep is None or keep.ndim == 1:
            return out
        silent = (keep == 0).repeat_interleave(sp.HOPS, 1).unsqueeze(-1)
        return torch.where(silent, math.log(self.config.floor), out)


@torch.no_grad()
def plan_levels(features: Tensor, bits: float, depth: int) -> tuple[tuple[int, ...], ...]:
    """The FSQ levels that reverse water-filling gives each nested code on these blocks [N, HOPS * BANDS]."""
    x = features - features.mean(0)
    chosen = []
    for _ in range(depth):
        levels = tuple(allocate_levels(principal_components(x)[1][:64].numpy(), bits))
        stage = Stage(x.shape[1], levels, 1)
        a, s = stage.analysis, stage.synthesis
        fit_linear(x, stage.fsq, a.weight, a.bias, s.weight, s.bias)
        x = x - s(stage.fsq(a(x))[0])
        chosen.append(levels)
    return tuple(chosen)


class Encoder:
    """Codes of one sound as its samples arrive: `push` returns codes int32 [K, n] that are final, `finish` the rest.

    State: the resampler's tail, less than a block of samples, and the feature blocks that later codes still depend on.
    """

    def __init__(self, network: SpectrumCodec, filters: Tensor, rate: int, depth: int):
        self.network, self.filters, self.depth = network, filters, depth
        self.resampler = sp.Resampler(rate, sp.RATE)
        self.samples = np.zeros(sp.EDGE)
        self.past = torch.zeros(1, 0, sp.HOPS * sp.BANDS, dtype=torch.float64)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """samples: float [n] or [n, C] at the rate given."""
        return self._code(self.resampler.push(_mono(samples)))

    def finish(self, samples: np.ndarray | None = None) -> np.ndarray:
        """The codes of what is left, and of `samples`, if these are the last."""
        rest = self.resampler.push(np.zeros(0) if samples is None else _mono(samples), last=True)
        total = len(self.samples) - sp.EDGE + len(rest)
        return self._code(np.concatenate([rest, np.zeros(-total % sp.BLOCK + sp.EDGE)]))

    def _code(self, samples: np.ndarray) -> np.ndarray:
        self.samples = np.concatenate([self.samples, samples])
        ready = (len(self.samples) - 2 * sp.EDGE) // sp.BLOCK
        codes = []
        while ready > 0:
            n = min(ready, SEGMENT)
            used = torch.from_numpy(self.samples[: n * sp.BLOCK + 2 * sp.EDGE])
            codes.append(self._blocks(block_features(used[None], self.filters, self.network.config.floor)))
            self.samples = self.samples[n * sp.BLOCK :]
            ready -= n
        return np.concatenate(codes, 1) if codes else np.zeros((self.depth, 0), np.int32)

    def _blocks(self, features: Tensor) -> np.ndarray:
        seen = torch.cat([self.past, features], 1)
        with torch.inference_mode():
            _, codes = self.network.encode(seen, self.depth)
        # Beyond the reach of the network the past cannot change a code; before the first block there is only padding.
        self.past = seen[:, max(0, seen.shape[1] - self.network.encoder_context) :]
        return torch.stack([c[0, -features.shape[1] :] for c in codes]).to(torch.int32).numpy()


def block_features(samples: Tensor, filters: Tensor, floor: float) -> Tensor:
    """samples [B, n * BLOCK + 2 * EDGE] -> log-mel blocks [B, n, HOPS * BANDS]"""
    mel = sp.magnitudes(samples) @ filters.to(samples.dtype).T
    return torch.log(mel + floor).reshape(len(samples), -1, sp.HOPS * sp.BANDS)


def _mono(samples: np.ndarray) -> np.ndarray:
    samples = np.asarray(samples, np.float64)
    return samples if samples.ndim == 1 else samples.mean(1)


class AudioTokenizer(Tokenizer[Audio]):
    """Codes "audio/1" .. "audio/K": int32 [blocks], blocks = ceil(seconds / 0.08). Decodes to mono.

    encode(audio, depth=K) keeps the first K codes of a block; every one costs 125 bit/s. A sound whose blocks keep
    different numbers of codes (`spans`) is a row of parts instead, each with one "depth" token.
    """

    modality = "audio"

    def __init__(self, network: SpectrumCodec):
        self.network = network.eval().requires_grad_(False)
        # Codes must not depend on the order of sums: the encoder runs in float64, on its own copy of the weights.
        self.encoder_network = SpectrumCodec(network.config).double().eval().requires_grad_(False)
        self.encoder_network.load_state_dict(network.state_dict())
        self.filters = torch.from_numpy(sp.mel_filters())

    @classmethod
    def load(cls, path: Path | None = None) -> AudioTokenizer:
        """From a weights file, by default the one shipped. Raises WeightsError."""
        tensors, config = read_weights(path or ASSETS / "audio.safetensors")
        network = SpectrumCodec(AudioConfig.from_dict(config))
        network.load_state_dict(tensors)
        return cls(network)

    @property
    def depth(self) -> int:
        """Nested codes a block at most."""
        return len(self.network.nested)

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        codes = (Alphabet(f"audio/{k}", s.fsq.size) for k, s in enumerate(self.network.nested, 1))
        return (*codes, Alphabet("depth", (self.depth + 1) * RUN))

    def _depth(self, depth: int | None) -> int:
        if depth is not None and not 1 <= depth <= self.depth:
            raise CodesError(f"depth {depth} is not possible: a block has 1 to {self.depth} codes")
        return depth or self.depth

    def count(self, media: Any, depth: int | None = None) -> dict[str, int]:
        """Tokens per alphabet of an Audio or a MediaInfo."""
        info = media.info if isinstance(media, Audio) else media
        n = blocks(info.samples or 0, info.rate or sp.RATE)
        return {f"audio/{k}": n for k in range(1, self._depth(depth) + 1)}

    def encoder(self, rate: int, depth: int | None = None) -> Encoder:
        """A streaming encoder for sound at `rate` Hz."""
        return Encoder(self.encoder_network, self.filters, rate, self._depth(depth))

    def encode(self, media: Audio, depth: int | None = None) -> Codes:
        """Codes of a whole sound: in one pass, where the stream of it takes two."""
        codes = self.encoder(media.rate, depth).finish(media.samples)
        return _piece(codes, len(media.samples), media.rate)

    def encode_stream(self, chunks: Iterable[Audio], depth: int | None = None) -> Iterator[Codes]:
        """Pieces carry the samples they close and the rate in the header; the last closes what is left."""
        encoder, samples, rate = None, 0, 0
        for chunk in chunks:
            if encoder is None:
                encoder, rate = self.encoder(chunk.rate, depth), chunk.rate
            if chunk.rate != rate:
                raise CodesError(f"the rate changes from {rate} to {chunk.rate} Hz within one sound: resample one part")
            samples += len(chunk.samples)
            codes = encoder.push(chunk.samples)
            if codes.shape[1]:
                yield _piece(codes, samples, rate)
                samples = 0
        if encoder is not None:
            yield _piece(encoder.finish(), samples, rate)

    def join(self, pieces: Iterable[Codes]) -> Codes:
        return join_audio(pieces)

    def decode(self, codes: Codes) -> Audio:
        parts = [part.samples for part in self.decode_stream(codes)]
        return Audio(np.concatenate(parts), header_int(codes, "rate", 1))

    def decode_stream(self, codes: Codes) -> Iterator[Audio]:
        """Sound piece by piece in bounded memory; the pieces add up to `decode`."""
        grid, depths = self._checked(codes)
        left, rate = header_int(codes, "samples"), header_int(codes, "rate", 1)
        resampler = sp.Resampler(sp.RATE, rate)
        for piece, last in self._segments(grid, depths):
            out = resampler.push(piece, last=last)
            out = np.pad(out, (0, max(0, left - len(out)) if last else 0))[:left]
            left -= len(out)
            yield Audio(np.clip(out, -1, 1).astype(np.float32), rate)

    def _segments(self, grid: Tensor, depths: Tensor | None) -> Iterator[tuple[np.ndarray, bool]]:
        """Samples at 16 kHz, segment by segment; neighbours share FADE blocks that are faded over."""
        n = grid.shape[1]
        tail: np.ndarray | None = None
        for start in range(0, max(n, 1), SEGMENT):
            stop = min(n, start + SEGMENT)
            more = min(n, stop + FADE)
            seen = slice(max(0, start - self.network.decoder_context), more)
            sound = self._sound(grid[:, seen], None if depths is None else depths[None, seen], more - start)
            if tail is not None:
                ramp = np.linspace(0, 1, len(tail))
                sound[: len(tail)] = tail * (1 - ramp) + sound[: len(tail)] * ramp
            cut = (stop - start) * sp.BLOCK
            tail = sound[cut : (more - start) * sp.BLOCK]
            yield sound[:cut], stop == n

    def _sound(self, grid: Tensor, depths: Tensor | None, blocks: int) -> np.ndarray:
        """The last `blocks` blocks of these codes [K, T] as float64 [blocks * BLOCK] at 16 kHz; depths: [1, T]."""
        if not blocks:
            return np.zeros(0)
        with torch.inference_mode():
            values = [s.fsq.values(c[None]).movedim(1, -1) for s, c in zip(self.network.nested, grid, strict=False)]
            log = self.network.spectrum(values, depths)[0, -blocks * sp.HOPS :]
            magnitude = (torch.exp(log) - self.network.config.floor).clamp(min=0)
            return sp.griffin_lim(magnitude, GRIFFIN_LIM)[sp.EDGE : -sp.EDGE].double().numpy()

    def _checked(self, codes: Codes) -> tuple[Tensor, Tensor | None]:
        """Codes int64 [K, T], and how many of each block count [T], or None where all do."""
        self.check(codes)
        samples, rate = header_int(codes, "samples"), header_int(codes, "rate", 1)
        if rate > MAX_RATE:
            raise CodesError(f"a sound at {rate} Hz is over the limit of {MAX_RATE} Hz")
        expected = blocks(samples, rate)
        if codes.children:
            return self._from_spans(codes, expected)
        _check_names(list(codes.arrays))
        grid = list(codes.arrays.values())
        if any(a.shape != (expected,) or (a < 0).any() for a in grid):
            raise CodesError(f"{samples} samples at {rate} Hz need {expected} codes of each alphabet, none absent")
        return torch.from_numpy(np.stack(grid).astype(np.int64)), None

    def _from_spans(self, codes: Codes, expected: int) -> tuple[Tensor, Tensor]:
        grid, depths = np.zeros((self.depth, expected), np.int64), np.zeros(expected, np.int64)
        at = 0
        for child in codes.children:
            names = list(child.arrays)
            if child.modality != "span" or names[:1] != ["depth"] or child.arrays["depth"].shape != (1,):
                raise CodesError("a sound of varying depth has parts that are not spans of one depth")
            depth, n = divmod(int(child.arrays["depth"][0]), RUN)
            span = [child.arrays[name] for name in names[1:]]
            if depth:
                _check_names(names[1:])
            if depth != len(span) or any(a.shape != (n + 1,) or (a < 0).any() for a in span) or at + n + 1 > expected:
                raise CodesError(f"a span says {n + 1} blocks of {depth} codes, and has others")
            for k, array in enumerate(span):
                grid[k, at : at + n + 1] = array
            depths[at : at + n + 1] = depth
            at += n + 1
        if at != expected:
            raise CodesError(f"the spans of a sound cover {at} of {expected} blocks")
        return torch.from_numpy(grid), torch.from_numpy(depths)


def _check_names(names: list[str]) -> None:
    if not names or names != [f"audio/{k}" for k in range(1, len(names) + 1)]:
        raise CodesError(f"audio codes need audio/1, audio/2, ... without gaps, not {names}")


RUN = 16
"""Blocks that one span covers at most; a symbol of the alphabet "depth" is depth * RUN + blocks - 1."""


def spans(codes: Codes, depths: np.ndarray) -> Codes:
    """The same sound with only the first depths[t] codes of block t, 0 for silence: runs of blocks of one depth.

    codes: as `encode` returns them; depths: int [T], at most as many as there are codes.
    """
    children = []
    arrays, at = list(codes.arrays.items()), 0
    while at < len(depths):
        depth = int(depths[at])
        ends = np.flatnonzero(depths[at : at + RUN] != depth)
        n = int(ends[0]) if ends.size else min(RUN, len(depths) - at)
        head = {"depth": np.array([depth * RUN + n - 1], np.int32)}
        children.append(Codes("span", {}, head | {name: array[at : at + n] for name, array in arrays[:depth]}))
        at += n
    return Codes("audio", codes.header, {}, tuple(children))


FADE = 2
"""Blocks over which neighbouring segments are faded, since each has phases of its own."""


def blocks(samples: int, rate: int) -> int:
    """Blocks of 80 ms that cover so many samples."""
    return math.ceil(math.ceil(samples * sp.RATE / rate) / sp.BLOCK)


def due_blocks(frames: int, fps: float) -> int:
    """Blocks of sound (80 ms) that have ended when so many frames have been shown: they follow the part before."""
    return int(frames / fps / 0.08)


def join_audio(pieces: Iterable[Codes]) -> Codes:
    """Consecutive audio codes as one value."""
    parts = list(pieces)
    if not parts:
        raise CodesError("a sound needs at least one piece, be it without samples")
    samples, rate = sum(header_int(p, "samples") for p in parts), parts[0].header["rate"]
    arrays = {name: np.concatenate([p.arrays[name] for p in parts]) for name in parts[0].arrays}
    return Codes("audio", {"samples": samples, "rate": rate}, arrays)


def _piece(codes: np.ndarray, samples: int, rate: int) -> Codes:
    return Codes("audio", {"samples": samples, "rate": rate}, {f"audio/{k}": c for k, c in enumerate(codes, 1)})
