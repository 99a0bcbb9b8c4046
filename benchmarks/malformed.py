"""Open every file of a folder of broken media, each in a process of its own under limits, and say how it went.

    python benchmarks/malformed.py ../shared/data/malformed [--verbose]

A file passes when it opens or ends in a MediaError of one line, within 10 s of processor time and 1 GiB, with nothing
on standard error. Memory is the peak resident size of the process or of any child it started, whichever is larger.
Exit code 1 when a file does not pass. POSIX only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import av  # noqa: F401 - loaded here once, so that the fork for each file need not
import numpy as np  # noqa: F401
from PIL import Image  # noqa: F401

from panglot import _containers, _isolate, media  # noqa: F401

CPU_SECONDS = 10
WALL_SECONDS = 120
MEMORY = 2**30
OK = ("opened", "clear error")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print a line for each file")
    arguments = parser.parse_args()
    table: dict[str, Counter[str]] = {}
    slowest, largest = (0.0, ""), (0, "")
    for path in sorted(p for p in arguments.folder.rglob("*") if p.is_file()):
        verdict, seconds, memory, message = judge(path)
        name = str(path.relative_to(arguments.folder))
        table.setdefault(name.split(os.sep)[0], Counter())[verdict] += 1
        slowest, largest = max(slowest, (seconds, name)), max(largest, (memory, name))
        if verdict not in OK or arguments.verbose:
            print(f"{verdict:12} {seconds:6.2f} s {memory / 2**20:6.0f} MiB  {name}: {message}", flush=True)
    total = sum(table.values(), Counter[str]())
    verdicts = sorted(total, key=lambda v: (v not in OK, v))
    print("| folder | files | " + " | ".join(verdicts) + " |\n|---" + "|---:" * (len(verdicts) + 1) + "|")
    for folder, counts in [*table.items(), ("total", total)]:
        print(f"| {folder} | {counts.total()} | " + " | ".join(str(counts[v]) for v in verdicts) + " |")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}), largest {largest[0] / 2**20:.0f} MiB ({largest[1]})")
    return 0 if total and all(verdict in OK for verdict in verdicts) else 1


def judge(path: Path) -> tuple[str, float, int, str]:
    """(verdict, processor seconds, peak bytes, message or description) of opening one file."""
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as noise:
        child = os.fork()
        if child == 0:
            attempt(path, answer.fileno(), noise.fileno())
        _, status, usage = os.wait4(child, 0)
        answer.seek(0)
        noise.seek(0)
        printed = noise.read().decode(errors="replace").strip()
        reply = answer.read()
    seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGALRM) or (code == 0 and seconds > CPU_SECONDS):
        return "TIMEOUT", seconds, memory, ""
    if code != 0:
        return ("TRACEBACK" if "Traceback" in printed else "CRASH"), seconds, memory, f"exit {code} {printed[-300:]}"
    verdict, message = json.loads(reply)
    if memory > MEMORY:
        verdict = "MEMORY"
    elif printed:
        verdict, message = "NOISE", printed[:300]
    elif "\n" in message:
        verdict = "MANY LINES"
    return verdict, seconds, memory, message


def attempt(path: Path, answer: int, noise: int) -> None:
    """In the forked process: open the file, report, and leave without returning."""
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    signal.alarm(WALL_SECONDS)
    warnings.simplefilter("error")
    code = 1
    try:
        try:
            reply = "opened", str(media.open(path).info)
        except media.MediaError as error:
            reply = "clear error", str(error)
        os.write(answer, json.dumps(reply).encode())
        code = 0
    finally:
        if code:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
