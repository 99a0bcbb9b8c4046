"""The text tokenizer: any text comes back exactly, streamed text gives the whole's codes, damaged files are refused."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from panglot.media import MediaInfo, Text
from panglot.testing import TokenizerContract, some_text
from panglot.tokenizers.base import ABSENT, Codes, CodesError
from panglot.tokenizers.text import TextTokenizer

TOKENIZER = TextTokenizer.load()
RECIPE = Path(__file__).parents[1] / "recipes" / "train_text.py"

texts = st.text(st.characters(exclude_categories=["Cs"]))
# White space, words, digits and signs next to each other are where pieces begin and end.
seams = st.text(st.sampled_from("  \n\t\u2028aé字ा7٣.<>'🙂\u200d\x00\x85"), max_size=80)
runs = st.lists(st.builds(lambda c, n: c * n, st.sampled_from(" ax\n.7字"), st.integers(1, 70)), max_size=5).map(
    "".join
)


class TestContract(TokenizerContract):
    media_alone_sizes_codes = False

    def tokenizer(self):
        return TOKENIZER

    def samples(self):
        return [Text(""), Text("<image> a dog\n\n  barks, 2026"), Text("狗叫 كلب 🐕‍🦺"), some_text(3, words=60)]


def ids(text):
    return TOKENIZER.encode(Text(text)).arrays["text"]


@settings(deadline=None)
@given(texts | seams | runs)
@example("")
@example("<image></image><bos>\x00\x1b[2J\ufeff\ufffd\r\n")
@example("e\u0301 \u00e9 \ufb01 \u212b")  # composed, decomposed, ligature, compatibility: nothing is normalised
@example("".join(map(chr, range(0x250))))
@example("👩‍👩‍👧‍👦" * 9)
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER.encode(Text(text))) == Text(text)


def test_every_byte_and_every_plane_of_unicode_round_trips():
    text = "".join(chr(c) for c in range(0, 0x110000, 37) if not 0xD800 <= c < 0xE000)
    assert TOKENIZER.decode(TOKENIZER.encode(Text(text))).text == text


@settings(deadline=None, max_examples=300)
@given(seams | runs | texts, st.lists(st.integers(0, 200), max_size=6))
def test_streamed_is_whole_wherever_it_is_cut(text, cuts):
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [Text(text[a:b]) for a, b in pairwise(ends)]
    whole = TOKENIZER._bpe.encode(text).ids
    assert TOKENIZER.join(TOKENIZER.encode_stream(chunks)).arrays["text"].tolist() == whole


@pytest.mark.parametrize("text", ["a " * 50, " \n" * 40, "x" * 200, "字" * 100, "7" * 50, "Hello, 世界! 12 ..."])
def test_streamed_one_character_at_a_time(text):
    pieces = list(TOKENIZER.encode_stream(Text(c) for c in text))
    assert TOKENIZER.join(pieces) == TOKENIZER.encode(Text(text))


@settings(deadline=None)
@given(st.sampled_from(["x", " ", "字", "\n", "🙂", "."]), st.integers(100, 400))
def test_a_stream_holds_back_at_most_33_characters(character, n):
    read = 0

    def chunks():
        nonlocal read
        for _ in range(n):
            read += 1
            yield Text(character)

    given_out = 0
    for piece in TOKENIZER.encode_stream(chunks()):
        given_out += len(TOKENIZER.decode(piece).text)
        assert read - given_out <= 33


def test_long_text_is_encoded_in_slices_like_the_whole():
    text = "".join(some_text(seed, words=2000).text + "  \n " for seed in range(12))
    assert len(text) > 1 << 16
    assert ids(text).tolist() == TOKENIZER._bpe.encode(text).ids


def test_a_user_cannot_spell_anything_special():
    assert len(ids("<image>")) > 1
    assert ids("a <image> b").tolist() == [*ids("a"), *ids(" <"), *ids("image"), *ids(">"), *ids(" b")]


@settings(deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.alphabets[0].size - 1), max_size=40))
def test_any_ids_decode(codes):
    text = TOKENIZER.decode(Codes("text", {}, {"text": np.array(codes, np.int32)})).text
    assert text == TOKENIZER._bpe.decode(codes)
    text.encode()


def test_bytes_that_are_not_utf8_become_replacement_characters():
    dog, half = ids("dog"), ids("é")[:1]
    if len(ids("é")) == 1:  # learned as a whole: take the bytes of a letter that was not
        half = ids("\U0001f996")[:1]
    codes = Codes("text", {}, {"text": np.concatenate([dog, half, dog])})
    assert TOKENIZER.decode(codes).text == "dog\ufffddog"


def test_the_shipped_tokenizer():
    assert [(a.name, a.size) for a in TOKENIZER.alphabets] == [("text", 2048)]
    assert ids("a brown dog playing a violin, forte").tolist() == [
        64,
        317,
        1066,
        1064,
        297,
        347,
        220,
        1160,
        543,
        11,
        334,
    ]
    assert len(ids("eight")) == 1


def test_count():
    assert TOKENIZER.count(Text("eight dogs")) == {"text": len(ids("eight dogs"))}
    assert TOKENIZER.count(MediaInfo("text", characters=3)) == {"text": 12}
    assert len(ids("\U0001fadf" * 3)) <= 12


def test_codes_of_something_else_are_refused():
    row = np.array([1, 2], np.int32)
    for codes in (
        Codes("image", {}, {"text": row}),
        Codes("text", {}, {}),
        Codes("text", {}, {"text": row, "image/32": row}),
        Codes("text", {}, {"text": row[None]}),
        Codes("text", {}, {"text": np.array([1, ABSENT])}),
        Codes("text", {}, {"text": np.array([2048])}),
        Codes("text", {}, {"text": row}, (Codes("text", {}, {"text": row}),)),
    ):
        with pytest.raises(CodesError):
            TOKENIZER.decode(codes)


def test_there_are_no_options():
    with pytest.raises(TypeError, match="no option 'stride'"):
        TOKENIZER.encode(Text("a"), stride=8)


# --- training and files


def test_training_is_deterministic_and_obeys_the_size(tmp_path):
    corpus = [some_text(seed, words=50).text for seed in range(20)]
    for name in "ab":
        TextTokenizer.train(corpus, 300).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    trained = TextTokenizer.load(tmp_path / "a")
    assert trained.alphabets[0].size == 300
    assert trained.decode(trained.encode(Text("zebra Ж"))).text == "zebra Ж"
    text = Text(corpus[0])
    assert trained.count(text)["text"] < len(text.text)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a", "b"]


def test_the_recipe(tmp_path):
    folder = tmp_path / "train" / "set"
    folder.mkdir(parents=True)
    rows = [{"file_name": f"{i}.png", "text": "line\u2028separator and words"} for i in range(3)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    command = [sys.executable, RECIPE, "--data", tmp_path, "--out", tmp_path / "text.json", "--size", "260"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3 texts" in done.stdout
    assert TextTokenizer.load(tmp_path / "text.json").alphabets[0].size == 260
    missing = subprocess.run([sys.executable, RECIPE, "--data", folder], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "name the data folder with --data" in missing.stderr


def saved():
    return json.loads(TOKENIZER._bpe.to_str())


def without_a_byte(value):
    value["model"]["vocab"]["no byte"] = value["model"]["vocab"].pop("A")


def with_a_hole(value):
    value["model"]["vocab"]["A"] = 5000


def with_a_stray_merge(value):
    value["model"]["merges"].append(["zzz", "yyy"])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (without_a_byte, "1 of the 256 bytes have no entry"),
        (with_a_hole, "ids are not 0 to 2047"),
        (with_a_stray_merge, "merge of 'zzz' and 'yyy'"),
        (lambda v: v["model"].update(type="WordPiece"), "must be 'BPE'"),
        (lambda v: v["model"].update(merges=[["a"]]), "not enough values"),
        (lambda v: v["model"].update(merges=3), "not iterable"),
        (lambda v: v["model"].update(vocab=[]), "not a text tokenizer"),
        (lambda v: v.update(model=None), "not a text tokenizer"),
        (lambda v: v["model"]["vocab"].update(A="x"), "not a text tokenizer"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path, damage, fault):
    value = saved()
    damage(value)
    path = tmp_path / "text.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=fault) as caught:
        TextTokenizer.load(path)
    assert str(caught.value).startswith(f"{path}: not a text tokenizer")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe", b"{", b"null"])
def test_another_file_is_refused(tmp_path, data):
    path = tmp_path / "text.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a text tokenizer"):
        TextTokenizer.load(path)
