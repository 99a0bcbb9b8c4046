"""Decode an image in a child process, for a decoder that may crash, hang or write to the terminal.

TIFF is read this way: libtiff prints its complaints straight to standard error, and it is the one decoder of ours whose
fuzzers still find crashes. The child has its own limits on memory and time, so whatever happens there ends as one
MediaError here. It costs about 0.3 s a file, which is why everyday formats (JPEG, PNG, ...) do not go through it.

Run as `python -m panglot._isolate FORMAT`: the file on standard input; on standard output "H W orientation" or
"error MESSAGE" in one line, then the rows as raw bytes. Not covered: sound and video.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import numpy as np

from panglot import _images, _limits
from panglot._limits import MediaError, refuse

_COMMAND = [sys.executable, "-P", "-m", "panglot._isolate"]
"""-P: without the working directory among the places where modules are looked for."""

_WALL_SECONDS = 60
"""Time limit for a child that waits instead of computing; the limit on processor time is the one that counts."""


def decode(source: Path | bytes, format: str, name: str) -> np.ndarray:
    """uint8 [H, W, 3], upright, of an image that Pillow calls `format`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Every thread of a linear algebra library would reserve some of the address space that the child may have.
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as out, _as_file(source) as file:
        try:
            code = subprocess.run(
                [*_COMMAND, format, name],
                env=environment,
                stdin=file,
                stdout=out,
                stderr=subprocess.DEVNULL,
                timeout=_WALL_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        out.seek(0)
        head = out.readline()
        if head.startswith(b"error "):
            raise MediaError(head[6:].decode())
        if code != 0:
            raise refuse(name, f"the {format} decoder crashed or hit its limits", "save it as PNG with another program")
        height, width, orientation = map(int, head.split())
        pixels = np.empty((height, width, 3), np.uint8)
        out.readinto(pixels.data)
    return _images.upright(pixels, orientation)


def _as_file(source: Path | bytes) -> IO[bytes]:
    """A real file, which the child can seek in."""
    if isinstance(source, Path):
        return open(source, "rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(source)
    file.seek(0)
    return file


def _confine() -> None:
    """Limit this process's memory and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (_limits.ISOLATED_MEMORY, _limits.ISOLATED_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_limits.ISOLATED_SECONDS, _limits.ISOLATED_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    format, name = sys.argv[1:]
    _confine()
    out = sys.stdout.buffer
    try:
        image = _images.ImageFile(sys.stdin.buffer, format, name)
        height, width, orientation = image.load()
    except MediaError as error:
        out.write(f"error {error}\n".encode())
        return
    out.write(f"{height} {width} {orientation}\n".encode())
    for strip in image.rows():
        out.write(strip.tobytes())
    out.flush()


if __name__ == "__main__":
    main()
