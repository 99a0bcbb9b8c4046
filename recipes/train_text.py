"""Train the text tokenizer that panglot ships: byte-level BPE on every caption and transcript of the training data.

    python recipes/train_text.py --data DATA [--out FILE] [--size 2048]

Reads the `text` column of each `DATA/train/*/metadata.jsonl`, a row as often as it stands there: a caption that many
pictures share becomes one token, which is what the small model reads most. Prints bytes a token on `DATA/bench`.
Two seconds; the same data give the same file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from panglot.media import Text
from panglot.tokenizers.text import TextTokenizer

SHIPPED = Path(__file__).parents[1] / "src/panglot/assets/text.json"


def captions(folder: Path) -> dict[str, list[str]]:
    """The `text` of every row, by data set."""
    found = {}
    for table in sorted(folder.glob("*/metadata.jsonl")):
        with table.open(encoding="utf-8") as lines:
            found[table.parent.name] = [row["text"] for row in map(json.loads, lines) if row.get("text")]
    return found


def bytes_per_token(tokenizer: TextTokenizer, texts: list[str]) -> float:
    tokens = sum(tokenizer.count(Text(text))["text"] for text in texts)
    return sum(len(text.encode()) for text in texts) / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("PANGLOT_DATA"), help="default: $PANGLOT_DATA")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--size", type=int, default=2048, help="entries, 256 bytes included")
    options = parser.parse_args()
    if options.data is None or not (train := captions(Path(options.data) / "train")):
        parser.error("no train/*/metadata.jsonl found; name the data folder with --data or PANGLOT_DATA")
    texts = [text for rows in train.values() for text in rows]
    tokenizer = TextTokenizer.train(texts, options.size)
    tokenizer.save(options.out)
    print(f"{len(texts)} texts, {sum(len(text.encode()) for text in texts)} bytes -> {options.out}")
    print(f"{tokenizer.alphabets[0].size} entries; bytes a token on held-out text, each distinct text once:")
    bench = {name: list(dict.fromkeys(rows)) for name, rows in captions(Path(options.data) / "bench").items()}
    for name, rows in bench.items():
        print(f"{name:>16} {bytes_per_token(tokenizer, rows):5.2f}")
    everything = list(dict.fromkeys(text for rows in bench.values() for text in rows))
    if everything:
        print(f"{'all':>16} {bytes_per_token(tokenizer, everything):5.2f}")


if __name__ == "__main__":
    sys.exit(main())
