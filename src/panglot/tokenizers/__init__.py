"""One tokenizer a modality; `tokenizer` hands out the shipped ones.

Not here: tokenizers of your own. They need no registration: construct them, or load them with the `load` of their
class, and call their methods.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panglot.tokenizers.base import Tokenizer

MODALITIES = ("text", "image", "audio", "video")


@lru_cache(maxsize=len(MODALITIES))
def tokenizer(modality: str) -> Tokenizer[Any]:
    """The shipped tokenizer of "text", "image", "audio" or "video", with its weights; one instance a process.

    Raises ValueError for another name. Its module, and torch where it needs torch, is imported on the first call.
    """
    if modality == "text":
        from panglot.tokenizers.text import TextTokenizer

        return TextTokenizer.load()
    if modality == "image":
        from panglot.tokenizers.image import ImageTokenizer

        return ImageTokenizer.load()
    if modality == "audio":
        from panglot.tokenizers.audio import AudioTokenizer

        return AudioTokenizer.load()
    if modality == "video":
        from panglot.tokenizers.video import VideoTokenizer

        return VideoTokenizer.load()
    raise ValueError(f"no tokenizer for {modality!r}; there is one for each of {', '.join(MODALITIES)}")
