"""An evaluation as tables, and beside what was measured what the project set out to reach.

Not here: any measurement (`panglot.evaluate`); printing (`panglot._terminal`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from panglot.generate import MEDIA

Grid = tuple[str, list[str], list[list[str]]]
"""Title, head and rows of a table."""


def goals(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each goal with what was measured: goal, wanted, share, low, high, cases, reached; no goal without a measurement.

    A goal is reached where the share itself is at least what is wanted, as it is for the whole held-out set of media.
    """
    out = [
        _goal("closed cells, the least of them", 0.9, min(_closed(found), key=lambda s: s["share"], default=None)),
        _goal("speech of held-out speakers -> word", 0.8, _row(found, "audio", "say it", "text", "", closed=False)),
        _goal("held-out sounds and notes -> word", 0.6, _row(found, "audio", "sound", "text", "")),
        _goal("held-out sounds and notes -> drawing", 0.6, _row(found, "audio", "sound", "image", "draw it")),
        _goal("held-out photos -> word", 0.4, photo := _row(found, "image", "photo", "text", "")),
        _goal("word -> sound", 0.7, _row(found, "text", "", "audio", "sound")),
    ]
    if photo:
        out.insert(5, _goal("held-out photos -> word, 5 times chance", 5 * photo["chance"], photo))
    if found["cells"]:
        least = min(found["cells"], key=lambda cell: cell["share"] - cell["usual"])
        name = f"every cell above the most frequent answer, the nearest: {least['source']} -> {least['want']}"
        above = {"reached": least["share"] > least["usual"]}
        out.append((_goal(name, least["usual"], least) or {}) | above)
    for scene in found["scenes"]:
        if not scene["seen"]:
            out.append(_goal(f"never-seen combinations, {scene['given']} -> {scene['want']}", 0.6, scene))
    if found["quarter"]:
        out.append(_goal("named with all tokens -> still with a quarter", 0.8, found["quarter"]["kept"]))
    well = found["well_formed"]
    if well["answers"]:
        part = {"share": well["decoded"] / well["answers"], "cases": well["answers"], "low": None, "high": None}
        out.append(_goal("answers that decode", 1.0, part))
    return [goal for goal in out if goal]


def _goal(name: str, wanted: float, measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not measured or measured["share"] is None:
        return None
    said = {key: measured[key] for key in ("share", "low", "high", "cases")}
    return {"goal": name, "wanted": round(wanted, 4), **said, "reached": measured["share"] >= wanted}


def _row(
    found: Mapping[str, Any], source: str, given: str, want: str, kind: str, closed: bool | None = None
) -> Mapping[str, Any] | None:
    """The row that gives one kind and wants another; None if there is none such."""
    for row in found["rows"]:
        alike = (row["source"], row["want"], row["kind"]) == (source, want, kind)
        if alike and (not given or row["given"].endswith(f"({given})")) and closed in (None, row["closed"]):
            return row
    return None


def _closed(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cell["closed"] for cell in found["cells"] if "closed" in cell]


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def grids(found: Mapping[str, Any]) -> Iterator[Grid]:
    """The tables of an evaluation, the most important first."""
    yield _matrix(found["cells"])
    yield _rows(found["rows"])
    if found["scenes"]:
        yield _scenes(found["scenes"])
    head = ["goal", "wanted", "measured", "95 %", "cases", "reached"]
    lines = [
        [g["goal"], _percent(g["wanted"]), _percent(g["share"]), _interval(g), str(g["cases"]), _yes(g["reached"])]
        for g in found["goals"]
    ]
    yield "What was set out to be reached", head, lines


def notes(found: Mapping[str, Any]) -> list[str]:
    """What no table holds."""
    out = []
    if quarter := found["quarter"]:
        most, few = quarter["tokens"]
        full, less, kept = (_percent(quarter[name]["share"]) for name in ("full", "quarter", "kept"))
        out.append(
            f"Pictures from words ({quarter['kind'] or 'any kind'}): named right {full} with {most} tokens, {less} "
            f"with {few}; of the first, {kept} with {few} too"
        )
    if video := found["video"]:
        sound, long, begins = (_percent(video[name]["share"]) for name in ("with_sound", "as_long", "begins_within"))
        out.append(
            f"{video['videos']} videos were made, {video['seconds']:g} s in the median: {sound} have sound; of these, "
            f"{long} have it as long as the pictures, and in {begins} it begins while they are shown"
        )
    if loss := found.get("loss"):
        out.append("Held-out loss, nats a token: " + ", ".join(f"{name} {value:.3f}" for name, value in loss.items()))
    well = found["well_formed"]
    out.append(f"{well['decoded']} of {well['answers']} answers decode; {found['seconds']:g} s in all")
    out.append(
        "judge: how much of real held-out media of the wanted kind the judge names right (of those given, where a text "
        "is wanted); most frequent: always answering the concept that training has most often"
    )
    return out


def _matrix(cells: Sequence[Mapping[str, Any]]) -> Grid:
    lines = []
    for source in MEDIA:
        line = [source]
        for want in MEDIA:
            cell = next((c for c in cells if (c["source"], c["want"]) == (source, want)), None)
            closed = f" (closed {_percent(cell['closed']['share'])})" if cell and "closed" in cell else ""
            said = f"{_percent(cell['share'])}{closed} | {_percent(cell['usual'])}" if cell else "-"
            line.append(said)
        lines.append(line)
    return "Any in, any out: answered right | most frequent answer", ["given", *MEDIA], lines


def _rows(rows: Sequence[Mapping[str, Any]]) -> Grid:
    head = ["given", "wanted", "right", "95 %", "cases", "chance", "most frequent", "judge", "also"]
    lines = []
    for row in rows:
        wanted = row["kind"] if row["kind"] else row["want"]
        also = f"any kind {_percent(row['any_kind'])}" if "any_kind" in row else ""
        also = f"heard {_percent(row['heard'])}" if "heard" in row else also
        said = [_percent(row["share"]), _interval(row), str(row["cases"]), _percent(row["chance"])]
        lines.append([row["given"], wanted, *said, _percent(row["usual"]), _percent(row["judge"]), also])
    return "Rows of the cells", head, lines


def _scenes(scenes: Sequence[Mapping[str, Any]]) -> Grid:
    head = ["scenes", "training has seen", "all right", "95 %", "cases", "each attribute", "judge on real ones"]
    lines = []
    for scene in scenes:
        each = ", ".join(f"{a} {_percent(s['share'])}" for a, s in scene["attributes"].items())
        judge = scene.get("judge")
        real = ", ".join(f"{a} {_percent(s['share'])}" for a, s in judge["attributes"].items()) if judge else ""
        said = [_percent(scene["share"]), _interval(scene), str(scene["cases"]), each, real]
        lines.append([f"{scene['given']} -> {scene['want']}", "yes" if scene["seen"] else "never", *said])
    return "Scenes: object, colour, and place, count or motion", head, lines


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.0f} %" if part >= 0.1 or not part else f"{100 * part:.1f} %"


def _interval(said: Mapping[str, Any]) -> str:
    return "" if said["low"] is None else f"{100 * said['low']:.0f}-{100 * said['high']:.0f}"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def write(found: Mapping[str, Any], path: Path) -> None:
    """As one JSON file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
