"""panglot: text, images, sound and video as one stream of tokens, and back.

    import panglot as pg
    codes = pg.encode(pg.open("dog.jpg"))
    pg.decode(codes).save("back.png")
    pg.load().generate([pg.open("bark.ogg"), "draw it"], want="image")[0].save("dog.png")

This module holds the public names and nothing else. Each is imported when it is first used, so that `import panglot`
costs milliseconds and loads neither torch nor a codec.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panglot.convert import decode, encode, read_tokens, write_tokens
    from panglot.generate import Panglot, load
    from panglot.media import Audio, Image, MediaError, MediaInfo, Text, Video, open, open_stream, probe, save
    from panglot.tokenfile import TokenFileError
    from panglot.tokenizers import tokenizer
    from panglot.tokenizers.base import Alphabet, Codes, CodesError, Tokenizer

__version__ = "0.1.0"

__all__ = [
    "Alphabet",
    "Audio",
    "Codes",
    "CodesError",
    "Image",
    "MediaError",
    "MediaInfo",
    "Panglot",
    "Text",
    "TokenFileError",
    "Tokenizer",
    "Video",
    "__version__",
    "decode",
    "encode",
    "load",
    "open",
    "open_stream",
    "probe",
    "read_tokens",
    "save",
    "tokenizer",
    "write_tokens",
]

_HOME = {
    "panglot.convert": ("decode", "encode", "read_tokens", "write_tokens"),
    "panglot.generate": ("Panglot", "load"),
    "panglot.media": (
        *("Audio", "Image", "MediaError", "MediaInfo", "Text", "Video"),
        *("open", "open_stream", "probe", "save"),
    ),
    "panglot.tokenfile": ("TokenFileError",),
    "panglot.tokenizers": ("tokenizer",),
    "panglot.tokenizers.base": ("Alphabet", "Codes", "CodesError", "Tokenizer"),
}


def __getattr__(name: str) -> Any:
    """The public name `name`, imported from its module on first use (PEP 562)."""
    for module, names in _HOME.items():
        if name in names:
            value = getattr(importlib.import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'panglot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
