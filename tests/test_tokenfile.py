"""The token file: what is written can be read, what is damaged or hostile cannot, the bytes are those of the spec."""

import json
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from panglot import tokenfile
from panglot.bitpack import BitReader, BitWriter
from panglot.tokenfile import TokenFileError, dumps, loads
from panglot.tokenizers.base import ABSENT, Alphabet, Codes, CodesError

GOLDEN = Path(__file__).parent / "data" / "golden.pgt"
SPEC = Path(__file__).parents[1] / "docs" / "format.md"

ALPHABETS = (Alphabet("a", 2), Alphabet("b", 5), Alphabet("c", 4096), Alphabet("d", 1 << 31), Alphabet("e", 1))


def arrays_of(alphabet):
    codes = st.integers(0, alphabet.size - 1)
    whole = hnp.arrays(np.int32, hnp.array_shapes(max_dims=4, min_side=0, max_side=5), elements=codes)
    plane = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)
    return whole | hnp.arrays(np.int32, plane, elements=st.just(ABSENT) | codes, fill=st.just(ABSENT))


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
subsets = st.lists(st.sampled_from(ALPHABETS), unique=True, max_size=3)
tables = subsets.flatmap(lambda used: st.fixed_dictionaries({a.name: arrays_of(a) for a in used}))


def nodes(children):
    return st.builds(Codes, names, st.dictionaries(names, scalars, max_size=3), tables, children)


trees = st.recursive(nodes(st.just(())), lambda inner: nodes(st.lists(inner, max_size=4).map(tuple)), max_leaves=6)


def typed(codes):
    """Header and dtypes as well, which equality of codes does not tell apart (1 == 1.0 == True)."""
    return [(repr(sorted(part.header.items())), [a.dtype for a in part.arrays.values()]) for part in codes.walk()]


def small():
    """A little of everything: levels with and without gaps, several alphabets, a tree, two roots."""
    level, finer = np.full((5, 3), ABSENT, np.int32), np.full((9, 5), ABSENT, np.int32)
    level[0, 1], level[4, 2], level[2, 0] = 4000, 17, 0
    finer[0, 2], finer[1, 3], finer[8, 4] = 1, 2, 3
    arrays = {"image/32": np.array([[7, 4095]]), "image/16": level, "image/8": finer}
    key = Codes("image", {"height": 100, "width": 40}, arrays)
    sound = Codes("audio", {"samples": 1920, "rate": 24000}, {"audio/1": np.array([1, 999, 500])})
    video = Codes("video", {"fps": 29.97, "frames": 9, "loop": False, "rate": None}, {}, (key, sound, sound))
    return [video, Codes("text", {}, {"text": np.array([1, 2047])})]


USED = [
    Alphabet("image/32", 4096),
    Alphabet("image/16", 4375),
    Alphabet("image/8", 16),
    Alphabet("audio/1", 1000),
    Alphabet("text", 2048),
]


def sealed(header, payload=b"", version=1):
    """A file with a right checksum around any header (object or bytes) and payload."""
    packed = zlib.compress(header if isinstance(header, bytes) else json.dumps(header).encode())
    body = struct.pack(">8sHIQ", tokenfile.MAGIC, version, len(packed), len(payload)) + packed + payload
    return body + struct.pack(">I", zlib.crc32(body))


def header_of(kinds, order=(0,), alphabets=(("a", 2),)):
    return {"alphabets": [list(a) for a in alphabets], "kinds": list(kinds), "order": list(order)}


# --- round trips


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 31), st.integers(0, 20), st.integers(0, 1 << 40)), max_size=8))
def test_bits_round_trip(runs):
    writer, expected = BitWriter(), []
    for width, n, seed in runs:
        expected.append((width, np.random.default_rng(seed).integers(0, 1 << width, n)))
        writer.put(expected[-1][1], width)
    data = writer.finish()
    assert len(data) == (sum(width * n for width, n, _ in runs) + 7) // 8
    reader = BitReader(data)
    for width, values in expected:
        assert reader.take(len(values), width).tolist() == values.tolist()
    reader.finish()


def test_bits_of_many_codes_are_those_of_a_plain_loop():
    values = np.random.default_rng(0).integers(0, 1 << 5, 600_001)  # more than one slice, not whole bytes
    writer = BitWriter()
    writer.put(np.array([1]), 1)
    writer.put(values, 5)
    data = writer.finish()
    text = "1" + "".join(f"{v:05b}" for v in values.tolist())
    assert data == int(text.ljust(-len(text) % 8 + len(text), "0"), 2).to_bytes(len(data), "big")
    reader = BitReader(data)
    assert reader.take(1, 1).tolist() == [1]
    assert np.array_equal(reader.take(values.size, 5), values)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(trees, max_size=3))
def test_any_tree_of_codes_round_trips(roots):
    data = dumps(roots, ALPHABETS)
    back = loads(data, ALPHABETS)
    assert back == roots
    assert [typed(codes) for codes in back] == [typed(codes) for codes in roots]
    assert dumps(back, ALPHABETS) == data
    bits = sum(codes.bits(ALPHABETS) for codes in roots)
    assert tokenfile._open(data)[2].nbytes == (bits + 7) // 8


def test_one_codes_is_a_list_of_one():
    assert loads(dumps(small()[0], USED)) == small()[:1]


def test_file_round_trip_and_size(tmp_path):
    path = tmp_path / "x.pgt"
    assert tokenfile.write(path, small(), USED) == path.stat().st_size
    assert tokenfile.read(path, USED) == small()
    assert [p.name for p in tmp_path.iterdir()] == ["x.pgt"]


def test_peek_tells_the_roots(tmp_path):
    size = tokenfile.write(tmp_path / "x.pgt", small(), [*USED, Alphabet("unused", 3)])
    info = tokenfile.peek(tmp_path / "x.pgt")
    assert info.version == 1
    assert info.alphabets == tuple(USED)
    assert info.roots == tuple((codes.modality, codes.header) for codes in small())
    assert info.header_bytes + info.payload_bytes + 26 == size


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pgt"
    path.write_bytes(b"old")
    with pytest.raises(CodesError):
        tokenfile.write(path, small(), USED[:1])

    def full(*_):
        raise OSError(28, "disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        tokenfile.write(path, small(), USED)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.pgt"]


def test_a_long_video_has_a_small_header():
    sound = {f"audio/{k}": np.zeros(2, np.int32) for k in range(1, 9)}
    change = np.array([[ABSENT, 1]])
    groups = tuple(
        part
        for i in range(4000)
        for part in (
            Codes("change", {"frames": 4}, {"image/16": change}) if i % 9 else Codes("same", {"groups": i % 5}),
            Codes("audio", {"samples": 3840 + i % 2, "rate": 24000}, sound),
        )
    )
    alphabets = [*(Alphabet(name, 1000) for name in sound), USED[1]]
    data = dumps(Codes("video", {"frames": 16000}, {}, groups), alphabets)
    assert tokenfile._open(data)[1].nbytes < 2000
    assert len(loads(data)[0].children) == 8000


# --- the specification


def test_golden_file():
    data = GOLDEN.read_bytes()
    assert loads(data, USED) == small()
    written = dumps(small(), USED)
    ours, theirs = tokenfile._parts(written), tokenfile._parts(data)
    assert zlib.decompress(ours[0]) == zlib.decompress(theirs[0])  # another zlib may deflate to other bytes
    assert bytes(ours[1]) == bytes(theirs[1])


def test_the_specification_shows_the_golden_file():
    dump = re.search(r"```hex\n(.*?)```", SPEC.read_text(), re.S)
    assert dump is not None
    assert bytes.fromhex(dump[1]) == GOLDEN.read_bytes()


def test_the_specification_states_the_limits():
    text = SPEC.read_text()
    for name in (
        "FILE_BYTES",
        "HEADER_BYTES",
        "NODES",
        "ARRAYS",
        "ELEMENTS",
        "DEPTH",
        "RANK",
        "FIELDS",
        "NAME",
        "STRING",
    ):
        assert re.search(rf"\| `MAX_{name}` \| {getattr(tokenfile, f'MAX_{name}')} \|", text), name


# --- damage


def test_every_cut_is_detected():
    data = GOLDEN.read_bytes()
    for end in range(len(data)):
        with pytest.raises(TokenFileError):
            loads(data[:end])


def test_every_flipped_bit_is_detected():
    data = GOLDEN.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TokenFileError):
            loads(bytes(flipped))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty; `panglot encode`"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a token file; `panglot encode`"),
        (b"\x89PGT\r\n", "not a token file; "),
        (b"\x89PGT\r\n\x1a\n", "cut after 8 bytes; copy it again"),
        (GOLDEN.read_bytes()[:-1], "cut after [0-9]+ of [0-9]+ bytes; copy it again"),
        (GOLDEN.read_bytes() + b"xy", "2 bytes too long; copy it again"),
        (
            GOLDEN.read_bytes()[:-5] + b"\0" + GOLDEN.read_bytes()[-4:],
            "damaged, the checksum does not match; copy it again",
        ),
        (sealed(header_of([]), version=2), "format version 2, this panglot reads 1; update panglot"),
        (b"\x89PGT\r\n\x1a\n" + b"\xff" * 40, "cut after 48 of [0-9]+ bytes"),
    ],
)
def test_messages_name_file_fault_and_remedy(tmp_path, data, message):
    path = tmp_path / "some.pgt"
    path.write_bytes(data)
    for reader in (tokenfile.read, tokenfile.peek):
        with pytest.raises(TokenFileError, match=f"^{re.escape(str(path))}: {message}") as caught:
            reader(path)
        assert "\n" not in str(caught.value)


def test_a_large_file_of_another_kind_is_not_read(tmp_path):
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(TokenFileError, match="not a token file"):
        tokenfile.read(path)


def test_a_file_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(tokenfile, "MAX_FILE_BYTES", 100)
    with pytest.raises(TokenFileError, match="over 100 bytes"):
        loads(GOLDEN.read_bytes())
    with pytest.raises(CodesError, match="write several files"):
        dumps(small(), USED)


def test_alphabets_of_another_tokenizer_are_refused():
    with pytest.raises(TokenFileError, match="1000 symbols in audio/1, the tokenizer at hand has 1024; decode with"):
        loads(GOLDEN.read_bytes(), [Alphabet("audio/1", 1024)])


# --- hostility


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=200), st.integers(0, (1 << 64) - 1))
def test_random_bytes_only_raise_token_file_errors(header, payload, length):
    files = [
        payload,
        tokenfile.MAGIC + payload,
        struct.pack(">8sHIQ", tokenfile.MAGIC, 1, len(header), length) + header + payload,
        sealed(header, payload),
    ]
    for data in files:
        with pytest.raises(TokenFileError):
            loads(data)


odd = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.text(max_size=2) | st.just(1 << 70)
json_values = st.recursive(odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2))
base = json.loads(tokenfile._header_text(small(), {a.name: a for a in USED}))


def spots(value, path=()):
    """Every place in a JSON value, as a path of keys."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from spots(inner, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(spots(base))), json_values), min_size=1, max_size=2), st.binary(max_size=40)
)
def test_hostile_headers_with_a_right_checksum(changes, payload):
    header = base
    for path, value in changes:
        if path in set(spots(header)):
            header = replaced(header, path, value)
    for body in (payload, bytes(tokenfile._open(GOLDEN.read_bytes())[2])):
        try:
            codes = loads(sealed(header, body))
        except TokenFileError:
            continue
        alphabets = tokenfile._open(sealed(header, body))[0].alphabets
        assert loads(dumps(codes, alphabets)) == codes  # what it accepts is a file like any other


def kind(array=None, modality="image", header=None, children=0):
    return [modality, header or {}, [] if array is None else [array], children]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ([], "other fields"),
        ({**header_of([]), "more": 1}, "other fields"),
        (b"\xff", "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
        (b'{"order":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"order":[],"order":[],"kinds":[],"alphabets":[]}', "not JSON"),
        (b'{"alphabets":[],"kinds":[["a",{"x":NaN},[],0]],"order":[]}', "not JSON"),
        (b'{"alphabets":[],"kinds":[["a",{"x":1e999},[],0]],"order":[]}', "bad field"),
        (b'{"alphabets":[],"kinds":[["a",{"x":"\\ud800"},[],0]],"order":[]}', "bad field"),
        (b" " * (1 << 23), "deflated text of at most"),
        (header_of([], alphabets=[("a", 0)]), "bad name or size"),
        (header_of([], alphabets=[("a", True)]), "bad name or size"),
        (header_of([], alphabets=[("a", (1 << 31) + 1)]), "bad name or size"),
        (header_of([], alphabets=[("\x1b[2J", 2)]), "bad name or size"),
        (header_of([], alphabets=[("a", 2), ("a", 2)]), "alphabet twice"),
        (header_of([kind(modality="x" * 65)]), "bad modality"),
        (header_of([kind(header={"x": [1]})]), "bad field"),
        (header_of([kind(header={"x": 1 << 63})]), "bad field"),
        (header_of([kind(header={str(i): 0 for i in range(65)})]), "without a header"),
        (header_of([kind([0, [-1], 0])]), "bad shape"),
        (header_of([kind([0, [1.0], 0])]), "bad shape"),
        (header_of([kind([0, [True], 0])]), "bad shape"),
        (header_of([kind([0, [], 0])]), "bad shape"),
        (header_of([kind([0, [1] * 5, 0])]), "bad shape"),
        (header_of([kind([0, [1 << 14, 1 << 14], 0])]), "bad shape"),
        (header_of([kind([0, [0, 1 << 27, 1 << 27], 0])]), "bad shape"),
        (header_of([kind([1, [1], 0])]), "alphabet that does not exist"),
        (header_of([kind([0, [1], 1])]), "not a plane"),
        (header_of([kind([0, [0, 5], 1])]), "not a plane"),
        (header_of([kind([0, [0, 0], 1])]), "not a plane"),
        (header_of([["image", {}, [[0, [1], 0], [0, [1], 0]], 0]]), "two arrays of one alphabet"),
        (header_of([kind([0, [1 << 20], 0])]), "claims 1048576 bits of codes, there are 0"),
        (header_of([kind([0, [8, 8], 1])]), "claims 7 bits of codes, there are 0"),
        (header_of([kind([0, [8, 8], 2])]), "a level nested in none"),
        (header_of([kind([0, [1 << 13, 1 << 13], 1])], order=[0] * 3), "blocks, over"),
        (
            header_of(
                [["image", {}, [[i, [0], 0] for i in range(8)], 0]], [0] * 140_000, [(str(i), 2) for i in range(8)]
            ),
            "arrays, over",
        ),
        (header_of([kind()], order=[1]), "kind that does not exist"),
        (header_of([kind()], order=[-1]), "kind that does not exist"),
        (header_of([kind(children=-1)]), "bad number of children"),
        (header_of([kind(children=1)]), "ends before the last child"),
        (header_of([kind(children=1), kind()], order=[0] * 8 + [1]), "deeper than 8"),
        (header_of([kind()], order=[0] * ((1 << 18) + 1)), "order of at most"),
    ],
)
def test_hostile_header_is_refused_without_memory(header, fault):
    data = sealed(header)
    tracemalloc.start()
    try:
        with pytest.raises(TokenFileError, match=f"^the header .*{fault}.*; copy it again") as caught:
            loads(data)
        assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "payload", "fault"),
    [
        (header_of([kind([0, [2], 0])], alphabets=[("a", 5)]), bytes([0b00010100]), "code 5 of a, which has 5"),
        (header_of([kind([0, [7], 0])]), bytes([0b00000001]), "something follows"),
        (header_of([kind([0, [7], 0])]), bytes(2), "something follows"),
        (header_of([kind([0, [2, 2], 1])]), bytes([0b01010001, 0b11100000]), "has none"),
        (header_of([kind([0, [2, 2], 1])]), bytes([0b00000100]), "can be none"),
        (header_of([kind([0, [4, 4], 1])]), bytes([0b00000100, 0b00000000]), "parent that some"),
        (header_of([kind([0, [2, 2], 1])]), bytes([0b00011011]), "end too early"),
    ],
)
def test_wrong_payload_is_refused(header, payload, fault):
    with pytest.raises(TokenFileError, match=f"{fault}.*; copy it again"):
        loads(sealed(header, payload))


# --- what cannot be written


def nested(depth):
    codes = Codes("x")
    for _ in range(depth - 1):
        codes = Codes("x", children=(codes,))
    return codes


@pytest.mark.parametrize(
    ("codes", "fault"),
    [
        (Codes("image", {}, {"b": np.array([5])}), "codes of b run from 5 to 5, legal are 0 to 4"),
        (Codes("image", {}, {"b": np.array([[ABSENT, -2]])}), "run from -2 to -2"),
        (Codes("image", {}, {"b": np.array([0.0])}), "float64, must be integers"),
        (Codes("image", {}, {"z": np.array([0])}), "'z' is not among those given: a, b, c, d, e"),
        (Codes("audio", {}, {"b": np.array([0, ABSENT])}), "absent blocks that is not a plane"),
        (Codes("audio", {}, {"b": np.array(0)}), "bad shape"),
        (Codes("image", {"x": float("nan")}), "not JSON compliant"),
        (Codes("image", {"x": np.int64(1)}), "int64 is not JSON"),
        (Codes("image", {"x": (1, 2)}), "bad field"),
        (Codes("image", {"x": 1 << 63}), "bad field"),
        (Codes("image", {"x": "\ud800"}), "surrogates"),
        (Codes("image", {1: 2}), "a name that is not a string"),
        (Codes("", {}), "bad modality"),
        (nested(9), "deeper than 8"),
    ],
)
def test_codes_that_no_file_can_hold_are_refused(codes, fault):
    with pytest.raises(CodesError, match=fault) as caught:
        dumps(codes, ALPHABETS)
    assert "copy it again" not in str(caught.value)


def test_the_deepest_tree_is_written():
    assert loads(dumps(nested(8), [])) == [nested(8)]


def test_an_alphabet_has_one_size():
    with pytest.raises(CodesError, match="two sizes, 2 and 3"):
        dumps([], [Alphabet("a", 2), Alphabet("a", 3)])
    assert loads(dumps([], [Alphabet("a", 2), Alphabet("a", 2)])) == []
