"""Training material for the recipes: pictures, sound and clips found under a data folder, held in memory.

Every folder below `DATA/train` that has a `metadata.jsonl` is read (Hugging Face folder convention). Not here: any
model, any loss.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

PICTURES = {
    "caltech101": 0.40,
    "grocery": 0.18,
    "skimage": 0.16,
    "noto": 0.06,
    "fxemoji": 0.05,
    "signdigits": 0.03,
    "clips": 0.10,
    "mnist": 0.02,
}
"""How often a crop comes from each set; the 11 large photographs of skimage and the clips give far more than one."""


def listed(folder: Path) -> Iterator[tuple[Path, dict]]:
    """The files of one folder with their rows."""
    with (folder / "metadata.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield folder / row["file_name"], row


def pictures(data: Path, limit: int = 6000) -> dict[str, list[bytes]]:
    """The encoded bytes of every training picture by set, at most `limit` a set; clips as PNG stills."""
    out: dict[str, list[bytes]] = {}
    for name in PICTURES:
        if name == "clips":
            continue
        out[name] = [path.read_bytes() for path, _ in listed(data / "train" / name)][:limit]
    out["clips"] = [_png(f) for clip in clips(data) for f in clip[::12]]
    return out


def _png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(frame).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def clips(data: Path, short_side: int = 270) -> Iterator[np.ndarray]:
    """Training clips as uint8 [T, H, W, 3], scaled so that the short side is at most `short_side`."""
    import av

    for name in ("asl_words", "mdn_video", "sam2vid"):
        for path, _ in listed(data / "train" / name):
            with av.open(str(path)) as container:
                frames = []
                for frame in container.decode(video=0):
                    scale = min(1.0, short_side / min(frame.width, frame.height))
                    size = (round(frame.width * scale), round(frame.height * scale))
                    image = frame.to_image()
                    frames.append(np.asarray(image.resize(size, Pillow.Resampling.BOX) if scale < 1 else image))
            yield np.stack(frames)


def crop(blob: bytes, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square uint8 [size, size, 3] of a picture: placed, mirrored and scaled at random.

    Half of the crops are enlarged by up to 2, because small pictures are sharper a pixel than whole photographs are.
    """
    image = Pillow.open(io.BytesIO(blob))
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        paper = Pillow.new("RGBA", image.size, (*rng.integers(0, 256, 3).tolist(), 255))
        image = Pillow.alpha_composite(paper, image)
    image = image.convert("RGB")
    zoom = 2 ** rng.uniform(0, 1) if rng.random() < 0.5 else 1.0
    side = max(8, round(size / zoom))
    side = min(side, *image.size)
    if min(image.size) > 2 * size and rng.random() < 0.4:
        side = int(rng.integers(size, min(image.size) + 1))
    x = int(rng.integers(0, image.width - side + 1))
    y = int(rng.integers(0, image.height - side + 1))
    image = image.crop((x, y, x + side, y + side))
    if side != size:
        image = image.resize((size, size), Pillow.Resampling.BICUBIC if side < size else Pillow.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


class PictureBatches:
    """Batches of random crops, a pure function of (seed, step), so that a resumed run sees what it would have seen."""

    def __init__(self, sets: dict[str, list[bytes]], size: int, batch: int, seed: int):
        self.names = [n for n in PICTURES if sets.get(n)]
        weights = np.array([PICTURES[n] for n in self.names])
        self.weights = weights / weights.sum()
        self.sets, self.size, self.batch, self.seed = sets, size, batch, seed

    def __call__(self, step: int) -> np.ndarray:
        """float32 [batch, 3, size, size] in [-1, 1]"""
        rng = np.random.default_rng([self.seed, step])
        picks = rng.choice(len(self.names), self.batch, p=self.weights)
        crops = []
        for pick in picks:
            blobs = self.sets[self.names[pick]]
            crops.append(crop(blobs[int(rng.integers(len(blobs)))], self.size, rng))
        return np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1


SOUNDS = {
    "commonvoice": 0.28,
    "ljspeech": 0.06,
    "picovoice_wake": 0.05,
    "fsdd": 0.03,
    "esc10": 0.16,
    "philharmonia": 0.24,
    "librosa": 0.08,
    "soundfx": 0.02,
    "maxaudio": 0.02,
    "tones": 0.06,
}
"""How often a stretch of sound comes from each set; tones are made, not recorded."""


def tones(rate: int, number: int = 400, seconds: float = 4.0) -> list[np.ndarray]:
    """Made sounds as int16 [T]: one to four steady or swaying partials, which recordings hardly ever hold alone."""
    rng = np.random.default_rng(5)
    time = np.arange(round(rate * seconds)) / rate
    out = []
    for _ in range(number):
        first = 40 * 2 ** rng.uniform(0, 7)
        ratios = [1.0, *rng.choice([1.25, 1.5, 2.0, 3.0, 4.0], int(rng.integers(0, 4)), replace=False)]
        sway = rng.choice([0.0, 0.0, 0.01, 0.05]) * np.sin(2 * np.pi * rng.uniform(2, 7) * time)
        sound = np.zeros(len(time))
        for ratio in ratios:
            if first * ratio < rate / 2.1:
                sound += rng.uniform(0.3, 1) * np.sin(2 * np.pi * np.cumsum(first * ratio * (1 + sway)) / rate)
        sound *= 0.99 / max(1.0, np.abs(sound).max())
        out.append((sound * 32767).astype(np.int16))
    return out


def sounds(data: Path, rate: int) -> dict[str, list[np.ndarray]]:
    """Every training sound by set as int16 [T], mono at `rate`."""
    import soundfile
    import soxr

    out: dict[str, list[np.ndarray]] = {"tones": tones(rate)}
    for name in SOUNDS.keys() - {"tones"}:
        out[name] = []
        for path, _ in listed(data / "train" / name):
            samples, source = soundfile.read(path, dtype="float32", always_2d=True)
            mono = soxr.resample(samples.mean(1), source, rate)
            out[name].append((np.clip(mono, -1, 1) * 32767).astype(np.int16))
    return out


def faster(sound: np.ndarray, pace: float) -> np.ndarray:
    """A sound int16 [T] played at another pace and pitch; read between samples in straight lines, which is enough to
    learn from."""
    return np.interp(np.arange(0, len(sound) - 1, pace), np.arange(len(sound)), sound).astype(np.int16)


class SoundBatches:
    """Batches of random stretches of sound, a pure function of (seed, step)."""

    def __init__(self, sets: dict[str, list[np.ndarray]], length: int, batch: int, seed: int, pitch: bool = False):
        self.names = list(SOUNDS)
        self.weights = np.array([SOUNDS[n] for n in self.names]) / sum(SOUNDS.values())
        self.sets, self.length, self.batch, self.seed, self.pitch = sets, length, batch, seed, pitch

    def __call__(self, step: int) -> np.ndarray:
        """float32 [batch, length]: louder or quieter at random, short sounds at a random place in silence; with `pitch`
        every second one faster or slower, by half an octave at most."""
        rng = np.random.default_rng([self.seed, step])
        out = np.zeros((self.batch, self.length), np.float32)
        for row in out:
            sounds = self.sets[self.names[int(rng.choice(len(self.names), p=self.weights))]]
            sound = sounds[int(rng.integers(len(sounds)))]
            if self.pitch and rng.random() < 0.5:
                sound = faster(sound, 2 ** rng.uniform(-0.5, 0.5))
            gain = 10 ** (rng.uniform(-20, 6) / 20) / 32767
            at = int(rng.integers(-(self.length // 4), max(1, len(sound) - self.length * 3 // 4)))
            piece = sound[max(0, at) : at + self.length]
            row[max(0, -at) : max(0, -at) + len(piece)] = piece[: self.length - max(0, -at)] * gain
        return np.clip(out, -1, 1)


class ClipBatches:
    """Stretches of clips: a frame as the image tokenizer gives it back, and the eight true frames after it.

    decode(frame uint8 [H, W, 3], quality 0 or 1) -> the frame as its codes give it back; called once for every sixth
    frame of a clip, at the start, with either quality in turn. Batches are a pure function of (seed, step).
    """

    EVERY = 6
    AFTER = 8

    def __init__(self, clips: list[np.ndarray], decode: Callable, size: int, batch: int, seed: int):
        self.clips, self.size, self.batch, self.seed = clips, size, batch, seed
        firsts = [clip[: len(clip) - 2 * self.AFTER : self.EVERY] for clip in clips]
        self.keys = [[decode(frame, i % 2) for i, frame in enumerate(frames)] for frames in firsts]
        self.weights = np.array([len(c) for c in clips]) / sum(len(c) for c in clips)

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 [batch, 3, s, s] decoded frames and [batch, 8, 3, s, s] true frames after them, in [-1, 1]"""
        rng = np.random.default_rng([self.seed, step])
        pairs = [self._pair(rng) for _ in range(self.batch)]
        last, after = (np.stack(x) for x in zip(*pairs, strict=True))
        return (
            last.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1,
            after.transpose(0, 1, 4, 2, 3).astype(np.float32) / 127.5 - 1,
        )

    def _pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        pick = int(rng.choice(len(self.clips), p=self.weights))
        clip, keys = self.clips[pick], self.keys[pick]
        key = int(rng.integers(len(keys)))
        pace = int(rng.integers(1, 3))
        frames = clip[self.EVERY * key : self.EVERY * key + self.AFTER * pace + 1 : pace]
        size, (h, w) = self.size, clip.shape[1:3]
        # Prefer places where something moves; half of the time let the camera pan as well.
        places = [(int(rng.integers(0, h - size + 1)), int(rng.integers(0, w - size + 1))) for _ in range(3)]
        change = np.abs(frames[4].astype(np.int16) - frames[0]).mean(-1)
        places.sort(key=lambda p: -change[p[0] : p[0] + size, p[1] : p[1] + size].mean())
        y, x = places[0 if rng.random() < 0.7 else 2]
        dy, dx = rng.integers(-3, 4, 2) if rng.random() < 0.3 else (0, 0)
        cuts = []
        for i in range(1 + self.AFTER):
            top, left = np.clip(y + i * dy, 0, h - size), np.clip(x + i * dx, 0, w - size)
            source = keys[key] if i == 0 else frames[i]
            cuts.append(source[top : top + size, left : left + size])
        cuts = [c[:, ::-1] for c in cuts] if rng.random() < 0.5 else cuts
        stack = np.stack(cuts)
        if rng.random() < 0.2:
            stack = faded(stack, rng)
        return stack[0], stack[1:]


def faded(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip uint8 [T, H, W, 3] under light that grows or fails steadily: from or to black, or only brighter."""
    start, end = rng.choice([0.0, 1.0, rng.uniform(), rng.uniform()]), rng.uniform(0, 1.3)
    gains = np.clip(start + (end - start) * np.arange(len(frames)) / rng.uniform(len(frames), 60), 0, 1.3)
    return np.clip(frames * gains[:, None, None, None] + 0.5, 0, 255).astype(np.uint8)
