"""Tokenizer weights on disk: one safetensors file, its configuration as JSON in the metadata.

Weights are stored in float16, the largest matrices in int8 with a scale a row, and used in float32. Not here: training
checkpoints (`panglot.train`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from panglot.tokenizers.base import WeightsError

LARGE = 300_000
SCALE = ".row_scale"
"""Matrices with this many weights are stored in int8; the shipped file of sound would be 0.4 MB larger otherwise."""

ASSETS = Path(__file__).parent.parent / "assets"


def save_weights(model: nn.Module, config: dict[str, Any], path: Path) -> None:
    """Write the model's state in float16 and its LARGE matrices in int8, atomically."""
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().float()
        if value.ndim == 2 and value.numel() >= LARGE:
            scale = value.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
            tensors[name + SCALE] = scale
            tensors[name] = torch.round(value / scale).to(torch.int8).contiguous()
        else:
            tensors[name] = value.to(torch.float16).contiguous()
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"config": json.dumps(config)})
    temporary.chmod(0o644)
    os.replace(temporary, path)


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors in float32 and the configuration. Raises WeightsError with what to do about it."""
    remedy = "train one with the recipe in recipes/, or reinstall panglot"
    if not path.exists():
        raise WeightsError(f"{path}: no such weights file; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
            stored = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118 - not a dict
            whole = {k: v * stored.get(k + SCALE, 1.0) for k, v in stored.items() if not k.endswith(SCALE)}
            return whole, config
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as fault:
        raise WeightsError(f"{path}: not a panglot weights file ({fault}); {remedy}") from fault
