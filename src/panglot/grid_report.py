"""The part of the demo's page that shows the model's answers: a table for each concept, what was given on the left.

Not here: asking (`panglot.grid`), the page around it (`panglot.report`).
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from panglot.grid import SEED, Answer, Grid, Row, Wanted
from panglot.report import escaped, img, player

TITLE = "Any medium in, any medium out"


def section(grid: Grid, work: Path, number: int = 0) -> tuple[str, str]:
    """The section's name and HTML, for `report.page`. number: its place on the page."""
    million = grid.parameters / 1e6
    told = f"""One model of {million:.1f} million parameters reads what is given in a row and writes what is wanted in a
column, both as tokens of one stream; then the tokens are decoded. It ran on this machine, without a network connection.
The photos and recordings, those in the clips included, were held back when it learned; the words and the drawings that
move in the clips were not. Everything is drawn with seed {SEED}, and the first answer is shown, right or wrong; how
often it is right over all that was held back stands in the model's card, and panglot eval measures it.
Pictures are 64 pixels wide, shown three times as large. Seconds are an answer's share of its column, whose
{len(grid.rows)} answers are drawn side by side, and its own decoding."""
    tables = [
        f"<h3>{escaped(concept)}</h3>\n{_table(list(rows), work)}"
        for concept, rows in groupby(grid.rows, lambda row: row.given.concept)
    ]
    body = "\n".join(tables)
    return TITLE, (
        f'<section id="f{number}" class="answers">\n<h2>{TITLE}</h2>\n<p class="facts">{told}</p>\n{body}\n</section>'
    )


def _table(rows: list[Row], work: Path) -> str:
    head = "".join(f"<th>{escaped(title)}</th>" for title in ("given", *(_title(a.wanted) for a in rows[0].answers)))
    lines = "\n".join(
        f"<tr><td>{_given(row, work)}</td>{''.join(f'<td>{_cell(answer, work)}</td>' for answer in row.answers)}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{lines}\n</table></div>'


def _title(wanted: Wanted) -> str:
    return f'{wanted.name}: "{wanted.said}"' if wanted.said else wanted.name


def _given(row: Row, work: Path) -> str:
    shown = f"<strong>{escaped(row.given.concept)}</strong>" if row.shown is None else _media(row.shown, work)
    return f'{shown}<p class="facts">{row.given.medium}</p>'


def _cell(answer: Answer, work: Path) -> str:
    shown = f"<strong>{escaped(answer.text or '')}</strong>" if answer.file is None else _media(answer.file, work)
    plural = "" if answer.tokens == 1 else "s"
    return f'{shown}<p class="facts">{answer.tokens:,} token{plural}, {answer.seconds:.2f} s</p>'


def _media(path: Path, work: Path) -> str:
    return img(path, work) if path.suffix in (".png", ".jpg") else player(path, work, loop=path.suffix == ".mp4")
