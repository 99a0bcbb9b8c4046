"""Sound at equal bit rates: panglot at every depth, the linear code with the same bits, Codec2 and Opus.

    python benchmarks/sound_fidelity.py --data DATA [--json] [--only 'panglot*,codec2*']

Speech that no tokenizer learned from (bench/commonvoice, ljspeech, librosa, grid) is measured by STOI and mel distance,
bench/esc10 and bench/philharmonia by mel distance: 40 clips of each, chosen by the seed, at most 10 s. Every decoded
sound is brought to the rate of its original and aligned with it. Bits are payload alone: raw codes for panglot,
packets without Ogg for Opus. The linear code learns from the sets in train/ that panglot's tokenizer learned from.
Not measured: how it sounds; see the report of `panglot inspect --report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from _common import Cell, Options, Table, choose, each, entries, mean, options, report, rows_or_notes, tokenizer
from _sounds import CODEC2_MODES, Coded, Linear, codec2, opus

from panglot import media
from panglot.measure import align, mel_distance, stoi
from panglot.media import Audio

SETS = {
    "speech": ("bench/commonvoice", "bench/ljspeech", "bench/librosa", "bench/grid"),
    "esc10": ("bench/esc10",),
    "philharmonia": ("bench/philharmonia",),
}
TRAIN = ("train/commonvoice", "train/ljspeech", "train/esc10", "train/philharmonia")
CLIPS = 40
TRAIN_CLIPS = 400
SECONDS = 10
MAX_LAG_SECONDS = 0.15
BLOCKS_PER_SECOND = 12.5
CODE_BITS = 10
DEPTHS = range(1, 11)
LINEAR_DEPTHS = (5, 10)


def clips(opts: Options, folders: tuple[str, ...], count: int) -> list[Audio]:
    """Mono sounds of some folders, chosen by the seed, cut to SECONDS."""
    rows = [row for name in folders for row in entries(opts.folder(name))]
    found = []
    for row in choose(rows, count, opts.seed):
        medium = media.open(row["path"])
        audio = medium.audio if isinstance(medium, media.Video) else medium
        if not isinstance(audio, Audio):
            raise TypeError(f"{row['path']}: holds no sound")
        samples = audio.samples if audio.samples.ndim == 1 else audio.samples.mean(1, dtype=np.float32)
        found.append(Audio(samples[: SECONDS * audio.rate], audio.rate))
    return found


def compare(original: Audio, decoded: Audio, speech: bool) -> tuple[float, float]:
    """Mel distance in dB, and STOI (nan where it is not speech), after alignment."""
    x, y = align(original.samples, decoded.samples, round(MAX_LAG_SECONDS * original.rate))
    a, b = Audio(x, original.rate), Audio(y, original.rate)
    return mel_distance(a, b), stoi(a, b) if speech else float("nan")


class Rows:
    """The measurements by row name: panglot/DEPTH, linear/DEPTH, codec2/MODE, opus/6k."""

    def __init__(self, opts: Options) -> None:
        self.opts = opts
        self.sets = {name: clips(opts, folders, opts.limit or CLIPS) for name, folders in SETS.items()}

    @cached_property
    def tokenizer(self) -> Any:
        return tokenizer("audio")

    @cached_property
    def trained(self) -> Linear:
        return Linear.fit(clips(self.opts, TRAIN, TRAIN_CLIPS))

    def panglot(self, depth: int) -> dict[str, Cell]:
        ours = self.tokenizer

        def code(audio: Audio) -> Coded:
            codes = ours.encode(audio, depth=depth)
            return Coded(ours.decode(codes), codes.bits(ours.alphabets))

        return self.measure(code)

    def linear(self, depth: int) -> dict[str, Cell]:
        trained = self.trained
        return self.measure(lambda audio: trained.code(audio, depth * CODE_BITS))

    def measure(self, code: Callable[[Audio], Coded]) -> dict[str, Cell]:
        """One row: bit/s and STOI on speech, mel distance on every set."""
        cells: dict[str, Cell] = {}
        for name, sounds in self.sets.items():
            speech = name == "speech"

            def one(audio: Audio, speech: bool = speech) -> tuple[float, float, float]:
                coded = code(audio)
                return coded.bits, *compare(audio, coded.audio, speech)

            bits, mel, intelligible = zip(*each(one, sounds, self.opts.jobs), strict=True)
            if speech:
                cells["bit/s"] = sum(bits) / sum(len(a.samples) / a.rate for a in sounds)
                cells["STOI"] = float(np.nanmean(intelligible))
            cells[f"mel dB, {name}"] = mean(mel)
        return cells

    def all(self) -> dict[str, Callable[[], Mapping[str, Cell]]]:
        found: dict[str, Callable[[], Mapping[str, Cell]]] = {}
        for depth in DEPTHS:
            found[f"panglot/{depth}"] = lambda d=depth: self.panglot(d)
        for depth in LINEAR_DEPTHS:
            found[f"linear/{depth}"] = lambda d=depth: self.linear(d)
        for mode in CODEC2_MODES:
            found[f"codec2/{mode}"] = lambda m=mode: self.measure(lambda audio: codec2(audio, m))
        found["opus/6k"] = lambda: self.measure(lambda audio: opus(audio, 6000))
        return found


def row_names() -> list[str]:
    ours = [f"panglot/{d}" for d in DEPTHS] + [f"linear/{d}" for d in LINEAR_DEPTHS]
    return [*ours, *(f"codec2/{m}" for m in CODEC2_MODES), "opus/6k"]


def checks(measured: Mapping[str, Mapping[str, Cell]]) -> Table:
    """The comparisons that issue and README promise, each with its margin (positive is better for panglot)."""
    table = Table("panglot against the others; margins above 0 are panglot's")
    wanted = [("panglot/10", "codec2/1300", "STOI"), ("panglot/5", "linear/5", "STOI")]
    wanted += [
        ("panglot/10", peer, f"mel dB, {s}") for peer in ("codec2/1300", "opus/6k") for s in SETS if s != "speech"
    ]
    wanted += [
        ("panglot/10", "linear/10", "STOI"),
        ("panglot/5", "codec2/700C", "STOI"),
        ("panglot/10", "opus/6k", "STOI"),
    ]
    for ours, peer, column in wanted:
        a, b = measured.get(ours, {}).get(column), measured.get(peer, {}).get(column)
        margin = None if a is None or b is None else float(a) - float(b)
        if margin is not None and column != "STOI":
            margin = -margin
        table.add(what=column, ours=ours, peer=peer, margin=margin)
    for name in SETS:
        series = [measured.get(f"panglot/{d}", {}).get(f"mel dB, {name}") for d in DEPTHS]
        steps = None if None in series else [float(a or 0) - float(b or 0) for a, b in pairwise(series)]
        table.add(
            what=f"least gain of one more code, mel dB, {name}", ours="panglot", margin=min(steps) if steps else None
        )
    return table


def main() -> None:
    opts = options(__doc__ or "", row_names())
    rows = Rows(opts)
    counts = ", ".join(f"{len(sounds)} {name}" for name, sounds in rows.sets.items())
    table = Table(f"Sound, clips of at most {SECONDS} s: {counts}")
    measured: dict[str, Mapping[str, Cell]] = {}
    for name, cells in rows_or_notes(rows.all(), opts, table):
        table.add(code=name, **cells)
        measured[name] = cells
    table.notes.append("NAME/K of panglot and linear: K codes of 10 bits in 80 ms; bit/s and STOI are those of speech.")
    report("sound_fidelity", [table, checks(measured)], opts)


if __name__ == "__main__":
    main()
