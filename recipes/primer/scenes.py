"""Combinations: which object, colour, and place or count or motion, and which of them no training file shows.

Of every object one colour of six is held out, and one place of four, one count of three, one motion of four. A
combination that holds any of these is never seen in training. No plain ground is a colour of the scenes, and no plain
clip moves in a forbidden way.
All other drawings are seen in scenes as well, in all still combinations and some that move, so that a colour or a
place is not learned as a part of twelve objects. For the same reason training has as many colours again and five more
places, of which nothing is held out.
Not here: how a scene is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

OBJECTS = (
    "dog",
    "car",
    "guitar",
    "rooster",
    "elephant",
    "octopus",
    "clock",
    "tree",
    "airplane",
    "sunflower",
    "soccer ball",
    "watermelon",
)

COLOURS = {
    "red": (178, 24, 44),
    "green": (52, 168, 83),
    "blue": (45, 95, 215),
    "yellow": (250, 218, 70),
    "white": (248, 248, 248),
    "black": (16, 16, 18),
}

MORE_COLOURS = {
    "orange": (240, 130, 30),
    "purple": (120, 50, 160),
    "cyan": (60, 190, 200),
    "pink": (240, 150, 190),
    "brown": (120, 75, 40),
    "grey": (128, 128, 128),
}
"""In training alone: each object on eleven colours, not five, tells it better from its ground."""

PLACES = ("left", "right", "top", "bottom")
MORE_PLACES = ("middle", "top left", "top right", "bottom left", "bottom right")
"""In training alone."""

COUNTS = {"two": 2, "three": 3, "four": 4}
MOTIONS = ("left", "right", "up", "down")
RELATIONS = {"place": PLACES, "count": tuple(COUNTS), "motion": MOTIONS}
TAUGHT_COLOURS = COLOURS | MORE_COLOURS
TAUGHT = RELATIONS | {"place": PLACES + MORE_PLACES}


@dataclass(frozen=True)
class Scene:
    """relation: `place`, `count` or `motion`; value: one of its words."""

    object: str
    colour: str
    relation: str
    value: str

    @property
    def text(self) -> str:
        if self.relation == "count":
            return f"{self.value} {self.object} on {self.colour}"
        return f"{self.object} on {self.colour}, {'moving ' * (self.relation == 'motion')}{self.value}"

    @property
    def unseen(self) -> list[str]:
        """What of it training never shows together with this object: `colour`, or the relation, or both."""
        held = forbidden(self.object)
        pairs = {"colour": self.colour, self.relation: self.value}
        return [name for name, value in pairs.items() if held.get(name) == value]


def unseen(word: str) -> dict[str, str]:
    """The colour, place, count and motion that training never shows with an object; a Latin-square pattern."""
    i = OBJECTS.index(word)
    choices = {"colour": tuple(COLOURS), **RELATIONS}
    return {name: values[(i + i // len(values) + k) % len(values)] for k, (name, values) in enumerate(choices.items())}


def forbidden(word: str) -> dict[str, str]:
    """`unseen` for any word: empty for one that is not in the scenes."""
    return unseen(word) if word in OBJECTS else {}


def grid(relation: str) -> list[Scene]:
    """All scenes of a relation of which some are held out."""
    return [Scene(o, c, relation, v) for o, c, v in product(OBJECTS, COLOURS, RELATIONS[relation])]


def taught(relation: str, objects: Sequence[str] = OBJECTS) -> list[Scene]:
    """All scenes of a relation that training may show."""
    scenes = (Scene(o, c, relation, v) for o, c, v in product(objects, TAUGHT_COLOURS, TAUGHT[relation]))
    return [scene for scene in scenes if not scene.unseen]
