"""Classical codecs at the rates of tokens: JPEG, WebP and AVIF; Opus and Codec2; x264; Deflate and LZMA.

They get every advantage: headers and containers are not counted, a picture may be coded smaller and enlarged again,
and of several settings the one nearest to the original is taken. Where nothing a codec can write is as small as asked,
its smallest is taken, and its bits say so. A codec that is not installed raises `Unavailable`.

Not here: learned codecs, the linear baseline (`panglot.linear`), x265 (it aborts in a process that holds torch).
"""

from __future__ import annotations

import io
import lzma
import math
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from panglot.media import Audio, Image, Text, Video
from panglot.peers import Coded, Unavailable, error, factors, restored, scaled, timed

TRIES = 3
"""Sizes of a picture that are tried at each rate, besides those at which nothing is small enough."""

MANY_PIXELS = 1 << 19
"""Pictures with more pixels are coded with half the colour samples only and at one size less, and AVIF hurries."""

NEAR = 0.98
"""A file of this share of its budget is near enough."""


def best_setting(settings: range, budget: float, size: Callable[[int], int]) -> int | None:
    """The last of `settings`, which run from small files to large ones, whose file has at most `budget` bytes, or None.

    Where it lies between two sizes that are known is guessed from their logarithms; bisection, if that does not help.
    Ends early within NEAR of the budget.
    """
    low, high, sizes = -1, len(settings), {}
    while high - low > 1:
        middle = (low + high) // 2
        if low >= 0 and high < len(settings) and len(sizes) % 3:
            share = math.log(max(budget, 1) / sizes[low]) / math.log(sizes[high] / sizes[low])
            middle = min(high - 1, max(low + 1, low + int(share * (high - low))))
        sizes[middle] = max(1, size(settings[middle]))
        if sizes[middle] > budget:
            high = middle
        else:
            low = middle
            if sizes[middle] >= NEAR * budget:
                break
    return settings[low] if low >= 0 else None


# --- pictures


@dataclass(frozen=True)
class Format:
    """One picture format: Pillow's name and feature, the highest quality, settings, the payload inside a file.

    density: bits a pixel near which it does best; at fewer, a smaller picture does better.
    """

    name: str
    feature: str
    top: int
    settings: tuple[dict[str, Any], ...]
    density: float
    payload: Callable[[bytes], int]


class Pictures:
    """One picture in one format at any rate; the sizes of files that were written are remembered."""

    def __init__(self, image: Image, form: Format):
        from PIL import features

        if form.feature and not features.check(form.feature):
            raise Unavailable(f"{form.name} is not in this build of Pillow; install Pillow from PyPI")
        self.image, self.form = image, form
        self._small: dict[float, np.ndarray] = {}
        self._bytes: dict[tuple[float, int, int], int] = {}

    def nearest(self, bits: float) -> Coded:
        """The picture nearest to the original among those of at most so many bits, or else the smallest."""
        pixels = self.image.pixels
        tries, found = TRIES if self._few(1.0) else TRIES - 1, []
        for factor in factors(pixels.size // 3, bits, self.form.density):
            found += self._fitting(factor, 0, bits)
            if len(found) == tries:
                break
        if not found:
            return self._coded(*min(self._bytes, key=lambda way: self._bytes[way]))
        best = self._best(found)
        others = range(1, len(self.form.settings) if self._few(best[0]) else 1)
        return self._coded(*self._best([best, *(way for s in others for way in self._fitting(best[0], s, bits))]))

    def _best(self, ways: list[tuple[float, int, int]]) -> tuple[float, int, int]:
        if len(ways) == 1:
            return ways[0]
        return min(ways, key=lambda way: error(self.image.pixels, self._coded(*way).medium.pixels))  # type: ignore[union-attr]

    def _few(self, factor: float) -> bool:
        return self.image.pixels.size // 3 * factor**2 <= MANY_PIXELS

    def _fitting(self, factor: float, setting: int, bits: float) -> list[tuple[float, int, int]]:
        """The way with the highest quality within so many bits, if there is one."""
        quality = best_setting(range(1, self.form.top + 1), bits // 8, lambda q: self._size(factor, setting, q))
        return [] if quality is None else [(factor, setting, quality)]

    def _size(self, factor: float, setting: int, quality: int) -> int:
        way = (factor, setting, quality)
        if way not in self._bytes:
            self._bytes[way] = self.form.payload(self._write(*way))
        return self._bytes[way]

    def _write(self, factor: float, setting: int, quality: int) -> bytes:
        from PIL import Image as Pillow

        if factor not in self._small:
            self._small[factor] = scaled(self.image.pixels[None], factor)[0]
        options = dict(self.form.settings[setting])
        if "speed" in options and not self._few(factor):
            options["speed"] = 8
        file, picture = io.BytesIO(), Pillow.fromarray(self._small[factor])
        try:
            picture.save(file, self.form.name, quality=quality, **options)
        except (OSError, ValueError) as fault:
            raise Unavailable(f"{self.form.name} cannot hold {picture.width} x {picture.height} ({fault})") from fault
        return file.getvalue()

    def _coded(self, factor: float, setting: int, quality: int) -> Coded:
        height, width = self.image.pixels.shape[:2]
        data, encoding = timed(lambda: self._write(factor, setting, quality))
        pixels, decoding = timed(lambda: restored(_read(data)[None], height, width)[0])
        sampling = str(self.form.settings[setting].get("subsampling", ""))
        how = " ".join(filter(None, (f"x{factor:g}", f"q{quality}", sampling)))
        return Coded(Image(pixels), 8 * self.form.payload(data), how, encoding, decoding)


def _read(data: bytes) -> np.ndarray:
    from PIL import Image as Pillow

    return np.array(Pillow.open(io.BytesIO(data)).convert("RGB"))


def jpeg_scan_bytes(data: bytes) -> int:
    """Bytes of entropy-coded data of a JPEG file: everything but markers and their segments (ITU-T T.81, B.1.1).

    Restart markers inside a scan are counted as part of it. Raises ValueError if the file has no complete scan.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG file: no SOI marker")
    at, scan = 2, 0
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ValueError(f"not a JPEG file: no marker at byte {at}")
        if marker == 0xD9:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            start = at
            # The scan ends at the first 0xFF that is neither a stuffed byte nor a restart marker.
            while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
                if data[at + 1] not in (0, *range(0xD0, 0xD8)):
                    break
                at += 2
            at = len(data) if at < 0 else at
            scan += at - start
    if scan == 0:
        raise ValueError("not a JPEG file: it has no scan")
    return scan


def webp_payload_bytes(data: bytes) -> int:
    """Bytes of the VP8 (or VP8L) chunk of a WebP file, without RIFF and chunk headers (RFC 9649, 2.3 to 2.6)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("not a WebP file: no RIFF header")
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            return size
        at += 8 + size + size % 2
    raise ValueError("not a WebP file: it has no VP8 chunk")


def avif_payload_bytes(data: bytes) -> int:
    """Bytes inside the mdat boxes of an AVIF file: the AV1 data alone (ISO/IEC 14496-12, 4.2 and 8.1.1)."""
    at, total = 0, 0
    while at + 8 <= len(data):
        size, header = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(data) - at
        if size < header:
            raise ValueError(f"not an AVIF file: a box of {size} bytes at byte {at}")
        if data[at + 4 : at + 8] == b"mdat":
            total += size - header
        at += size
    if total == 0:
        raise ValueError("not an AVIF file: it has no mdat box")
    return total


_SAMPLINGS = tuple({"subsampling": s} for s in ("4:2:0", "4:4:4"))

FORMATS = (
    Format("JPEG", "jpg", 95, tuple(s | {"optimize": True} for s in _SAMPLINGS), 0.5, jpeg_scan_bytes),
    Format("WebP", "webp", 100, ({"method": 4},), 0.3, webp_payload_bytes),
    Format("AVIF", "avif", 100, tuple(s | {"speed": 6} for s in _SAMPLINGS), 0.2, avif_payload_bytes),
)


# --- sound

CODEC2_MODES = {"700C": 28, "1300": 52, "2400": 48}
"""Bits of one frame, which is 40 ms long, in 2400 20 ms."""

OPUS_RATES = (6000, 9000, 16_000)
"""Bits a second that are asked of Opus; at 6,000, the least it takes, about 5,000 come out."""


def codec2(audio: Audio, mode: str) -> Coded:
    """Codec2 at one of CODEC2_MODES, 8 kHz mono, by the programs c2enc and c2dec. Delay is left in."""
    programs = [path for name in ("c2enc", "c2dec") if (path := shutil.which(name))]
    if len(programs) < 2:
        raise Unavailable("Codec2 needs the programs c2enc and c2dec; on Debian: apt-get install codec2")
    rate, frame_bits = 8000, CODEC2_MODES[mode]
    raw = np.clip(_resampled(_mono(audio), audio.rate, rate) * 32767, -32768, 32767).astype("<i2")
    with tempfile.TemporaryDirectory() as folder:
        heard, coded, back = (str(Path(folder, name)) for name in ("in.raw", "coded.bit", "out.raw"))
        raw.tofile(heard)
        _, encoding = timed(lambda: subprocess.run([programs[0], mode, heard, coded], check=True, capture_output=True))
        _, decoding = timed(lambda: subprocess.run([programs[1], mode, coded, back], check=True, capture_output=True))
        bits = Path(coded).stat().st_size // -(-frame_bits // 8) * frame_bits  # c2enc pads a frame to whole bytes
        decoded = np.fromfile(back, "<i2").astype(np.float32) / 32768
    return Coded(Audio(_resampled(decoded, rate, audio.rate), audio.rate), bits, mode, encoding, decoding)


def opus(audio: Audio, bit_rate: int) -> Coded:
    """Opus by libopus: mono, variable rate, frames of 60 ms (the cheapest at low rates). Packets alone, with delay."""
    rate = 24_000
    size = rate * 60 // 1000
    samples = _resampled(_mono(audio), audio.rate, rate)
    samples = np.pad(samples, (0, -len(samples) % size + size))
    packets, encoding = timed(lambda: _opus_packets(samples, rate, size, bit_rate))
    (decoded, heard), decoding = timed(lambda: _opus_sound(packets, rate))
    # The padding above flushes the encoder; its last packet is silence that a stream would not carry.
    bits = 8 * sum(packet.size for packet in packets[: -(-len(samples) // size) - 1])
    found = Audio(_resampled(decoded, heard, audio.rate), audio.rate)
    return Coded(found, bits, f"{bit_rate / 1000:g}k", encoding, decoding)


def _opus_packets(samples: np.ndarray, rate: int, size: int, bit_rate: int) -> list[Any]:
    import av

    encoder = _context("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = rate, "mono", "flt", bit_rate
    encoder.options = {"application": "voip", "frame_duration": "60", "vbr": "on"}
    packets = []
    for start in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], "flt", "mono")
        frame.sample_rate, frame.pts = rate, start
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


def _opus_sound(packets: list[Any], rate: int) -> tuple[np.ndarray, int]:
    """float32 [n] and its rate."""
    decoder = _context("libopus", "r")
    decoder.sample_rate, decoder.layout = rate, "mono"
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    pieces = [(f.to_ndarray().mean(0) if f.format.is_planar else f.to_ndarray().reshape(-1), f) for f in frames]
    scale = [values.astype(np.float32) / (32768 if "s16" in f.format.name else 1) for values, f in pieces]
    return np.concatenate(scale), frames[0].sample_rate


def _context(codec: str, mode: str) -> Any:
    import av
    from av.error import FFmpegError

    try:
        return av.CodecContext.create(codec, mode)  # type: ignore[call-overload]
    except (FFmpegError, ValueError) as fault:
        raise Unavailable(f"{codec} is not in this build of PyAV ({fault}); install PyAV from PyPI") from fault


def _mono(audio: Audio) -> np.ndarray:
    return audio.samples if audio.samples.ndim == 1 else audio.samples.mean(1, dtype=np.float32)


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    import soxr

    return samples.astype(np.float32) if rate == wanted else soxr.resample(samples.astype(np.float32), rate, wanted)


# --- pictures that move

CRF = range(51, 15, -1)
X264 = {"preset": "medium", "x264-params": "keyint=infinite:threads=1"}
X264_DENSITY, X264_TRIES = 0.01, 2


class Movies:
    """The pictures of one video through x264 at any rate.

    What was coded once is remembered: x264 need not give the same bytes twice, and a file whose size was within the
    budget must be the file that is shown.
    """

    def __init__(self, video: Video):
        self.video = video
        self._small: dict[float, np.ndarray] = {}
        self._written: dict[tuple[float, int], tuple[list[Any], float]] = {}

    def nearest(self, bits: float) -> Coded:
        """The video nearest to the original among those of at most so many bits, or else the smallest."""
        frames, found = self.video.frames, []
        for factor in factors(frames.size // 3, bits, X264_DENSITY):
            crf = best_setting(CRF, bits // 8, lambda crf, factor=factor: self._size(factor, crf))
            found += [(factor, crf)] if crf is not None else []
            if len(found) == X264_TRIES:
                break
        if not found:
            found = [min(self._written, key=lambda way: self._size(*way))]
        coded = [self._coded(*way) for way in found]
        return min(coded, key=lambda c: error(frames, c.medium.frames))  # type: ignore[union-attr]

    def _size(self, factor: float, crf: int) -> int:
        if (factor, crf) not in self._written:
            self._written[factor, crf] = timed(lambda: self._write(factor, crf))
        return sum(without_sei(bytes(packet)) for packet in self._written[factor, crf][0])

    def _write(self, factor: float, crf: int) -> list[Any]:
        import av

        if factor not in self._small:
            self._small[factor] = scaled(self.video.frames, factor, even=True)
        frames = self._small[factor]
        rate = Fraction(self.video.fps).limit_denominator(1001)
        encoder = _context("libx264", "w")
        encoder.height, encoder.width = frames.shape[1:3]
        encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", rate, 1 / rate
        encoder.options = X264 | {"crf": str(crf)}
        packets = []
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = number
            packets += encoder.encode(frame)
        return packets + encoder.encode(None)

    def _coded(self, factor: float, crf: int) -> Coded:
        height, width = self.video.frames.shape[1:3]
        packets, encoding = self._written[factor, crf]
        frames, decoding = timed(lambda: restored(_h264_frames(packets), height, width))
        bits = 8 * self._size(factor, crf)
        return Coded(Video(frames, self.video.fps), bits, f"x{factor:g} crf{crf}", encoding, decoding)


def _h264_frames(packets: list[Any]) -> np.ndarray:
    decoder = _context("h264", "r")
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def without_sei(packet: bytes) -> int:
    """Bytes of an H.264 packet (Annex B) without its SEI units and their start codes (ITU-T H.264 7.3.1)."""
    starts = []
    at = packet.find(b"\x00\x00\x01")
    while at >= 0:
        starts.append(at - 1 if at > 0 and packet[at - 1] == 0 else at)
        at = packet.find(b"\x00\x00\x01", at + 3)
    total = 0
    for start, stop in pairwise([*starts, len(packet)]):
        kind = packet[packet.index(b"\x00\x00\x01", start) + 3] & 0x1F
        total += 0 if kind == 6 else stop - start
    return total


# --- text


def deflate(text: Text) -> Coded:
    """Deflate at its slowest, without a zlib header."""
    data = text.text.encode()
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed, encoding = timed(lambda: coder.compress(data) + coder.flush())
    back, decoding = timed(lambda: zlib.decompress(packed, -15))
    return Coded(Text(back.decode()), 8 * len(packed), "level 9", encoding, decoding)


def lzma_raw(text: Text) -> Coded:
    """LZMA2 at its slowest, without an xz container."""
    data = text.text.encode()
    chain: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    packed, encoding = timed(lambda: lzma.compress(data, lzma.FORMAT_RAW, filters=chain))
    back, decoding = timed(lambda: lzma.decompress(packed, lzma.FORMAT_RAW, filters=chain))
    return Coded(Text(back.decode()), 8 * len(packed), "preset 9e", encoding, decoding)
