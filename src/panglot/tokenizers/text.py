"""Text to tokens and back: byte-level BPE (Sennrich et al., arXiv 1508.07909, on bytes as in GPT-2).

Every byte is a symbol, so any text round-trips exactly, also what was never seen in training. Nothing is normalised and
nothing is special: "<image>" typed by a user is seven characters. Streaming gives the codes of the whole text, because
merges never cross the pieces that `PIECE` cuts and a piece is held back until the next one begins.

Not here: markers between media and the id ranges of one vocabulary.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from panglot.media import Text
from panglot.tokenizers.base import Alphabet, Codes, CodesError, Tokenizer

if TYPE_CHECKING:
    from panglot.media import MediaInfo

PIECE = r" ?[\p{L}\p{M}]{1,32}|\p{N}| ?[^\s\p{L}\p{M}\p{N}]{1,32}|\s{1,32}"
"""What merges stay inside: a word or a run of signs with the space before it, one digit, or white space.

It matches every character, looks at nothing behind a match and at most one character beyond it. So all matches in a
prefix of a text but the last are matches in the whole text: the rule that streaming rests on. A piece is at most 33
characters long, which bounds what a stream holds back.
"""

_SLICE = 1 << 16  # characters encoded at once: the library keeps some 100 bytes a token beside the ids


class TextTokenizer(Tokenizer[Text]):
    """Byte-level BPE over one alphabet, "text".

    Codes: modality "text", no header, arrays {"text": int32 [N]}.
    """

    modality = "text"

    def __init__(self, vocab: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> None:
        """vocab: entry -> id, 0 .. n-1, in the GPT-2 spelling of bytes; merges: pairs of entries, first merged first.

        Raises ValueError where a text exists that these cannot encode.
        """
        vocab, merges = dict(vocab), list(merges)
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise ValueError(f"the ids are not 0 to {len(vocab) - 1}")
        missing = [byte for byte in pre_tokenizers.ByteLevel.alphabet() if byte not in vocab]
        if missing:
            raise ValueError(f"{len(missing)} of the 256 bytes have no entry")
        for left, right in merges:
            if not {left, right, left + right} <= vocab.keys():
                raise ValueError(f"the merge of {left!r} and {right!r} uses entries that do not exist")
        self._bpe = _library(models.BPE(vocab=vocab, merges=merges))
        self._alphabets = (Alphabet("text", len(vocab)),)

    @classmethod
    def load(cls, path: str | Path | None = None) -> TextTokenizer:
        """The tokenizer of a `tokenizer.json` that `save` wrote, or without a path the one that panglot ships.

        Raises ValueError when the file is not such a tokenizer, OSError when it cannot be read.
        """
        source = resources.files("panglot") / "assets" / "text.json" if path is None else Path(path)
        try:
            model = json.loads(source.read_bytes())["model"]
            if model["type"] != "BPE":
                raise ValueError(f"its model is {model['type']!r}, must be 'BPE'")
            return cls(model["vocab"], [(left, right) for left, right in model["merges"]])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{source}: not a text tokenizer ({error}); train one with recipes/train_text.py"
            ) from None

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 2048) -> TextTokenizer:
        """Learn at most `size` entries from texts; the same texts give the same tokenizer."""
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        bpe = _library(models.BPE())
        bpe.train_from_iterator(texts, trainer)
        model = json.loads(bpe.to_str())["model"]
        return cls(model["vocab"], [(left, right) for left, right in model["merges"]])

    def save(self, path: str | Path) -> None:
        """Write a stock `tokenizer.json`, which the `tokenizers` and `transformers` libraries open too."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        partial.write_text(self._bpe.to_str(pretty=True) + "\n", encoding="utf-8")
        partial.replace(path)

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return self._alphabets

    def encode(self, media: Text, **options: Any) -> Codes:
        """Codes of a text; there are no options."""
        slices = (Text(media.text[start : start + _SLICE]) for start in range(0, len(media.text), _SLICE))
        return self.join(self.encode_stream(slices, **options))

    def encode_stream(self, chunks: Iterable[Text], **options: Any) -> Iterator[Codes]:
        """Codes of consecutive parts of a text, cut anywhere; at most 33 characters are held back."""
        if options:
            raise TypeError(f"text has no option {next(iter(options))!r}")
        held = ""
        for chunk in chunks:
            held += chunk.text
            found = self._bpe.encode(held)
            if found.ids:
                pieces = found.word_ids  # of each token the piece it is from
                known = pieces.index(pieces[-1])
                held = held[found.offsets[known][0] :]
                if known:
                    yield self._codes(found.ids[:known])
        if held:
            yield self._codes(self._bpe.encode(held).ids)

    def join(self, pieces: Iterable[Codes]) -> Codes:
        return self._codes(np.concatenate([np.zeros(0, np.int32), *(piece.arrays["text"] for piece in pieces)]))

    def decode(self, codes: Codes) -> Text:
        """The text of any array of ids. Where the bytes are not UTF-8, U+FFFD stands, one for each maximal faulty part.

        Raises CodesError when codes are not one array "text" of ids in range.
        """
        if codes.modality != self.modality or list(codes.arrays) != ["text"] or codes.children:
            raise CodesError(f"codes of {codes.modality} with {list(codes.arrays)}, must be text with one array 'text'")
        self.check(codes)
        ids = codes.arrays["text"]
        if ids.ndim != 1 or (ids.size and ids.min() < 0):
            raise CodesError(f"text must be one row of codes without gaps, not an array of shape {ids.shape}")
        return Text(self._bpe.decode(ids.tolist(), skip_special_tokens=False))

    def count(self, media: Text | MediaInfo, **options: Any) -> dict[str, int]:
        """Tokens of a text, exactly; of a `MediaInfo`, which knows only `characters`, an upper bound (4 bytes each)."""
        if isinstance(media, Text):
            return self.encode(media, **options).tokens()
        return {"text": 4 * (media.characters or 0)}

    def _codes(self, ids: Any) -> Codes:
        return Codes("text", {}, {"text": np.asarray(ids, np.int32)})


def _library(model: models.BPE) -> tokenizers.Tokenizer:
    """The library's tokenizer around a model: pieces, then bytes; no normaliser, no added tokens."""
    bpe = tokenizers.Tokenizer(model)
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PIECE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    return bpe
