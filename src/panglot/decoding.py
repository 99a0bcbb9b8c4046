"""The transformer at work on one token a row: what generation spends nearly all its time in.

`extend` computes what the blocks of `panglot.model` compute, and a test holds both together, but from weights that are
laid out for it (`Fused`) and with the keys and values of the tokens before (`Cache`). At one row the time goes into
reading the weights from memory; at many, into arithmetic; what is left, into the number of calls. So matrices that read
the same input are one, in the order that the processor reads fastest, and what all layers need is made once a step.

Not here: choosing tokens, and anything that needs gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

_MASKED = -1e9  # not -inf, because a row of nothing but padding would become NaN and spread


class Cache:
    """Keys and values of what a batch of rows has read so far, in memory of fixed size.

    All rows end at the same slot, `used`. A row with fewer tokens (`lengths`, int64 [B]) has slots of padding, which
    `bias` (float [B, slots], None while there is no padding) keeps it from seeing.
    """

    def __init__(self, fused: Fused, batch: int, slots: int) -> None:
        # [layers, keys or values, B, kv_heads, slots, head_dim]
        self.pairs = fused.head.new_zeros(len(fused.layers), 2, batch, fused.kv_heads, slots, fused.head_dim)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=self.pairs.device)
        self.bias: Tensor | None = None
        self.used = 0
        self.fused = fused

    @property
    def batch(self) -> int:
        return self.pairs.shape[2]

    @property
    def slots(self) -> int:
        return self.pairs.shape[4]

    @torch.inference_mode()
    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (int [n]), in this order; one may occur several times."""
        self.pairs, self.lengths = self.pairs[:, :, rows], self.lengths[rows]
        self.bias = None if self.bias is None else self.bias[rows]

    @torch.inference_mode()
    def grow(self, slots: int) -> None:
        """Make room for more tokens: `slots` in all, at most the model's positions."""
        more = slots - self.slots
        self.pairs = F.pad(self.pairs, (0, 0, 0, more))
        self.bias = None if self.bias is None else F.pad(self.bias, (0, more))


class Fused:
    """The weights of a transformer in the order in which decoding reads them.

    Matrices with the same input are one, transposed where the processor reads that faster (one row, cold memory, one
    thread: 50 us instead of 79, 14 of 35, 90 of 206, but 93 of 70 for the last matrix of a block). The weights of a
    norm, and the root of the size that turns a vector's length into its root mean square, are part of the matrix behind
    it. Heads are in groups: the queries that share a key, that key, its value.
    """

    def __init__(self, weights: Mapping[str, Tensor], cos: Tensor, sin: Tensor, eps: float) -> None:
        """weights: by Qwen3's names; cos, sin: [positions, head_dim]; eps: of all norms."""
        self.cos, self.sin = cos, sin
        self.head = weights["model.embed_tokens.weight"].T.contiguous()
        self.width, self.head_dim = len(self.head), cos.shape[1]
        self.kv_heads = len(weights["model.layers.0.self_attn.k_proj.weight"]) // self.head_dim
        self.layers: list[tuple[Tensor, ...]] = []
        norms, root = [], math.sqrt(self.width)
        while f"model.layers.{len(self.layers)}.mlp.up_proj.weight" in weights:
            of = partial(_weight, weights, f"model.layers.{len(self.layers)}.")
            heads = [of(f"self_attn.{p}_proj").view(self.kv_heads, -1, self.head_dim, self.width) for p in "qkv"]
            qkv = torch.cat(heads, 1).flatten(0, 2) * of("input_layernorm") * root
            gate_up = torch.cat([of("mlp.gate_proj"), of("mlp.up_proj")]) * of("post_attention_layernorm") * root
            fused = (matrix.T.contiguous() for matrix in (qkv, of("self_attn.o_proj"), gate_up))
            self.layers.append((*fused, of("mlp.down_proj").T))
            # The root of the size belongs to queries and keys; the scale of attention takes it away from one.
            queries = of("self_attn.q_norm").expand(heads[0].shape[1], -1)
            norms.append(torch.cat([queries, of("self_attn.k_norm")[None] * math.sqrt(self.head_dim)]))
        self.norm = torch.stack(norms)[:, None, None, None]  # [layers, 1, 1, 1, group + 1, head_dim]
        self.rolled = self.norm.roll(self.head_dim // 2, -1)
        self.rolled[..., : self.head_dim // 2].neg_()
        self.last = weights["model.norm.weight"] * root
        self.tiny = cos.new_tensor(math.sqrt(self.width * eps))
        self.tiny_head = cos.new_tensor(math.sqrt(self.head_dim * eps))


def _weight(weights: Mapping[str, Tensor], prefix: str, name: str) -> Tensor:
    return weights[f"{prefix}{name}.weight"].detach()


def extend(cache: Cache, x: Tensor, padding: Tensor | None) -> Tensor:
    """Append x [B, n, C]; hidden states [B, n, C]. The first `padding` (int [B], or None) of each row are no tokens."""
    fused, start = cache.fused, cache.used
    batch, n, width = x.shape
    stop = start + n
    if batch != cache.batch or stop > cache.slots:
        raise ValueError(f"{batch} rows of {stop} tokens in a cache of {cache.batch} rows of {cache.slots}")
    positions = cache.lengths[:, None] + torch.arange(n, device=x.device)
    if padding is not None:
        positions = (positions - padding[:, None]).clamp(min=0)
        if cache.bias is None:
            cache.bias = x.new_zeros(batch, cache.slots)
        cache.bias[:, start:stop] = (torch.arange(n, device=x.device) < padding[:, None]) * _MASKED
        cache.lengths -= padding
    mask = _mask(cache, n, stop)
    # What a step needs in all layers is made once: rotations (with the norms' weights), buffers, views.
    cos = (fused.cos[positions][:, :, None, None] * fused.norm).unbind()
    sin = (fused.sin[positions][:, :, None, None] * fused.rolled).unbind()
    written = cache.pairs[:, :, :, :, start:stop].unbind()
    keys, values = (pair.unbind() for pair in cache.pairs[:, :, :, :, :stop].unbind(1))
    x = x.reshape(batch * n, width).clone()
    y = x.new_empty(batch * n, fused.layers[0][0].shape[1])
    heads = y.view(batch, n, fused.kv_heads, -1, fused.head_dim)
    group, half = heads.shape[3] - 2, fused.head_dim // 2
    q, qk, pair = heads[..., :group, :], heads[..., : group + 1, :], heads[..., group:, :].permute(3, 0, 2, 1, 4)
    normed = torch.empty_like(x)
    inner = x.new_empty(batch * n, fused.layers[0][2].shape[1])
    gate, up = inner.chunk(2, 1)
    for layer, (qkv, out, gate_up, down) in enumerate(fused.layers):
        torch.div(x, _length(x, fused.tiny), out=normed)
        torch.mm(normed, qkv, out=y)
        qk.div_(_length(qk, fused.tiny_head))
        other = qk.roll(half, -1)
        qk.mul_(cos[layer]).addcmul_(other, sin[layer])
        written[layer].copy_(pair)
        x.addmm_(_attend(q, keys[layer], values[layer], mask), out)
        torch.div(x, _length(x, fused.tiny), out=normed)
        torch.mm(normed, gate_up, out=inner)
        x.addmm_(F.silu(gate).mul_(up), down)
    cache.used = stop
    cache.lengths += n
    return (x / _length(x, fused.tiny)).mul_(fused.last).view(batch, n, width)


def _length(x: Tensor, tiny: Tensor) -> Tensor:
    """Length of the last axis; x divided by it is RMSNorm but for a factor, and much faster than F.rms_norm."""
    return torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), tiny)


def _mask(cache: Cache, n: int, used: int) -> Tensor | None:
    """What is added to the scores of n new tokens, [B or 1, 1, n or 1, used]; None where nothing is hidden."""
    mask = None if cache.bias is None else cache.bias[:, None, None, :used]
    if n > 1:
        later = cache.pairs.new_full((n, used), _MASKED).triu(used - n + 1)
        mask = later[None, None] if mask is None else mask + later
    return mask


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q [B, n, K, G, D], scaled already, over k and v [B, K, L, D]: [B * n, K * G * D]."""
    batch, n, kv_heads = q.shape[:3]
    if n > 1:
        y = F.scaled_dot_product_attention(q.flatten(2, 3).transpose(1, 2), k, v, mask, scale=1.0, enable_gqa=True)
        return y.transpose(1, 2).reshape(batch * n, -1)
    # The queries of a group are rows of one product. Plain products are faster here than the library's attention.
    q, k, v = q.flatten(0, 2), k.flatten(0, 1), v.flatten(0, 1)
    if mask is None:
        scores = torch.bmm(q, k.mT)
    else:
        scores = torch.baddbmm(mask.expand(-1, kv_heads, -1, -1).flatten(0, 1), q, k.mT)
    return torch.bmm(scores.softmax(-1), v).view(batch, -1)
