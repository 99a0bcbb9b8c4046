"""The token file, `.pgt`: any number of `Codes` in one self-describing file, as docs/format.md specifies it.

A fixed prefix, a deflated JSON header that names the alphabets and the tree of codes, the codes packed at the bit width
of their alphabet, a checksum. The reader trusts nothing: it checks the sizes a header claims against the bytes that are
there before it allocates, and every limit is a constant below. The writer runs its own header through the reader's
checks, so what it writes can be read.

Not here: how codes become media, and id ranges of a shared vocabulary.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from panglot.bitpack import BitReader, BitWriter
from panglot.tokenizers.base import (
    ABSENT,
    SPLIT,
    Alphabet,
    Codes,
    CodesError,
    HeaderValue,
    join_flags,
    nested_in,
    split_flags,
)

MAGIC = b"\x89PGT\r\n\x1a\n"
VERSION = 1

MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 22
"""Of the header, inflated. A 10-minute video with sound needs about 20 kB."""
MAX_NODES = 1 << 18
"""Codes in a file, children included. A 2-hour video with sound has about 110,000."""
MAX_ARRAYS = 1 << 20
MAX_ELEMENTS = 1 << 27
"""Blocks of all arrays, absent ones included: at most 512 MiB once read."""
MAX_DEPTH = 8
MAX_RANK = 4
MAX_FIELDS = 64
"""Fields of one header, arrays of one node."""
MAX_NAME = 64
MAX_STRING = 1024

_PREFIX = struct.Struct(">8sHIQ")  # magic, version, bytes of header, bytes of payload
_CHECKSUM = struct.Struct(">I")
_AGAIN = "copy it again, or encode again"


class TokenFileError(ValueError):
    """A token file that is damaged, was written by a newer panglot, or is none. One line: the fault and the remedy."""


class _HeaderFault(Exception):
    """What is wrong with a header; the reader and the writer each say whose fault it is."""


@dataclass(frozen=True)
class TokenFileInfo:
    """What `peek` finds without unpacking: roots are (modality, header) of each Codes in the file; sizes in bytes."""

    version: int
    alphabets: tuple[Alphabet, ...]
    roots: tuple[tuple[str, dict[str, HeaderValue]], ...]
    header_bytes: int
    payload_bytes: int


def write(path: str | Path, codes: Codes | Sequence[Codes], alphabets: Iterable[Alphabet]) -> int:
    """Write codes to a file, which appears whole or not at all. Returns its size in bytes; errors as `dumps`."""
    data = dumps(codes, alphabets)
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # not the name of the partial file
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return len(data)


def read(path: str | Path, alphabets: Iterable[Alphabet] = ()) -> list[Codes]:
    """The codes of a file. Raises OSError when it cannot be read, TokenFileError as `loads` does, with the path."""
    return _named(path, lambda data: loads(data, alphabets))


def peek(path: str | Path) -> TokenFileInfo:
    """What a file holds, from its header; the checksum is verified, the payload stays packed. Errors as `read`."""
    return _named(path, _peek)


def dumps(codes: Codes | Sequence[Codes], alphabets: Iterable[Alphabet]) -> bytes:
    """A token file as bytes. alphabets: at least those of all arrays.

    Raises CodesError on codes that a file cannot hold: out of range, of an unknown alphabet, absent blocks in an array
    that is not [h, w], a header that is not a few scalars, or larger than the limits of this module.
    """
    roots = [codes] if isinstance(codes, Codes) else list(codes)
    header = _header_text(roots, _table(roots, alphabets))
    writer = BitWriter()
    try:
        plan = _parse(header)
        for part in (part for root in roots for part in root.walk()):
            for name, (array, possible) in zip(part.arrays, part.levels(), strict=True):
                _write_array(writer, np.asarray(array), possible, plan.alphabet(name))
        payload = writer.finish()
        plan.check_budget(len(payload))
    except _HeaderFault as fault:
        raise CodesError(f"codes cannot be stored: the header {fault}") from None
    packed = zlib.compress(header, 9)
    body = _PREFIX.pack(MAGIC, VERSION, len(packed), len(payload)) + packed + payload
    if len(body) + _CHECKSUM.size > MAX_FILE_BYTES:
        raise CodesError(f"codes take {len(body)} bytes, a token file at most {MAX_FILE_BYTES}; write several files")
    return body + _CHECKSUM.pack(zlib.crc32(body))


def loads(data: bytes, alphabets: Iterable[Alphabet] = ()) -> list[Codes]:
    """The codes in the bytes of a token file.

    alphabets: those of the tokenizers that shall decode; one that has another size in the file is an error. Raises
    TokenFileError. Codes that had the same header share it; do not change it.
    """
    plan, _, payload = _open(data)
    for alphabet in alphabets:
        found = {a.name: a.size for a in plan.alphabets}.get(alphabet.name, alphabet.size)
        if found != alphabet.size:
            raise TokenFileError(
                f"made with {found} symbols in {alphabet.name}, the tokenizer at hand has {alphabet.size}; "
                "decode with the tokenizer that encoded, or encode again"
            )
    reader = BitReader(payload)
    nodes = iter(plan.order)
    try:
        roots = [_read_node(reader, plan.kinds, kind, nodes) for kind in nodes]
        reader.finish()
    except (EOFError, CodesError) as error:
        raise TokenFileError(f"{error}; {_AGAIN}") from None
    return roots


def _named(path: str | Path, parse: Any) -> Any:
    with open(path, "rb") as file:
        data = file.read(len(MAGIC))
        if data == MAGIC:
            data += file.read(MAX_FILE_BYTES + 1)
    try:
        return parse(data)
    except TokenFileError as error:
        raise TokenFileError(f"{path}: {error}") from None


def _peek(data: bytes) -> TokenFileInfo:
    plan, header, payload = _open(data)
    roots = tuple((plan.kinds[kind].modality, plan.kinds[kind].header) for kind in plan.roots)
    return TokenFileInfo(VERSION, plan.alphabets, roots, len(header), len(payload))


def _open(data: bytes) -> tuple[_Plan, memoryview, memoryview]:
    """The parsed header, its bytes and the payload, after every check that needs no unpacking."""
    header, payload = _parts(data)
    try:
        plan = _parse(_inflate(header))
        plan.check_budget(len(payload))
    except _HeaderFault as fault:
        raise TokenFileError(f"the header {fault}; {_AGAIN}") from None
    return plan, header, payload


def _parts(data: bytes) -> tuple[memoryview, memoryview]:
    """Deflated header and payload, after the checks of magic, version, length and checksum."""
    if data[: len(MAGIC)] != MAGIC:
        fault = "empty" if not data else "not a token file"
        raise TokenFileError(f"{fault}; `panglot encode` makes token files from media")
    if len(data) > MAX_FILE_BYTES:
        raise TokenFileError(f"over {MAX_FILE_BYTES} bytes, the most a token file may have; encode in parts")
    if len(data) < _PREFIX.size + _CHECKSUM.size:
        raise TokenFileError(f"cut after {len(data)} bytes; {_AGAIN}")
    _, version, header, payload = _PREFIX.unpack_from(data)
    body = memoryview(data)[: -_CHECKSUM.size]
    intact = _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0] == zlib.crc32(body)
    if intact and version != VERSION:
        raise TokenFileError(f"format version {version}, this panglot reads {VERSION}; update panglot")
    whole = _PREFIX.size + header + payload + _CHECKSUM.size
    if len(data) < whole:
        raise TokenFileError(f"cut after {len(data)} of {whole} bytes; {_AGAIN}")
    if len(data) > whole:
        raise TokenFileError(f"{len(data) - whole} bytes too long; {_AGAIN}")
    if not intact:
        raise TokenFileError(f"damaged, the checksum does not match; {_AGAIN}")
    return body[_PREFIX.size : _PREFIX.size + header], body[_PREFIX.size + header :]


def _inflate(data: memoryview) -> bytes:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, MAX_HEADER_BYTES + 1)
    except zlib.error:
        raise _HeaderFault("cannot be inflated") from None
    whole = stream.eof and not stream.unused_data
    _need(whole and len(text) <= MAX_HEADER_BYTES, f"is not one deflated text of at most {MAX_HEADER_BYTES} bytes")
    return text


# --- the header --------------------------------------------------------------------------------------------------


WHOLE, FREE, NESTED = 0, 1, 2


@dataclass(frozen=True)
class _Array:
    """gaps: WHOLE, or FREE (blocks are absent anywhere) or NESTED (also where the array before has none)."""

    alphabet: Alphabet
    shape: tuple[int, ...]
    gaps: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def least_bits(self) -> int:
        """What it costs at least: all codes, or with gaps the flag of the root."""
        return SPLIT.bits if self.gaps else self.alphabet.bits * self.elements


@dataclass(frozen=True)
class _Kind:
    modality: str
    header: dict[str, HeaderValue]
    arrays: tuple[_Array, ...]
    children: int


@dataclass(frozen=True)
class _Plan:
    """The parsed header: order lists the kind of every node, parents before children; roots the kinds at the top."""

    alphabets: tuple[Alphabet, ...]
    kinds: tuple[_Kind, ...]
    order: tuple[int, ...]
    roots: tuple[int, ...]

    def alphabet(self, name: str) -> Alphabet:
        return next(a for a in self.alphabets if a.name == name)

    def check_budget(self, payload_bytes: int) -> None:
        """Raise _HeaderFault where the arrays cannot come out of so many bytes; before anything is allocated."""
        uses = [(self.kinds[kind], n) for kind, n in Counter(self.order).items()]
        arrays = sum(n * len(kind.arrays) for kind, n in uses)
        elements = sum(n * sum(a.elements for a in kind.arrays) for kind, n in uses)
        bits = sum(n * sum(a.least_bits for a in kind.arrays) for kind, n in uses)
        _need(arrays <= MAX_ARRAYS, f"has {arrays} arrays, over {MAX_ARRAYS}")
        _need(elements <= MAX_ELEMENTS, f"has {elements} blocks, over {MAX_ELEMENTS}")
        _need(bits <= 8 * payload_bytes, f"claims {bits} bits of codes, there are {8 * payload_bytes}")


def _need(true: bool, fault: str) -> None:
    if not true:
        raise _HeaderFault(fault)


def _is_int(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _is_list(value: object, low: int, high: int) -> bool:
    return isinstance(value, list) and low <= len(value) <= high


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return result


def _parse(text: bytes) -> _Plan:
    """Header text to plan; raises _HeaderFault on anything docs/format.md does not allow."""
    _need(len(text) <= MAX_HEADER_BYTES, f"has {len(text)} bytes, over {MAX_HEADER_BYTES}")
    try:
        header = json.loads(text.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _HeaderFault("is not JSON") from None
    _need(isinstance(header, dict) and set(header) == {"alphabets", "kinds", "order"}, "has other fields than it must")
    table, kinds, order = header["alphabets"], header["kinds"], header["order"]
    _need(_is_list(table, 0, MAX_FIELDS), "has no list of alphabets")
    _need(_is_list(kinds, 0, MAX_NODES), "has no list of kinds")
    _need(_is_list(order, 0, MAX_NODES), f"has no order of at most {MAX_NODES} codes")
    alphabets = tuple(_parse_alphabet(entry) for entry in table)
    _need(len({a.name for a in alphabets}) == len(alphabets), "names an alphabet twice")
    parsed = tuple(_parse_kind(kind, alphabets) for kind in kinds)
    _need(all(_is_int(kind, 0, len(kinds) - 1) for kind in order), "orders a kind that does not exist")
    return _Plan(alphabets, parsed, tuple(order), _find_roots(parsed, order))


def _parse_alphabet(entry: Any) -> Alphabet:
    _need(_is_list(entry, 2, 2), "has an alphabet that is not a name and a size")
    name, size = entry
    _need(_is_name(name) and _is_int(size, 1, 1 << 31), "has an alphabet with a bad name or size")
    return Alphabet(name, size)


def _parse_kind(entry: Any, alphabets: tuple[Alphabet, ...]) -> _Kind:
    _need(_is_list(entry, 4, 4), "has a kind that is not modality, header, arrays, children")
    modality, header, arrays, children = entry
    _need(_is_name(modality), "has a kind with a bad modality")
    _need(isinstance(header, dict) and len(header) <= MAX_FIELDS, f"has a {modality} without a header")
    for name, value in header.items():
        _need(_is_name(name) and _is_value(value), f"has a {modality} with a bad field")
    _need(_is_list(arrays, 0, MAX_FIELDS), f"has a {modality} without a list of arrays")
    parsed = tuple(_parse_array(array, alphabets) for array in arrays)
    for i, array in enumerate(parsed):
        halves = tuple(-(-side // 2) for side in array.shape)
        inside = i > 0 and parsed[i - 1].gaps != WHOLE and parsed[i - 1].shape == halves
        _need(array.gaps != NESTED or inside, f"has a {modality} with a level nested in none")
    _need(len({a.alphabet.name for a in parsed}) == len(parsed), f"has a {modality} with two arrays of one alphabet")
    _need(_is_int(children, 0, MAX_NODES), f"has a {modality} with a bad number of children")
    return _Kind(modality, header, parsed, children)


def _is_value(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_STRING and not any("\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, bool) or _is_int(value, -(1 << 63), (1 << 63) - 1)


def _parse_array(entry: Any, alphabets: tuple[Alphabet, ...]) -> _Array:
    _need(_is_list(entry, 3, 3), "has an array that is not alphabet, shape, gaps")
    alphabet, shape, gaps = entry
    _need(_is_int(alphabet, 0, len(alphabets) - 1), "has an array of an alphabet that does not exist")
    fits = _is_list(shape, 1, MAX_RANK) and all(_is_int(side, 0, MAX_ELEMENTS) for side in shape)
    _need(fits and prod(max(side, 1) for side in shape) <= MAX_ELEMENTS, "has an array with a bad shape")
    plane = _is_int(gaps, WHOLE, NESTED) and (gaps == WHOLE or (len(shape) == 2 and min(shape) > 0))
    _need(plane, "has an array with absent blocks that is not a plane")
    return _Array(alphabets[alphabet], tuple(shape), gaps)


def _find_roots(kinds: tuple[_Kind, ...], order: Sequence[int]) -> tuple[int, ...]:
    """The kinds of the nodes that have no parent; raises _HeaderFault when order is no whole forest."""
    roots, missing = [], []  # missing: how many children still follow, one entry a level
    for kind in order:
        while missing and missing[-1] == 0:
            missing.pop()
        if missing:
            missing[-1] -= 1
        else:
            roots.append(kind)
        missing.append(kinds[kind].children)
        _need(len(missing) <= MAX_DEPTH, f"nests codes deeper than {MAX_DEPTH}")
    _need(not any(missing), "ends before the last child")
    return tuple(roots)


def _table(roots: Sequence[Codes], alphabets: Iterable[Alphabet]) -> dict[str, Alphabet]:
    """The alphabets that the codes use, by name."""
    known: dict[str, Alphabet] = {}
    for alphabet in alphabets:
        if known.setdefault(alphabet.name, alphabet) != alphabet:
            raise CodesError(
                f"alphabet {alphabet.name!r} has two sizes, {known[alphabet.name].size} and {alphabet.size}"
            )
    used = {name for root in roots for part in root.walk() for name in part.arrays}
    if unknown := sorted(used - known.keys()):
        raise CodesError(f"alphabet {unknown[0]!r} is not among those given: {', '.join(known) or 'none'}")
    return {name: alphabet for name, alphabet in known.items() if name in used}


def _header_text(roots: Sequence[Codes], table: Mapping[str, Alphabet]) -> bytes:
    """The JSON header. Nodes that differ in nothing but their codes share a kind, so long videos stay small."""
    number = {name: index for index, name in enumerate(table)}
    kinds: dict[str, int] = {}
    order = []
    try:
        for part in (part for root in roots for part in root.walk()):
            arrays = [
                [number[name], np.shape(array), _gaps(array, possible)]
                for name, (array, possible) in zip(part.arrays, part.levels(), strict=True)
            ]
            if not all(isinstance(name, str) for name in part.header):
                raise TypeError("a header field has a name that is not a string")
            kind = _json([part.modality, dict(part.header), arrays, len(part.children)])
            order.append(kinds.setdefault(kind, len(kinds)))
        alphabets = _json([[a.name, a.size] for a in table.values()])
        return f'{{"alphabets":{alphabets},"kinds":[{",".join(kinds)}],"order":{_json(order)}}}'.encode()
    except (TypeError, ValueError) as error:
        raise CodesError(f"codes cannot be stored: {error}") from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _gaps(array: np.ndarray, possible: np.ndarray | None) -> int:
    return WHOLE if not np.any(np.asarray(array) == ABSENT) else FREE if possible is None else NESTED


# --- the payload -------------------------------------------------------------------------------------------------


def _write_array(writer: BitWriter, array: np.ndarray, possible: np.ndarray | None, alphabet: Alphabet) -> None:
    present = array[array != ABSENT] if _gaps(array, possible) else array.ravel()
    integers = np.issubdtype(array.dtype, np.integer)
    if array.size and not integers:
        raise CodesError(f"codes of {alphabet.name} are {array.dtype}, must be integers")
    if present.size and not (present.min() >= 0 and present.max() < alphabet.size):
        raise CodesError(
            f"codes of {alphabet.name} run from {present.min()} to {present.max()}, legal are 0 to {alphabet.size - 1}"
        )
    if present.size < array.size:
        writer.put(split_flags(array, possible), SPLIT.bits)
    writer.put(present, alphabet.bits)


def _read_node(reader: BitReader, kinds: tuple[_Kind, ...], kind: int, nodes: Iterator[int]) -> Codes:
    """The node of a kind and, from nodes, the kinds that follow it, all below it."""
    node = kinds[kind]
    arrays: dict[str, np.ndarray] = {}
    before: np.ndarray | None = None
    for array in node.arrays:
        before = arrays[array.alphabet.name] = _read_array(reader, array, before)
    children = tuple(_read_node(reader, kinds, next(nodes), nodes) for _ in range(node.children))
    return Codes(node.modality, node.header, arrays, children)


def _read_array(reader: BitReader, array: _Array, before: np.ndarray | None) -> np.ndarray:
    if array.gaps == WHOLE:
        return _in_range(reader.take(array.elements, array.alphabet.bits), array.alphabet).reshape(array.shape)
    height, width = array.shape
    codes = np.full(array.shape, ABSENT, np.int32)
    possible = nested_in(codes, before) if array.gaps == NESTED else None
    present = join_flags((height, width), lambda n: reader.take(n, SPLIT.bits), possible)
    if present.all():
        raise CodesError(f"{array.alphabet.name} is said to have absent blocks and has none")
    codes[present] = _in_range(reader.take(int(present.sum()), array.alphabet.bits), array.alphabet)
    if array.gaps == FREE and nested_in(codes, before) is not None:
        raise CodesError(f"{array.alphabet.name} is said to have blocks outside the level before and has none")
    return codes


def _in_range(codes: np.ndarray, alphabet: Alphabet) -> np.ndarray:
    if codes.size and codes.max() >= alphabet.size:
        raise CodesError(f"code {codes.max()} of {alphabet.name}, which has {alphabet.size} symbols")
    return codes
