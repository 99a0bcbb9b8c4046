"""Token data sets on disk: a folder of Parquet shards and a manifest; writing and reading.

    manifest.json           what the ids mean, how they were made, and of every shard its rows, tokens and SHA-256
    shard-00000.parquet     rows: one packed stream segment each, with what it belongs to

A shard appears whole or not at all, and so does the manifest, which says that it is complete only once all shards are
there. Reading gives NumPy arrays over the whole set: all ids one after another, and a value a row for everything else.

Not here: how files become segments (`panglot.prepare`), what ids mean (`panglot.layout`), how a model is fed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VERSION = 1
MANIFEST = "manifest.json"
AGAIN = "run the same panglot prepare again"
SPLITS = ("train", "held")

SCHEMA = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("sample", pa.int64(), nullable=False),
        pa.field("part", pa.int16(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("variant", pa.int16(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("file", pa.string(), nullable=False),
    ]
)
WORDS = tuple(f.name for f in SCHEMA if f.type == pa.string())
META = b"panglot"
"""Where in a shard's own metadata stands what it was made from."""


SHARD_SAMPLES, FEW_SAMPLES, SHARDS = 256, 16, 16
"""A shard is made from so many samples at most; of small data sets from fewer, towards so many shards, but not below so
many samples, so that several workers have some. A set that grows past such a border is cut anew."""


def samples_a_shard(count: int) -> int:
    """How many of `count` samples a shard is made from at most."""
    most = SHARD_SAMPLES
    while most > FEW_SAMPLES and count < most * SHARDS:
        most //= 2
    return most


class ShardError(ValueError):
    """A token data set that cannot be read or written. One line: the file, the fault, and what would help."""


@dataclass(frozen=True)
class Segment:
    """One row. ids: int32 [n], one packed segment with the mark that opens it.

    group:   segments of one group are about the same thing, and may be put into one sample of a model.
    sample:  number of the sample in the order of the folders; part: number of the medium within it, the text first.
    kind:    how the medium shows the thing ("photo", "say it"), or "".
    variant: number of the way in which the same medium is encoded, with more or fewer tokens.
    split:   "train" or "held"; file: the file it came from, relative, or "" for a text out of a table.
    """

    group: str
    sample: int
    part: int
    modality: str
    kind: str
    variant: int
    split: str
    ids: np.ndarray
    file: str


@dataclass(frozen=True)
class ShardInfo:
    """What the manifest says of one shard. tokens: by modality."""

    file: str
    rows: int
    bytes: int
    sha256: str
    tokens: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """What stands beside the shards.

    layout:     of the ids, as `Layout.to_json` gives it; vocabulary: how many ids it has.
    tokenizers: SHA-256 of the weights, by modality.
    options:    how the set was made.
    skipped:    [name, reason] of what was left out.
    """

    layout: Mapping[str, Any]
    vocabulary: int
    tokenizers: Mapping[str, str]
    options: Mapping[str, Any]
    complete: bool = False
    shards: tuple[ShardInfo, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def tokens(self) -> dict[str, int]:
        """Ids by modality, marks and headers included."""
        total: dict[str, int] = {}
        for shard in self.shards:
            for modality, n in shard.tokens.items():
                total[modality] = total.get(modality, 0) + n
        return total


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def write_shard(path: Path, segments: Sequence[Segment], meta: Mapping[str, Any]) -> ShardInfo:
    """Write one shard, whole or not at all; the same rows and `meta` give the same bytes. Raises ShardError.

    meta: what JSON can hold, kept in the file and given back by `read_shard`.
    """
    columns: list[Any] = []
    for column in SCHEMA:
        values = [getattr(segment, column.name) for segment in segments]
        if column.name == "ids":
            ends = np.cumsum([0, *(len(ids) for ids in values)]).astype(np.int32)
            flat = np.concatenate([np.zeros(0, np.int32), *values]).astype(np.int32)
            columns.append(pa.ListArray.from_arrays(ends, flat, type=column.type))
        else:
            columns.append(pa.array(values, column.type))
    said = json.dumps({**meta, "version": VERSION}, sort_keys=True).encode()
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata({META: said}))
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        row_group_size=max(1, len(table)),
        compression="zstd",
        use_dictionary=list(WORDS),  # pyright: ignore[reportArgumentType]
        column_encoding={"ids.list.element": "BYTE_STREAM_SPLIT"},
        write_page_checksum=True,
    )
    _write(path, out.getbuffer())
    return _info(path, table, hashlib.sha256(out.getbuffer()).hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, whole or not at all. Raises ShardError."""
    value = {"format": "panglot shards", "version": VERSION, **asdict(manifest)}
    value |= {"rows": manifest.rows, "tokens": manifest.tokens}
    _write(folder / MANIFEST, json.dumps(value, indent=1).encode())


def _write(path: Path, data: bytes | memoryview) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        remedy = f"make room or choose another folder, then {AGAIN}: what is finished is kept"
        raise ShardError(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _info(path: Path, table: pa.Table, sha256: str) -> ShardInfo:
    lengths = np.diff(_one(table, "ids").offsets.to_numpy())
    modality = np.asarray(table["modality"].to_pylist(), object)
    tokens = {str(name): int(lengths[modality == name].sum()) for name in sorted(set(modality))}
    return ShardInfo(path.name, len(table), path.stat().st_size, sha256, tokens)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, finished or not. Raises ShardError."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ShardError(f"{folder}: {'is a file' if folder.exists() else 'does not exist'}; name a folder of shards")
    try:
        value = json.loads(path.read_bytes())
        if value["format"] != "panglot shards":
            raise ValueError("it is of something else")
        if value["version"] != VERSION:
            raise ShardError(f"{path}: is of version {value['version']}, this panglot reads {VERSION}; update panglot")
        return _manifest(value)
    except FileNotFoundError:
        raise ShardError(f"{folder}: has no {MANIFEST}, so it is no token data set; make one with prepare") from None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{path}: is damaged ({error}); delete it and {AGAIN}") from None


def _manifest(value: Mapping[str, Any]) -> Manifest:
    """The manifest that this JSON is. Raises ValueError, TypeError or KeyError where it is none."""
    shards = []
    for number, shard in enumerate(value["shards"]):
        tokens = {str(name): int(n) for name, n in dict(shard["tokens"]).items()}
        info = ShardInfo(shard["file"], int(shard["rows"]), int(shard["bytes"]), str(shard["sha256"]), tokens)
        if info.file != shard_name(number):
            raise ValueError(f"shard {number} is called {info.file!r}")
        shards.append(info)
    parts = {name: dict(value[name]) for name in ("layout", "tokenizers", "options")}
    skipped = tuple((str(name), str(reason)) for name, reason in value["skipped"])
    whole = bool(value["complete"])
    return Manifest(**parts, vocabulary=int(value["vocabulary"]), complete=whole, shards=tuple(shards), skipped=skipped)


def read_shard(path: Path) -> tuple[pa.Table, dict[str, Any], ShardInfo]:
    """The rows of one shard, its `meta`, and what a manifest says of it. Raises ShardError."""
    try:
        data = path.read_bytes()
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)
        meta = json.loads((table.schema.metadata or {})[META])
        if meta["version"] != VERSION or not table.schema.equals(SCHEMA):
            raise ShardError(f"{path}: is not a shard of this version; delete it and {AGAIN}")
        if any(column.null_count for column in table.columns):
            raise ShardError(f"{path}: has rows without values; delete it and {AGAIN}")
    except FileNotFoundError:
        raise ShardError(f"{path}: is missing; {AGAIN}") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{path}: is damaged or cut short; {AGAIN}") from None
    return table, meta, _info(path, table, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, eq=False)
class Words:
    """A column of words: names[codes[row]]. codes: int32 [rows]."""

    names: tuple[str, ...]
    codes: np.ndarray

    def where(self, name: str) -> np.ndarray:
        """bool [rows]: the rows that have this word."""
        if name not in self.names:
            return np.zeros(len(self.codes), bool)
        return self.codes == self.names.index(name)


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns, a value a row: int64 [rows], or `Words`. What each says is told at `Segment`."""

    group: Words
    sample: np.ndarray
    part: np.ndarray
    modality: Words
    kind: Words
    variant: np.ndarray
    split: Words
    file: Words


@dataclass(frozen=True, eq=False)
class Shards:
    """A whole data set in memory.

    ids: int32 [tokens], all segments one after another; offsets: int64 [rows + 1], where each begins, and the end.
    """

    folder: Path
    manifest: Manifest
    ids: np.ndarray
    offsets: np.ndarray
    rows: Rows = field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]: ids of each segment."""
        return np.diff(self.offsets)

    def segment(self, row: int) -> np.ndarray:
        """The ids of one row, int32 [n], a view."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]


def open_shards(
    folder: str | os.PathLike[str], layout: Mapping[str, Any] | None = None, checksums: bool = False
) -> Shards:
    """Read a finished data set. It is held in memory: 4 bytes an id, twice that while it is read.

    layout: refuse a set of another one. checksums: hold the SHA-256 of every shard against the manifest; the checksum
    of each page is looked at anyway. Raises ShardError.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise ShardError(f"{folder}: is not finished; {AGAIN}")
    if layout is not None and manifest.layout != layout:
        raise ShardError(f"{folder}: its ids are of another layout; prepare it again with the options of this one")
    tables, lengths, flat = [], [], [np.zeros(0, np.int32)]
    for shard in manifest.shards:
        table, _, found = read_shard(folder / shard.file)
        if (found.rows, found.bytes, found.tokens) != (shard.rows, shard.bytes, shard.tokens) or (
            checksums and found.sha256 != shard.sha256
        ):
            raise ShardError(f"{folder / shard.file}: is not the one the manifest tells of; {AGAIN}")
        column = _one(table, "ids")
        lengths.append(np.diff(column.offsets.to_numpy()))
        flat.append(column.flatten().to_numpy())
        tables.append(table.drop_columns(["ids"]))
    ids = np.concatenate(flat)
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < manifest.vocabulary:
        raise ShardError(f"{folder}: has ids outside its layout's 0 to {manifest.vocabulary - 1}; {AGAIN}")
    offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
    whole = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    columns = {name: _words(whole, name) for name in WORDS}
    numbers = {name: whole[name].to_numpy().astype(np.int64) for name in ("sample", "part", "variant")}
    return Shards(folder, manifest, ids, offsets, Rows(**columns, **numbers))


def _one(table: pa.Table, name: str) -> Any:
    """A column as one array."""
    return table[name].combine_chunks() if table[name].num_chunks == 1 else pa.concat_arrays(_chunks(table, name))


def _chunks(table: pa.Table, name: str) -> list[Any]:
    return table[name].chunks or [pa.array([], table[name].type)]


def _words(table: pa.Table, name: str) -> Words:
    column = table[name].dictionary_encode().unify_dictionaries()
    if not column.num_chunks:
        return Words((), np.zeros(0, np.int32))
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks]).astype(np.int32)
    return Words(tuple(column.chunk(0).dictionary.to_pylist()), codes)
