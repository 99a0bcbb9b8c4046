"""Speed, beside neural tokenizers of published sizes in the same run, and how long a user waits.

    python benchmarks/speed.py [--json] [--only 'image*'] [--threads 2]

Encode and decode together, median of a few calls after one to warm up: a picture of 256x256, ten seconds of sound at
24 kHz, 17 frames of 256x256. Peers have random weights (`_peers.py`): only their speed is measured, and the column
`distinct codes` shows that they do work. panglot runs at all its levels and depths, its slowest setting.
Every peer has a process and a time limit of its own (`--peer-limit`, building the model not counted). One whose first
call takes over 20 s is timed by that call alone; one that is stopped has a lower bound in its row.
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

import numpy as np
import torch
from _child import Failed, run_panglot
from _common import Cell, Missing, Options, Table, median_seconds, options, report, rows_or_notes, tokenizer
from _inputs import photo
from _peers import FRAMES, PEERS, SIDE, SOUND_RATE, SOUND_SECONDS, timed, workload
from PIL import Image as Pil

from panglot.media import Audio, Image, Video

FPS = 25.0
DISTINCT = 10
MODALITY = {"image": "image", "sound": "audio", "video": "video"}
WANTED = {"image/emu3": 10.0, "sound/mimi": 5.0, "video/vidtok": 10.0}
WAITS = ("photo", "stream", "import", "help")


def panglot(kind: str, repeat: int) -> dict[str, Cell]:
    """panglot's own row: all levels, all depths."""
    ours, values = tokenizer(MODALITY[kind]), workload(kind)
    medium = {
        "image": lambda: Image(values),
        "sound": lambda: Audio(values, SOUND_RATE),
        "video": lambda: Video(values, FPS),
    }[kind]()
    calls = repeat * 3
    seconds = median_seconds(lambda: ours.decode(ours.encode(medium)), calls)
    parts = ours.encode(medium).walk()
    codes = np.concatenate([array.ravel() for part in parts for array in part.arrays.values()])
    network = getattr(ours, "network", None)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6 if network else None
    return {
        "model": "panglot",
        "parameters M": parameters,
        "seconds": seconds,
        "timed": f"median of {calls}",
        "distinct codes": len(np.unique(codes)),
    }


def peer(row: str, opts: Options) -> dict[str, Cell]:
    """A peer's row. Raises Missing if its random weights give hardly any different codes."""
    extra = opts.extra
    timing = timed(row, extra["repeat"], extra["threads"], extra["peer_limit"])
    if timing.distinct is not None and timing.distinct < DISTINCT:
        raise Missing(f"it gives only {timing.distinct} different codes: a codebook is degenerate")
    warm = len(timing.calls) - 1
    return {
        "model": timing.name,
        "parameters M": timing.parameters / 1e6,
        "seconds": timing.seconds,
        "timed": "stopped" if timing.bound else f"median of {warm}" if warm else "first call",
        "distinct codes": timing.distinct,
    }


def comparisons(opts: Options) -> dict[str, Callable[[], Mapping[str, Cell]]]:
    found: dict[str, Callable[[], Mapping[str, Cell]]] = {}
    for kind, peers in PEERS.items():
        found[f"{kind}/panglot"] = partial(panglot, kind, opts.extra["repeat"])
        for name in peers:
            found[f"{kind}/{name}"] = partial(peer, f"{kind}/{name}", opts)
    return found


def row_names() -> list[str]:
    return [*(f"{kind}/{name}" for kind, peers in PEERS.items() for name in ("panglot", *peers)), *WAITS]


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
    for name, row in rows_or_notes(comparisons(opts), opts, table):
        kind, who = name.split("/")
        seconds, least = float(row["seconds"] or 0.0), row["timed"] == "stopped"
        if who == "panglot":
            ours[kind] = seconds
        ratio = seconds / ours[kind] if kind in ours and who != "panglot" else None
        speed = SOUND_SECONDS / seconds if kind == "sound" else None
        table.add(
            what=name,
            **{**row, "seconds": at_least(seconds) if least else seconds},
            **{"panglot is faster by": at_least(ratio) if least and ratio else ratio},
            **{"wanted": WANTED.get(name), "x real time": f"<= {speed:.2f}" if least and speed else speed},
        )
    if table.rows:
        table.notes += [
            "Peers: random weights at their published sizes, at their cheapest setting near panglot's rate.",
            "first call: over 20 s, so not repeated. stopped: not one call had ended when the time was up.",
            "Numbers too small for the processor's fast path are flushed to zero, for panglot as for the peers.",
        ]
    return table


def at_least(value: float) -> str:
    return f">= {value:.3g}"


def main() -> None:
    opts = options(
        __doc__ or "",
        row_names(),
        needs_data=False,
        threads={"type": int, "default": 2, "help": "threads of torch (default 2)"},
        repeat={"type": int, "default": 3, "help": "timed calls a model (default 3)"},
        peer_limit={"type": float, "default": 240.0, "help": "seconds a peer may run (default 240)"},
    )
    torch.set_num_threads(opts.extra["threads"])
    torch.set_flush_denormal(True)  # as for the peers
    table, waiting = compared(opts), Table("Waiting")
    for _, row in rows_or_notes(waits(), opts, waiting):
        waiting.add(**row)
    report("speed", [t for t in (table, waiting) if t.rows or t.notes], opts)


if __name__ == "__main__":
    main()
