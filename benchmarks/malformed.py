"""Open every file of a folder of broken media, each in a process of its own under limits, and say how it went.

    python benchmarks/malformed.py ../shared/data/malformed [--verbose]

A file passes when it opens or ends in a MediaError of one line, within 10 s and 1 GiB, with nothing on standard error.
Memory is the peak resident size of the process and of any child it started. Exit code 1 when a file does not pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

SECONDS = 10
MEMORY = 2**30
OK = ("opened", "clear error")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print a line for each file")
    arguments = parser.parse_args()
    # A template process with everything imported, from which each file gets a fork of its own.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["panglot._containers", "panglot._isolate", "PIL.Image", "av", "panglot.media"])
    table: dict[str, Counter[str]] = {}
    slowest, largest = (0.0, ""), (0, "")
    for path in sorted(p for p in arguments.folder.rglob("*") if p.is_file()):
        verdict, seconds, memory, message = judge(context, path)
        name = str(path.relative_to(arguments.folder))
        table.setdefault(name.split(os.sep)[0], Counter())[verdict] += 1
        slowest, largest = max(slowest, (seconds, name)), max(largest, (memory, name))
        if verdict not in OK or arguments.verbose:
            print(f"{verdict:12} {seconds:6.2f} s {memory / 2**20:6.0f} MiB  {name}: {message}", flush=True)
    total = sum(table.values(), Counter())
    verdicts = sorted(total, key=lambda v: (v not in OK, v))
    print("| folder | files | " + " | ".join(verdicts) + " |\n|---" + "|---:" * (len(verdicts) + 1) + "|")
    for folder, counts in [*table.items(), ("total", total)]:
        print(f"| {folder} | {counts.total()} | " + " | ".join(str(counts[v]) for v in verdicts) + " |")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}), largest {largest[0] / 2**20:.0f} MiB ({largest[1]})")
    return 0 if total.total() and all(verdict in OK for verdict in verdicts) else 1


def judge(context: multiprocessing.context.ForkServerContext, path: Path) -> tuple[str, float, int, str]:
    """(verdict, seconds, peak bytes, message or description) of opening one file."""
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile() as noise:
        process = context.Process(target=attempt, args=(str(path), theirs, noise.name))
        begin = time.perf_counter()
        process.start()
        theirs.close()
        answer = None
        try:
            if ours.poll(SECONDS):
                answer = ours.recv()
        except EOFError:
            answer = None
        seconds = time.perf_counter() - begin
        timed_out = answer is None and process.is_alive() and seconds >= SECONDS
        if timed_out:
            process.kill()
        process.join()
        printed = noise.read().decode(errors="replace").strip()
    if timed_out:
        return "TIMEOUT", seconds, 0, ""
    if answer is None:
        return (
            ("TRACEBACK" if "Traceback" in printed else "CRASH"),
            seconds,
            0,
            f"exit {process.exitcode}: {printed[-200:]}",
        )
    verdict, memory, message = answer
    if memory > MEMORY:
        verdict = "MEMORY"
    elif printed:
        verdict, message = "NOISE", printed[:200]
    elif "\n" in message:
        verdict = "MANY LINES"
    return verdict, seconds, memory, message


def attempt(path: str, answer: Connection, noise: str) -> None:
    """In the process of its own: open the file and report."""
    descriptor = os.open(noise, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from panglot import media

    try:
        verdict, message = "opened", str(media.open(path).info)
    except media.MediaError as error:
        verdict, message = "clear error", str(error)
    sizes = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    answer.send((verdict, sum(sizes) * (1 if sys.platform == "darwin" else 1024), message))


if __name__ == "__main__":
    sys.exit(main())
