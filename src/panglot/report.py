"""The page that shows what files became: original beside decoded at every level, tokens as colours, and the numbers.

One `index.html` with its pictures, sounds and videos in `media/` beside it. It refers to nothing outside its folder,
so it opens from a disk, offline, and can be moved or zipped. Not here: measuring (`panglot.inspect`).
"""

from __future__ import annotations

import errno
import html
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import numpy as np

from panglot import measure, media
from panglot.inspect import Inspection, Level
from panglot.media import Image, Video
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import ABSENT, Codes

PAGE = "index.html"
GENERATOR = '<meta name="generator" content="panglot">'
SPECTROGRAM_SECONDS = 60
STRIP_WIDTH = 160
STRIP_ROWS = 60
CHIPS = 600

INTRO = """Every file was cut into tokens, whole numbers from small alphabets, and built again from these numbers alone.
The card with the coloured edge is the original; each other card is one level, coarse to fine. In a token map one small
square is one token, and equal colours are equal tokens. Pictures are lossless PNG and sounds FLAC; the video players
show an H.264 copy of the original and of the decoded frames, while the numbers come from the frames themselves."""

MEASURES = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 3),
    "mel_distance": ("mel distance", "dB", 2),
    "stoi": ("STOI (speech only)", "", 3),
}


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder to write into, whose files move into `folder` when the block ends without an error.

    Nothing in `folder` changes until then. Files of the same name are replaced, others are left alone; pages move
    last, so that a page never refers to files that are not there yet. Raises OSError where that cannot be, and
    FileExistsError for a folder that already has a page which panglot did not write.
    """
    page = folder / PAGE
    if page.exists() and GENERATOR not in page.read_text("utf-8", "replace"):
        raise FileExistsError(errno.EEXIST, "holds a page that is no panglot report; choose another folder", str(page))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file; name a folder", str(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except FileNotFoundError:  # of a part of the path, or of a file system that makes no folders
        raise NotADirectoryError(errno.ENOTDIR, "cannot be made there; choose another folder", str(folder)) from None
    try:
        yield work
        files = sorted((p for p in work.rglob("*") if p.is_file()), key=lambda p: (p.suffix == ".html", p))
        for file in files:
            target = folder / file.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def media_folder(work: Path, number: int, path: Path) -> Path:
    """The folder under `work` for the media of one file: numbered, with what is plain ASCII of its name."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:40] or "file"
    folder = work / "media" / f"{number:02d}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(
    inspections: Sequence[Inspection],
    work: Path,
    title: str = "panglot report",
    first: Sequence[tuple[str, str]] = (),
    intro: str = INTRO,
) -> Path:
    """Write the page for inspections whose media lie under `work`, and the pictures it needs beside them.

    first: sections before those of the inspections, as `page` takes them.
    """
    sections = [(x.path.name, _section(i, x, work)) for i, x in enumerate(inspections, len(first))]
    return page([*first, *sections], work, title, intro)


def page(sections: Sequence[tuple[str, str]], work: Path, title: str, intro: str) -> Path:
    """Write a page of sections under `work`: the name of each, and its HTML, which begins with <section id="fN">."""
    style = (resources.files("panglot") / "assets" / "report.css").read_text("utf-8")
    links = "".join(f'<a href="#f{i}">{escaped(name)}</a>' for i, (name, _) in enumerate(sections))
    body = "\n".join(section for _, section in sections)
    path = work / PAGE
    path.write_text(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{GENERATOR}\n'
        f"<title>{escaped(title)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{escaped(title)}</h1>\n"
        f'<p class="soft">{intro}</p>\n<nav>{links}</nav></header>\n{body}\n</body>\n</html>\n',
        encoding="utf-8",
    )
    return path


def _section(number: int, inspection: Inspection, work: Path) -> str:
    if inspection.original is None:
        raise ValueError(f"{inspection.path} was inspected without a folder for its media")
    shown = {"text": _text_cards, "image": _image_cards, "audio": _audio_cards, "video": _video_cards}
    cards = shown[inspection.info.modality](inspection, inspection.original, work)
    return (
        f'<section id="f{number}">\n<h2>{escaped(inspection.path.name)}</h2>\n'
        f'<p class="facts">{escaped(facts(inspection))}</p>\n'
        f'<div class="levels">\n{cards}\n</div>\n{table(*columns(inspection))}\n</section>'
    )


def facts(inspection: Inspection) -> str:
    """One line on the original: its size, rate, length and number of raw values."""
    info = inspection.info
    parts: list[str] = [info.modality]
    if info.width and info.height:
        parts.append(f"{info.width} x {info.height}")
    if info.modality == "video" and info.fps:
        parts.append(f"{info.fps:.4g} frames/s")
    if info.rate:
        parts.append(f"{info.rate:,} Hz")
    if info.duration:
        parts.append(f"{info.duration:.2f} s")
    return ", ".join([*parts, f"{info.values:,} raw values", f"{inspection.raw_bits:,} raw bits"])


def _text_cards(inspection: Inspection, original: Path, work: Path) -> str:
    cards = [card("original", "", f"<blockquote>{escaped(_excerpt(original))}</blockquote>", original=True)]
    for level in inspection.levels:
        same = "equal to the original" if level.fidelity.get("identical") else "not equal to the original"
        decoded = f"<blockquote>{escaped(_excerpt(level.decoded))}</blockquote>" if level.decoded else ""
        cards.append(card("decoded", same, decoded))
        cards.append(card("tokens", f"{level.tokens:,}", f'<div class="chips">{_chips(level.codes)}</div>'))
    return "\n".join(cards)


def _excerpt(path: Path) -> str:
    text = path.read_text("utf-8")
    return text if len(text) <= 4000 else text[:4000] + " ..."


def _chips(codes: Codes) -> str:
    """The first tokens of a text, each on the colour of its number."""
    coder = tokenizer("text")
    ids = np.concatenate([np.zeros(0, np.int32), *(a.ravel() for a in codes.arrays.values())])[:CHIPS]
    name = next(iter(codes.arrays))
    chips = []
    for number, colour in zip(ids, colours(ids, light=True), strict=True):
        piece = coder.decode(Codes("text", codes.header, {name: np.array([number], np.int32)})).text
        tint = "".join(f"{c:02x}" for c in colour)
        chips.append(f'<span style="background:#{tint}" title="{number}">{escaped(piece)}</span>')
    return "<wbr>".join(chips) + (" ..." if codes.tokens().get(name, 0) > CHIPS else "")


def _image_cards(inspection: Inspection, original: Path, work: Path) -> str:
    cards = [card("original", "", img(original, work), original=True)]
    for level in inspection.levels:
        name, codes = list(level.codes.arrays.items())[-1]
        tokens = _picture(colours(codes), _beside(level, "tokens"), work, "tokens")
        cards.append(card(level.name, summary(level), _shown(level, work) + tokens, f"tokens of {name}"))
    return "\n".join(cards)


def _audio_cards(inspection: Inspection, original: Path, work: Path) -> str:
    peak = float(_mel_power(original).max())
    cards = [card("original", "", player(original, work) + _spectrogram(original, peak, work), original=True)]
    for level in inspection.levels:
        if level.decoded is None:
            continue
        codes = np.stack(list(level.codes.arrays.values()))
        tokens = _picture(colours(codes), _beside(level, "tokens"), work, "tokens strip")
        inner = player(level.decoded, work) + _spectrogram(level.decoded, peak, work) + tokens
        cards.append(
            card(level.name, summary(level), inner, "mel spectrogram; tokens, one row a code, time to the right")
        )
    return "\n".join(cards)


def _spectrogram(path: Path, peak: float, work: Path) -> str:
    """The mel spectrogram of the first minute, low notes at the bottom, 80 dB down from the loudest of the original."""
    from matplotlib import colormaps

    power = _mel_power(path)
    level = 10 * np.log10(np.maximum(power / max(peak, 1e-10), 1e-8)) / 80 + 1
    level = level[:, :: max(1, level.shape[1] // 1500)]
    pixels = (colormaps["magma"](np.clip(level[::-1], 0, 1))[..., :3] * 255).astype(np.uint8)
    return _picture(pixels.repeat(2, 0), path.with_name(path.stem + "-spectrogram.png"), work, "spectrogram strip")


def _mel_power(path: Path) -> np.ndarray:
    with media.open_stream(path, seconds=SPECTROGRAM_SECONDS) as chunks:
        start = next(chunks)
    if isinstance(start, Video):
        raise ValueError(f"{path} is a video; a spectrogram needs a sound file")
    return measure.mel_power(measure.mono(start), start.rate)


def _video_cards(inspection: Inspection, original: Path, work: Path) -> str:
    cards = [card("original", "", player(original, work), original=True)]
    names = list(dict.fromkeys(n for x in inspection.levels for n in _kinds(x.codes)))
    palette = colours(np.arange(1, len(names) + 1))
    for level in inspection.levels:
        every = _kinds(level.codes, each=True)
        kinds = every[: STRIP_WIDTH * STRIP_ROWS]
        grid = np.full((math.ceil(len(kinds) / STRIP_WIDTH) or 1, STRIP_WIDTH, 3), 128, np.uint8)
        grid.reshape(-1, 3)[: len(kinds)] = palette[[names.index(kind) for kind in kinds]]
        inner = _shown(level, work) + _picture(grid, _beside(level, "tokens"), work, "tokens")
        which = "all tokens" if len(kinds) == len(every) else f"the first {len(kinds):,} tokens"
        cards.append(card(level.name, summary(level), inner, f"{which} in stream order, coloured by alphabet"))
    keys = "".join(
        f'<span class="key"><i style="background:rgb({r},{g},{b})"></i>{escaped(name)}</span>'
        for name, (r, g, b) in zip(names, palette.tolist(), strict=True)
    )
    return "\n".join([*cards, card("alphabets", "", f"<div>{keys}</div>")])


def _kinds(codes: Codes, each: bool = False) -> list[str]:
    """The alphabets of a video in stream order: once each, or once for `each` token (split flags have no colour)."""
    found: list[str] = []
    for part in codes.walk():
        for name, array in part.arrays.items():
            present = int((array != ABSENT).sum())
            found += [name] * (present if each else min(1, present))
    return found if each else list(dict.fromkeys(found))


def colours(codes: np.ndarray, light: bool = False) -> np.ndarray:
    """A colour for every code, uint8 [..., 3]: equal codes alike, neighbouring numbers far apart; grey is absent.

    Hue and brightness step by two irrational numbers, so that 4,096 codes have 4,096 colours.
    """
    turn = 2 * np.pi * (codes[..., None] * 0.61803398875 + np.array([0, 1 / 3, 2 / 3]))
    low, high = (0.70, 0.98) if light else (0.15, 0.95)
    bright = 0.6 + 0.4 * (codes[..., None] * 0.75487766625 % 1)
    rgb = low + (high - low) * bright * (0.5 + 0.5 * np.cos(turn))
    rgb[codes == ABSENT] = 0.5
    return (rgb * 255).astype(np.uint8)


def summary(level: Level) -> str:
    """The line over a card: tokens and fidelity."""
    parts = [f"{level.tokens:,} tokens"]
    for name in ("psnr", "mel_distance"):
        if name in level.fidelity and math.isfinite(level.fidelity[name]):
            label, unit, digits = MEASURES[name]
            parts.append(f"{label} {level.fidelity[name]:.{digits}f} {unit}")
    return ", ".join(parts)


def columns(inspection: Inspection) -> tuple[list[str], list[list[str]]]:
    """The table of an inspection as text: titles, and a row a level."""
    measures = [name for name in MEASURES if any(name in level.fidelity for level in inspection.levels)]
    head = ["level", "tokens", "bits", "values per token", "raw bits per bit"]
    head += [", ".join(filter(None, MEASURES[m][:2])) for m in measures]
    head += ["encode, s", "decode, s", "tokens of each alphabet"]
    rows = []
    for level, numbers in zip(inspection.levels, inspection.as_dict()["levels"], strict=True):
        cells = [level.name, f"{level.tokens:,}", f"{level.bits:,}"]
        cells += [f"{numbers['values_per_token'] or 0:,.1f}", f"{numbers['raw_bits_per_bit'] or 0:,.1f}"]
        cells += [f"{level.fidelity[m]:.{MEASURES[m][2]}f}" if m in level.fidelity else "" for m in measures]
        cells += [f"{level.encode_seconds:.3f}", f"{level.decode_seconds:.3f}"]
        cells.append(counts(level.codes.tokens()))
        rows.append(cells)
    return head, rows


def counts(tokens: dict[str, int]) -> str:
    """Tokens of each alphabet, those in a row that differ only in their number together: "audio/1-4 50 each"."""
    runs: list[list[str]] = []
    for name in tokens:
        last = runs[-1][-1] if runs else ""
        if last and name.partition("/")[0] == last.partition("/")[0] and tokens[name] == tokens[last]:
            runs[-1].append(name)
        else:
            runs.append([name])
    alone = (f"{run[0]} {tokens[run[0]]:,}" for run in runs if len(run) == 1)
    together = (f"{run[0]}-{run[-1].partition('/')[2]} {tokens[run[0]]:,} each" for run in runs if len(run) > 1)
    return ", ".join([*alone, *together])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escaped(title)}</th>" for title in head)
    lines = ["<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<div class="scroll"><table>\n<tr>{titles}</tr>\n' + "\n".join(lines) + "\n</table></div>"


def card(title: str, note: str, inner: str, caption: str = "", original: bool = False) -> str:
    kind = ' class="original"' if original else ""
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    return f"<figure{kind}><h3>{escaped(title)}<span>{escaped(note)}</span></h3>{inner}{below}</figure>"


def _shown(level: Level, work: Path) -> str:
    if level.decoded is None:
        return ""
    return img(level.decoded, work) if level.decoded.suffix == ".png" else player(level.decoded, work)


def _beside(level: Level, suffix: str) -> Path:
    if level.decoded is None:
        raise ValueError(f"{level.name} was inspected without a folder for its media")
    return level.decoded.with_name(f"{level.decoded.stem}-{suffix}.png")


def _picture(pixels: np.ndarray, path: Path, work: Path, kind: str) -> str:
    media.save(Image(np.ascontiguousarray(pixels)), path)
    return img(path, work, kind)


def img(path: Path, work: Path, kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    url = _url(path, work)
    return f'<a href="{url}"><img{css} src="{url}" alt="{escaped(path.stem)}" loading="lazy"></a>'


def player(path: Path, work: Path, loop: bool = False) -> str:
    tag = "video" if path.suffix == ".mp4" else "audio"
    again = " loop" if loop else ""
    return f'<{tag} controls{again} preload="metadata" src="{_url(path, work)}"></{tag}>'


def _url(path: Path, work: Path) -> str:
    return quote(path.relative_to(work).as_posix())


def escaped(text: str) -> str:
    """Safe inside HTML, whatever the name of a file holds (bytes that are not UTF-8 become question marks)."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)
