"""Video as a keyframe and what changes after it, with its sound interleaved in time.

A keyframe is an image with the image tokenizer's own codes. The frames after it come in groups of four, coded by a
second pyramid as the difference from the last frame the decoder has. A block is coded only where holding the old
frame would be clearly worse than a keyframe of the same stride is; groups in which nothing changes are one token
together. A scene cut starts a new keyframe. After each picture part come the sound codes that end within its time span.

Parts (children of the video's Codes, in stream order):
  image   a keyframe, one frame
  change  "span" (frames less one), "change/32", "change/16", "change/8" with ABSENT where nothing changed
  same    "hold" (groups less one): whole groups in which nothing changed
  audio   the sound of the span before it
Not here: the networks (`pyramid.py`), resampling to a constant frame rate (`panglot.media`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from panglot.media import Audio, Image, Video
from panglot.tokenizers.audio import AudioTokenizer, due_blocks
from panglot.tokenizers.base import ABSENT, SPLIT, Alphabet, Codes, CodesError, Tokenizer, header_int, most_flags
from panglot.tokenizers.change import GROUP, changed, error, strips, where_wrong
from panglot.tokenizers.image import ImageTokenizer, strides_down_to, to_pixels, to_tensor
from panglot.tokenizers.pyramid import STRIDES, Pyramid, PyramidConfig
from panglot.tokenizers.weights import ASSETS, read_weights

HOLD = 8
"""Groups that one `same` token can hold; more would part the picture from its sound."""

CUT = 0.6
"""A frame whose correlation with the frame before is below this starts a new scene."""

TOLERANCE = 1.25
"""A block is coded when its error exceeds that of the keyframe at the stride of changes, there and on average, by this
factor."""

GOOD_ENOUGH = {32: 30.0, 16: 33.0, 8: 36.0}
"""PSNR in dB, by stride, beyond which no change is coded, however good the keyframe is (a black one is perfect)."""

REFRESH = 6.0
"""A keyframe is sent again when coded change leaves this many times that error."""


LONGEST_HELD = 100_000
"""Frames that the last picture may stay on behind the last part: a model's budget may end before its video does."""


class VideoTokenizer(Tokenizer[Video]):
    """Keeps frame size and rate; `stride` is the finest level of changes, and of keyframes where `keyframe` names no
    finer one; `depth` the codes of sound. A fine keyframe costs once what is then seen in every frame."""

    modality = "video"

    def __init__(self, network: Pyramid, image: ImageTokenizer, audio: AudioTokenizer):
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.image, self.audio = image, audio

    @classmethod
    def load(cls, path: Path | None = None) -> VideoTokenizer:
        """From a weights file, by default the one shipped, with the shipped image and audio tokenizers."""
        tensors, config = read_weights(path or ASSETS / "video.safetensors")
        network = Pyramid(PyramidConfig.from_dict(config))
        network.load_state_dict(tensors)
        return cls(network, ImageTokenizer.load(), AudioTokenizer.load())

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        changes = [Alphabet(f"change/{s}", v.fsq.size) for s, v in zip(STRIDES, self.network.levels, strict=True)]
        own = (Alphabet("span", GROUP), Alphabet("hold", HOLD), *changes)
        return (*(a for a in self.image.alphabets if a != SPLIT), *own, *self.audio.alphabets, SPLIT)

    def count(
        self, media: Any, stride: int = 16, depth: int | None = None, keyframe: int | None = None
    ) -> dict[str, int]:
        """The most tokens per alphabet that so many frames can cost: all keyframes, or all changed everywhere."""
        info = media.info if isinstance(media, Video) else media
        frames, height, width = info.frames or 1, info.height or 0, info.width or 0
        groups = -(-(frames - 1) // GROUP)
        blocks = self.image.count(info, stride=stride)
        total = {name: n * frames for name, n in self.image.count(info, stride=keyframe or stride).items()}
        total |= {f"change/{s}": n * groups for s, n in zip(STRIDES, blocks.values(), strict=False)}
        flags = sum(most_flags(-(-height // s), -(-width // s)) for s in strides_down_to(stride))
        total |= {"span": frames - 1, "hold": groups, "split": groups * flags}
        if info.rate and info.samples:
            total |= self.audio.count(info, depth=depth)
        return {name: n for name, n in total.items() if n}

    def encode(self, media: Video, stride: int = 16, depth: int | None = None, keyframe: int | None = None) -> Codes:
        return self.join(self.encode_stream([media], stride=stride, depth=depth, keyframe=keyframe))

    def encode_stream(
        self, chunks: Iterable[Video], stride: int = 16, depth: int | None = None, keyframe: int | None = None
    ) -> Iterator[Codes]:
        """Pieces are video Codes whose headers add up: frames and samples are those that a piece closes."""
        strides_down_to(stride)
        if keyframe is not None and keyframe > stride:
            raise CodesError(f"keyframe {keyframe}: coarser than the changes after it, of stride {stride}")
        encoder: _Encoder | None = None
        for chunk in chunks:
            if encoder is None:
                encoder = _Encoder(self, chunk, stride, depth, keyframe or stride)
            yield from encoder.push(chunk)
        if encoder is not None:
            yield from encoder.finish()

    def join(self, pieces: Iterable[Codes]) -> Codes:
        parts = list(pieces)
        if not parts:
            raise CodesError("a video needs at least one frame")
        header = dict(parts[0].header)
        header["frames"] = sum(header_int(p, "frames") for p in parts)
        if header["rate"] is not None:
            header["samples"] = sum(header_int(p, "samples") for p in parts)
        return Codes("video", header, {}, tuple(child for p in parts for child in p.children))

    def decode(self, codes: Codes) -> Video:
        parts = list(self.decode_stream(codes))
        sounds = [p.audio for p in parts if p.audio is not None]
        audio = Audio(np.concatenate([s.samples for s in sounds]), sounds[0].rate) if sounds else None
        return Video(np.concatenate([p.frames for p in parts]), parts[0].fps, audio)

    def decode_stream(self, codes: Codes) -> Iterator[Video]:
        """Video piece by piece in bounded memory, each with the sound of its time span; pieces add up to `decode`."""
        height, width, left, fps = self._checked(codes)
        sound = self._sound(codes)
        shown = 0
        last: Tensor | None = None
        for child in itertools.chain(codes.children, _rest()):
            if not left:
                return
            if child.modality == "audio":
                continue
            if last is None and child.modality != "image":
                raise CodesError("a video must begin with a keyframe")
            frames, last = self._frames(child, last, height, width)
            frames = frames[:left]
            left -= len(frames)
            shown += len(frames)
            yield Video(frames, fps, sound.until(shown / fps if left else None) if sound else None)

    def _sound(self, codes: Codes) -> _SoundTrack | None:
        parts = [c.arrays for c in codes.children if c.modality == "audio"]
        if codes.header.get("rate") is None:
            if parts or codes.header.get("samples") is not None:
                raise CodesError("video codes have sound but no rate in the header")
            return None
        samples, rate = header_int(codes, "samples"), header_int(codes, "rate", 1)
        if len({tuple(arrays) for arrays in parts}) > 1:
            raise CodesError("the number of sound codes a block changes within one video")
        arrays = {name: np.concatenate([p[name] for p in parts]) for name in (parts[0] if parts else ())}
        whole = Codes("audio", {"samples": samples, "rate": rate}, arrays)
        if not samples and not parts:
            return _SoundTrack(iter(()), 0, rate)
        return _SoundTrack(self.audio.decode_stream(whole), samples, rate)

    def _frames(self, child: Codes, last: Tensor | None, height: int, width: int) -> tuple[np.ndarray, Tensor]:
        """The frames uint8 [n, H, W, 3] of one part, and the last of them as a padded tensor."""
        if child.modality == "image":
            picture = self.image.decode(child)
            if picture.pixels.shape[:2] != (height, width):
                raise CodesError("a keyframe's size differs from the video's")
            return picture.pixels[None], to_tensor(picture.pixels)
        assert last is not None
        if child.modality == "same":
            n = (int(child.arrays["hold"][0]) + 1) * GROUP
            return to_pixels(last[:, :, :height, :width]).repeat(n, 0), last
        n = int(child.arrays["span"][0]) + 1
        codes = [_grid(child.arrays[f"change/{s}"], last, s) for s in STRIDES if f"change/{s}" in child.arrays]
        with torch.inference_mode():
            group = self.decode_group(last, codes)
        return to_pixels(group[:n, :, :height, :width]), group[n - 1 : n]

    def code_group(
        self, last: Tensor, frames: np.ndarray, accepted: Tensor, stride: int
    ) -> tuple[list[Tensor], Tensor]:
        """Codes [1, h, w] a level for the frames uint8 [GROUP, H, W, 3] after `last`, and what they decode to.

        accepted: [1, 1, H'/8, W'/8], the squared error that is left alone in each block of 8x8. -1 marks a block that
        is not worth a code, or that lies in the padding; only the levels that are used at all are returned.
        """
        height, width = frames.shape[1:3]
        parts = list(strips(*last.shape[-2:]))
        found, pictures = [], []
        for (y0, y1), (top, bottom) in parts:
            target = to_tensor(frames[:, y0:y1])
            old = last[:, :, y0:y1]
            change = (target - old).flatten(0, 1)[None]
            wrong = (change, TOLERANCE * accepted[:, :, y0 // 8 : y1 // 8], (height - y0, width))
            if bool(where_wrong(*wrong)(0, None).any()):
                pictures, codes = self.network(change, old, where_wrong(*wrong), stride)
            else:
                codes = [torch.full((1, (y1 - y0) // s, last.shape[-1] // s), ABSENT) for s in strides_down_to(stride)]
            found.append([c[:, (top - y0) // s : (bottom - y0) // s] for s, c in zip(STRIDES, codes, strict=False)])
        joined = [torch.cat(level, 1) for level in zip(*found, strict=True)]
        used = max((i + 1 for i, code in enumerate(joined) if bool((code >= 0).any())), default=0)
        if used and len(parts) == 1:
            return joined[:used], changed(last, pictures[used - 1], joined[:used])
        return joined[:used], self.decode_group(last, joined[:used])

    def decode_group(self, last: Tensor, codes: list[Tensor]) -> Tensor:
        """The four frames [GROUP, 3, H, W] after `last` [1, 3, H, W], from codes [1, h, w] a level, -1 absent."""
        if not codes:
            return last.expand(GROUP, -1, -1, -1)
        out = []
        for (y0, y1), (top, bottom) in strips(*last.shape[-2:]):
            cut = [code[:, y0 // s : y1 // s] for s, code in zip(STRIDES, codes, strict=False)]
            old = last[:, :, y0:y1]
            if any(bool((code[:, top // s : bottom // s] >= 0).any()) for s, code in zip(STRIDES, codes, strict=False)):
                old = changed(old, self.network.decode(cut, old)[-1], cut)
            out.append(old[:, :, top - y0 : bottom - y0].expand(GROUP, -1, -1, -1))
        return torch.cat(out, 2)

    def _checked(self, codes: Codes) -> tuple[int, int, int, float]:
        self.check(codes)
        height, width, frames = (header_int(codes, name, 1) for name in ("height", "width", "frames"))
        fps = codes.header.get("fps")
        if not isinstance(fps, int | float) or not 1e-6 < fps < 1e4:
            raise CodesError(f"video codes say {fps} frames/s; it must be above 0.000001 and below 10000")
        most = 0
        for child in codes.children:
            names = set(child.arrays)
            most += {"image": 1, "change": GROUP, "same": HOLD * GROUP}.get(child.modality, 0)
            needed = {"image": {"image/32"}, "change": {"span"}, "same": {"hold"}, "audio": {"audio/1"}}
            if child.modality not in needed or not needed[child.modality] <= names:
                raise CodesError(f"a video has no part {child.modality!r} with {sorted(names)}")
            for single in needed[child.modality] & {"span", "hold"}:
                if child.arrays[single].shape != (1,) or child.arrays[single][0] < 0:
                    raise CodesError(f"a {child.modality} part needs one {single} code")
            for s, level in zip(STRIDES, ("change/32", "change/16", "change/8"), strict=True):
                shape = (-(-height // s), -(-width // s))
                if level in names and child.arrays[level].shape != shape:
                    raise CodesError(f"{level} has shape {child.arrays[level].shape}, this video needs {shape}")
            levels = [name for name in child.arrays if name.startswith("change/")]
            if levels != [f"change/{s}" for s in STRIDES[: len(levels)]]:
                raise CodesError(f"a change needs change/32, change/16, change/8 or a prefix, not {levels}")
        if frames - most > LONGEST_HELD:
            raise CodesError(f"video codes say {frames} frames, and have at most {most}")
        return height, width, frames, float(fps)


class _Encoder:
    """State of one video being encoded: the frame both sides have, frames of an open group, sound not yet placed."""

    def __init__(self, tokenizer: VideoTokenizer, first: Video, stride: int, depth: int | None, keyframe: int):
        self.tokenizer, self.stride, self.keyframe = tokenizer, stride, keyframe
        self.height, self.width = first.frames.shape[1:3]
        self.fps = first.fps
        self.sound = tokenizer.audio.encoder(first.audio.rate, depth) if first.audio else None
        self.rate = first.audio.rate if first.audio else None
        self.names = [f"audio/{k}" for k in range(1, (depth or tokenizer.audio.depth) + 1)]
        self.codes = np.zeros((len(self.names), 0), np.int32)
        self.placed = self.samples = self.frames = 0
        self.open: list[np.ndarray] = []
        self.last: Tensor | None = None
        self.thumbnail: np.ndarray | None = None
        self.error = 0.0
        self.accepted = torch.zeros(1, 1, 1, 1)
        self.hold = 0
        self.waiting: list[tuple[Codes, int, int]] = []

    def push(self, chunk: Video) -> Iterator[Codes]:
        if chunk.frames.shape[1:3] != (self.height, self.width):
            raise CodesError("the frame size changes within one video: encode the parts one by one")
        rate = chunk.audio.rate if chunk.audio else None
        if (chunk.fps, rate) != (self.fps, self.rate):
            was, now = f"{self.fps:g} frames/s, sound {self.rate}", f"{chunk.fps:g} frames/s, sound {rate}"
            raise CodesError(f"a video changes from {was} Hz to {now} Hz: encode the parts one by one")
        if self.sound is not None and chunk.audio is not None:
            self.samples += len(chunk.audio.samples)
            self.codes = np.concatenate([self.codes, self.sound.push(chunk.audio.samples)], 1)
        for frame in chunk.frames:
            self._frame(frame)
        yield from self._place(final=False)

    def finish(self) -> Iterator[Codes]:
        self._close_groups()
        self._close_hold()
        if self.sound is not None:
            self.codes = np.concatenate([self.codes, self.sound.finish()], 1)
        yield from self._place(final=True)

    def _frame(self, frame: np.ndarray) -> None:
        thumbnail = _thumbnail(frame)
        cut = self.thumbnail is None or _correlation(thumbnail, self.thumbnail) < CUT
        self.thumbnail = thumbnail
        if cut:
            self._close_groups()
            self._close_hold()
            self._key(frame)
        else:
            self.open.append(frame)
            if len(self.open) == GROUP:
                self._close_group()

    def _key(self, frame: np.ndarray) -> None:
        image = self.tokenizer.image
        codes = image.encode(Image(frame), stride=self.keyframe)
        self.last = to_tensor(image.decode(codes).pixels)
        usual = self.last  # what changes can reach
        if self.keyframe < self.stride:
            levels = {f"image/{s}": codes.arrays[f"image/{s}"] for s in strides_down_to(self.stride)}
            usual = to_tensor(image.decode(replace(codes, arrays=levels)).pixels)
        squared = ((usual - to_tensor(frame)) ** 2).mean(1, keepdim=True)
        self.error = max(float(squared.mean()), 4 / 10 ** (GOOD_ENOUGH[self.stride] / 10))
        self.accepted = F.avg_pool2d(squared, 8).clamp(min=self.error)
        self._emit(codes, 1)

    def _close_groups(self) -> None:
        """Code all open frames. A new keyframe takes one of them and leaves the others open."""
        while self.open:
            self._close_group()

    def _close_group(self) -> None:
        assert self.last is not None
        n, frames = len(self.open), np.stack(self.open + self.open[-1:] * (GROUP - len(self.open)))
        with torch.inference_mode():
            codes, decoded = self.tokenizer.code_group(self.last, frames, self.accepted, self.stride)
            if codes and error(decoded, frames) > REFRESH * self.error:
                self._refresh()
                return
        self.open = []
        if not codes and n == GROUP:
            self.hold += 1
            if self.hold == HOLD:
                self._close_hold()
            return
        self._close_hold()
        self.last = decoded[n - 1 : n]
        arrays = {"span": np.array([n - 1], np.int32)}
        for s, code in zip(STRIDES, codes, strict=False):
            h, w = -(-self.height // s), -(-self.width // s)
            arrays[f"change/{s}"] = code[0, :h, :w].to(torch.int32).numpy()
        self._emit(Codes("change", {}, arrays), n)

    def _refresh(self) -> None:
        """Begin the open group again from a keyframe of its first frame: change alone cannot follow."""
        first, self.open = self.open[0], self.open[1:]
        self._close_hold()
        self._key(first)

    def _close_hold(self) -> None:
        if self.hold:
            part = Codes("same", {}, {"hold": np.array([self.hold - 1], np.int32)})
            self._emit(part, self.hold * GROUP)
            self.hold = 0

    def _emit(self, part: Codes, frames: int) -> None:
        self.frames += frames
        self.waiting.append((part, frames, self.frames))

    def _place(self, final: bool) -> Iterator[Codes]:
        """Parts whose sound is complete, each followed by it, as one piece."""
        children: list[Codes] = []
        frames = 0
        while self.waiting:
            part, count, end = self.waiting[0]
            due = due_blocks(end, self.fps)
            if self.sound is not None and not final and due > self.placed + self.codes.shape[1]:
                break
            self.waiting.pop(0)
            children.append(part)
            frames += count
            if self.sound is not None:
                n = max(0, min(due - self.placed, self.codes.shape[1]))
                now, self.codes = self.codes[:, :n], self.codes[:, n:]
                if n:
                    children.append(Codes("audio", {}, dict(zip(self.names, now, strict=True))))
                self.placed += n
        if final and self.codes.shape[1]:
            children.append(Codes("audio", {}, dict(zip(self.names, self.codes, strict=True))))
        if children or final:
            yield self._piece(children, frames, self.samples if final else 0)

    def _piece(self, children: list[Codes], frames: int, samples: int) -> Codes:
        header = {"height": self.height, "width": self.width, "frames": frames, "fps": self.fps}
        header |= {"samples": samples if self.rate else None, "rate": self.rate}
        return Codes("video", header, {}, tuple(children))


def _grid(array: np.ndarray, last: Tensor, stride: int) -> Tensor:
    """int32 [ceil(H/s), ceil(W/s)] -> int64 [1, h, w] over the padded frame."""
    h, w = (n // stride for n in last.shape[-2:])
    padded = np.full((h, w), ABSENT, np.int64)
    padded[: array.shape[0], : array.shape[1]] = array
    return torch.from_numpy(padded)[None]


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """Grey float [h, w], about 32 pixels on the short side, for comparing frames."""
    step = max(1, min(frame.shape[:2]) // 32)
    h, w = (side // step for side in frame.shape[:2])
    # Sums of whole rows of integers: averages over the colours alone took a hundred times as long.
    rows = frame[: h * step, : w * step].reshape(h, step, -1).sum(1, dtype=np.uint32)
    return rows.reshape(h, w, -1).sum(2, dtype=np.int64) / (3 * step * step)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two thumbnails are; flat pictures of about the same grey are alike."""
    x, y = a - a.mean(), b - b.mean()
    if x.std() < 4 and y.std() < 4:
        return 1.0 if abs(a.mean() - b.mean()) < 32 else 0.0
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum() + 1e-9))


def _rest() -> Iterator[Codes]:
    """Endless holding: what is shown when the parts of a video end before its last frame."""
    hold = np.array([HOLD - 1], np.int32)
    while True:
        yield Codes("same", {}, {"hold": hold})


class _SoundTrack:
    """Decoded sound of a whole video, handed out up to one point in time after another."""

    def __init__(self, pieces: Iterator[Audio], samples: int, rate: int):
        self.pieces, self.samples, self.rate = pieces, samples, rate
        self.held = np.zeros(0, np.float32)
        self.given = 0

    def until(self, seconds: float | None) -> Audio:
        """What comes next, up to this time, or with None all that is left."""
        end = self.samples if seconds is None else min(self.samples, round(seconds * self.rate))
        need = max(0, end - self.given)
        while len(self.held) < need:
            self.held = np.concatenate([self.held, next(self.pieces).samples])
        now, self.held = self.held[:need], self.held[need:]
        self.given += need
        return Audio(now, self.rate)
