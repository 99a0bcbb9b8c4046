"""Sounds of the primer, 16 kHz mono in whole blocks of 80 ms: synthetic voices, real voices, and natural sounds.

Functions that make a sound take a random generator and return Audio; functions called `plan_...` list the files of a
set. Not here: sounds of clips, which are taken from these files (`clips`).
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from concepts import CONCEPTS, WAKE_PHRASES, Concept
from items import Item, Source, generator, slug, sources

from panglot import media
from panglot.media import Audio, MediaError

RATE = 16_000
BLOCK = 1_280
PEAK = 0.7
WORD_BLOCKS, PHRASE_BLOCKS, SOUND_BLOCKS = 15, 20, 13
LEAST_BLOCKS = 4
FSDD_TRAIN, FSDD_HELD = 120, 12
SPEECH_VARIANTS = 2
ESC_WINDOWS, NOTE_VARIANTS, EFFECTS = 4, 2, 20

Generator = np.random.Generator


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng. speed: words a minute; pitch: 0 to 99."""

    accent: str
    variant: str
    pitch: int
    speed: int

    @property
    def name(self) -> str:
        return f"{self.accent}+{self.variant} p{self.pitch} s{self.speed}"


_ACCENTS = (
    "en-gb",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-us-nyc",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-gb-x-gbclan",
)
_VARIANTS = ("m1", "f1", "m2", "f2", "m3", "f3", "m4", "f5", "m5", "m7", "m8")

VOICES = {
    "train": tuple(Voice(_ACCENTS[i % 8], _VARIANTS[i % 11], 30 + 17 * i % 41, 130 + 23 * i % 61) for i in range(24)),
    "held": (
        Voice("en-gb", "m6", 44, 155),
        Voice("en-us", "f4", 52, 165),
        Voice("en-gb-scotland", "f4", 61, 145),
        Voice("en-us-nyc", "m6", 36, 175),
    ),
}
"""Held voices are made with variants (m6, f4) that no training voice has."""


# ---------------------------------------------------------------------------------------------------------------------
# Signals: float32 [T] at 16 kHz


def read(path: Path, semitones: float = 0.0) -> np.ndarray:
    """Any sound file, as mono at 16 kHz; raised by `semitones` (and shortened) if asked."""
    import soxr

    found = media.open(path)
    if not isinstance(found, Audio):
        raise MediaError(f"{path}: is not sound; restore the source data")
    samples = found.samples if found.samples.ndim == 1 else found.samples.mean(axis=1)
    return soxr.resample(samples, found.rate * 2 ** (semitones / 12), RATE).astype(np.float32)


def loudness(samples: np.ndarray, length: int, step: int) -> np.ndarray:
    """Energy of the windows of `length` samples that begin at 0, step, 2 step, ...; one window if it is shorter."""
    total = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    begin = np.arange(0, max(len(samples) - length, 0) + 1, step)
    return total[np.minimum(begin + length, len(samples))] - total[begin]


def trim(samples: np.ndarray, floor_db: float = -35.0, margin: float = 0.02) -> np.ndarray:
    """Without the silence at both ends: what is `floor_db` below the loudest 10 ms, but for `margin` seconds."""
    step = RATE // 100
    energy = loudness(samples, step, step)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (floor_db / 10))
    if len(loud) == 0:
        return samples
    edge = round(margin * RATE)
    return samples[max(loud[0] * step - edge, 0) : (loud[-1] + 1) * step + edge]


def windows(samples: np.ndarray, length: int, count: int) -> list[int]:
    """Where the `count` loudest windows begin, at least 240 ms apart while there is room, loudest first.

    None is over 30 dB below the loudest: where there are no others, windows come closer and then come again.
    """
    step = BLOCK // 4
    energy = loudness(samples, length, step)
    audible = energy >= energy.max() * 1e-3
    apart = 12
    found: list[int] = []
    while len(found) < count:
        free = audible.copy()
        for begin in found:
            free[max(begin - apart + 1, 0) : begin + apart] = False
        if free.any():
            found.append(int(np.argmax(np.where(free, energy, -1.0))))
        elif apart > 1:
            apart //= 2
        else:
            found.append(found[len(found) % int(audible.sum())])
    return [begin * step for begin in found]


def onset(samples: np.ndarray, floor_db: float = -30.0) -> int:
    """The sample where a note begins, 5 ms before it first exceeds `floor_db` below its peak."""
    loud = np.abs(samples) > np.abs(samples).max() * 10 ** (floor_db / 20)
    return max(int(np.argmax(loud)) - RATE // 200, 0)


def finish(samples: np.ndarray, most: int, peak: float = PEAK, least: int = 1) -> Audio:
    """Cut to `most` blocks, soft at both ends, padded to whole blocks (at least `least`), its peak at `peak`."""
    kept = samples[: most * BLOCK].astype(np.float32)
    ramp = np.linspace(0.0, 1.0, min(RATE // 200, len(kept) // 2), dtype=np.float32)
    if len(ramp):
        kept = kept.copy()
        kept[: len(ramp)] *= ramp
        kept[-len(ramp) :] *= ramp[::-1]
    blocks = max(math.ceil(len(kept) / BLOCK), least)
    out = np.zeros(blocks * BLOCK, np.float32)
    out[: len(kept)] = kept * (peak / max(float(np.abs(kept).max(initial=0.0)), 1e-6))
    return Audio(out, RATE)


# ---------------------------------------------------------------------------------------------------------------------
# Making


def pronounce(text: str, voice: Voice, speed: int) -> np.ndarray:
    """espeak-ng's rendering, trimmed. Raises MediaError if the program is missing or fails."""
    import soxr

    command = ["espeak-ng", "-v", f"{voice.accent}+{voice.variant}", "-p", str(voice.pitch), "-s", str(speed)]
    try:
        wave = subprocess.run([*command, "--stdout", text], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise MediaError("espeak-ng: not found; apt-get install espeak-ng") from None
    except subprocess.CalledProcessError as error:
        raise MediaError(f"espeak-ng: cannot say {text!r} as {voice.name} ({error.stderr.decode().strip()})") from None
    rate = int.from_bytes(wave[24:28], "little")
    samples = np.frombuffer(wave[44:], "<i2").astype(np.float32) / 32768
    return trim(soxr.resample(samples, rate, RATE))


def spoken(text: str, voice: Voice, rng: Generator) -> Audio:
    """A word by a synthetic voice, said faster where it would last over 1.2 s."""
    speed = voice.speed
    samples = pronounce(text, voice, speed)
    while len(samples) > WORD_BLOCKS * BLOCK and speed < 300:
        speed += 20
        samples = pronounce(text, voice, speed)
    return finish(samples, WORD_BLOCKS)


def said(path: Path, variant: int, rng: Generator) -> Audio:
    """A word by a real voice: its loud part, at most 1.6 s. Later variants are up to three semitones higher or lower,
    as if a smaller or larger person had said it."""
    samples = trim(read(path, rng.uniform(-3, 3) if variant else 0.0), floor_db=-30.0, margin=0.04)
    most = PHRASE_BLOCKS * BLOCK
    if len(samples) > most:
        samples = samples[windows(samples, most, 1)[0] :]
    return finish(samples, PHRASE_BLOCKS)


def window(path: Path, rank: int, rng: Generator) -> Audio:
    """1.04 s around the loudest part (rank 0), or the next loudest."""
    samples = read(path)
    length = SOUND_BLOCKS * BLOCK
    return finish(samples[windows(samples, length, rank + 1)[rank] :], SOUND_BLOCKS, least=SOUND_BLOCKS)


def note(path: Path, variant: int, rng: Generator) -> Audio:
    """The first 1.04 s of a note; later variants begin a little later and are softer or louder."""
    samples = read(path)
    begin = onset(samples)
    peak = PEAK
    if variant:
        begin += int(rng.integers(RATE // 100, RATE // 20))
        peak = rng.uniform(0.4, 0.8)
    return finish(samples[begin:], SOUND_BLOCKS, peak, LEAST_BLOCKS)


def effect(path: Path, variant: int, variants: int, rng: Generator) -> Audio:
    """A window of an effect; later variants are moved, up to a semitone higher or lower, and softer or louder."""
    samples = trim(read(path, rng.uniform(-1, 1) if variant else 0.0), floor_db=-45.0)
    length = SOUND_BLOCKS * BLOCK
    begin = windows(samples, length, variants)[variant] if len(samples) > length else 0
    peak = PEAK
    if variant:
        begin = max(begin + int(rng.integers(-800, 800)), 0) if len(samples) > length + 800 else 0
        peak = rng.uniform(0.4, 0.8)
        samples = np.concatenate([np.zeros(int(rng.integers(0, 640)), np.float32), samples])
    return finish(samples[begin:], SOUND_BLOCKS, peak, LEAST_BLOCKS)


# ---------------------------------------------------------------------------------------------------------------------
# Planning


def plan_voices(split: str) -> Iterator[Item]:
    """Every word by every synthetic voice of the split."""
    for concept in CONCEPTS:
        for n, voice in enumerate(VOICES[split]):
            row = {"text": concept.word, "kind": "say it", "source": f"espeak-ng {voice.name}"}
            row |= {"concept": concept.word, "voice": voice.name, "origin": f"espeak-ng {voice.name}"}
            yield Item(f"{split}/voices/{slug(concept.word)}/{n:02}.flac", row, partial(spoken, concept.word, voice))


def plan_speech(data: Path, split: str, seed: int) -> Iterator[Item]:
    """Digits and wake phrases by real voices."""
    for word, count in [
        (c.word, FSDD_TRAIN if split == "train" else FSDD_HELD) for c in CONCEPTS if c.digit is not None
    ]:
        found = [source for source in sources(data, split, "fsdd") if source.row["text"] == word]
        for i in sorted(generator(seed, split, "fsdd", word).permutation(len(found))[:count]):
            yield from _speech(split, found[i], word)
    for word in WAKE_PHRASES:
        for source in sources(data, split, "picovoice_wake"):
            if source.row["text"] == word:
                yield from _speech(split, source, word)


def _speech(split: str, source: Source, word: str) -> Iterator[Item]:
    row = {"text": word, "kind": "say it", "source": source.credit, "concept": word, "origin": source.origin}
    row |= {"speaker": source.row["speaker"]} if "speaker" in source.row else {}
    for n in range(SPEECH_VARIANTS if split == "train" else 1):
        name = f"{split}/speech/{slug(word)}/{source.path.stem}_{n}.flac"
        yield Item(name, row | {"variant": n}, partial(said, source.path, n))


def sound_name(source: Source) -> str:
    """What a file of the source data sounds like, as the table of concepts calls it."""
    row = source.row
    if source.set == "philharmonia":
        struck = row["instrument"] == "percussion"
        return f"philharmonia/{row['text'].split(',')[0] if struck else row['instrument']}"
    return f"{source.set}/{row.get('label') or row['kind']}"


def sound_sources(data: Path, split: str, concept: Concept) -> list[Source]:
    folders = dict.fromkeys(name.split("/")[0] for name in concept.sounds)
    available = [f for f in folders if (split, f) != ("held", "soundfx")]
    return [s for f in available for s in sources(data, split, f) if sound_name(s) in concept.sounds]


def plan_sounds(data: Path, split: str) -> Iterator[Item]:
    """Natural sounds. The effects of soundfx have no held-out recordings."""
    for concept in CONCEPTS:
        found = sound_sources(data, split, concept)
        few = sum(not _many(source) for source in found)
        for source in found:
            variants = ESC_WINDOWS if source.set == "esc10" else NOTE_VARIANTS
            if not _many(source):
                variants = math.ceil(EFFECTS / few)
            for n in range(variants if split == "train" else 1):
                row = {"text": concept.word, "kind": "sound", "source": source.credit, "concept": concept.word}
                row |= {"origin": source.origin, "sound": sound_name(source), "variant": n}
                row |= {"held_out": False} if source.set == "soundfx" else {}
                name = f"{split}/sounds/{slug(concept.word)}/{source.set}_{source.path.stem}_{n}.flac"
                yield Item(name, row, _maker(source, n, variants))


def _many(source: Source) -> bool:
    """Whether the source data has many recordings of it, so that each needs few variants."""
    return source.set == "esc10" or (source.set == "philharmonia" and source.row["instrument"] != "percussion")


def _maker(source: Source, variant: int, variants: int) -> partial[Audio]:
    if source.set == "esc10":
        return partial(window, source.path, variant)
    if source.set == "philharmonia":
        return partial(note, source.path, variant)
    return partial(effect, source.path, variant, variants)
