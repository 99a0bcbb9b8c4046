"""Run `panglot` in a process of its own, as a user would, and tell its wall-clock time and peak memory.

As a module: `run_panglot`. As a program (`python _child.py REPORT ARGUMENTS...`): the child, which runs the command
line in-process and writes its own peak to REPORT. The peak is the larger of what the child says (exact, but blind to
processes that it starts) and what its whole process tree held when looked at every 20 ms (shared pages count twice).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

TELL_SECONDS = 30


@dataclass(frozen=True)
class Run:
    """seconds: wall clock, start of Python included; peak: bytes of resident memory."""

    seconds: float
    peak: int


class Failed(RuntimeError):
    """The command ended with an exit code other than 0; the message is its first line of standard error."""


def run_panglot(*arguments: str | Path, tell: Callable[[str], None] = lambda line: None) -> Run:
    """Run `panglot ARGUMENTS...`. tell: gets a line of progress every TELL_SECONDS. Raises Failed."""
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        note, errors = Path(folder, "report.json"), Path(folder, "stderr")
        command = [sys.executable, __file__, str(note), *map(str, arguments)]
        start, seen, told = perf_counter(), 0, 0
        with errors.open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                seen = max(seen, _tree_bytes(watched))
                if perf_counter() - start > (told + 1) * TELL_SECONDS:
                    told += 1
                    tell(f"  panglot {arguments[0]}: {told * TELL_SECONDS} s, {seen >> 20} MiB at most")
                sleep(0.02)
        seconds = perf_counter() - start
        if process.returncode:
            lines = errors.read_text(errors="replace").strip().splitlines() or ["no message"]
            raise Failed(f"panglot {arguments[0]} ended with exit code {process.returncode}: {lines[0]}")
        return Run(seconds, max(seen, json.loads(note.read_text())["peak"]))


def _tree_bytes(process) -> int:
    """Resident bytes of a process and of those below it; processes that end meanwhile count as nothing."""
    import psutil

    total = 0
    try:
        for part in (process, *process.children(recursive=True)):
            total += part.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def own_peak() -> int:
    """Peak resident bytes of this process since it was started.

    Linux's ru_maxrss is inherited from the process that started this one, so VmHWM is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(note: str, arguments: Sequence[str]) -> None:
    from panglot.cli import main as panglot

    sys.argv = ["panglot", *arguments]
    try:
        panglot()
    finally:
        Path(note).write_text(json.dumps({"peak": own_peak()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
