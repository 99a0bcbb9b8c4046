"""The model's answers in the demo: asked of a tiny random model, shown on the page, told as JSON."""

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import fakes
import pytest
import torch

import panglot
from panglot import checkpoint, cli, generate, grid, grid_report, media
from panglot.fitting import Fit
from panglot.layout import Layout
from panglot.model import ModelConfig, Transformer

DEMO = Path(panglot.__file__).parent / "assets" / "demo"
WANTED = tuple(replace(wanted, longest=60) for wanted in grid.WANTED)
CELLS = len(grid.MEDIA) * len(WANTED)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random model of every alphabet, which answers anything at all: the grammar makes media of it."""
    folder = tmp_path_factory.mktemp("model") / "mini"
    layout = Layout.standard(depth=2)
    torch.manual_seed(0)
    shape = ModelConfig(layout.size, 16, 1, 2, 1, 8, 32, positions=1024)
    fit = Fit(side=64, seconds=0.4, fps=4.0)
    extra = {"data": {"options": {"fit": fit.to_json()}}}
    checkpoint.save(folder, Transformer(shape), layout.to_json(), extra, torch.float32)
    return folder


def _smaller(monkeypatch):
    """One concept, and short answers: a random model does not end on its own."""
    monkeypatch.setattr(grid, "CONCEPTS", grid.CONCEPTS[:1])
    monkeypatch.setattr(grid, "WANTED", WANTED)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    _smaller(monkeypatch)


@pytest.fixture(scope="module")
def asked(model, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        _smaller(patch)
        return grid.ask(DEMO, work / "media", model), work


def test_every_medium_is_given_and_every_one_wanted(asked):
    found, _ = asked
    assert [(row.given.concept, row.given.medium) for row in found.rows] == [
        (grid.CONCEPTS[0], medium) for medium in ("word", "photo", "recording", "clip")
    ]
    for row in found.rows:
        assert tuple(answer.wanted for answer in row.answers) == grid.WANTED
        for answer in row.answers:
            assert answer.codes.modality == answer.wanted.modality
            assert 0 <= answer.tokens <= (answer.wanted.tokens or answer.wanted.longest)
            assert answer.seconds > 0
            assert (answer.text is None) != (answer.file is None)
            if answer.file is not None:
                assert media.open(answer.file).modality == answer.wanted.modality
    assert [row.shown and media.open(row.shown).modality for row in found.rows] == [None, "image", "audio", "video"]


def test_the_same_again(asked, model, tmp_path):
    found, _ = asked
    again = grid.ask(DEMO, tmp_path, model)
    for row, other in zip(found.rows, again.rows, strict=True):
        assert [a.codes for a in row.answers] == [a.codes for a in other.answers]


def test_the_page_has_all_of_it_and_needs_nothing_from_outside(asked):
    found, work = asked
    name, html = grid_report.section(found, work, 3)
    assert name == "Any medium in, any medium out"
    assert html.startswith('<section id="f3"')
    assert "http" not in html
    assert html.count("<td>") == len(found.rows) + CELLS
    for tag in ("section", "div", "table", "tr", "th", "td", "p", "a", "audio", "video", "strong"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag
    references = {unquote(r) for r in re.findall(r'(?:src|href)="([^"]*)"', html)}
    files = [row.shown for row in found.rows if row.shown]
    files += [answer.file for row in found.rows for answer in row.answers if answer.file]
    assert references == {file.relative_to(work).as_posix() for file in files}
    assert html.count("<video ") == html.count("<video controls loop ") == 1 + len(found.rows)
    assert html.count("<audio ") == 1 + 2 * len(found.rows)
    for row in found.rows:
        for answer in row.answers:
            assert f"{answer.tokens:,} token" in html
            assert f"{answer.seconds:.2f} s" in html


def test_words_of_the_model_stay_text(asked):
    found, work = asked
    word = found.rows[0].answers[0]
    hostile = grid.Answer(word.wanted, word.codes, 0.1, text="<script>alert('é')</script>")
    rows = (grid.Row(found.rows[0].given, None, (hostile,)),)
    _, html = grid_report.section(grid.Grid(1, rows), work)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_objects_for_json(asked):
    found, work = asked
    objects = found.objects(lambda path: Path("out") / path.relative_to(work))
    assert len(objects) == CELLS
    for value in json.loads(json.dumps(objects)):
        assert set(value) - {"text", "file"} == {"input", "given", "wanted", "modality", "tokens", "seconds"}
        assert ("text" in value) == (value["modality"] == "text")
        if "file" in value:
            assert (work / Path(value["file"]).relative_to("out")).is_file()


def test_the_table_of_the_terminal(asked):
    found, _ = asked
    head, lines = found.columns()
    assert len(lines) == len(found.rows)
    assert all(len(line) == len(head) == 1 + len(grid.WANTED) for line in lines)
    assert lines[2][0] == f"{grid.CONCEPTS[0]}: recording"
    assert f"{found.rows[2].answers[1].tokens} token" in lines[2][2]


def test_every_concept_has_its_files():
    for concept in ("rooster", "dog", "helicopter"):
        for medium, kind in (("photo", "image"), ("recording", "audio"), ("clip", "video")):
            assert grid.Given(concept, medium).open(DEMO).modality == kind


@pytest.fixture
def demo(monkeypatch, tmp_path, capfd):
    """Run the demo with fast tokenizers for its files and a model in a folder; returns exit code, output, errors."""
    fakes.use(monkeypatch)
    monkeypatch.setattr(cli, "DEMO", ("text.txt",))
    monkeypatch.chdir(tmp_path)

    def run(model: Path, *args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(generate, "ASSETS", model)
        return cli.run(["demo", "-o", "out", *args]), *capfd.readouterr()

    return run


def test_the_demo_shows_it(demo, model):
    code, out, err = demo(model)
    assert (code, err) == (0, "")
    assert f"{grid.CONCEPTS[0]}: recording" in out
    page = Path("out/index.html").read_text("utf-8")
    assert page.index('<section id="f0" class="answers">') < page.index('<section id="f1">')
    assert "http" not in page
    assert all(Path("out", unquote(r)).is_file() for r in re.findall(r'src="([^"]*)"', page))


def test_the_demo_tells_it_as_json(demo, model):
    code, out, err = demo(model, "--json")
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    answers = [row for row in rows if "wanted" in row]
    assert len(answers) == CELLS == len(rows) - 1
    assert all(Path(row["file"]).is_file() for row in answers if "file" in row)


def test_without_a_model_the_demo_says_so_in_a_line_and_shows_the_rest(demo, tmp_path):
    code, _, err = demo(tmp_path / "none")
    assert code == 0
    assert err == "panglot: this copy has no model in it, so the page shows files and their tokens only\n"
    page = Path("out/index.html").read_text("utf-8")
    assert 'class="answers"' not in page
    assert "text.txt" in page


def test_a_damaged_model_is_a_line_too(demo, tmp_path):
    (tmp_path / "damaged").mkdir()
    code, _, err = demo(tmp_path / "damaged")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("panglot: ")
    assert "config.json" in err
    assert "text.txt" in Path("out/index.html").read_text("utf-8")
