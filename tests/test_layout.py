import itertools
import json
from dataclasses import replace

import pytest

from panglot.layout import BUDGETS, HEADERS, LEVELS, MARKS, PARTS, RATES, Layout, LayoutError
from panglot.media import Text
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Alphabet
from panglot.tokenizers.text import TextTokenizer

STANDARD = Layout.standard()
FULL = Layout.standard(depth=10, change=(32, 16, 8))


def test_json_there_and_back():
    for layout in (STANDARD, FULL, Layout.standard(1, (32,), (32,))):
        again = Layout.from_json(json.loads(json.dumps(layout.to_json())))
        assert again == layout
        assert again.slices == layout.slices


def test_ids_of_text_are_the_tokenizers():
    text = TextTokenizer.load()
    size = text.alphabets[0].size
    assert STANDARD.starts["text"] == 0
    assert STANDARD.sizes["text"] == size
    ids = text.encode(Text("the dog barks <image>")).arrays["text"]
    assert [STANDARD.symbol(int(i)) for i in ids] == [("text", int(i)) for i in ids]
    assert STANDARD.symbol(size) == ("mark", MARKS.index("end"))


def test_every_id_has_one_place():
    at = 0
    for alphabet in STANDARD.alphabets:
        assert STANDARD.starts[alphabet.name] == at
        for symbol in {0, alphabet.size - 1}:
            assert STANDARD.symbol(at + symbol) == (alphabet.name, symbol)
        at += alphabet.size
    assert at == STANDARD.size
    for outside in (-1, STANDARD.size):
        with pytest.raises(LayoutError, match=f"id {outside} is outside the layout's 0 to {STANDARD.size - 1}"):
            STANDARD.symbol(outside)


@pytest.mark.parametrize("layout", [STANDARD, FULL], ids=["standard", "full"])
def test_slices_cover_all_ids_once(layout):
    assert [i for start, stop in layout.slices for i in range(start, stop)] == list(range(layout.size))
    assert len(layout.slices) == len(layout.alphabets)
    text, marks = layout.slices[:2]
    assert text == (0, layout.sizes["text"] + 1)
    assert [layout.symbol(i) for i in range(*marks)] == [("mark", i) for i in range(1, len(MARKS))]
    for alphabet, (start, stop) in zip(layout.alphabets[2:], layout.slices[2:], strict=True):
        assert layout.symbol(start) == (alphabet.name, 0)
        assert layout.symbol(stop - 1) == (alphabet.name, stop - start - 1)


def test_what_is_chosen_is_there_and_nothing_else():
    assert (STANDARD.depth, STANDARD.strides("image"), STANDARD.strides("change")) == (4, (32, 16, 8), (32, 16))
    assert (FULL.depth, FULL.strides("change")) == (10, (32, 16, 8))
    small = Layout.standard(2, (32, 16), (32,))
    assert set(STANDARD.sizes) - set(small.sizes) == {"audio/3", "audio/4", "image/8", "change/16"}
    assert set(small.digits) == {"audio/1", "audio/2", "image/32", "image/16", "change/32"}
    sizes = {a.name: a.size for name in ("image", "audio", "video") for a in tokenizer(name).alphabets}
    assert all(STANDARD.sizes[name] == size for name, size in sizes.items() if name in STANDARD.sizes)


@pytest.mark.parametrize(
    ("depth", "strides", "change", "fault"),
    [
        (0, (32,), (32,), "depth 0: a block of sound has 1 to 10 codes"),
        (11, (32,), (32,), "depth 11"),
        (4, (), (32,), r"strides \(\) are not the coarsest"),
        (4, (32, 8), (32,), r"strides \(32, 8\)"),
        (4, (8, 16, 32), (32,), "strides"),
        (4, (32,), (16,), "strides"),
    ],
)
def test_what_the_tokenizers_do_not_have(depth, strides, change, fault):
    with pytest.raises(LayoutError, match=fault):
        Layout.standard(depth, strides, change)


def test_digits_make_the_symbols():
    digits = tokenizer("image").network.levels[0].fsq.levels  # type: ignore[attr-defined]
    assert STANDARD.digits["image/32"] == digits
    with pytest.raises(LayoutError, match="digits"):
        replace(STANDARD, digits={"image/32": (*digits, 2)})
    with pytest.raises(LayoutError, match="digits"):
        replace(STANDARD, digits={"smell": (2,)})


def test_budgets_and_rates_are_small_alphabets():
    assert list(BUDGETS) == sorted(set(BUDGETS))
    assert all(b <= 2 * a for a, b in itertools.pairwise(BUDGETS[1:]))
    assert {a.name: a.size for a in HEADERS}["rate"] == len(RATES) + 1
    assert (LEVELS[0], PARTS[0]) == ("stop", "stop")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"alphabets": [["text", 10]], "digits": {}},
        {"alphabets": [["mark", len(MARKS)], ["text", 10]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS) + 1]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["x", 2], ["x", 2]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["budget", 2]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["x", 0]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["x", -5]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["x", "many"]], "digits": {}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["x", 6]], "digits": {"x": [2, 4]}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)], ["x", 6]], "digits": {"x": 6}},
        {"alphabets": [["text", 10], ["mark", len(MARKS)]], "digits": None},
        {"alphabets": [["text", float("inf")], ["mark", len(MARKS)]], "digits": {}},
        {"alphabets": "text", "digits": {}},
    ],
    ids=str,
)
def test_what_is_no_layout(value):
    with pytest.raises(LayoutError) as fault:
        Layout.from_json(value)
    assert "\n" not in str(fault.value)


def test_names_are_said():
    with pytest.raises(LayoutError, match="alphabet budget has 2 symbols, this panglot knows"):
        Layout((Alphabet("text", 9), Alphabet("mark", len(MARKS)), Alphabet("budget", 2)))
