"""The model: one decoder-only transformer over integers, which never learns what a modality is.

It is the dense block of Qwen3 (arXiv 2505.09388) exactly: RMSNorm before each part (arXiv 1910.07467), rotary positions
(arXiv 2104.09864, halves split as in Hugging Face's code), grouped-query attention (arXiv 2305.13245) with RMSNorm on
every query and key, SwiGLU (arXiv 2002.05202), no biases, input and output embeddings tied. Parameters have the names
of `Qwen3ForCausalLM`, so `state_dict()` is a stock checkpoint.

Two ways lead through it. `forward` is for training: whole rows, several samples a row, gradients. `prefill` and `step`
are for generation, with a `Cache`, and compute the same in another way (`panglot.decoding`).

Not here: which ids are legal and how one is chosen (generation), files (`panglot.checkpoint`), losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panglot.decoding import Cache, Fused, extend

SIZES = {
    "mini": {"width": 256, "layers": 6, "heads": 4, "kv_heads": 2, "head_dim": 64, "inner": 704, "positions": 4096},
    "small": {"width": 384, "layers": 10, "heads": 6, "kv_heads": 2, "head_dim": 64, "inner": 1024, "positions": 4096},
    "base": {"width": 640, "layers": 16, "heads": 10, "kv_heads": 5, "head_dim": 64, "inner": 1728, "positions": 4096},
}

MAX_POSITIONS = 1 << 18  # of the tables of rotations, which are computed whole

_CHUNK = 256  # slots that prefill computes at once: bounds the attention mask of long prompts


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a `Transformer`. `positions` is the longest context; `inner` the width inside SwiGLU."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    positions: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.width, self.layers, self.heads, self.kv_heads, self.inner, self.positions)
        if min(sizes) < 1 or self.head_dim < 2 or self.head_dim % 2 or self.heads % self.kv_heads:
            raise ValueError(
                f"no such model: every size is 1 or more, head_dim even, heads a multiple of kv_heads, not {self}"
            )
        if self.positions > MAX_POSITIONS or not (0 < self.rope_theta < math.inf and 0 <= self.norm_eps < 1):
            raise ValueError(f"no such model: at most {MAX_POSITIONS} positions, rope_theta > 0, not {self}")

    @classmethod
    def sized(cls, name: str, vocab_size: int) -> ModelConfig:
        """The shape called "mini", "small" or "base". Raises ValueError for another name."""
        if name not in SIZES:
            raise ValueError(f"no model size {name!r}; there are {', '.join(SIZES)}")
        return cls(vocab_size, **SIZES[name])

    @property
    def parameters(self) -> int:
        """Number of weights; the embedding counts once."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = self.width * (2 * queries + 2 * keys + 3 * self.inner + 2) + 2 * self.head_dim
        return self.vocab_size * self.width + self.layers * layer + self.width

    def to_qwen3(
        self, *, bos: int | None = None, eos: int | None = None, pad: int | None = None, dtype: str = "float16"
    ) -> dict[str, Any]:
        """The `config.json` of a stock Qwen3 checkpoint of this shape."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.inner,
            "max_position_embeddings": self.positions,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_eps,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "torch_dtype": dtype,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": pad,
        }

    @classmethod
    def from_qwen3(cls, config: dict[str, Any]) -> ModelConfig:
        """The shape in a `config.json`. Raises ValueError when it is not a Qwen3 that this module computes."""
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        rope = rope if isinstance(rope, dict) else {"rope_type": rope}
        asked = {
            "model_type": (config.get("model_type"), "qwen3"),
            "tie_word_embeddings": (config.get("tie_word_embeddings"), True),
            "hidden_act": (config.get("hidden_act", "silu"), "silu"),
            "attention_bias": (config.get("attention_bias", False), False),
            "use_sliding_window": (config.get("use_sliding_window", False), False),
            "rope_type": (rope.get("rope_type", "default"), "default"),
        }
        for name, (found, wanted) in asked.items():
            if found != wanted:
                raise ValueError(f"{name} is {found!r}, must be {wanted!r}")
        try:
            return cls(
                vocab_size=int(config["vocab_size"]),
                width=int(config["hidden_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=int(config["num_attention_heads"]),
                kv_heads=int(config["num_key_value_heads"]),
                head_dim=int(config["head_dim"]),
                inner=int(config["intermediate_size"]),
                positions=int(config["max_position_embeddings"]),
                rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
                norm_eps=float(config["rms_norm_eps"]),
            )
        except KeyError as error:
            raise ValueError(f"it has no {error}") from None
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, queries, bias=False)
        self.k_proj = nn.Linear(config.width, keys, bias=False)
        self.v_proj = nn.Linear(config.width, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, packing: _Packing | None) -> Tensor:
        """x [B, T, C]; cos, sin [B or 1, T, 1, D]; packing None for one sample a row."""
        split = (*x.shape[:2], -1, self.config.head_dim)
        q = _rotate(self.q_norm(self.q_proj(x).view(split)), cos, sin)
        k = _rotate(self.k_norm(self.k_proj(x).view(split)), cos, sin)
        v = self.v_proj(x).view(split)
        if packing is None:
            y = _causal(q, k, v)
        elif packing.mask is not None:
            y = _causal(q, k, v, packing.mask)
        else:
            rows = (a.flatten(0, 1)[None].split(packing.lengths, 1) for a in (q, k, v))
            y = torch.cat([_causal(*sample) for sample in zip(*rows, strict=True)], 1)
        return self.o_proj(y.reshape(*x.shape[:2], -1))


class _Packing:
    """Where samples end in packed rows.

    A processor computes them one after the other: with 8 samples in a row of 1024, attention is 6 % instead of 28 % of
    a training step. An accelerator, where many small calls are slow, gets a mask over whole rows (`dense`).
    """

    def __init__(self, samples: Tensor, dense: bool) -> None:
        first = torch.ones_like(samples, dtype=torch.bool)  # of a sample
        first[:, 1:] = samples[:, 1:] != samples[:, :-1]
        self.mask: Tensor | None = None
        self.lengths: list[int] = []
        if dense:
            number = first.cumsum(1)
            self.mask = (number[:, None, :, None] == number[:, None, None, :]).tril()
        else:
            starts = [*first.flatten().nonzero().flatten().tolist(), samples.numel()]
            self.lengths = [b - a for a, b in pairwise(starts)]


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.inner, bias=False)
        self.up_proj = nn.Linear(config.width, config.inner, bias=False)
        self.down_proj = nn.Linear(config.inner, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, packing: _Packing | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, packing)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The parameters that Qwen3's checkpoints have below `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    @property
    def blocks(self) -> list[Block]:
        return cast(list[Block], list(self.layers))


class Transformer(nn.Module):
    """Ids in, hidden states out; `logits` turns those into scores of all ids or of a range of them."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        cos, sin = _rotary(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._fused: tuple[list[tuple[int, int]], Fused] | None = None
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # What is added to the residual 2 * layers times starts smaller (GPT-2).
                added = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.layers) if added else 0.02)

    @classmethod
    def of(cls, config: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
        """A model with these weights (names and shapes as in `state_dict`), used as they are; nothing is drawn."""
        with torch.device("meta"):
            model = cls(config)
        model.cos, model.sin = _rotary(config)
        model.load_state_dict(weights, assign=True)
        return model

    @property
    def embedding(self) -> Tensor:
        """The embedding matrix [V, C], which is the output matrix too."""
        return self.model.embed_tokens.weight

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        samples: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, T, C] behind the last norm, each of its own token and those before it.

        ids: int [B, T]. positions: int [B, T], which restart with every sample; without them 0 .. T-1.
        samples: int [B, T]; a token sees only tokens of the same number, which stand side by side in a row. Padding
        has a negative one, and any legal id.
        embedding: [V, C] in place of the model's own, for training with a matrix computed from something else.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        packing = None if samples is None else _Packing(samples, dense=samples.device.type != "cpu")
        x = F.embedding(ids, self.embedding if embedding is None else embedding)
        for block in self.model.blocks:
            x = block(x, cos, sin, packing)
        return self.model.norm(x)

    def logits(
        self, hidden: Tensor, start: int = 0, stop: int | None = None, embedding: Tensor | None = None
    ) -> Tensor:
        """Scores [..., stop - start] of the ids start .. stop-1 after hidden states [..., C]."""
        if embedding is None and self._fused is not None and not torch.is_grad_enabled():
            state, fused = self._fused
            if state[0] == _state(self.embedding):
                return hidden @ fused.head[:, start:stop]
        return hidden @ (self.embedding if embedding is None else embedding)[start:stop].T

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows of up to `length` tokens, padding included.

        It works with the weights as they are now. Raises ValueError for more tokens than the model has positions.
        """
        if length > self.config.positions:
            raise ValueError(f"a cache of {length} tokens, but the model has {self.config.positions} positions")
        with torch.inference_mode():
            return Cache(self._fuse(), batch, length)

    @torch.inference_mode()
    def prefill(self, rows: Sequence[Tensor], cache: Cache) -> Tensor:
        """Append each row's ids (int [n], n >= 1, each row its own n); hidden states [B, C] of the last ones.

        Rows are padded on the left, so that all end at the same slot of the cache; they take as many slots as the
        longest. Raises ValueError when they do not fit.
        """
        counts = [len(row) for row in rows]
        if len(rows) != cache.batch or min(counts) < 1:
            raise ValueError(f"{len(rows)} rows of {counts} ids for a cache of {cache.batch} rows")
        ids = cache.lengths.new_zeros(len(rows), max(counts))
        for line, row in zip(ids, rows, strict=True):
            line[len(line) - len(row) :] = row
        padding = None if min(counts) == max(counts) else max(counts) - torch.tensor(counts, device=ids.device)
        for start in range(0, ids.shape[1], _CHUNK):
            part = ids[:, start : start + _CHUNK]
            here = None if padding is None else (padding - start).clamp(0, part.shape[1])
            hidden = extend(cache, F.embedding(part, self.embedding), here)
        return hidden[:, -1]

    @torch.inference_mode()
    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """Append n ids to every row (int [B, n]); hidden states [B, n, C]. Raises ValueError when they do not fit."""
        return extend(cache, F.embedding(ids, self.embedding), None)

    def _fuse(self) -> Fused:
        """Weights for generation, made anew when a parameter has changed since."""
        state = [_state(weight) for weight in self.parameters()]
        if self._fused is None or self._fused[0] != state:
            weights = dict(self.named_parameters())
            self._fused = state, Fused(weights, self.cos, self.sin, self.config.norm_eps)
        return self._fused[1]


def _state(weight: Tensor) -> tuple[int, int]:
    """What differs when a parameter has been changed or replaced."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _causal(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Causal attention of q [B, T, H, D] over k and v [B, T, K, D], mask bool [B, 1, T, T]: [B, T, H, D]."""
    q, k, v = (a.transpose(1, 2) for a in (q, k, v))
    if q.device.type == "cpu":  # where short samples take a quarter of the time of bfloat16
        with torch.autocast("cpu", enabled=False):
            y = F.scaled_dot_product_attention(q, k, v.to(q.dtype), mask, is_causal=mask is None, enable_gqa=True)
    else:
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
    return y.transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [B, T, heads, D], cos and sin [B or 1, T, 1, D]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _rotary(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine [positions, D] of every rotation, the two halves of D alike."""
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.arange(config.positions, dtype=torch.float32)[:, None] / config.rope_theta**powers
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()
