"""Large inputs made on the spot: photographs, recordings and videos of any size, from a seed.

They have structure at every scale, as real ones have, so that no decoder or encoder has it easy; they are not fit for
measuring fidelity. Everything is written piece by piece, so that a small machine can make them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pil


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: random fields of all octaves, tiled where larger than 2048 pixels a side."""
    h, w = min(height, 2048), min(width, 2048)
    rng = np.random.default_rng(seed)
    total = np.full((h, w, 3), 128, np.float32)
    octaves = min(h, w).bit_length() - 1
    for octave in range(octaves):
        grid = (h >> octave, w >> octave, 3)
        noise = rng.normal(128, 25, grid).clip(0, 255).astype(np.uint8)
        field = np.asarray(Pil.fromarray(noise).resize((w, h), Pil.Resampling.BICUBIC), np.float32)
        total += (field - 128) * 1.3 ** (octave + 1 - octaves)
    tile = total.clip(0, 255).astype(np.uint8)
    return np.tile(tile, (-(-height // h), -(-width // w), 1))[:height, :width]


def sound(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """float32 [seconds * rate]: a gliding tone with overtones, in syllables, over noise."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (150 * time + 8 * np.sin(2 * np.pi * 0.7 * time + seed))
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.1 * voice * (np.sin(2 * np.pi * 3 * time) > -0.3) + 0.01 * noise).astype(np.float32)


def recording(path: Path, seconds: int, rate: int) -> None:
    """Write a mono recording, a minute at a time, in the format of the suffix."""
    import soundfile

    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for start in range(0, seconds, 60):
            file.write(sound(min(60, seconds - start), rate, seed=start))


def moving(count: int, height: int, width: int) -> np.ndarray:
    """uint8 [count, height, width, 3]: a window that wanders over a photograph."""
    still = photo(height + 4 * count, width + 4 * count)
    return np.stack([still[3 * i : 3 * i + height, 2 * i : 2 * i + width] for i in range(count)])


def video(path: Path, seconds: int, fps: int, height: int, width: int) -> None:
    """Write a silent H.264 video: four seconds are encoded, and their packets repeated for as long as wanted."""
    import av

    span = 4 * fps
    still = photo(height + 8 * span, width + 8 * span)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "28", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        packets = []
        for i in range(span):
            at = min(i, span - i)  # there and back, so that the repeats join
            pixels = np.ascontiguousarray(still[6 * at : 6 * at + height, 4 * at : 4 * at + width])
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24"))
        packets += stream.encode(None)
        step = packets[1].pts - packets[0].pts
        for number in range(seconds * fps):
            packet = packets[number % span]
            again = av.Packet(bytes(packet))
            again.pts = again.dts = number * step
            again.time_base, again.stream, again.is_keyframe = packet.time_base, stream, packet.is_keyframe
            file.mux(again)
