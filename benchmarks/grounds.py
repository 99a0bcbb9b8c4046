"""On which grounds a model tells the objects of the scenes: does it know a drawing, or a drawing with its ground?

    python benchmarks/grounds.py --data DATA [--model RUN/model] [--json]

The twelve objects of `recipes/primer/scenes.py`, two drawings of each, at the three places that training shows, on the
six colours of the scenes (five seen with the object, one held back) and on six others; training shows some like those
since picture book 7 (`MORE_COLOURS`). An answer counts if it names the object. Intervals are Wilson's, 95 %. Not
measured: whole captions (`words.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from _common import Table, options, report
from PIL import Image as Pil

from panglot.cells import BATCH, Asked, wilson
from panglot.checkpoint import CheckpointError
from panglot.generate import Panglot
from panglot.media import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "primer"))

import pictures
import scenes

OTHERS = {
    "orange": (240, 140, 20),
    "purple": (120, 40, 140),
    "cyan": (60, 200, 210),
    "grey": (128, 128, 128),
    "pink": (240, 150, 190),
    "brown": (110, 70, 30),
}


def cases(data: Path, seed: int) -> list[tuple[str, str, Image]]:
    """(kind of ground, object, picture [64, 64, 3]) of each case."""
    rng, found = np.random.default_rng(seed), []
    for word in scenes.OBJECTS:
        held = scenes.forbidden(word)
        for name, rgb in {**scenes.COLOURS, **OTHERS}.items():
            ground = "seen" if name in scenes.COLOURS else name
            ground = "held back" if name == held["colour"] else ground
            for place in (p for p in scenes.PLACES if p != held["place"]):
                for style in pictures.BY_WORD[word].styles[:2]:
                    canvas = Pil.new("RGB", (pictures.SIDE, pictures.SIDE), pictures.near(rgb, rng))
                    drawing = pictures.emoji_path(data, pictures.BY_WORD[word], style)
                    pictures.paste(canvas, pictures.stamp(drawing, pictures.OBJECT), *pictures.CORNERS[place])
                    found.append((ground, word, Image(np.asarray(canvas))))
    return found


def main() -> None:
    model = {"type": Path, "help": "a model's folder, by default the shipped one"}
    opts = options(__doc__ or "", ["*"], model=model)
    try:
        asked = Asked(Panglot.load(opts.extra["model"]))
    except CheckpointError as error:
        sys.exit(str(error))
    shown = cases(opts.data, opts.seed)
    said = []
    for start in range(0, len(shown), BATCH):
        requests = [[picture] for _, _, picture in shown[start : start + BATCH]]
        said += [getattr(answer, "text", "") for answer in asked.ask(requests, "text")]
    told: dict[str, list[bool]] = {}
    for (ground, word, _), text in zip(shown, said, strict=True):
        for row in (ground, "other colours") if ground in OTHERS else (ground,):
            told.setdefault(row, []).append(word in text)
    table = Table("objects of scenes that are named")
    for ground, right in told.items():
        low, high = wilson(sum(right), len(right))
        table.add(ground=ground, right=sum(right), cases=len(right), share=sum(right) / len(right), low=low, high=high)
    report("grounds", [table], opts)


if __name__ == "__main__":
    main()
