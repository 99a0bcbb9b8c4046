"""A model on disk: one folder that is a stock Qwen3 checkpoint and holds what panglot needs besides.

    config.json              shape of the model, as transformers, PEFT, vLLM and SGLang read it
    generation_config.json   where an answer ends
    model.safetensors        weights, by Qwen3's names
    tokenizer.json           the text tokenizer; text has the first ids, and no text can spell an id of other media
    tokenizer_config.json    that there is nothing special about it
    layout.json              what every id means (`panglot.layout`)
    panglot.json             version, fingerprints of the tokenizers that made the ids, and what the caller adds

A folder is written whole or not at all, and everything in it is checked before it is believed: files cut short, sizes
that do not fit each other, ids made by other tokenizers than those installed. Nothing is unpickled.

Not here: the state of a training run (`panglot.train`), several files of weights, quantised weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from panglot.layout import Layout, LayoutError
from panglot.model import ModelConfig, Transformer
from panglot.tokenizers.text import TextTokenizer
from panglot.tokenizers.weights import ASSETS

CONFIG, GENERATION, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
LAYOUT, PANGLOT = "layout.json", "panglot.json"
FILES = (CONFIG, GENERATION, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, LAYOUT, PANGLOT)

TOKENIZERS = {
    "text": "text.json",
    "image": "image.safetensors",
    "audio": "audio.safetensors",
    "video": "video.safetensors",
}


class CheckpointError(ValueError):
    """A folder that is no checkpoint, or none for this panglot; the message names it, the fault and the remedy."""


@cache
def fingerprints() -> dict[str, str]:
    """SHA-256 of the weights of each installed tokenizer: ids mean the same only where these are the same."""
    return {name: hashlib.sha256((ASSETS / file).read_bytes()).hexdigest() for name, file in TOKENIZERS.items()}


def save(
    directory: str | Path,
    model: Transformer,
    layout: dict[str, Any],
    extra: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model into a folder, in place of a checkpoint that may be there.

    layout: `Layout.to_json()`. extra: anything that JSON can hold, for `load` to return. dtype: float16 or float32.
    Raises CheckpointError where the layout does not fit the model, or the folder holds other things or cannot be
    written.
    """
    directory = Path(directory)
    ids, config = _layout(layout, directory), model.config
    _same(ids.size, config.vocab_size, directory)
    text = TextTokenizer.load()
    _same_text(text, ids, directory)
    marks = {f"{name}_token_id": ids.marks[name] for name in ("bos", "eos", "pad")}
    name = str(dtype).removeprefix("torch.")
    # Clones, because the parameters may be parts of one larger tensor.
    weights = {k: v.detach().to("cpu", dtype).contiguous().clone() for k, v in model.state_dict().items()}
    with _replacing(directory) as work:
        _write(work / CONFIG, config.to_qwen3(dtype=name) | marks)
        _write(work / GENERATION, marks)
        save_file(weights, work / WEIGHTS, metadata={"format": "pt"})
        (work / WEIGHTS).chmod(0o644)
        text.save(work / TOKENIZER)
        # Named, because transformers takes a Qwen3 for one with Qwen's own tokenizer. No special tokens: they could be
        # spelled in a text.
        plain = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.positions}
        _write(work / TOKENIZER_CONFIG, plain | {"clean_up_tokenization_spaces": False})
        _write(work / LAYOUT, layout)
        made = {"panglot": metadata.version("panglot"), "tokenizers": fingerprints(), "extra": extra or {}}
        _write(work / PANGLOT, made)


def load(directory: str | Path) -> tuple[Transformer, dict[str, Any], dict[str, Any]]:
    """The model in float32 on the CPU, its layout and what else was saved. Raises CheckpointError."""
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory}: no such folder; name one that panglot train or checkpoint.save has written"
        )
    shape, made, layout = (_read(directory / name) for name in (CONFIG, PANGLOT, LAYOUT))
    try:
        config = ModelConfig.from_qwen3(shape)
    except ValueError as error:
        raise CheckpointError(f"{directory / CONFIG}: {error}; take a Qwen3 checkpoint as panglot writes it") from None
    _same_tokenizers(made.get("tokenizers"), directory)
    ids = _layout(layout, directory / LAYOUT)
    _same(ids.size, config.vocab_size, directory)
    try:
        text = TextTokenizer.load(_there(directory / TOKENIZER))
    except RecursionError as error:
        raise CheckpointError(f"{directory / TOKENIZER}: damaged ({error}); copy the checkpoint again") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    _same_text(text, ids, directory)
    model = _model(directory / WEIGHTS, config)
    extra = made.get("extra")
    return model, layout, extra if isinstance(extra, dict) else {}


def _model(path: Path, config: ModelConfig) -> Transformer:
    """A transformer with the weights of a file, after their names and shapes have been compared with the config's."""
    remedy = "copy or train the checkpoint again"
    try:
        with safe_open(_there(path), "pt") as file:
            names = set(file.keys()) - {"lm_head.weight"}  # a copy of the embedding, which some programs write
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            wrong = _difference(shapes, config)
            if wrong:
                raise CheckpointError(f"{path}: {wrong}, unlike {CONFIG} says; {remedy}")
            weights = {name: file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut short ({error}); {remedy}") from None
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are no numbers; {remedy}")
    return Transformer.of(config, weights)


def _difference(shapes: dict[str, tuple[int, ...]], config: ModelConfig) -> str:
    """The first difference between the shapes in a file and those of a config, or "" if there is none."""
    # Numbers first: a config may claim sizes that one would not want to build, not even without memory.
    found = sum(torch.Size(shape).numel() for shape in shapes.values())
    if found != config.parameters:
        return f"{found} weights, not {config.parameters}"
    with torch.device("meta"):
        wanted = {name: tuple(weight.shape) for name, weight in Transformer(config).state_dict().items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            return f"{name} has shape {shapes.get(name, 'none')}, not {wanted.get(name, 'none')}"
    return ""


def _layout(layout: Any, path: Path) -> Layout:
    try:
        return Layout.from_json(layout)
    except LayoutError as error:
        raise CheckpointError(f"{path}: {error}; take the layout of the data that the model learned from") from None


def _same(layout: int, model: int, directory: Path) -> None:
    if layout != model:
        raise CheckpointError(
            f"{directory}: the layout has {layout} ids, the model {model}; take the layout that it was trained with"
        )


def _same_text(text: TextTokenizer, ids: Layout, directory: Path) -> None:
    size = text.alphabets[0].size
    if size != ids.sizes["text"]:
        raise CheckpointError(
            f"{directory}: the text tokenizer has {size} entries, the layout {ids.sizes['text']} ids for text; "
            "take the tokenizer that the layout was made with"
        )


def _same_tokenizers(found: Any, directory: Path) -> None:
    found = found if isinstance(found, dict) else {}
    other = [name for name, print_ in fingerprints().items() if found.get(name) != print_]
    if other:
        raise CheckpointError(
            f"{directory}: trained with other tokenizers: {', '.join(other)}; "
            "install the panglot that wrote it, or train it again from media"
        )


def _there(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; the folder is not a whole panglot checkpoint")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_there(path).read_bytes())
        if not isinstance(value, dict):
            raise TypeError("not a JSON object")
        return value
    except CheckpointError:
        raise
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy or train the checkpoint again") from None


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """A folder beside `directory` to write to, which takes its place at the end.

    Between two renames there is nothing by that name for a moment, and the old folder lies beside it.
    """
    place = directory.resolve()
    there = {path.name for path in place.iterdir()} if place.is_dir() else set()
    strange = sorted(name for name in there - {*FILES} if not name.startswith("."))
    if strange or place.is_file():
        what = f"holds {strange[0]}, which a checkpoint does not" if strange else "is a file"
        raise CheckpointError(f"{directory}: {what}; move it away, or choose another folder")
    work, old = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        yield work
        if place.exists():
            os.rename(place, old)
        os.rename(work, place)
    except (OSError, SafetensorError) as error:
        if old.exists() and not place.exists():
            os.rename(old, place)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{directory}: cannot be written ({reason}); make room or choose another folder"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
