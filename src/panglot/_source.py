"""Where the bytes of a medium are, and what they are: by content, never by suffix.

Only formats on this list are ever handed to a decoder, each to its own. Guessing is not left to the libraries,
which know many old formats that nobody should open from an untrusted source.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from panglot import _limits
from panglot._limits import MediaError, refuse

Source = str | os.PathLike[str] | bytes | BinaryIO


@dataclass(frozen=True)
class File:
    """Something to read: where it is, and what its first bytes say it is.

    kind: "image" (format is Pillow's name), "timed" (format is libav's name, or "vorbis" for it in Ogg), or "text".
    """

    name: str
    data: Path | bytes
    size: int
    kind: str
    format: str

    def handle(self) -> Path | io.BytesIO:
        return self.data if isinstance(self.data, Path) else io.BytesIO(self.data)


def identify(source: Source) -> File:
    """Find out what `source` is from its first bytes. Raises MediaError where it is nothing we read."""
    if isinstance(source, (str, os.PathLike)):
        data, name = Path(source), os.fspath(source)
        try:
            if data.exists() and not data.is_file():
                raise refuse(name, "is not a regular file")
            size = data.stat().st_size
            with open(data, "rb") as file:
                head = file.read(64)
        except (OSError, ValueError) as error:
            if isinstance(error, MediaError):
                raise
            raise refuse(name, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    else:
        data, name = (source, "<bytes>") if isinstance(source, bytes) else _contents(source)
        size, head = len(data), data[:64]
    if size == 0:
        raise refuse(name, "is empty")
    return File(name, data, size, *_sniff(name, head, size))


def _contents(file: BinaryIO) -> tuple[bytes, str]:
    name = str(getattr(file, "name", "<file>"))
    data = file.read(_limits.MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise refuse(name, "is not open in binary mode", 'open it with "rb"')
    if len(data) > _limits.MAX_BYTES:
        raise refuse(name, f"is over the limit of {_limits.MAX_BYTES >> 20} MiB for a file object", "pass its path")
    return data, name


_IMAGE_HEADS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_TIMED_HEADS = {
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"\x1aE\xdf\xa3": "matroska",
    b"\0\0\x01\xba": "mpeg",
    b"\0\0\x01\xb3": "mpegvideo",
    b"RF64": "wav",
}
_RIFF_FORMS = {b"WEBP": ("image", "WEBP"), b"WAVE": ("timed", "wav"), b"AVI ": ("timed", "avi")}
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"sidx")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def _sniff(name: str, head: bytes, size: int) -> tuple[str, str]:
    """(kind, format) by the first 64 bytes and the size of the file. Text may begin like a format: "ID3 tags are", "The
    free world"."""
    for magic, format in _IMAGE_HEADS.items():
        if head.startswith(magic):
            return "image", format
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "image", "BMP"
    for magic, format in _TIMED_HEADS.items():
        if head.startswith(magic) and not (format == "mp3" and head[3:4] >= b"\x20"):
            return "timed", "vorbis" if format == "ogg" and b"\x01vorbis" in head else format
    if head[:4] == b"RIFF" and head[8:12] in _RIFF_FORMS:
        return _RIFF_FORMS[head[8:12]]
    box = int.from_bytes(head[:4], "big")
    if head[4:8] in _MP4_BOXES and (head[4:8] == b"ftyp" or box in (0, 1) or 8 <= box <= size):
        brands = [head[i : i + 4] for i in range(8, min(len(head), box), 4)]
        if head[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands):
            return "image", "AVIF"
        if head[4:8] == b"ftyp" and head[8:12] in (*_HEIC_BRANDS, b"mif1", b"msf1"):
            raise refuse(name, "is an HEIC image, which is not supported", "save it as JPEG or AVIF")
        return "timed", "mov"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[2] & 0x0C != 0x0C:
        if head[1] & 0x06 in (2, 4) and 0 < head[2] >> 4 < 15:
            return "timed", "mp3"
        if head[1] & 0xF6 == 0xF0:
            return "timed", "aac"
    return "text", "text"
