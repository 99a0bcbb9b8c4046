"""Speed, beside neural tokenizers of published sizes in the same run, and how long a user waits.

    python benchmarks/speed.py [--json] [--only 'image*'] [--threads 2]

Encode and decode together, median of a few calls after one to warm up: a picture of 256x256, ten seconds of sound at
24 kHz, 17 frames of 256x256. Peers have random weights (`_peers.py`): only their speed is measured, and the column
`distinct codes` shows that they do work. panglot runs at all its levels and depths, its slowest setting.
Then: a photograph of 3000x2000 through the command line, how much sound a stream needs before its first codes, and
how long it takes to start. Inputs are made on the spot; no data folder is needed. Not measured: training, accelerators.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import _peers
import numpy as np
import torch
from _child import Failed, run_panglot
from _common import Cell, Missing, Options, Table, median_seconds, options, report, rows_or_notes, tokenizer
from _inputs import moving, photo, sound
from _peers import Peer
from PIL import Image as Pil

from panglot.media import Audio, Image, Video

SIDE, FRAMES, FPS = 256, 17, 25.0
DISTINCT = 10
SOUND_SECONDS, SOUND_RATE = 10, 24_000
PEERS: dict[str, dict[str, Callable[[np.ndarray], Peer]]] = {
    "image": {"emu3": _peers.emu3, "janus": _peers.janus, "vqmodel": _peers.vqmodel},
    "sound": {"mimi": _peers.mimi, "encodec": _peers.encodec, "dac": _peers.dac},
    "video": {"vidtok": _peers.vidtok},
}
MODALITY = {"image": "image", "sound": "audio", "video": "video"}
WANTED = {"image/emu3": 10.0, "sound/mimi": 5.0, "video/vidtok": 10.0}
WAITS = ("photo", "stream", "import", "help")


def workload(kind: str) -> np.ndarray:
    """uint8 [256, 256, 3], float32 [240000] or uint8 [17, 256, 256, 3]."""
    if kind == "image":
        return photo(SIDE, SIDE)
    return sound(SOUND_SECONDS, SOUND_RATE) if kind == "sound" else moving(FRAMES, SIDE, SIDE)


def cells(name: str, seconds: float, codes: np.ndarray, parameters: int | None) -> dict[str, Cell]:
    return {
        "model": name,
        "parameters M": None if parameters is None else parameters / 1e6,
        "seconds": seconds,
        "distinct codes": len(np.unique(codes)),
    }


def panglot(kind: str, repeat: int) -> dict[str, Cell]:
    """panglot's own row: all levels, all depths."""
    ours, values = tokenizer(MODALITY[kind]), workload(kind)
    medium = {
        "image": lambda: Image(values),
        "sound": lambda: Audio(values, SOUND_RATE),
        "video": lambda: Video(values, FPS),
    }[kind]()
    seconds = median_seconds(lambda: ours.decode(ours.encode(medium)), repeat * 3)
    parts = ours.encode(medium).walk()
    codes = np.concatenate([array.ravel() for part in parts for array in part.arrays.values()])
    network = getattr(ours, "network", None)
    return cells("panglot", seconds, codes, network and sum(p.numel() for p in network.parameters()))


def peer(build: Callable[[np.ndarray], Peer], kind: str, repeat: int) -> dict[str, Cell]:
    """A peer's row. Raises ValueError if its random weights give hardly any different codes."""
    torch.manual_seed(0)
    model = build(workload(kind))
    codes = model.run().numpy()
    if len(np.unique(codes)) < DISTINCT:
        raise ValueError(f"{model.name} gives only {len(np.unique(codes))} different codes: a codebook is degenerate")
    return cells(model.name, median_seconds(model.run, repeat), codes, model.parameters)


def comparisons(repeat: int) -> dict[str, Callable[[], Mapping[str, Cell]]]:
    found: dict[str, Callable[[], Mapping[str, Cell]]] = {}
    for kind, peers in PEERS.items():
        found[f"{kind}/panglot"] = partial(panglot, kind, repeat)
        for name, build in peers.items():
            found[f"{kind}/{name}"] = partial(peer, build, kind, repeat)
    return found


def row_names() -> list[str]:
    return [*comparisons(1), *WAITS]


def photo_wait() -> dict[str, Cell]:
    """A 3000x2000 JPEG to a token file, and that to a PNG, by two commands."""
    with tempfile.TemporaryDirectory() as folder:
        source, tokens = Path(folder, "photo.jpg"), Path(folder, "photo.pgt")
        Pil.fromarray(photo(2000, 3000)).save(source, quality=90)
        try:
            runs = [
                run_panglot("encode", source, "-o", tokens),
                run_panglot("decode", tokens, "-o", Path(folder, "back")),
            ]
        except Failed as error:
            raise Missing(str(error)) from error
    peak = max(run.peak for run in runs) / 2**20
    return {"what": "photo 3000x2000, encode + decode, s", "value": sum(r.seconds for r in runs), "wanted": "< 10"} | {
        "peak MiB": peak
    }


def stream_wait() -> dict[str, Cell]:
    """How much sound, given 1 ms at a time, goes into `encode_stream` before the first codes come out."""
    samples, step = workload("sound")[:SOUND_RATE], SOUND_RATE // 1000
    given = 0

    def chunks() -> Iterator[Audio]:
        nonlocal given
        for start in range(0, len(samples), step):
            given += step
            yield Audio(samples[start : start + step], SOUND_RATE)

    for piece in tokenizer("audio").encode_stream(chunks()):
        if any(array.size for array in piece.arrays.values()):
            break
    return {"what": "sound before the first codes, ms", "value": 1000 * given / SOUND_RATE, "wanted": "<= 100"}


def start_wait(arguments: list[str], what: str, wanted: str) -> dict[str, Cell]:
    """Wall-clock time of a Python process."""
    command = [sys.executable, *arguments]
    run = partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    return {"what": what, "value": median_seconds(run, 5), "wanted": wanted}


def waits() -> dict[str, Callable[[], Mapping[str, Cell]]]:
    return {
        "photo": photo_wait,
        "stream": stream_wait,
        "import": partial(start_wait, ["-c", "import panglot"], "import panglot, s", "-"),
        "help": partial(start_wait, ["-m", "panglot.cli", "--help"], "panglot --help, s", "< 0.5"),
    }


def compared(opts: Options) -> Table:
    """One row a model, and how many times panglot is faster."""
    table = Table(
        f"Encode + decode: {SIDE}x{SIDE} picture, {SOUND_SECONDS} s of sound, {FRAMES} frames of {SIDE}x{SIDE}"
    )
    ours: dict[str, float] = {}
    for name, row in rows_or_notes(comparisons(opts.extra["repeat"]), opts, table):
        kind, who = name.split("/")
        seconds = float(row["seconds"] or 0.0)
        if who == "panglot":
            ours[kind] = seconds
        ratio = seconds / ours[kind] if kind in ours and who != "panglot" else None
        real_time = SOUND_SECONDS / seconds if kind == "sound" else None
        table.add(
            what=name, **row, **{"panglot is faster by": ratio, "wanted": WANTED.get(name), "x real time": real_time}
        )
    table.notes.append("Peers: random weights at their published sizes, at their cheapest setting near panglot's rate.")
    return table


def main() -> None:
    opts = options(
        __doc__ or "",
        row_names(),
        needs_data=False,
        threads={"type": int, "default": 2, "help": "threads of torch (default 2)"},
        repeat={"type": int, "default": 3, "help": "timed calls a model (default 3)"},
    )
    torch.set_num_threads(opts.extra["threads"])
    table, waiting = compared(opts), Table("Waiting")
    for _, row in rows_or_notes(waits(), opts, waiting):
        waiting.add(**row)
    report("speed", [t for t in (table, waiting) if t.rows or t.notes], opts)


if __name__ == "__main__":
    main()
