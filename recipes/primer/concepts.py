"""The words of the primer: one row a concept, with where its pictures and its natural sounds come from.

Emoji are code points that noto and fxemoji both draw (three are in noto alone). Photos are `set/label` of caltech101
and grocery. Sounds are `set/name`: the label in esc10, soundfx and maxaudio, the instrument in philharmonia (for
percussion what is struck). Not here: how anything is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """word: one or two lower-case words. mirror: whether its picture means the same seen in a mirror."""

    word: str
    emoji: str | None = None
    photos: tuple[str, ...] = ()
    sounds: tuple[str, ...] = ()
    mirror: bool = True
    styles: tuple[str, ...] = ("noto", "fxemoji")
    digit: int | None = None


def _caltech(*labels: str) -> tuple[str, ...]:
    return tuple(f"caltech101/{label}" for label in labels)


def _grocery(*labels: str) -> tuple[str, ...]:
    return tuple(f"grocery/{label}" for label in labels)


def _drums() -> tuple[str, ...]:
    names = ("bass drum", "snare drum", "tenor drum", "tom-toms", "surdo", "djembe", "djundjun")
    return tuple(f"philharmonia/{name}" for name in names)


_NOTO = ("noto",)

CONCEPTS = (
    # Photos of things, and for many the sound they make.
    Concept("airplane", "2708", _caltech("airplanes")),
    Concept("motorbike", "1f3cd", _caltech("Motorbikes")),
    Concept("watch", "231a", _caltech("watch"), mirror=False),
    Concept("car", "1f697", _caltech("car_side"), ("maxaudio/car engine",)),
    Concept("leopard", "1f406", _caltech("Leopards")),
    Concept("piano", "1f3b9", _caltech("grand_piano"), ("maxaudio/piano",)),
    Concept("helicopter", "1f681", _caltech("helicopter"), ("esc10/helicopter",)),
    Concept("dog", "1f415", _caltech("dalmatian"), ("esc10/dog bark",)),
    Concept("guitar", "1f3b8", _caltech("electric_guitar"), ("philharmonia/guitar", "maxaudio/jazz guitar")),
    Concept("elephant", "1f418", _caltech("elephant")),
    Concept("rooster", "1f413", _caltech("rooster"), ("esc10/rooster",)),
    Concept("saxophone", "1f3b7", _caltech("saxophone"), ("philharmonia/saxophone",)),
    Concept("camera", "1f4f7", _caltech("camera")),
    Concept("dolphin", "1f42c", _caltech("dolphin")),
    Concept("headphones", "1f3a7", _caltech("headphone")),
    Concept("laptop", "1f4bb", _caltech("laptop"), ("maxaudio/typing",)),
    Concept("panda", "1f43c", _caltech("panda")),
    Concept("octopus", "1f419", _caltech("octopus")),
    Concept("pizza", "1f355", _caltech("pizza")),
    Concept("scissors", "2702", _caltech("scissors")),
    Concept("soccer ball", "26bd", _caltech("soccer_ball")),
    Concept("strawberry", "1f353", _caltech("strawberry")),
    Concept("sunflower", "1f33b", _caltech("sunflower")),
    Concept("umbrella", "2614", _caltech("umbrella")),
    Concept("sailboat", "26f5", _caltech("ketch", "schooner")),
    Concept("bird", "1f426", _caltech("pigeon"), ("maxaudio/birds",)),
    Concept("banana", "1f34c", _grocery("Banana")),
    Concept("lemon", "1f34b", _grocery("Lemon")),
    Concept("pineapple", "1f34d", _grocery("Pineapple")),
    Concept("watermelon", "1f349", _grocery("Watermelon")),
    Concept("apple", "1f34e", _grocery("Red-Delicious", "Royal-Gala")),
    # Things known by their sound.
    Concept("baby", "1f476", sounds=("esc10/baby cry",)),
    Concept("clock", "23f0", sounds=("esc10/clock tick",), mirror=False),
    Concept("fire", "1f525", sounds=("esc10/fire crackling",)),
    Concept("sneeze", "1f927", sounds=("esc10/person sneeze",), styles=_NOTO),
    Concept("rain", "1f327", sounds=("esc10/rain", "maxaudio/rain")),
    Concept("wave", "1f30a", sounds=("esc10/sea waves",)),
    Concept("chainsaw", "1fa9a", sounds=("esc10/chainsaw",), styles=_NOTO),
    Concept("drum", "1f941", sounds=_drums(), styles=_NOTO),
    Concept("alarm", "1f6a8", sounds=("soundfx/alarm",)),
    Concept("laugh", "1f602", sounds=("soundfx/laugh",)),
    Concept("punch", "1f44a", sounds=("soundfx/punch",)),
    Concept("bomb", "1f4a3", sounds=("soundfx/cannon",)),
    Concept("trumpet", "1f3ba", sounds=("soundfx/fanfare",)),
    Concept("bell", "1f514", sounds=("soundfx/chime",)),
    Concept("applause", "1f44f", sounds=("maxaudio/applause",)),
    Concept("thunder", "26a1", sounds=("maxaudio/thunder",)),
    Concept("train", "1f682", sounds=("philharmonia/train whistle", "maxaudio/train")),
    # Drawings only.
    Concept("cat", "1f431"),
    Concept("fish", "1f41f"),
    Concept("frog", "1f438"),
    Concept("heart", "2764"),
    Concept("sun", "1f31e"),
    Concept("house", "1f3e0"),
    Concept("tree", "1f333"),
    Concept("rocket", "1f680"),
    # Digits: shown by hand, written by hand, spoken by people and by espeak-ng.
    *(
        Concept(word, digit=digit, mirror=False)
        for digit, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    ),
)

WAKE_PHRASES = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
"""Words without a picture, known from real voices alone."""

BY_WORD = {concept.word: concept for concept in CONCEPTS}
