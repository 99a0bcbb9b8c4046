"""Judges: small classifiers that tell what a picture, a sound, a video or a scene shows, to measure a model by.

A judge is not the model and never sees what a model made. It learns from real media alone: decoded files of a data
set's train folder, some of them passed through the tokenizers too, so that it knows their softness. Three are trained:

- picture: what a picture shows and in which way, a pair (concept, kind) such as ("dog", "photo"). Frames of clips are
  among its pictures, so that it can judge a video by its frames.
- sound: the same of sounds, ("dog", "sound") or ("dog", "say it").
- scene: attributes of a picture that has a plain ground. The object comes from a network whose pictures get other
  grounds while it is trained, so that it knows objects on grounds where training never shows them. The others are
  measured, and read by the nearest mean of training: the colour is that of the border, the place that of what stands
  out from it, the motion its way, the count how much stands out in each quarter. (A network that was to learn the count
  read 71 % of counts right in combinations that training never shows, and 98 % in others.)

How good a judge is has to be measured on held-out media and told beside whatever it judges (`panglot.evaluate`).
Not here: how a judge is trained (`panglot.judge_training`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from panglot import media
from panglot.fitting import Fit, resampled, square
from panglot.folders import find
from panglot.media import Audio, Video
from panglot.tokenizers.spectrum import EDGE, HOP, RATE, magnitudes, mel_filters

SIDE = 64
"""Pixels of the square that pictures are judged at."""

BANDS, FRAMES, STEP = 64, 80, 2
"""Of the log-mel picture of a sound: mel bands, frames, and hops of 10 ms between two frames. 1.6 s in all."""

RANGE = 6.0
"""Natural-log units below its loudest point that a sound is looked at: 52 dB."""

ATTRIBUTES = ("concept", "colour", "place", "count", "motion")
"""Columns of the metadata that tell what is in a scene."""

LEARNED = ("concept",)
"""Attributes that a network reads; the others are measured."""

STANDS_OUT = 0.2
"""How far from the ground, in 0..1 of the channel that differs most, a pixel belongs to the object."""

NAMES = ("picture", "sound", "scene")

EITHER = (".gif", ".webp", ".avif", ".ogg", ".webm")
"""Suffixes of files that may be of one modality or another."""

Pair = tuple[str, str]
"""A concept, and the kind of medium that shows it."""


class JudgeError(ValueError):
    """Judges or data for them that cannot be used. One line: what, and the remedy."""


# ---------------------------------------------------------------------------------------------------------------------
# Material


@dataclass(frozen=True)
class Item:
    """One file of a data set. set: the folder of its metadata; concept: what it shows, by its row or else its text."""

    path: Path
    modality: str
    set: str
    kind: str
    text: str
    concept: str
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        return self.concept, self.kind

    @property
    def is_scene(self) -> bool:
        """Whether it shows a combination that training may or may not have seen; its row says so."""
        return "seen" in self.row

    def open(self) -> Any:
        """The medium at the sizes that judges look at. Raises MediaError."""
        return Fit(side=SIDE, seconds=FRAMES * STEP * HOP / RATE)(media.open(self.path))


def items(folder: Path) -> list[Item]:
    """The files of a folder that have a text, in order. Raises FolderError, or JudgeError where there is none."""
    modalities: dict[tuple[str, str, str], str] = {}
    out = []
    for sample in find([folder]).samples:
        if sample.text is None:
            continue
        head, _, rest = sample.name.partition("/")
        name, kind = head if rest else "", sample.kind or ""
        for path in sample.files:
            suffix = path.suffix.lower()
            alike = name, kind, str(path) if suffix in EITHER else suffix
            if alike not in modalities:  # by content, once for all files of a set that have the same suffix
                try:
                    modalities[alike] = media.probe(path).modality
                except media.MediaError:
                    continue  # the next may be whole
            concept = str(sample.row.get("concept") or sample.text)
            out.append(Item(path, modalities[alike], name, kind, sample.text, concept, sample.row))
    if not out:
        raise JudgeError(f"{folder}: holds no media with a text; give folders with metadata.jsonl (file_name, text)")
    return out


def picture_input(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [3, SIDE, SIDE]."""
    return np.moveaxis(square(pixels, SIDE), -1, 0)


def sound_input(audio: Audio) -> np.ndarray:
    """A sound as a picture of its log-mel spectrum, uint8 [1, BANDS, FRAMES]: 0 is RANGE below the loudest point."""
    length = FRAMES * STEP * HOP
    mono = resampled(audio)[:length]
    padded = torch.from_numpy(np.pad(mono, (EDGE, length - len(mono) + EDGE)))
    mel = magnitudes(padded) @ torch.from_numpy(mel_filters(BANDS).T.astype(np.float32))
    mel = mel.reshape(FRAMES, STEP, BANDS).mean(1).clamp(min=1e-5).log()
    scaled = (1 + (mel - mel.max()) / RANGE).clamp(min=0)
    return np.asarray((scaled * 255).round().to(torch.uint8).T[None])


# ---------------------------------------------------------------------------------------------------------------------
# Networks


class Network(nn.Module):
    """A small convolutional network: float [N, C, H, W] in 0..1 -> scores [N, outputs]."""

    def __init__(self, channels: int, outputs: int, widths: Sequence[int] = (24, 48, 96, 160)):
        super().__init__()
        a, b, c, d = widths
        self.body = nn.Sequential(
            *(_conv(channels, a, 2), _conv(a, b, 2), _conv(b, c, 2), _conv(c, d, 2), _Residual(d)),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2)),
        )
        self.head = nn.Linear(4 * d, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x * 2 - 1))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = _conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


@dataclass(frozen=True)
class Judge:
    """A network and what its outputs stand for, pairs of concept and kind; for scenes, of attribute and value."""

    network: Network
    labels: tuple[Pair, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @torch.inference_mode()
    def scores(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 inputs, as `picture_input` or `sound_input` make them -> raw scores, float64 [N, labels]."""
        if not len(inputs):
            return np.zeros((0, len(self.labels)))
        self.network.eval()
        parts = [
            self.network(torch.from_numpy(np.stack(inputs[i : i + 64])).float() / 255)
            for i in range(0, len(inputs), 64)
        ]
        return torch.cat(parts).double().numpy()


def log_shares(scores: np.ndarray) -> np.ndarray:
    """Log-softmax over the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


# ---------------------------------------------------------------------------------------------------------------------
# Scenes


def ground(pixels: np.ndarray) -> np.ndarray:
    """uint8 [3, H, W] -> the colour of the ground, float [3] in 0..1: the median of the border."""
    border = [pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]]
    return np.median(np.concatenate(border, 1), 1) / 255


def standing_out(pixels: np.ndarray) -> np.ndarray:
    """uint8 [3, H, W] -> 1 where a pixel differs from the ground, else 0: float [H, W]."""
    apart = np.abs(pixels / 255 - ground(pixels)[:, None, None]).max(0)
    return (apart > STANDS_OUT).astype(np.float64)


def quarters(pixels: np.ndarray) -> np.ndarray:
    """uint8 [3, H, W] -> how much stands out in each quarter, the fullest first and as 1: float [4]."""
    weight = standing_out(pixels)
    high, wide = weight.shape[0] // 2, weight.shape[1] // 2
    parts = weight[: 2 * high, : 2 * wide].reshape(2, high, 2, wide).sum((1, 3))
    return np.sort(parts.ravel())[::-1] / max(1.0, float(parts.max()))


def centre(pixels: np.ndarray) -> np.ndarray:
    """uint8 [3, H, W] -> where what stands out from the ground has its centre, float [2]: x, y in -1..1."""
    weight = standing_out(pixels)
    if not weight.any():
        return np.zeros(2)
    y, x = (np.linspace(-1, 1, n) for n in weight.shape)
    return np.array([weight.sum(0) @ x, weight.sum(1) @ y]) / weight.sum()


def measured(attribute: str, frames: Sequence[np.ndarray]) -> np.ndarray:
    """What tells colour, count, place or motion in pictures uint8 [3, H, W]: a point whose neighbours are alike."""
    if attribute == "colour":
        return np.median([ground(frame) for frame in frames], 0)
    if attribute == "count":
        return np.mean([quarters(frame) for frame in frames], 0)
    centres = np.array([centre(frame) for frame in frames])
    third = max(1, len(frames) // 3)
    return centres[-third:].mean(0) - centres[:third].mean(0) if attribute == "motion" else centres.mean(0)


@dataclass(frozen=True)
class SceneJudge:
    """Reads attributes. means: of each measured attribute, the point of each of its values."""

    judge: Judge
    means: Mapping[str, Mapping[str, Sequence[float]]]

    def read(self, frames: Sequence[np.ndarray], attributes: Sequence[str]) -> dict[str, str]:
        """The values of attributes in the frames of a scene, uint8 [3, SIDE, SIDE] each; a still has one."""
        scores = self.judge.scores(frames)
        out = {}
        for attribute in attributes:
            if attribute in LEARNED:
                places = [i for i, (name, _) in enumerate(self.judge.labels) if name == attribute]
                if places:
                    best = log_shares(scores[:, places]).sum(0).argmax()
                    out[attribute] = self.judge.labels[places[int(best)]][1]
            elif self.means.get(attribute):
                point, words = measured(attribute, frames), self.means[attribute]
                out[attribute] = min(words, key=lambda word: float(np.sum((point - np.asarray(words[word])) ** 2)))
        return out


# ---------------------------------------------------------------------------------------------------------------------
# All of them


@dataclass(frozen=True)
class Judges:
    """Those that a data set allows; None where it has no such media."""

    picture: Judge | None = None
    sound: Judge | None = None
    scene: SceneJudge | None = None

    def pictures(self, pictures: Sequence[np.ndarray], kinds: Sequence[str]) -> list[tuple[Pair, str]]:
        """For each uint8 [H, W, 3]: the likeliest (concept, kind) among kinds, and the concept over all of them."""
        assert self.picture is not None
        scores = self.picture.scores([picture_input(p) for p in pictures])
        return [_told(self.picture, line, kinds) for line in scores]

    def sounds(self, sounds: Sequence[Audio], kinds: Sequence[str]) -> list[tuple[Pair, str]]:
        """The same for sounds."""
        assert self.sound is not None
        scores = self.sound.scores([sound_input(s) for s in sounds])
        return [_told(self.sound, line, kinds) for line in scores]

    def video(self, video: Video) -> str:
        """The concept of a video by its pictures: the one whose log-probabilities, summed over frames, are highest."""
        assert self.picture is not None
        scores = self.picture.scores([picture_input(frame) for frame in video.frames])
        concepts, shares = _by_concept(self.picture, log_shares(scores), None)
        return concepts[int(shares.sum(0).argmax())]


def _told(judge: Judge, scores: np.ndarray, kinds: Sequence[str]) -> tuple[Pair, str]:
    places = [i for i, (_, kind) in enumerate(judge.labels) if kind in kinds]
    if not places:
        return ("", ""), ""
    best = places[int(scores[places].argmax())]
    concepts, shares = _by_concept(judge, log_shares(scores[None]), kinds)
    return judge.labels[best], concepts[int(shares[0].argmax())]


def _by_concept(judge: Judge, shares: np.ndarray, kinds: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    """Concepts, and the log of each one's share summed over kinds: float [N, concepts]."""
    names = sorted({c for c, kind in judge.labels if kinds is None or kind in kinds})
    member = np.array([[c == name and (kinds is None or k in kinds) for c, k in judge.labels] for name in names])
    return names, np.log(np.exp(shares) @ member.T + 1e-30)


def save_judge(folder: Path, name: str, judge: Judge, means: Mapping[str, Any] | None = None) -> None:
    """Write NAME.safetensors and then NAME.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().contiguous() for k, v in judge.network.state_dict().items()}
    said = {"labels": [list(pair) for pair in judge.labels], "facts": dict(judge.facts), "means": means}
    files = ((f"{name}.safetensors", save(state)), (f"{name}.json", (json.dumps(said, indent=1) + "\n").encode()))
    for file, data in files:
        temporary = folder / f".{file}.{os.getpid()}.tmp"
        try:
            temporary.write_bytes(data)
            os.replace(temporary, folder / file)
        finally:
            temporary.unlink(missing_ok=True)


def load_judge(folder: Path, name: str) -> tuple[Judge, Any]:
    """A judge, and the means of a scene judge. Raises JudgeError."""
    path = folder / f"{name}.json"
    try:
        said = json.loads(path.read_text("utf-8"))
        labels = tuple((str(a), str(b)) for a, b in said["labels"])
        state = load((folder / f"{name}.safetensors").read_bytes())
        first = state["body.0.0.weight"]
        network = Network(first.shape[1], len(labels))
        network.load_state_dict(state)
        return Judge(network.eval().requires_grad_(False), labels, said["facts"]), said["means"]
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:120]
        raise JudgeError(f"{path}: cannot be used ({reason}); delete it, and it is trained again") from None


def load_judges(folder: Path) -> Judges:
    """The judges in a folder; those that are not there are None. Raises JudgeError."""
    found = {name: load_judge(folder, name) for name in NAMES if (folder / f"{name}.json").exists()}
    picture, sound = (found[name][0] if name in found else None for name in ("picture", "sound"))
    return Judges(picture, sound, SceneJudge(*found["scene"]) if "scene" in found else None)
