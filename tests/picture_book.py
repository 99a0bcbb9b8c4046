"""A picture book of two words, for tests: pictures, sounds, clips and scenes, as folders with metadata.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from panglot.media import Audio, Image, Video

WORDS = {"box": (220, 40, 40), "ball": (40, 60, 220)}
GROUNDS = {"green": (60, 170, 60), "white": (245, 245, 245)}
PLACES = {"left": (4, 20), "right": (36, 20)}
HERTZ = {"box": 300, "ball": 2500}


def drawn(word: str, ground: str, x: int, y: int) -> np.ndarray:
    """A square with a hole or a disc of 24 pixels, the same in colour on every ground."""
    pixels = np.full((64, 64, 3), GROUNDS[ground], np.uint8)
    h, w = np.mgrid[0:24, 0:24] - 11.5
    shape = (np.maximum(abs(h), abs(w)) > 6) if word == "box" else h**2 + w**2 < 140
    pixels[y : y + 24, x : x + 24][shape] = WORDS[word]
    return pixels


def sounding(word: str, rng: np.random.Generator) -> Audio:
    t = np.arange(8000) / 16_000
    return Audio((0.5 * np.sin(2 * np.pi * HERTZ[word] * rng.uniform(0.9, 1.1) * t)).astype(np.float32), 16_000)


def filmed(word: str, rng: np.random.Generator) -> Video:
    """Nine frames in which it moves, with its sound."""
    frames = np.stack([drawn(word, "green", x, 20) for x in range(0, 36, 4)])
    return Video(frames, 8.0, sounding(word, rng))


def book(path: Path, seed: int, combinations: list[tuple[str, str, bool]], clips: int = 0) -> None:
    """Write sets of pictures, sounds, clips and scenes; combinations: word, ground, whether training sees it."""
    rng = np.random.default_rng(seed)
    sets: dict[str, list[dict]] = {"pictures": [], "sounds": [], "clips": [], "scenes": []}

    def put(name, file, medium, **row):
        target = path / name / file
        target.parent.mkdir(parents=True, exist_ok=True)
        medium.save(target)
        sets[name].append({"file_name": file, **row})

    for word in WORDS:
        for n in range(6):
            ground, (x, y) = list(GROUNDS)[n % 2], rng.integers(0, 40, 2)
            put("pictures", f"{word}{n}.png", Image(drawn(word, ground, x, y)), text=word, kind="draw it")
            put("sounds", f"{word}{n}.flac", sounding(word, rng), text=word, kind="say it", voice="tone")
        for n in range(clips):
            put("clips", f"{word}{n}.mp4", filmed(word, rng), text=word, kind="film it", heard="voice")
    for word, ground, seen in combinations:
        for place, (x, y) in PLACES.items():
            row = {"text": f"{word} on {ground}, {place}", "concept": word, "colour": ground, "place": place}
            row |= {"kind": "scene", "seen": seen}
            put("scenes", f"{word} {ground} {place}.png", Image(drawn(word, ground, x, y)), **row)
    for name, rows in sets.items():
        if rows:
            (path / name / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
