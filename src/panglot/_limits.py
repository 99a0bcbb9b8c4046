"""Every limit on untrusted input, and the one error that media reading and writing raise.

Each limit is one constant, read where it is enforced. A file beyond a limit is refused before it is decoded where its
header tells, and as soon as decoding shows it otherwise. Not here: the decoding (`_images`, `_containers`).
"""

from __future__ import annotations

MAX_PIXELS = 100_000_000
"""Pixels of one still image."""

MAX_FRAME_PIXELS = 8192 * 4320
"""Pixels of one frame of a video or an animation (8K)."""

MAX_BYTES = 512 * 2**20
"""Bytes of what is read whole: text, and the contents of a file object."""

MAX_SECONDS = 3600
"""Seconds of sound or video that `open` decodes into memory. `open_stream` has no such limit."""

MAX_MEMORY = 2 * 2**30
"""Bytes of decoded frames and samples that `open` holds. `open_stream` holds one chunk at a time."""

MAX_CHUNK_BYTES = 48 * 2**20
"""Bytes of frames in one chunk of `open_stream`: 8 frames of 1920x1080."""

MAX_GAP = 3600
"""Seconds one frame may stay on screen. A longer jump of the timestamps is taken for damage."""

MAX_RATE = 768_000
"""Sampling rate in Hz."""

MAX_CHANNELS = 64
"""Channels of sound."""

ISOLATED_MEMORY = 2**30
"""Address space in bytes of the child process that runs a decoder we do not trust (`_isolate`)."""

ISOLATED_SECONDS = 8
"""Processor seconds that child may use."""


class MediaError(ValueError):
    """A medium that cannot be read or written. The message is one line: the file, the fault, and what would help."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TooLongError(MediaError):
    """A medium that is too long or too large to be read whole. fault: how much it is over which limit."""

    def __init__(self, name: str, fault: str, remedy: str) -> None:
        super().__init__(f"{name}: {fault}; {remedy}")
        self.fault = fault


def refuse(name: str, fault: object, remedy: str = "") -> MediaError:
    """The error for file `name`; the caller raises it."""
    return MediaError(f"{name}: {fault}{'; ' + remedy if remedy else ''}")
