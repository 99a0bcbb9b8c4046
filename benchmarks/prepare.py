"""Speed of the data step: files a second that `panglot prepare` encodes, with one worker and with two.

    python benchmarks/prepare.py --folders .cache/primer/held/emoji .cache/primer/held/sounds .cache/primer/held/clips

Each folder is prepared anew with the options of recipes/mini.sh, three variants of every medium, once with each number
of workers. A worker is one process of one thread. Starting the workers, reading, encoding and writing are all counted,
so a folder should take some seconds. Not measured: larger media than the folders hold, several machines.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

from _common import Table, options, progress, report

from panglot.fitting import Fit
from panglot.folders import FolderError
from panglot.prepare import prepare
from panglot.shards import ShardError
from panglot.variants import Options

ROWS = ["1", "2"]
WANTED = ">= 60 files a second and core, two workers >= 1.8 times one"


def main() -> None:
    extra = {"variants": {"type": int, "default": 3}, "folders": {"type": Path, "nargs": "+", "required": True}}
    opts = options(__doc__ or "", ROWS, needs_data=False, **extra)
    made_with = Options("text", opts.extra["variants"], fit=Fit(side=64, seconds=1.6, fps=8, frames=9))
    table = Table(f"panglot prepare, {opts.extra['variants']} variants of each medium")
    for folder in opts.extra["folders"]:
        rates: dict[str, float] = {}
        for workers in filter(opts.wants, ROWS):
            progress(f"prepare: {folder.name}, {workers} workers")
            with tempfile.TemporaryDirectory() as out:
                start = perf_counter()
                try:
                    done = prepare([folder], Path(out) / "shards", made_with, workers=int(workers))
                except (FolderError, ShardError) as error:
                    sys.exit(str(error))
                seconds = perf_counter() - start
            rates[workers] = done.samples / seconds
            ids = sum(done.manifest.tokens.values())
            faster = rates["2"] / rates["1"] if len(rates) == 2 else None
            cells = {"files": done.samples, "files/s": rates[workers], "tokens/s": ids / seconds}
            table.add(folder=folder.name, workers=int(workers), **cells, **{"than with one": faster})
    table.notes.append(f"wanted: {WANTED}")
    report("prepare", [table], opts)


if __name__ == "__main__":
    main()
