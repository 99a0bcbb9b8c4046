"""What is packed comes back equal, or is refused when it is packed."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import streams
from hypothesis import given, settings
from hypothesis import strategies as st

import panglot as pg
from panglot.layout import MARKS, RATES, Layout
from panglot.media import Audio, Text
from panglot.stream import mark, pack, pack_segment, unpack
from panglot.testing import illegal_codes, some_audio, some_image, some_text, some_video
from panglot.tokenizers import tokenizer
from panglot.tokenizers.audio import due_blocks
from panglot.tokenizers.base import ABSENT, Codes, CodesError

L = streams.LAYOUT
GOLDEN = Path(__file__).parent / "data" / "golden_stream.json"
seeds = st.integers(0, 2**32)


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_anything_packed_comes_back(seed):
    parts = streams.any_parts(seed)
    ids = pack(parts, L)
    assert ids.dtype == np.int32
    assert unpack(ids, L) == parts
    assert np.array_equal(pack(unpack(ids, L), L), ids)


def test_the_generator_makes_all_there_is():
    """A guard: the property above would pass on nothing."""
    seen = set()
    for seed in range(100):
        for part in streams.any_parts(seed):
            if isinstance(part, str):
                seen.add(part)
                continue
            facts = {
                "scaled": "coded_height" in part.header,
                "rated": part.header.get("rate") not in (*RATES, None),
                "silent": part.modality == "video" and part.header["rate"] is None,
                "gaps": "split" in part.tokens(),
                "nested": any(possible is not None for p in part.walk() for _, possible in p.levels()),
            }
            seen |= {p.modality for p in part.walk()} | {name for name, there in facts.items() if there}
    wanted = {"text", "image", "audio", "video", "span", "change", "same", "ask", "give"}
    assert seen == wanted | {"scaled", "rated", "silent", "gaps", "nested"}


@cache
def encoded() -> tuple[Codes, ...]:
    """Codes that the tokenizers give for small media, with gaps and spans where a budget makes them."""
    picture, sound, video = some_image(90, 70), some_audio(1.1, 22050), some_video(11, 40, 56, fps=12.5, rate=24000)
    speech = Audio(np.concatenate([sound.samples, np.zeros(15000, np.float32), sound.samples]), 22050)
    return (
        pg.encode(some_text()),
        pg.encode(Text("")),
        *(pg.encode(picture, **options) for options in ({}, {"stride": 16}, {"tokens": 40}, {"tokens": 5})),
        *(pg.encode(speech, **options) for options in ({"depth": 5}, {"tokens": 90})),
        *(pg.encode(video, **options) for options in ({"depth": 2}, {"stride": 8, "depth": 5})),
        pg.encode(replace(video, audio=None)),
        pg.encode(replace(video, audio=replace(video.audio, samples=video.audio.samples[:3000])), depth=1),
    )


def test_what_tokenizers_give_comes_back():
    parts = ["ask", *encoded(), "give", *encoded()[::-1]]
    assert any(child.modality == "span" for child in encoded()[7].children)
    assert "split" in encoded()[4].tokens()
    ids = pack(parts, L)
    assert unpack(ids, L) == parts
    assert unpack(ids.tolist(), L) == parts


def test_a_text_that_spells_marks_stays_text():
    words = "<image> </image> <bos><eos>" + "".join(f"<{name}> {name}" for name in MARKS)
    ids = pack([streams.text(words)], L)
    assert all(i < L.sizes["text"] for i in ids[2:-2])
    assert [L.symbol(int(i))[1] for i in ids[[0, 1, -2, -1]]] == [MARKS.index(m) for m in ("bos", "text", "end", "eos")]
    (back,) = unpack(ids, L)
    assert pg.decode(back) == Text(words)


def test_sound_of_a_video_stands_where_it_is_due():
    video = some_video(12, 32, 32, fps=10.0, rate=16000)
    codes = pg.encode(video, depth=1)
    names = [L.symbol(token)[0] for token in pack([codes], L).tolist()]
    after = [len([n for n in names[: at + 1] if n == "audio/1"]) for at, n in enumerate(names) if n == "part"]
    shown = due = 0
    for child in codes.children:
        if child.modality == "audio":
            due += len(child.arrays["audio/1"])
            assert due == (due_blocks(shown, 10.0) if shown < 12 else 15)
            continue
        assert after.pop(0) == due
        long = {"image": [0], "change": child.arrays.get("span"), "same": None}[child.modality]
        shown += (int(child.arrays["hold"][0]) + 1) * 4 if long is None else int(long[0]) + 1
    assert (shown, due, after) == (12, 15, [])
    assert names.count("audio/1") == 15
    assert names[-2] == "audio/1"


def test_codes_of_a_block_stand_together():
    ids = pack_segment(pg.encode(some_audio(0.3, 16000), depth=3), L)
    names = [L.symbol(int(i))[0] for i in ids]
    assert names[-12:] == ["audio/1", "audio/2", "audio/3"] * 4


@settings(deadline=None, max_examples=100)
@given(seeds)
def test_what_cannot_come_back_is_refused(seed):
    """Codes with one fault: an error in one line when they are packed, or else what comes back is equal."""
    rng = np.random.default_rng(seed)
    maker = (streams.any_text, streams.any_image, streams.any_audio, streams.any_video)[rng.integers(4)]
    codes = maker(rng, L)
    bad = damaged(codes, rng)
    fault = refusal(pack, [bad])
    assert "\n" not in fault
    assert fault or unpack(pack([bad], L), L) == [bad]


def refusal(work, what) -> str:
    """What the CodesError says that packing or unpacking ends in, or "" if it goes well."""
    try:
        work(what, L)
    except CodesError as fault:
        return str(fault)
    return ""


def damaged(codes: Codes, rng: np.random.Generator) -> Codes:
    """One thing of the codes or of one of their parts changed in some way."""
    if codes.children and rng.random() < 0.7:
        at = int(rng.integers(len(codes.children)))
        one = damaged(codes.children[at], rng)
        children = list(codes.children)
        change = rng.integers(4)
        children[at : at + 1] = [[one], [], [one, codes.children[at]], [codes.children[at]] * 2][change]
        return replace(codes, children=tuple(children))
    ways = ["modality", "child", "more"]
    ways += ["field", "none"] * bool(codes.header) + ["array", "shape", "code"] * bool(codes.arrays)
    way = rng.choice(ways)
    if way == "modality":
        return replace(codes, modality=str(rng.choice(["image", "audio", "change", "same", "span", "smell"])))
    if way == "child":
        return replace(codes, children=(*codes.children, Codes("same", {}, {"hold": np.zeros(1, np.int32)})))
    if way == "more":
        return replace(codes, header={**codes.header, str(rng.choice(["coded_height", "rate", "smell"])): 3})
    if way in ("field", "none"):
        name = str(rng.choice(list(codes.header)))
        values = [0, -1, 1 << 50, 0.5, "x", None, True, float("nan"), float("inf"), 1e-300, 17]
        header = {**codes.header, name: values[rng.integers(len(values))]}
        return replace(codes, header=header if way == "field" else {k: v for k, v in header.items() if k != name})
    name = str(rng.choice(list(codes.arrays)))
    array = codes.arrays[name]
    if way == "array":
        return replace(codes, arrays={k: v for k, v in codes.arrays.items() if k != name})
    if way == "shape":
        other = [array[None], array[:-1], np.concatenate([array, array]), array + 0.5, array.ravel()][rng.integers(5)]
        return replace(codes, arrays={**codes.arrays, name: other})
    other = array.copy()
    if other.size:
        other.flat[rng.integers(other.size)] = rng.choice([ABSENT, -2, 1 << 20, 3])
    return replace(codes, arrays={**codes.arrays, name: other})


def test_faults_of_the_contract_are_refused():
    for codes in encoded():
        for _, bad in illegal_codes(codes, tokenizer(codes.modality)):
            with pytest.raises(CodesError):
                pack([bad], L)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: pg.encode(some_image(32, 32)), "the layout's image/32, image/16"),
        (lambda: pg.encode(some_audio(0.2)), "10 codes a block of sound, the layout has 2: use a depth of at most"),
        (lambda: pg.encode(some_audio(0.2), tokens=20), "the layout has 2"),
        (lambda: Codes("change"), "no medium"),
        (lambda: Codes("text", {}, {"text": np.array([1 << 20])}), "outside 0 to"),
    ],
)
def test_what_the_layout_does_not_hold(make, fault):
    with pytest.raises(CodesError, match=fault):
        pack([make()], Layout.standard(2, (32, 16), (32,)))


def test_a_keyframe_of_another_size():
    codes = pg.encode(some_video(1, 40, 56, rate=None))
    (key,) = codes.children
    for header in ({"height": 41, "width": 56}, {"height": 40, "width": 57}):
        with pytest.raises(CodesError, match="a keyframe's size differs from the video's"):
            pack([replace(codes, children=(replace(key, header=header),))], L)


def test_marks():
    assert mark(L, "bos").tolist() == [L.marks["bos"]]
    with pytest.raises(CodesError, match="'smell' is no mark"):
        pack(["smell"], L)


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_every_illegal_id_is_told_with_its_place(seed):
    rng = np.random.default_rng(seed)
    ids = pack(streams.any_parts(seed), L)
    at = int(rng.integers(len(ids)))
    bad = ids.tolist()
    bad[at] = int(rng.choice([-1, L.size, 1 << 40, L.marks["pad"], rng.integers(L.size)]))
    fault = refusal(unpack, bad)
    assert "\n" not in fault
    if not fault:
        assert L.symbol(bad[at])[0] == L.symbol(int(ids[at]))[0]
    elif "ends after" not in fault:
        assert at <= int(fault.split()[1]) < len(bad)
        assert f"of {len(bad)}: " in fault


def test_cuts_and_more_than_a_sample():
    ids = pack([streams.text("dog"), *encoded()[4:5]], L).tolist()
    for cut in range(len(ids)):
        with pytest.raises(CodesError, match=f"the stream ends after {cut} ids, in the middle of a sample"):
            unpack(ids[:cut], L)
    for more in (ids[1], ids[0], L.marks["eos"]):
        with pytest.raises(CodesError, match=rf"position {len(ids)} of {len(ids) + 1}: id .* nothing more must come"):
            unpack([*ids, more], L)


def test_wrong_order():
    picture, give = pack([encoded()[2]], L).tolist(), L.marks["give"]
    with pytest.raises(CodesError, match=r"position 0 of .*\(mark 4\) where a symbol of mark for the mark must come"):
        unpack(picture[1:], L)
    with pytest.raises(CodesError, match=r"position 2 of .*\(mark 8\) where a symbol of budget"):
        unpack([*picture[:2], give], L)
    with pytest.raises(CodesError, match=r"position 1 of 2: id -3 \(outside the layout\)"):
        unpack([picture[0], -3], L)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 5e-324, 1e5])
def test_a_stream_with_an_impossible_rate_of_frames(fps):
    codes = streams.any_video(np.random.default_rng(1))
    ids = pack([replace(codes, header={**codes.header, "fps": 0.3})], L).tolist()
    at = next(i for i, token in enumerate(ids) if L.symbol(token) == ("fps", 0)) + 1
    ids[at : at + 8] = [L.starts["number"] + byte for byte in np.array([fps], ">f8").tobytes()]
    with pytest.raises(CodesError, match=f"position {at + 7} of .* frames/s"):
        unpack(ids, L)


def golden_parts() -> list[Codes | str]:
    """A fixed small sample of everything; made without tokenizers, so that only the format can change its ids."""

    def row(*symbols: int) -> np.ndarray:
        return np.array(symbols, np.int32)

    picture = {
        "image/32": np.array([[7, -1, 9], [10, 11, -1]], np.int32),
        "image/16": np.array([[1, 2, -1, -1, 5, -1], [-1, 8, -1, -1, -1, -1], [3, 4, 5, 6, -1, -1]], np.int32),
        "image/8": np.arange(60, dtype=np.int32).reshape(5, 12),
    }
    spans = (
        Codes("span", {}, {"depth": row(33), "audio/1": row(5, 6), "audio/2": row(7, 8)}),
        Codes("span", {}, {"depth": row(1)}),
    )
    key = Codes("image", {"height": 20, "width": 33}, {"image/32": np.array([[100, 200]], np.int32)})
    changed = Codes("change", {}, {"span": row(2), "change/32": np.array([[-1, 17]], np.int32)})
    sound = [Codes("audio", {}, {"audio/1": row(*codes)}) for codes in ((1,), (2, 3, 4))]
    video = (key, sound[0], changed, sound[1], Codes("same", {}, {"hold": row(0)}))
    header = {"height": 20, "width": 33, "frames": 9, "fps": 12.0, "samples": 5120, "rate": 16000}
    return [
        "ask",
        Codes("text", {}, {"text": row(10, 500, 2047)}),
        Codes("image", {"height": 300, "width": 700, "coded_height": 40, "coded_width": 90}, picture),
        Codes("audio", {"samples": 3000, "rate": 12345}, {}, spans),
        "give",
        Codes("video", header, {}, video),
        Codes("video", {**header, "fps": 29.97, "samples": None, "rate": None}, {}, (key,)),
        Codes("audio", {"samples": 0, "rate": 48000}, {"audio/1": row()}),
    ]


def test_the_format_stays():
    """Data sets and models that were made once keep their meaning. A change needs new weights and a new layout."""
    layout, golden = Layout.standard(), json.loads(GOLDEN.read_text())
    assert pack(golden_parts(), layout).tolist() == golden["ids"]
    assert unpack(golden["ids"], layout) == golden_parts()
    assert layout.to_json() == golden["layout"]
