"""The documents say what the code does: the tables of docs/stream.md, its example, the stream of docs/model.md."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

from panglot import _limits, cli
from panglot.grammar import LONGEST, SLOWEST
from panglot.layout import BUDGETS, FPS, LEVELS, MARKS, PARTS, RATES, Layout
from panglot.mixing import ALONE, BOTH, ECHO, REQUEST, TEXT, TOLD, TOLD_FIRST, WORDS
from panglot.model import SIZES, ModelConfig
from panglot.stream import pack, unpack
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import ABSENT, Codes

DOCS = Path(__file__).parents[1] / "docs"
STREAM = (DOCS / "stream.md").read_text("utf-8")
MODEL = (DOCS / "model.md").read_text("utf-8")
LAYOUT = Layout.standard()


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this title, as cells without backticks."""
    lines = text[re.search(rf"^\| `?{first}`? \|.*\n\|---", text, re.M).start() :].split("\n\n")[0].splitlines()
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def ids(rows: list[list[str]]) -> list[int]:
    return [int(number) for row in rows for number in row[0].split()]


def array(*values) -> np.ndarray:
    return np.array(values, np.int32)


def test_alphabets():
    found = [(name, int(size), int(start)) for name, size, start, _ in table(STREAM, "alphabet")]
    assert found == [(a.name, a.size, LAYOUT.starts[a.name]) for a in LAYOUT.alphabets]
    assert f"Together {LAYOUT.size} ids" in STREAM


@pytest.mark.parametrize(("heading", "names"), [("Marks", MARKS), ("Pictures", LEVELS), ("Videos", PARTS)])
def test_symbols(heading, names):
    rows = table(STREAM[STREAM.index(f"### {heading}") :], "symbol")
    assert [(int(row[0]), row[1]) for row in rows] == list(enumerate(names))


def test_budgets_rates_and_limits():
    listed = [int(n) for n in re.search(r"each once: ([\d, ]+), \.\.\.", STREAM)[1].split(", ")]
    assert listed == list(BUDGETS[: len(listed)])
    assert BUDGETS[-1] == 2**30
    assert set(BUDGETS) == {0, *(round(2 ** (k / 2)) for k in range(61))}
    rates = re.search(r"of `rate` are ([\d, ]+) and (\d+) Hz", STREAM)
    assert [int(n) for n in (*rates[1].split(", "), rates[2])] == list(RATES[1:])
    fps = re.search(r"of `fps` are ([\d., ]+) and (\d+) frames", STREAM)
    assert [float(n) for n in (*fps[1].split(", "), fps[2])] == list(FPS[1:])
    assert SLOWEST == 0.000001
    limits = {row[0]: row[2] for row in table(STREAM, "number")}
    assert int(limits["height of a picture"]) == _limits.MAX_PIXELS
    assert int(limits["height of a video"]) == _limits.MAX_FRAME_PIXELS
    assert int(limits["rate"]) == _limits.MAX_RATE
    assert LONGEST == 2**40
    assert limits["frames"] == "2^40"


def test_the_example_of_the_stream():
    some = np.full((4, 6), ABSENT, np.int32)
    some[0, 1], some[3, 5] = 5, 6
    levels = {"image/32": np.arange(6, dtype=np.int32).reshape(2, 3), "image/16": some}
    sound = Codes("audio", {"samples": 2000, "rate": 16000}, {"audio/1": array(10, 11), "audio/2": array(20, 21)})
    key = {"image/32": array([7]), "image/16": array([1, 2], [3, 4])}
    moved = {"span": array(3), "change/32": array([9]), "change/16": array([ABSENT, 8], [ABSENT, ABSENT])}
    parts = (
        Codes("image", {"height": 32, "width": 32}, key),
        Codes("audio", {}, {"audio/1": array(30)}),
        Codes("change", {}, moved),
        Codes("audio", {}, {"audio/1": np.arange(31, 37, dtype=np.int32)}),
        Codes("audio", {}, {"audio/1": np.arange(37, 40, dtype=np.int32)}),
    )
    header = {"height": 32, "width": 32, "frames": 6, "fps": 8.0, "samples": 12000, "rate": 16000}
    sample = [
        "ask",
        sound,
        "give",
        Codes("image", {"height": 64, "width": 96}, levels),
        Codes("video", header, {}, parts),
    ]
    told = ids(table(STREAM, "ids"))
    assert told == pack(sample, LAYOUT).tolist()
    assert unpack(told, LAYOUT) == sample
    assert f"{len(told)} ids of the layout above" in STREAM


def test_the_sample_of_the_model():
    rows = table(MODEL, "ids")
    for row in rows:
        assert {LAYOUT.symbol(number)[0] for number in ids([row])} == {row[1]}
    ask, word, kind, give, picture = unpack(ids(rows), LAYOUT)
    assert (ask, give) == ("ask", "give")
    assert [tokenizer("text").decode(text).text for text in (word, kind)] == ["dog", "photo"]
    assert picture.header == {"height": 64, "width": 64}
    assert sum(picture.tokens().values()) == 20
    assert pack([ask, word, kind, give, picture], LAYOUT).tolist() == ids(rows)


def test_the_sizes_of_the_model():
    rows = table(MODEL, "--size")
    for name, *facts in rows:
        config = ModelConfig.sized(name, LAYOUT.size)
        heads = f"{config.heads} ({config.kv_heads})"
        told = [str(config.width), str(config.layers), heads, f"{config.parameters:,}", f"{config.positions:,}"]
        assert facts == told
    assert [row[0] for row in rows] == list(SIZES)


def test_how_samples_are_mixed():
    text, both, other = TEXT - ECHO, BOTH, 1 - ALONE - TEXT - BOTH
    shares = [f"{100 * part:.0f}" for part in (text, other, both, ALONE, ECHO)]
    words = " ".join(MODEL.split())
    assert re.findall(r"(\d+) %", words[words.index("2. A partner") : words.index("3. They are")]) == shares
    assert f"because {100 * ALONE:.0f} % of the samples" in words
    assert f"wanted {100 * TOLD:.0f} times of 100, before what is given {100 * TOLD_FIRST:.0f} times" in words
    assert (REQUEST, WORDS) == (0.75, 3), "three of four, three times as much"


@pytest.mark.parametrize("line", re.findall(r"^\$ panglot (.*)$", MODEL, re.M))
def test_command_lines_mean_something(line):
    verb, *args = shlex.split(line)
    command = typer.main.get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
    command.make_context(verb, args)


def test_the_code_for_transformers_is_python():
    (code,) = re.findall(r"```python\n(.*?)```", MODEL, re.S)
    compile(code, "model.md", "exec")
