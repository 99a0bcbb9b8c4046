"""How judges come to be: from the real media of a data set's train folder, in minutes on a processor.

A judge has to know the media that a model makes, which have the softness of the tokenizers, but must not learn from the
model. So every second of its pictures and sounds is there a second time, encoded and decoded by the tokenizers at the
levels that the model uses. Everything is also moved, scaled, and changed in brightness, at random, anew each time.

The loop is `panglot.train.fit`. The same data and seed give the same judges. Not here: what judges are and how they are
used (`panglot.judges`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panglot.judges import (
    ATTRIBUTES,
    LEARNED,
    STANDS_OUT,
    Item,
    Judge,
    JudgeError,
    Judges,
    Network,
    Pair,
    items,
    load_judge,
    load_judges,
    measured,
    picture_input,
    save_judge,
    sound_input,
)
from panglot.media import Audio, Image, MediaError
from panglot.tokenizers import tokenizer
from panglot.train import Schedule, fit

CODED = 2
"""One in so many media is also shown as the tokenizers bring it back."""

CLIP_FRAMES = 3
"""Frames that are taken of a clip, evenly, for pictures to learn from."""

STEPS = {"picture": 2400, "sound": 2000, "scene": 700}
"""Batches of ROWS that each judge learns from."""

ROWS = 40

Told = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Material:
    """What a judge learns from. inputs: uint8 [N, C, H, W]; targets: int64 [N, heads], a label or -1 where unknown.

    labels: what the outputs stand for; heads: how many outputs each head has, in their order.
    """

    inputs: np.ndarray
    targets: np.ndarray
    labels: tuple[Pair, ...]
    heads: tuple[int, ...]


def members(name: str, found: Sequence[Item]) -> list[Item]:
    """The media that a judge learns from: pictures and videos, sounds, or the scenes among the former."""
    if name == "sound":
        return [i for i in found if i.modality == "audio"]
    return [i for i in found if i.modality in ("image", "video") and i.is_scene == (name == "scene")]


def digest(found: Sequence[Item]) -> str:
    """Of the names, sizes and texts of media, by which a judge knows the data it learned from."""
    told = ([i.path.name, i.path.stat().st_size, *i.pair, *(value(i, a) for a in ATTRIBUTES)] for i in found)
    lines = sorted(json.dumps(line) for line in told)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:32]


def train_judges(
    data: Path, folder: Path, seed: int = 0, steps: dict[str, int] | None = None, told: Told | None = None
) -> Judges:
    """Train those judges that are not yet in `folder` and that the train folder `data` has media for.

    steps: batches for each of "picture", "sound", "scene". told: called with a line on what happens. An interrupted
    training goes on where it stopped. Raises FolderError, TrainError, and JudgeError, also where a judge in `folder`
    has learned from other media.
    """
    found, steps, tell = items(data), steps or STEPS, told or (lambda line: None)
    makers = {"picture": _picture_material, "sound": _sound_material, "scene": _scene_material}
    material = {name: media for name in makers if (media := members(name, found))}
    digests = {name: digest(media) for name, media in material.items()}
    there = {name for name in material if (folder / f"{name}.json").exists()}
    for name in there:
        if load_judge(folder, name)[0].facts.get("data") != digests[name]:
            wrong = f"{folder / name}.json: has learned from other media than {data}"
            raise JudgeError(f"{wrong}; delete it, and it is trained again, or choose other --judges")
    for name in (name for name in material if name not in there):
        tell(f"judge of {name}s: reading {data}")
        learned = makers[name](material[name], seed)
        tell(f"judge of {name}s: learning from {len(learned.inputs):,} of them, {len(learned.labels)} labels")
        run = folder / f".{name}.{digests[name][:8]}.run"
        network = _trained(learned, name, run, steps[name], seed)
        facts = {"seed": seed, "steps": steps[name], "coded": 1 / CODED, "data": digests[name]}
        facts["rows"] = len(learned.inputs)
        means = _means(material[name]) if name == "scene" else None
        save_judge(folder, name, Judge(network, learned.labels, facts), means)
        shutil.rmtree(run)
    judges = load_judges(folder)
    if judges == Judges():
        raise JudgeError(f"{data}: holds no pictures and no sounds with a text; nothing can be judged by it")
    return judges


def _trained(material: Material, name: str, run: Path, steps: int, seed: int) -> Network:
    torch.manual_seed(seed)
    network = Network(material.inputs.shape[1], sum(material.heads))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule = Schedule(steps, 2e-3, weight_decay=0.02, warmup=min(100, steps), checkpoint_every=200, seed=seed)
    changed = {"picture": picture_changed, "sound": sound_changed, "scene": scene_changed}[name]
    share = _balance(material.targets[:, 0])

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(len(share), ROWS, p=share)
        dice = torch.Generator().manual_seed(int(rng.integers(2**62)))
        inputs = torch.from_numpy(material.inputs[rows]).float() / 255
        return changed(inputs, dice), torch.from_numpy(material.targets[rows])

    def loss(model: nn.Module, data: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        scores = model(data[0].contiguous(memory_format=torch.channels_last)).split(material.heads, 1)
        parts, right = [], []
        for line, target in zip(scores, data[1].T, strict=True):
            if bool((known := target >= 0).any()):
                parts.append(F.cross_entropy(line[known], target[known], label_smoothing=0.1))
                right.append(float((line[known].argmax(1) == target[known]).float().mean()))
        total = torch.stack(parts).sum()
        return total, {"loss": float(total.detach()), "right": float(np.mean(right))}

    network.train()
    fit(network, batch, loss, schedule, run)
    return network.eval()


def _balance(labels: np.ndarray) -> np.ndarray:
    """How often each row is drawn: labels by the square root of how many rows they have."""
    _, label, count = np.unique(labels, return_inverse=True, return_counts=True)
    share = 1 / np.sqrt(count[label])
    return share / share.sum()


# ---------------------------------------------------------------------------------------------------------------------
# Material


def _chosen(count: int, seed: int) -> set[int]:
    """Which of so many media are coded too."""
    return set(np.random.default_rng([seed, count]).permutation(count)[: -(-count // CODED)].tolist())


def _readable(found: Sequence[Item], read: Callable[[int, Item], T]) -> Iterator[tuple[Item, T]]:
    """Each item with what is read of it. What cannot be read is told and left out. Raises JudgeError if nothing can."""
    kept = 0
    for number, item in enumerate(found):
        try:
            made = read(number, item)
        except MediaError as error:
            print(f"panglot: left out: {error}", file=sys.stderr)
            continue
        kept += 1
        yield item, made
    if not kept:
        raise JudgeError(f"{found[0].path.parent}: none of {len(found):,} media can be read; copy them again")


def _picture_material(wanted: Sequence[Item], seed: int) -> Material:
    """Pictures, and frames of videos."""
    inputs, pairs = [], []
    coded, rng = _chosen(len(wanted), seed), np.random.default_rng(seed)
    for item, shown in _readable(wanted, lambda number, item: _pictures(item, number in coded, rng)):
        for frames in shown:
            inputs += [picture_input(frame) for frame in frames]
            pairs += [item.pair] * len(frames)
    return _by_label(inputs, pairs)


def _pictures(item: Item, coded: bool, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """The picture of an item, or frames of it; and if wanted the same as the tokenizers bring it back."""
    medium, coder = item.open(), tokenizer(item.modality)
    media = [medium]
    if coded and item.modality == "image":
        media.append(coder.decode(coder.encode(medium, stride=(8, 16)[int(rng.integers(2))])))
    elif coded:
        keyframe = (8, 16)[int(rng.integers(2))]
        media.append(coder.decode(coder.encode(medium, stride=16, depth=1, keyframe=keyframe)))
    if item.modality == "image":
        return [[m.pixels] for m in media]
    shown = np.linspace(0, len(medium.frames) - 1, min(CLIP_FRAMES, len(medium.frames))).round().astype(int)
    return [[m.frames[i] for i in shown] for m in media]


def _sound_material(wanted: Sequence[Item], seed: int) -> Material:
    inputs, pairs = [], []
    coded, rng, coder = _chosen(len(wanted), seed), np.random.default_rng(seed), tokenizer("audio")

    def heard(number: int, item: Item) -> list[Audio]:
        sounds = [item.open()]
        if number in coded:
            sounds.append(coder.decode(coder.encode(sounds[0], depth=int(rng.integers(2, 5)))))
        return sounds

    for item, sounds in _readable(wanted, heard):
        inputs += [sound_input(sound) for sound in sounds]
        pairs += [item.pair] * len(sounds)
    return _by_label(inputs, pairs)


def _by_label(inputs: list[np.ndarray], pairs: list[Pair]) -> Material:
    labels = tuple(sorted(set(pairs)))
    number = {pair: i for i, pair in enumerate(labels)}
    targets = np.array([[number[pair]] for pair in pairs])
    return Material(np.stack(inputs), targets, labels, (len(labels),))


def _scene_material(wanted: Sequence[Item], seed: int) -> Material:
    """Pictures and frames of scenes, with what a network is to read from them."""
    words = {a: sorted({v for i in wanted if (v := value(i, a))}) for a in LEARNED}
    inputs, targets = [], []
    coded, rng = _chosen(len(wanted), seed), np.random.default_rng(seed)
    for item, shown in _readable(wanted, lambda number, item: _pictures(item, number in coded, rng)):
        target = [words[a].index(v) if (v := value(item, a)) else -1 for a in LEARNED if words[a]]
        for frames in shown:
            inputs += [picture_input(frame) for frame in frames]
            targets += [target] * len(frames)
    labels = tuple((a, word) for a in LEARNED for word in words[a])
    return Material(np.stack(inputs), np.array(targets), labels, tuple(len(words[a]) for a in LEARNED if words[a]))


def value(item: Item, attribute: str) -> str:
    """What an item says of an attribute, or ""."""
    return item.concept if attribute == "concept" else str(item.row.get(attribute) or "")


def _means(scenes: Sequence[Item]) -> dict[str, dict[str, list[float]]]:
    """For each measured attribute, the mean of what is measured, for each of its values."""
    points: dict[str, dict[str, list[np.ndarray]]] = {}
    for item, medium in _readable(scenes, lambda number, item: item.open()):
        told = [a for a in ATTRIBUTES if a not in LEARNED and value(item, a)]
        frames = [picture_input(f) for f in ([medium.pixels] if isinstance(medium, Image) else medium.frames)]
        for attribute in told:
            points.setdefault(attribute, {}).setdefault(value(item, attribute), []).append(measured(attribute, frames))
    return {a: {w: np.mean(p, 0).round(5).tolist() for w, p in sorted(v.items())} for a, v in points.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Changes


def _uniform(dice: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, generator=dice) * (high - low) + low


def moved(
    x: Tensor, dice: torch.Generator, scale: tuple[float, float], shift: tuple[float, float], turn: float
) -> Tensor:
    """x [N, C, H, W] with each picture scaled and shifted (along W, along H) and turned at random; edges go on.

    scale: by at most so much, as a share; shift: in shares of half a side; turn: in radians.
    """
    n = len(x)
    angle = _uniform(dice, n, -turn, turn)
    wide, high = (torch.exp(_uniform(dice, n, -s, s)) for s in scale)
    right, down = (_uniform(dice, n, -s, s) for s in shift)
    rows = [wide * angle.cos(), -high * angle.sin(), right, wide * angle.sin(), high * angle.cos(), down]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def picture_changed(x: Tensor, dice: torch.Generator) -> Tensor:
    """Moved, lit otherwise, a third of them blurred."""
    x = moved(x, dice, (0.2, 0.2), (0.15, 0.15), 0.15)
    return _lit(_blurred(x, dice), dice, 0.12)


def scene_changed(x: Tensor, dice: torch.Generator) -> Tensor:
    """Pictures on plain grounds get, most of them, the ground of another in the batch, and are moved a little."""
    n = len(x)
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2).median(2).values[:, :, None, None]
    apart = (x - border).abs().amax(1, keepdim=True)
    outside = (1 - (apart - STANDS_OUT / 4) / (STANDS_OUT / 2)).clamp(0, 1)
    other = border[torch.randperm(n, generator=dice)]
    swapped = (_uniform(dice, n, 0, 1) < 0.7).float()[:, None, None, None]
    x = x + swapped * outside * (other - border)
    return _lit(_blurred(moved(x, dice, (0.1, 0.1), (0.08, 0.08), 0.0), dice), dice, 0.04)


def sound_changed(x: Tensor, dice: torch.Generator) -> Tensor:
    """Faster or slower, earlier or later, higher or lower; louder noise; a stretch of time and of bands left out."""
    n, _, high, wide = x.shape
    x = moved(x, dice, (0.12, 0.06), (0.2, 0.06), 0.0)
    for size, dim, most in ((wide, 3, 12), (high, 2, 8)):
        begin, length = _uniform(dice, n, 0, size), _uniform(dice, n, 0, most)
        place = torch.arange(size)[None] - begin[:, None]
        hidden = ((place >= 0) & (place < length[:, None])).float()
        x = x * (1 - (hidden[:, None, None, :] if dim == 3 else hidden[:, None, :, None]))
    return _lit(x, dice, 0.08)


def _blurred(x: Tensor, dice: torch.Generator) -> Tensor:
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    which = (_uniform(dice, len(x), 0, 1) < 0.33).float()[:, None, None, None]
    return x + which * (soft - x)


def _lit(x: Tensor, dice: torch.Generator, much: float) -> Tensor:
    """Contrast, brightness of each channel, and noise."""
    n, channels = x.shape[:2]
    gain = torch.exp(_uniform(dice, n, -much, much))[:, None, None, None]
    plus = (torch.rand(n, channels, 1, 1, generator=dice) - 0.5) * much
    noise = torch.randn(x.shape, generator=dice) * (_uniform(dice, n, 0, 0.04)[:, None, None, None])
    return (x * gain + plus + noise).clamp(0, 1)
