"""Whatever is drawn among what the grammar offers is a valid medium within its budget."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import streams
from hypothesis import given, settings
from hypothesis import strategies as st

import panglot as pg
from panglot.grammar import Ask, Bounds, Cursor, Grammar, _digits, _number
from panglot.layout import BUDGETS, MARKS, RATES, Layout, LayoutError
from panglot.stream import pack, pack_segment, unpack
from panglot.tokenizers.base import Alphabet, Codes, CodesError

L = streams.LAYOUT
SMALL = Bounds(tokens=60, text=8, pixels=64 * 64, frames=10, samples=20000, usual=True)
seeds = st.integers(0, 2**32)


def drawn(cursor: Cursor, rng: np.random.Generator) -> list[int]:
    """Ids of a random model: at each position one of those that are legal, all alike."""
    ids = []
    while not cursor.done:
        start, stop, allowed = cursor.legal()
        assert 0 <= start < stop <= L.size
        assert allowed is None or (len(allowed) and 0 <= min(allowed) <= max(allowed) < stop - start)
        symbol = int(rng.choice(allowed)) if allowed is not None else int(rng.integers(stop - start))
        ids.append(start + symbol)
        cursor.push(ids[-1])
    return ids


def within(codes: Codes, bounds: Bounds) -> None:
    """Assert that a segment keeps its bounds."""
    header = codes.header
    if codes.modality == "text":
        assert len(codes.arrays["text"]) <= bounds.text
        return
    assert sum(codes.tokens().values()) <= bounds.tokens
    for height, width in (("height", "width"), ("coded_height", "coded_width")):
        for part in codes.walk():
            assert int(part.header.get(height) or 1) * int(part.header.get(width) or 1) <= bounds.pixels
    assert int(header.get("frames") or 0) <= bounds.frames
    assert int(header.get("samples") or 0) <= bounds.samples
    assert header.get("rate") in (*RATES[1:], None)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_whatever_is_drawn_comes_back_and_keeps_its_bounds(seed):
    rng = np.random.default_rng(seed)
    bounds = replace(SMALL, tokens=int(rng.choice([1, 2, 5, 17, 60])))
    cursor = Cursor(L, Grammar(L, bounds).sample())
    ids = drawn(cursor, rng)
    parts = unpack(ids, L)
    assert parts == cursor.result
    assert unpack(pack(parts, L), L) == parts
    for part in parts:
        if not isinstance(part, str):
            within(part, bounds)


def test_whatever_is_drawn_decodes():
    rng, found = np.random.default_rng(5), Counter()
    for i in range(24):
        modality = ("text", "image", "audio", "video")[i % 4]
        bounds = replace(SMALL, tokens=(1, 6, 60)[i % 3])
        codes = Cursor(L, Grammar(L, bounds).segment(modality))
        drawn(codes, rng)
        medium = pg.decode(codes.result)
        header = codes.result.header
        found[type(medium).__name__] += 1
        if modality == "image":
            assert medium.pixels.shape[:2] == (header["height"], header["width"])
        elif modality == "audio":
            assert (len(medium.samples), medium.rate) == (header["samples"], header["rate"])
        elif modality == "video":
            assert (len(medium.frames), medium.fps) == (header["frames"], header["fps"])
            assert (medium.audio is None) == (header["rate"] is None)
            assert medium.audio is None or len(medium.audio.samples) == header["samples"]
    assert found == {"Text": 6, "Image": 6, "Audio": 6, "Video": 6}


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_stated_budget_is_kept(seed):
    """The budget that stands in the stream, not only that of the bounds."""
    rng = np.random.default_rng(seed)
    modality = str(rng.choice(["image", "audio", "video"]))
    cursor = Cursor(L, Grammar(L, replace(SMALL, tokens=1000)).segment(modality))
    budget = cursor.ask
    assert budget.what == "budget"
    symbol = int(rng.integers(1, 12))
    cursor.push(L.starts["budget"] + symbol)
    drawn(cursor, rng)
    assert sum(cursor.result.tokens().values()) <= BUDGETS[symbol]


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_a_budget_smaller_than_the_codes_is_illegal(seed):
    rng = np.random.default_rng(seed)
    codes = (streams.any_image, streams.any_audio, streams.any_video)[seed % 3](rng, L)
    tokens = sum(codes.tokens().values())
    ids = pack([codes], L).tolist()
    stated = L.symbol(ids[2])
    assert stated[0] == "budget"
    assert BUDGETS[stated[1] - 1] < max(2, tokens) <= max(2, BUDGETS[stated[1]])
    if stated[1] > 1:
        with pytest.raises(CodesError, match="position"):
            unpack([*ids[:2], ids[2] - 1, *ids[3:]], L)


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_numbers(a, b, c):
    """Every number from least to most can be said in one way; no other is offered."""
    least, value, most = sorted((a, b, c))
    digits = [value % 256]
    while value := value // 256:
        digits.append(256 + value % 256)
    reader = _number("length", least, most)
    ask = next(reader)
    for symbol in digits[:0:-1]:
        assert symbol in ask.allowed
        ask = reader.send(symbol)
    assert digits[0] in ask.allowed
    with pytest.raises(StopIteration) as end:
        reader.send(digits[0])
    assert end.value.value == sorted((a, b, c))[1]


def test_numbers_have_no_other_spelling():
    assert _digits(0, 3, 5) == (3, 4, 5)
    assert _digits(0, 0, 300) == (*range(256), 257)
    assert _digits(1, 0, 300) == tuple(range(45))
    with pytest.raises(CodesError, match="no width is possible"):
        next(_number("width", 1, 0))


def test_what_may_come_first():
    cursor = Cursor(L, Grammar(L).sample())
    assert cursor.ask == Ask("mark", (MARKS.index("bos"),), "mark")
    cursor.push(L.marks["bos"])
    names = {MARKS[i] for i in cursor.ask.allowed}
    assert names == {"text", "image", "audio", "video", "ask", "give", "eos"}
    for name in ("bos", "end", "pad"):
        with pytest.raises(
            CodesError, match=rf"id {L.marks[name]} \(mark {MARKS.index(name)}\) where a symbol of mark"
        ):
            cursor.push(L.marks[name])
    cursor.push(L.marks["eos"])
    assert cursor.done
    assert cursor.result == []


def test_text_ends_where_it_is_as_long_as_it_may_be():
    cursor = Cursor(L, Grammar(L, replace(SMALL, text=2)).segment("text"))
    end = L.marks["end"]
    assert cursor.legal() == (0, end + 1, None)
    cursor.push(3)
    cursor.push(4)
    assert cursor.legal() == (0, end + 1, (end,))
    cursor.push(end)
    assert cursor.result == Codes("text", {}, {"text": np.array([3, 4], np.int32)})


def test_what_each_symbol_decides_is_said():
    rng = np.random.default_rng(11)
    asked: dict[str, set[str]] = {}
    for _ in range(8):
        for make in (streams.any_image, streams.any_audio, streams.any_video):
            cursor = Cursor(L, Grammar(L).sample())
            for token in pack([make(rng, L)], L).tolist():
                asked.setdefault(cursor.ask.alphabet, set()).add(cursor.ask.what)
                cursor.push(token)
    numbers = {"height", "width", "coded height", "coded width", "samples", "depth", "frames", "rate", ""}
    assert asked["number"] == numbers
    own = {name: {name} for name in ("mark", "budget", "level", "part", "rate", "fps", "split", "hold")}
    assert {name: what for name, what in asked.items() if what != {""}} == {
        **own,
        "number": numbers,
        "span": {"span"},
        "depth": {"span"},
    }


def test_feed_stops_at_the_end_of_a_segment():
    codes = streams.any_image(np.random.default_rng(0), L)
    ids = iter([*pack_segment(codes, L).tolist()[1:], 7, 8])
    cursor = Cursor(L, Grammar(L).segment("image"))
    cursor.feed(ids)
    assert cursor.result == codes
    assert list(ids) == [7, 8]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: [x for x in a if x.name != "number"],
        lambda a: [x for x in a if x.name != "image/32"],
        lambda a: [x for x in a if x.name != "image/16"],
        lambda a: [x for x in a if not x.name.startswith("audio/")],
        lambda a: [x for x in a if x.name != "audio/2"],
        lambda a: [Alphabet("split", 80) if x.name == "split" else x for x in a],
        lambda a: [Alphabet("hold", 9) if x.name == "hold" else x for x in a],
        lambda a: [Alphabet("depth", 64) if x.name == "depth" else x for x in a],
        lambda a: [*a, Alphabet("image/4", 9)],
        lambda a: [*a, Alphabet("image/x", 9)],
    ],
)
def test_layouts_without_a_grammar(change):
    with pytest.raises(LayoutError, match="alphabet"):
        Grammar(Layout(tuple(change(list(L.alphabets)))))
