"""Peak memory of encoding what is large: each `panglot` command in a process of its own, with 1.5 GiB as the limit.

    python benchmarks/memory.py [--json] [--only 'photo*'] [--full]

The inputs are made on the spot in a temporary folder, which takes a minute or two (no data folder is needed):
photographs of 3000x2000 and of 100 megapixels, a recording of two hours at 24 kHz, and ten minutes of 1080p video at 25
frames/s without sound. By default the video is thinned to one frame a second (`panglot encode --fps 1`): all its frames
are decoded, but only those are tokenised; `--full` tokenises all. A command that runs for long says so every half
minute on standard error. Not measured: fidelity, and the speed of a warm process (`speed.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from _child import Failed, Run, run_panglot
from _common import Cell, Missing, Options, Table, options, progress, report, rows_or_notes
from _inputs import photo, recording, video
from PIL import Image as Pil

LIMIT = 1.5 * 2**30
ROWS = ("photo", "photo-100mp", "recording-2h", "video-10min")
SECONDS = {"recording-2h": 7200, "video-10min": 600}


def row(run: Run, what: str) -> dict[str, Cell]:
    return {"input": what, "seconds": run.seconds, "peak MiB": run.peak / 2**20, "within limit": run.peak < LIMIT}


def checked(*arguments: str | Path) -> Run:
    """Run panglot; a command that fails becomes a note below the table."""
    try:
        return run_panglot(*arguments, tell=progress)
    except Failed as error:
        raise Missing(str(error)) from error


class Rows:
    """The measurements by row name, their inputs and outputs in `folder`."""

    def __init__(self, opts: Options, folder: Path) -> None:
        self.opts, self.folder = opts, folder
        self.tokens = folder / "out.pgt"

    def photo(self) -> dict[str, Cell]:
        source = self.folder / "photo.jpg"
        Pil.fromarray(photo(2000, 3000)).save(source, quality=90)
        first = checked("encode", source, "-o", self.tokens)
        second = checked("decode", self.tokens, "-o", self.folder / "back")
        both = Run(first.seconds + second.seconds, max(first.peak, second.peak))
        return row(both, "3000x2000, encode and decode, two commands")

    def large_photo(self) -> dict[str, Cell]:
        source = self.folder / "large.jpg"
        Pil.fromarray(photo(10_000, 10_000)).save(source, quality=90)
        return row(checked("encode", source, "-o", self.tokens), "10000x10000, encode")

    def recording(self) -> dict[str, Cell]:
        source, seconds = self.folder / "long.flac", SECONDS["recording-2h"]
        recording(source, seconds, 24_000)
        return row(checked("encode", source, "-o", self.tokens), f"{seconds / 3600:g} h at 24 kHz, encode")

    def video(self) -> dict[str, Cell]:
        source, seconds = self.folder / "long.mp4", SECONDS["video-10min"]
        video(source, seconds, 25, 1080, 1920)
        thin: list[str] = [] if self.opts.extra["full"] else ["--fps", "1"]
        run = checked("encode", source, "-o", self.tokens, *thin)
        return row(run, " ".join([f"{seconds / 60:g} min of 1080p, encode", *thin]))

    def all(self) -> dict[str, Callable[[], Mapping[str, Cell]]]:
        return dict(zip(ROWS, (self.photo, self.large_photo, self.recording, self.video), strict=True))


def main() -> None:
    full = {"action": "store_true", "help": "tokenise every frame of the video"}
    opts = options(__doc__ or "", ROWS, needs_data=False, full=full)
    table = Table("Peak memory, limit 1536 MiB")
    with tempfile.TemporaryDirectory() as folder:
        for name, cells in rows_or_notes(Rows(opts, Path(folder)).all(), opts, table):
            table.add(what=name, **cells)
    report("memory", [table], opts)


if __name__ == "__main__":
    main()
