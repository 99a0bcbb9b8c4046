"""A comparison as a table, as a rate-distortion plot, and as a page with both and what was decoded.

Not here: running and measuring the codes (`panglot.compare`), the style of the page (`panglot.report`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panglot import media, regions, report
from panglot.compare import ADAPTIVE, OWN, Comparison, Part, Row
from panglot.media import Image
from panglot.report import MEASURES, card, escaped, img, player

INTRO = """Codes side by side on the same file: panglot at several settings, a linear code of the same bits (matrices
and rounding alone), and classical codecs at their nearest rates. Bytes are payload without headers; panglot's are raw
tokens without entropy coding. The card with the coloured edge is the original as it was compared; of pictures and
videos the others show the rate in the middle, of sounds every code. Times are those of one run on this machine."""

SKIN = "face-like is a rule on colour and smoothness, not a detector: sand and wood can be face-like too"
COLOURS = {
    OWN: "#0b6b5d",
    ADAPTIVE: "#3fb8a5",
    "linear": "#8c8c8c",
    "JPEG": "#d98c21",
    "WebP": "#c4543a",
    "AVIF": "#7b3f9e",
    "Codec2": "#d98c21",
    "Opus": "#7b3f9e",
    "x264": "#7b3f9e",
    "bytes": "#8c8c8c",
    "Deflate": "#d98c21",
    "LZMA": "#7b3f9e",
}
KIND_COLOURS = np.array([[214, 40, 40], [240, 180, 110], [30, 110, 220], [40, 160, 60], [0, 0, 0]])


def columns(part: Part) -> tuple[list[str], list[list[str]]]:
    """The table of a part as text: titles, and a row a code; an empty row between two rates."""
    measures = [name for name in MEASURES if any(name in row.fidelity for row in part.rows)]
    kinds = list(part.kinds)
    head = ["code", "setting", "tokens", "bytes"] + (["bit/s"] if part.seconds else [])
    head += [", ".join(filter(None, MEASURES[m][:2])) for m in measures]
    head += ["identical"] if part.modality == "text" else []
    head += [f"{kind}, dB" for kind in kinds] + ["encode, s", "decode, s"]
    rows: list[list[str]] = []
    for before, row in zip((None, *part.rows), part.rows, strict=False):
        if before is not None and before.rate != row.rate:
            rows.append([])
        cells = [row.code, row.setting, "-" if row.tokens is None else f"{row.tokens:,}", f"{row.bits / 8:,.0f}"]
        cells += [f"{row.bits / part.seconds:,.0f}"] if part.seconds else []
        cells += [_number(row.fidelity.get(m), MEASURES[m][2]) for m in measures]
        cells += ["yes" if row.fidelity.get("identical") else "no"] if part.modality == "text" else []
        cells += [_number(row.detail.get(kind), 2) for kind in kinds]
        rows.append([*cells, f"{row.encode_seconds:.3f}", f"{row.decode_seconds:.3f}"])
    return head, rows


def _number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "equal" if math.isinf(value) else f"{value:.{digits}f}"


def notes(part: Part) -> list[str]:
    """What is to be known to read the table of a part: shares of kinds of regions, what was left out."""
    found = []
    if part.kinds:
        shares = ", ".join(f"{kind} {share:.1%}" for kind, share in part.kinds.items())
        side = regions.BLOCK
        found.append(f"PSNR of each kind is over its blocks of {side} x {side} pixels ({shares}, others plain); {SKIN}")
    if part.modality == "audio":
        found.append("STOI is a measure of speech; of music and noise it says nothing")
    return [*found, *part.notes]


# --- the plot

AXES = {"image": ("psnr", "ssim"), "video": ("psnr", "ssim"), "audio": ("mel_distance", "stoi"), "text": ("bytes",)}


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a PNG, whole or not at all: fidelity over bytes, a line a code, a row of axes for each part of a file."""
    parts = [(comparison.path.name, part) for comparison in comparisons for part in comparison.parts]
    unfinished = path.with_name(f".{path.name}.part")
    try:
        _plot(parts, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _plot(parts: Sequence[tuple[str, Part]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2 * len(parts)), layout="constrained", dpi=120)
    grid: Any = figure.subplots(len(parts), 2, squeeze=False)
    for (name, part), axes in zip(parts, grid, strict=True):
        title = f"{name.encode('ascii', 'replace').decode()}: {part.said.split(',')[0]}"
        for measure, axis in zip((*AXES[part.modality], None), axes, strict=False):
            if measure is None:
                axis.axis("off")
            elif measure == "bytes":
                _bars(part, axis)
            else:
                _lines(part, measure, axis)
        axes[0].set_title(title, loc="left", parse_math=False)
    figure.savefig(path, format="png")


def _lines(part: Part, measure: str, axis: Any) -> None:
    for code in dict.fromkeys(row.code for row in part.rows):
        points = sorted((row.bits / 8, float(row.fidelity.get(measure, math.nan))) for row in _of(part, code))
        points = [(x, y) for x, y in points if x > 0 and math.isfinite(y)]
        if points:
            width = 2.2 if code in (OWN, ADAPTIVE) else 1.3
            axis.plot(*zip(*points, strict=True), "o-", label=code, color=COLOURS[code], linewidth=width, markersize=4)
    label, unit, _ = MEASURES[measure]
    axis.set(xscale="log", xlabel="bytes", ylabel=", ".join(filter(None, (label, unit))))
    axis.grid(alpha=0.3, which="both")
    if measure == "mel_distance":
        axis.invert_yaxis()  # up is better in every plot
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small", frameon=False)


def _bars(part: Part, axis: Any) -> None:
    """A text comes back as it was, so there is only its size to show."""
    axis.barh([row.code for row in part.rows], [row.bits / 8 for row in part.rows],
              color=[COLOURS[row.code] for row in part.rows])  # fmt: skip
    axis.set(xlabel="bytes")


def _of(part: Part, code: str) -> list[Row]:
    return [row for row in part.rows if row.code == code]


# --- the page


def write(comparisons: Sequence[Comparison], work: Path) -> Path:
    """Write the page for comparisons whose media lie under `work`, and its pictures beside them."""
    sections = []
    for number, comparison in enumerate(comparisons):
        body = "\n".join(_section(comparison, part, work)
                         for part in comparison.parts)  # fmt: skip
        name = comparison.path.name
        sections.append((name, f'<section id="f{number}">\n<h2>{escaped(name)}</h2>\n{body}\n</section>'))
    return report.page(sections, work, "panglot compare", INTRO)


def _section(comparison: Comparison, part: Part, work: Path) -> str:
    if comparison.folder is None:
        raise ValueError(f"{comparison.path} was compared without a folder for its media")
    folder = comparison.folder
    drawn = folder / f"{part.modality}-rates.png"
    _plot([(comparison.path.name, part)], drawn)
    cards = []
    if part.original is not None:
        cards.append(card("original", "", _shown(part.original, work), original=True))
        if part.modality == "image" and any(part.kinds.values()):
            cards.append(card("kinds of regions", "", img(_map(part.original, folder), work), _legend()))
    cards += [card(row.code, _note(row), _shown(row.decoded, work), row.setting) for row in part.rows if row.decoded]
    head, rows = columns(part)
    lines = "".join(f'<p class="soft">{escaped(line)}</p>' for line in notes(part))
    return (
        f'<p class="facts">{escaped(part.said)}</p>\n{img(drawn, work)}\n'
        f'<div class="levels">\n{"".join(cards)}\n</div>\n{report.table(head, [row for row in rows if row])}\n{lines}'
    )


def _shown(path: Path, work: Path) -> str:
    return img(path, work) if path.suffix == ".png" else player(path, work)


def _note(row: Row) -> str:
    measured = [(name, row.fidelity[name]) for name in ("psnr", "mel_distance") if name in row.fidelity]
    parts = [f"{_number(value, 2)} {MEASURES[name][1]}" for name, value in measured]
    return ", ".join([f"{row.bits / 8:,.0f} bytes", *parts])


def _map(original: Path, folder: Path) -> Path:
    """The picture, dimmed, with the kind of each block as a tint."""
    picture = media.open(original)
    assert isinstance(picture, Image)
    found = regions.kinds(picture.pixels)
    height, width = (n * regions.BLOCK for n in found.shape)
    tint = KIND_COLOURS[found].repeat(regions.BLOCK, 0).repeat(regions.BLOCK, 1)
    mixed = picture.pixels // 2
    mixed[:height, :width] += (tint // 2).astype(np.uint8)
    path = folder / "kinds.png"
    media.save(Image(mixed), path)
    return path


def _legend() -> str:
    names = ("red", "sand", "blue", "green")
    return ", ".join(f"{kind} {name}" for kind, name in zip(regions.KINDS, names, strict=True)) + "; " + SKIN
