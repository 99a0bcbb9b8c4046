"""Clips of the primer, 64 x 64, nine frames at 8 a second: an object that moves, with its sound or its spoken name.

The sound is a file of the sets `sounds`, `voices` or `speech` of the same split, so these have to be made first. Not
here: what stands still (`pictures`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from concepts import BY_WORD, CONCEPTS, Concept
from items import Item, generator, slug
from pictures import (
    OBJECT,
    SIDE,
    chosen_scenes,
    digit_sources,
    emoji_path,
    ground,
    near,
    paste,
    scene_count,
    scene_row,
    stamp,
)
from PIL import Image as Pillow
from scenes import MOTIONS, TAUGHT_COLOURS, Scene, forbidden

from panglot.media import Audio, Video

FPS, FRAMES = 8.0, 9
RATE = 16_000
SAMPLES = round(FRAMES / FPS * RATE)
CLIPS_TRAIN, CLIPS_HELD = 40, 2
LARGE = 56
"""Pixels of the object of a clip; that of a scene is smaller (`OBJECT`)."""

Generator = np.random.Generator


# ---------------------------------------------------------------------------------------------------------------------
# Filming


def track(motion: str, size: int, rng: Generator) -> list[tuple[float, float, float]]:
    """Where the object is in each frame: its upper left corner and its size, in pixels, all inside the picture.

    motion: `left`, `right`, `up`, `down` (from edge to edge), `shrinking` (to half its size) or `bouncing`.
    """
    room = SIDE - size
    across = room / 2 + int(rng.integers(-1, 2))
    times = np.linspace(0.0, 1.0, FRAMES)
    if motion == "shrinking":
        sizes = size * (1 - 0.5 * times)
        return [((SIDE - s) / 2, (SIDE - s) / 2, s) for s in sizes]
    if motion == "bouncing":
        hops = 1 - np.abs(np.sin(2 * np.pi * times))
        return [(across, room * h, size) for h in hops]
    along = room * (times if motion in ("right", "down") else 1 - times)
    return [(a, across, size) if motion in ("left", "right") else (across, a, size) for a in along]


def film(backdrop: Pillow.Image, path: Path, places: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """uint8 [T, 64, 64, 3]: the picture at `path` moved over a backdrop."""
    frames = []
    for x, y, size in places:
        canvas = backdrop.copy()
        paste(canvas, stamp(path, round(size)), x, y)
        frames.append(np.asarray(canvas))
    return np.stack(frames)


def soundtrack(path: Path) -> Audio:
    """A sound file of the primer cut or padded with silence to the length of a clip."""
    import soundfile

    samples, _ = soundfile.read(path, dtype="float32")
    out = np.zeros(SAMPLES, np.float32)
    kept = samples[:SAMPLES]
    out[: len(kept)] = kept
    return Audio(out, RATE)


def clip(path: Path, motion: str, sound: Path, rng: Generator) -> Video:
    """A picture moving over a plain ground, with a sound."""
    return Video(film(ground(rng), path, track(motion, LARGE, rng)), FPS, soundtrack(sound))


def scene_clip(path: Path, shown: Scene, sound: Path, rng: Generator) -> Video:
    """A smaller picture moving over a plain colour."""
    canvas = Pillow.new("RGB", (SIDE, SIDE), near(TAUGHT_COLOURS[shown.colour], rng))
    return Video(film(canvas, path, track(shown.value, OBJECT, rng)), FPS, soundtrack(sound))


# ---------------------------------------------------------------------------------------------------------------------
# Planning


class Soundtracks:
    """The sounds that a clip of a concept may have: natural ones if there are any, else its name by some voice."""

    def __init__(self, out: Path, items: Sequence[Item], split: str) -> None:
        self._out = out
        self._found: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
        for item in items:
            if item.path.startswith(split + "/") and item.path.endswith(".flac"):
                kind = "sound" if item.row["kind"] == "sound" else "voice"
                self._found[item.row["concept"]][kind].append(item)

    def pick(self, word: str, count: int, rng: Generator) -> list[tuple[Path, dict]]:
        """`count` files with what a row says about them, each file once before any comes again."""
        found = self._found[word]
        kind = "sound" if found["sound"] else "voice"
        pool = found[kind]
        rounds = [rng.permutation(len(pool)) for _ in range(-(-count // len(pool)))]
        chosen = [pool[i] for i in np.concatenate(rounds)[:count]]
        return [
            (
                self._out / item.path,
                {"heard": kind, "sound_source": item.row["source"], "sound_origin": item.row["origin"]},
            )
            for item in chosen
        ]


def _pictures(data: Path, split: str, seed: int, concept: Concept, count: int) -> list[tuple[Path, dict]]:
    """The pictures of `count` clips: the styles of the emoji in turn, or hands and handwriting."""
    if concept.digit is None:
        styles = [concept.styles[n % len(concept.styles)] for n in range(count)]
        return [(emoji_path(data, concept, s), {"style": s, "source": f"{s} {concept.emoji}"}) for s in styles]
    hands = digit_sources(data, split, seed, "signdigits", concept.digit)
    written = digit_sources(data, split, seed, "mnist", concept.digit)
    found = []
    for n in range(count):
        pool, style = (hands, "hand") if n % 2 else (written, "handwriting")
        source = pool[n % len(pool)]
        found.append((source.path, {"style": style, "source": source.credit, "origin": source.origin}))
    return found


def plan_clips(data: Path, out: Path, split: str, seed: int, made: Sequence[Item]) -> Iterator[Item]:
    """Every concept in motion. Training shows no motion that the scenes hold out."""
    sounds = Soundtracks(out, made, split)
    count = CLIPS_TRAIN if split == "train" else CLIPS_HELD
    for concept in CONCEPTS:
        rng = generator(seed, split, "clips", concept.word)
        barred = forbidden(concept.word).get("motion") if split == "train" else None
        motions = [m for m in (*MOTIONS, "shrinking", "bouncing") if m != barred]
        tracks = sounds.pick(concept.word, count, rng)
        for n, (path, picture) in enumerate(_pictures(data, split, seed, concept, count)):
            motion = motions[(n // 2 + n) % len(motions)]
            row = {"text": concept.word, "kind": "film it", **picture, "concept": concept.word, "motion": motion}
            row |= tracks[n][1]
            make = partial(clip, path, motion, tracks[n][0])
            yield Item(f"{split}/clips/{slug(concept.word)}/{n:02}.mp4", row, make)


def plan_scene_clips(data: Path, out: Path, split: str, seed: int, made: Sequence[Item]) -> Iterator[Item]:
    """Scenes that move: an object, a plain colour, a direction."""
    sounds = Soundtracks(out, made, split)
    for shown in chosen_scenes("motion", split, seed):
        rng = generator(seed, split, shown.text)
        styles = BY_WORD[shown.object].styles
        first = int(rng.integers(2))
        for n, (path, heard) in enumerate(sounds.pick(shown.object, scene_count(shown, split), rng)):
            style = styles[(first + n) % len(styles)]
            row = scene_row(shown, "scene", style) | heard
            make = partial(scene_clip, emoji_path(data, BY_WORD[shown.object], style), shown, path)
            yield Item(f"{split}/scenes/motion/{slug(shown.text).replace(',', '')}_{n}.mp4", row, make)
