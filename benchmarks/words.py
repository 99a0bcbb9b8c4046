"""What the model calls held-out media: all of them, exact match of the likeliest answer.

    python benchmarks/words.py --held .cache/primer/held [--model RUN/model] [--limit N]

`panglot eval` asks for every medium from every other and so takes a few cases of each; this asks for words alone, of
every file with a text. Rows are sets and kinds; scenes are split by whether training has shown the combination, and
for each of their attributes is told how often its word is in the answer. Intervals are Wilson's, 95 %.

Not measured: answers in other media (`panglot eval`).
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from _common import Table, options, progress, report

from panglot.cells import BATCH, Asked, wilson
from panglot.checkpoint import CheckpointError
from panglot.folders import FolderError
from panglot.generate import Panglot
from panglot.judges import ATTRIBUTES, Item, JudgeError, items


def row_of(item: Item) -> str:
    seen = {True: ", seen", False: ", never seen"}[bool(item.row["seen"])] if item.is_scene else ""
    return f"{item.set} ({item.kind}){seen}"


def main() -> None:
    extra = {"held": {"type": Path, "required": True}, "model": {"type": Path, "default": None}}
    opts = options(__doc__ or "", ["*"], needs_data=False, **extra)
    try:
        model = Asked(Panglot.load(opts.extra["model"]))
        found: dict[str, list[Item]] = defaultdict(list)
        for item in items(opts.extra["held"]):
            found[row_of(item)].append(item)
    except (CheckpointError, FolderError, JudgeError) as error:
        sys.exit(str(error))
    table = Table("held-out media to a word")
    for name, asked in found.items():
        asked = asked[: opts.limit]
        progress(f"words: {name}, {len(asked)} of them")
        said = []
        for start in range(0, len(asked), BATCH):
            media = [model.medium(item) for item in asked[start : start + BATCH]]
            said += [getattr(answer, "text", "") for answer in model.ask([[medium] for medium in media], "text")]
        right = sum(text == item.text for text, item in zip(said, asked, strict=True))
        low, high = wilson(right, len(asked))
        parts = []
        for attribute in ATTRIBUTES if asked[0].is_scene else ():
            pairs = [(t, str(i.row[attribute])) for t, i in zip(said, asked, strict=True) if attribute in i.row]
            if pairs:
                told = sum(re.search(rf"\b{re.escape(word)}\b", text) is not None for text, word in pairs)
                parts.append(f"{attribute} {told}/{len(pairs)}")
        cells = {"right": right, "cases": len(asked), "share": right / len(asked), "low": low, "high": high}
        table.add(media=name, **cells, **{"each attribute": ", ".join(parts)})
    report("words", [table], opts)


if __name__ == "__main__":
    main()
