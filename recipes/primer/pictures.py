"""Pictures of the primer, 64 x 64: emoji on plain grounds and on any, crops of photographs, digits, and still scenes.

Functions that draw take a random generator and return an Image; functions called `plan_...` list the files of a set.
Not here: what moves (`clips`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from concepts import BY_WORD, CONCEPTS, Concept
from items import Item, Source, generator, slug, sources
from PIL import Image as Pillow
from scenes import COLOURS, COUNTS, OBJECTS, TAUGHT_COLOURS, Scene, forbidden, grid, taught

from panglot.media import Image

SIDE = 64
EMOJI_TRAIN, EMOJI_HELD = 20, 3
STICKERS = 100
PHOTOS_A_CONCEPT, PICTURES_A_CONCEPT, VARIANTS = 100, 320, 8
HAND_VARIANTS = 3
DIGITS_TRAIN, DIGITS_HELD = 100, 10
SCENES_TRAIN = 5
OTHERS_TRAIN = {"place": 108, "count": 36, "motion": 12}
"""Combinations of every drawing that is no object of the held-back ones: all of the stills."""
OBJECT, SMALL = 48, 28
"""Pixels of the object of a scene, and the smallest emoji; of each of several objects."""

CORNERS = {
    "left": (0, 8),
    "right": (16, 8),
    "top": (8, 0),
    "bottom": (8, 16),
    "middle": (8, 8),
    "top left": (0, 0),
    "top right": (16, 0),
    "bottom left": (0, 16),
    "bottom right": (16, 16),
}
"""Where its upper left corner is."""

Colour = Sequence[int]
Generator = np.random.Generator


# ---------------------------------------------------------------------------------------------------------------------
# Drawing


@cache
def stamp(path: Path, size: int) -> Pillow.Image:
    """An emoji or a tile as RGBA, `size` pixels square."""
    with Pillow.open(path) as image:
        return image.convert("RGBA").resize((size, size), Pillow.Resampling.LANCZOS)


GROUNDS = ((205, 225, 250), (250, 240, 200), (215, 215, 215))
"""Pale blue, pale yellow, grey: what is random about a ground is learned at the cost of what stands on it. None is a
colour of the scenes, or a clip on it would be taken for one."""

NEVER_SEEN, TAKEN = 80, 48
"""How far, in RGB, the ground of a sticker is at least from the colour that is held back for its drawing, and from
every colour of the scenes."""


def ground(rng: Generator) -> Pillow.Image:
    """A plain ground."""
    return Pillow.new("RGB", (SIDE, SIDE), GROUNDS[int(rng.integers(len(GROUNDS)))])


def any_ground(word: str, rng: Generator) -> Pillow.Image:
    """A ground of any colour that no scene has and that is not like the one held back for this word."""
    held = forbidden(word)
    barred = [(COLOURS[name], NEVER_SEEN if name == held.get("colour") else TAKEN) for name in COLOURS]
    while True:
        rgb = rng.integers(0, 256, 3)
        if all(np.linalg.norm(rgb - colour) >= least for colour, least in barred):
            return Pillow.new("RGB", (SIDE, SIDE), tuple(rgb.tolist()))


def near(rgb: Colour, rng: Generator, jitter: int = 8) -> tuple[int, int, int]:
    """A shade of a colour: nobody's red is always the same red."""
    r, g, b = np.clip(np.asarray(rgb) + rng.integers(-jitter, jitter + 1, 3), 0, 255)
    return int(r), int(g), int(b)


def paste(canvas: Pillow.Image, drawing: Pillow.Image, x: float, y: float) -> None:
    """Put a drawing with its upper left corner at (x, y), in pixels."""
    canvas.paste(drawing, (round(x), round(y)), drawing)


def crop(image: Pillow.Image, rng: Generator | None, least: float = 0.65) -> Pillow.Image:
    """A 64 x 64 picture from the centre, or with a generator from a random square of `least` to 1 of the short side."""
    scale = 1.0 if rng is None else rng.uniform(least, 1.0)
    edge = scale * min(image.size)
    left, top = (((v - edge) * (0.5 if rng is None else rng.random())) for v in image.size)
    box = (left, top, left + edge, top + edge)
    return image.resize((SIDE, SIDE), Pillow.Resampling.LANCZOS, box=box)


def emoji(path: Path, _word: str, rng: Generator) -> Image:
    """One emoji, 48 to 62 pixels large, near the centre of a plain ground."""
    canvas = ground(rng)
    size = int(rng.integers(OBJECT, 63))
    x, y = (SIDE - size) / 2 + rng.uniform(-2, 2, 2)
    paste(canvas, stamp(path, size), x, y)
    return Image(np.asarray(canvas))


def sticker(path: Path, word: str, rng: Generator) -> Image:
    """An emoji on a ground of any colour, alone or several times, as in a scene; never at the place or in the number
    that is held back.

    A drawing whose grounds are few is known with them: on colours that training had not shown, 41 % of the objects of
    scenes were told with none of these, 62 % with 30 of each, 82 % with 150 (`benchmarks/grounds.py`).
    """
    canvas, held = any_ground(word, rng), forbidden(word)
    if rng.random() < 0.6:
        free = [at for name, at in CORNERS.items() if name != held.get("place")]
        x, y = np.clip(np.add(free[int(rng.integers(len(free)))], rng.integers(-1, 2, 2)), 0, SIDE - OBJECT)
        paste(canvas, stamp(path, OBJECT), x, y)
    else:
        numbers = [1, *(n for name, n in COUNTS.items() if name != held.get("count"))]
        several(canvas, path, numbers[int(rng.integers(len(numbers)))], rng)
    return Image(np.asarray(canvas))


def several(canvas: Pillow.Image, path: Path, number: int, rng: Generator) -> None:
    """Paste so many small emoji into quarters of the picture."""
    for corner in rng.permutation(4)[:number]:
        paste(canvas, stamp(path, SMALL), 2 + 32 * (corner % 2), 2 + 32 * (corner // 2))


def photo(path: Path, plain: bool, mirror: bool, rng: Generator) -> Image:
    """A square of a photograph: the centre if plain, else cut, lit, tinted and perhaps mirrored at random."""
    with Pillow.open(path) as image:
        square = crop(image.convert("RGB"), None if plain else rng)
    pixels = np.asarray(square).astype(np.float32)
    if not plain:
        if mirror and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        mean = pixels.mean()
        pixels = (pixels - mean) * rng.uniform(0.8, 1.2, 3) + mean + rng.uniform(-16, 16)
    return Image(np.ascontiguousarray(pixels.round().clip(0, 255).astype(np.uint8)))


def written(path: Path, rng: Generator) -> Image:
    """A handwritten digit, white on black, enlarged to the whole picture."""
    with Pillow.open(path) as image:
        large = image.convert("RGB").resize((SIDE, SIDE), Pillow.Resampling.BICUBIC)
    return Image(np.asarray(large))


def scene(path: Path, shown: Scene, rng: Generator) -> Image:
    """One object of 48 pixels at a place, or several of 28 pixels in the quarters of the picture, on a plain colour.

    A single object stands on the grid of the codes of 8 pixels, give or take one pixel, and those of a count all alike
    in their quarters: anywhere else it has other codes at each place, and a hundred pictures of it do not show what
    they have in common.
    """
    canvas = Pillow.new("RGB", (SIDE, SIDE), near(TAUGHT_COLOURS[shown.colour], rng))
    if shown.relation == "place":
        x, y = CORNERS[shown.value]
        dx, dy = rng.integers(0, 2, 2)
        paste(canvas, stamp(path, OBJECT), x + dx * (1 if x == 0 else -1), y + dy * (1 if y == 0 else -1))
    else:
        several(canvas, path, COUNTS[shown.value], rng)
    return Image(np.asarray(canvas))


# ---------------------------------------------------------------------------------------------------------------------
# Planning


def emoji_path(data: Path, concept: Concept, style: str) -> Path:
    return data / "train" / style / f"{concept.emoji}.png"


def _plan_drawings(data: Path, folder: str, kind: str, count: int, make: Callable[..., Image]) -> Iterator[Item]:
    """`count` pictures of every concept in each style. make: called with the path of the drawing and the word."""
    for concept in CONCEPTS:
        for style in concept.styles if concept.emoji is not None else ():
            row = {"text": concept.word, "kind": kind, "source": f"{style} {concept.emoji}"}
            row |= {"concept": concept.word, "style": style}
            path = emoji_path(data, concept, style)
            for n in range(count):
                yield Item(f"{folder}/{slug(concept.word)}/{style}_{n:02}.png", row, partial(make, path, concept.word))


def plan_emoji(data: Path, split: str) -> Iterator[Item]:
    """Every concept in each style; in training also as stickers."""
    yield from _plan_drawings(data, f"{split}/emoji", "draw it", EMOJI_TRAIN if split == "train" else EMOJI_HELD, emoji)
    if split == "train":
        yield from _plan_drawings(data, f"{split}/stickers", "sticker", STICKERS, sticker)


def photo_sources(data: Path, split: str, concept: Concept) -> list[Source]:
    found = []
    for name in concept.photos:
        folder, label = name.split("/")
        found += [source for source in sources(data, split, folder) if source.row["label"] == label]
    return found


def _row(source: Source, word: str, kind: str, style: str, variant: int) -> dict:
    names = {"text": word, "kind": kind, "source": source.credit, "concept": word, "style": style}
    return names | {"origin": source.origin, "variant": variant}


def plan_photos(data: Path, split: str, seed: int) -> Iterator[Item]:
    """Photographs (a plain crop and up to seven others in training), hands and handwriting."""
    for concept in CONCEPTS:
        found = photo_sources(data, split, concept)
        order = generator(seed, split, "photos", concept.word).permutation(len(found))[:PHOTOS_A_CONCEPT]
        variants = min(VARIANTS, PICTURES_A_CONCEPT // max(len(order), 1)) if split == "train" else 1
        for i in sorted(order):
            source = found[i]
            name = f"{split}/photos/{slug(concept.word)}/{source.set}_{source.path.parent.name}_{source.path.stem}"
            for n in range(variants):
                row = _row(source, concept.word, "photo", "photo", n)
                yield Item(f"{name}_{n}.png", row, partial(photo, source.path, n == 0, concept.mirror))
        if concept.digit is not None:
            yield from _digits(data, split, seed, concept)


def digit_sources(data: Path, split: str, seed: int, name: str, digit: int) -> list[Source]:
    """The chosen hands (`signdigits`) or handwritten digits (`mnist`)."""
    found = [source for source in sources(data, split, name) if source.row["label"] == digit]
    count = DIGITS_TRAIN if split == "train" else DIGITS_HELD
    return [found[i] for i in sorted(generator(seed, split, name, digit).permutation(len(found))[:count])]


def _digits(data: Path, split: str, seed: int, concept: Concept) -> Iterator[Item]:
    assert concept.digit is not None
    for source in digit_sources(data, split, seed, "signdigits", concept.digit):
        for n in range(HAND_VARIANTS if split == "train" else 1):
            row = _row(source, concept.word, "hand sign", "hand", n)
            name = f"{split}/photos/{concept.word}/hand_{source.path.stem}_{n}.png"
            yield Item(name, row, partial(photo, source.path, n == 0, False))
    for source in digit_sources(data, split, seed, "mnist", concept.digit):
        row = _row(source, concept.word, "write it", "handwriting", 0)
        yield Item(f"{split}/photos/{concept.word}/written_{source.path.stem}.png", row, partial(written, source.path))


def scene_row(shown: Scene, kind: str, style: str) -> dict:
    names = {"text": shown.text, "kind": kind, "source": f"{style} {BY_WORD[shown.object].emoji}"}
    names |= {"concept": shown.object, "style": style, "colour": shown.colour, shown.relation: shown.value}
    return names | {"seen": not shown.unseen, "unseen": ", ".join(shown.unseen)}


def chosen_scenes(relation: str, split: str, seed: int) -> list[Scene]:
    """Training: all seen combinations, and all or some of every other drawing. Held: all never-seen ones and as many
    seen ones, drawn at random."""
    if split == "train":
        found = taught(relation)
        for concept in CONCEPTS:
            if concept.emoji is not None and concept.word not in OBJECTS:
                possible = taught(relation, [concept.word])
                order = generator(seed, "others", relation, concept.word).permutation(len(possible))
                found += [possible[i] for i in order[: OTHERS_TRAIN[relation]]]
        return found
    seen = [s for s in grid(relation) if not s.unseen]
    new = [s for s in grid(relation) if s.unseen]
    order = generator(seed, split, relation).permutation(len(seen))[: len(new)]
    return new + [seen[i] for i in sorted(order)]


def scene_count(shown: Scene, split: str) -> int:
    """How many files of a scene."""
    return SCENES_TRAIN if split == "train" and shown.object in OBJECTS else 1


def plan_scenes(data: Path, split: str, seed: int) -> Iterator[Item]:
    """Still scenes: one object at a place, or two to four of them."""
    for relation in ("place", "count"):
        for shown in chosen_scenes(relation, split, seed):
            styles = BY_WORD[shown.object].styles
            first = int(generator(seed, split, shown.text).integers(2))
            for n in range(scene_count(shown, split)):
                style = styles[(first + n) % len(styles)]
                row = scene_row(shown, "scene", style)
                name = f"{split}/scenes/{relation}/{slug(shown.text).replace(',', '')}_{n}.png"
                yield Item(name, row, partial(scene, emoji_path(data, BY_WORD[shown.object], style), shown))
