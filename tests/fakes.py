"""Small tokenizers without weights, for tests of what stands on top of tokenizers. Their codes are means of blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from panglot.media import Audio, Image, Video
from panglot.tokenizers import tokenizer as shipped
from panglot.tokenizers.base import Alphabet, Codes, Tokenizer

BLOCK = 0.08


class FakeImage(Tokenizer[Image]):
    """Each level holds the mean colour of its blocks, 4 bits a channel; decoding shows the finest level."""

    modality = "image"
    alphabets = tuple(Alphabet(f"image/{s}", 4096) for s in (32, 16, 8))  # type: ignore[assignment]

    def encode(self, media: Image, stride: int = 8) -> Codes:
        height, width = media.pixels.shape[:2]
        arrays = {f"image/{s}": self._level(media.pixels, s) for s in (32, 16, 8) if s >= stride}
        return Codes("image", {"height": height, "width": width}, arrays)

    def decode(self, codes: Codes) -> Image:
        name, grid = list(codes.arrays.items())[-1]
        stride = int(name.removeprefix("image/"))
        colours = np.stack([grid >> 8, grid >> 4 & 15, grid & 15], -1).astype(np.uint8) * 17
        pixels = colours.repeat(stride, 0).repeat(stride, 1)
        return Image(np.ascontiguousarray(pixels[: codes.header["height"], : codes.header["width"]]))

    def count(self, media: Any, **options: Any) -> dict[str, int]:
        raise NotImplementedError

    def encode_stream(self, chunks: Iterable[Image], **options: Any) -> Iterator[Codes]:
        return (self.encode(chunk, **options) for chunk in chunks)

    def join(self, pieces: Iterable[Codes]) -> Codes:
        (piece,) = pieces
        return piece

    @staticmethod
    def _level(pixels: np.ndarray, stride: int) -> np.ndarray:
        height, width = (-(-n // stride) for n in pixels.shape[:2])
        padding = [(0, height * stride - pixels.shape[0]), (0, width * stride - pixels.shape[1]), (0, 0)]
        means = np.pad(pixels, padding, "edge").reshape(height, stride, width, stride, 3).mean((1, 3))
        red, green, blue = np.moveaxis(np.round(means / 17).astype(np.int32), -1, 0)
        return red << 8 | green << 4 | blue


class FakeAudio(Tokenizer[Audio]):
    """Code 1 is the loudness of a block, code 2 its zero crossings; decodes to a tone of that loudness and pitch."""

    modality = "audio"
    alphabets = (Alphabet("audio/1", 1024), Alphabet("audio/2", 1024))  # type: ignore[assignment]

    def encode(self, media: Audio, depth: int = 2) -> Codes:
        return self.join(self.encode_stream([media], depth=depth))

    def encode_stream(self, chunks: Iterable[Audio], depth: int = 2) -> Iterator[Codes]:
        for chunk in chunks:
            mono = chunk.samples if chunk.samples.ndim == 1 else chunk.samples.mean(1)
            blocks = np.array_split(mono, max(1, round(len(mono) / chunk.rate / BLOCK)))
            loud = [min(1023, round(float(np.sqrt((b**2).mean())) * 1023)) for b in blocks]
            pitch = [min(1023, int((np.diff(np.signbit(b)) != 0).sum())) for b in blocks]
            arrays = {"audio/1": np.array(loud, np.int32), "audio/2": np.array(pitch, np.int32)}
            header = {"samples": len(mono), "rate": chunk.rate}
            yield Codes("audio", header, dict(list(arrays.items())[:depth]))

    def join(self, pieces: Iterable[Codes]) -> Codes:
        parts = list(pieces)
        arrays = {name: np.concatenate([p.arrays[name] for p in parts]) for name in parts[0].arrays}
        header = {"samples": sum(int(p.header["samples"]) for p in parts), "rate": parts[0].header["rate"]}
        return Codes("audio", header, arrays)

    def decode(self, codes: Codes) -> Audio:
        return Audio(np.concatenate([p.samples for p in self.decode_stream(codes)]), int(codes.header["rate"]))

    def decode_stream(self, codes: Codes) -> Iterator[Audio]:
        loud = codes.arrays["audio/1"]
        pitch = codes.arrays.get("audio/2", np.full(len(loud), 40))
        for part, level, crossings in zip(
            np.array_split(np.arange(codes.header["samples"]), len(loud)), loud, pitch, strict=True
        ):
            phase = np.linspace(0, np.pi * crossings, len(part), endpoint=False)
            yield Audio(
                (level / 1023 * np.sqrt(2) * np.sin(phase)).clip(-1, 1).astype(np.float32), codes.header["rate"]
            )

    def count(self, media: Any, **options: Any) -> dict[str, int]:
        raise NotImplementedError


class FakeVideo(Tokenizer[Video]):
    """Every frame is an image; the sound of a chunk follows its frames."""

    modality = "video"
    alphabets = (*FakeImage.alphabets, *FakeAudio.alphabets)  # type: ignore[assignment, misc]

    def encode(self, media: Video, stride: int = 8, depth: int = 2) -> Codes:
        return self.join(self.encode_stream([media], stride=stride, depth=depth))

    def encode_stream(self, chunks: Iterable[Video], stride: int = 8, depth: int = 2) -> Iterator[Codes]:
        for chunk in chunks:
            children = [FakeImage().encode(Image(frame), stride) for frame in chunk.frames]
            header = {"frames": len(chunk.frames), "fps": chunk.fps}
            if chunk.audio is not None:
                children.append(FakeAudio().encode(chunk.audio, depth))
            yield Codes("video", header, children=tuple(children))

    def join(self, pieces: Iterable[Codes]) -> Codes:
        parts = list(pieces)
        header = {"frames": sum(int(p.header["frames"]) for p in parts), "fps": parts[0].header["fps"]}
        return Codes("video", header, children=tuple(c for p in parts for c in p.children))

    def decode(self, codes: Codes) -> Video:
        raise NotImplementedError

    def decode_stream(self, codes: Codes) -> Iterator[Video]:
        frames: list[np.ndarray] = []
        for child in codes.children:
            if child.modality == "image":
                frames.append(FakeImage().decode(child).pixels)
            else:
                yield Video(np.stack(frames), float(codes.header["fps"]), FakeAudio().decode(child))
                frames = []
        if frames:
            yield Video(np.stack(frames), float(codes.header["fps"]))

    def count(self, media: Any, **options: Any) -> dict[str, int]:
        raise NotImplementedError


def tokenizer(modality: str) -> Tokenizer[Any]:
    """The fake of a modality; text has the shipped one, which is small."""
    fakes = {"image": FakeImage, "audio": FakeAudio, "video": FakeVideo}
    return fakes[modality]() if modality in fakes else shipped(modality)


def use(monkeypatch: Any) -> None:
    """Let the command line, inspection and reports use these tokenizers."""
    for module in ("convert", "inspect", "report"):
        monkeypatch.setattr(f"panglot.{module}.tokenizer", tokenizer)
