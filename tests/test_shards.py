"""The format of token data sets: what is written is read, and everything else is refused in one line."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from panglot import shards
from panglot.shards import Manifest, Segment, ShardError, open_shards, read_manifest, read_shard, shard_name

LAYOUT = {"alphabets": [["text", 100]]}


def segments(count: int, seed: int = 0) -> list[Segment]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        ids = rng.integers(0, 100, rng.integers(1, 20)).astype(np.int32)
        kind, split = ("", "photo")[i % 2], ("train", "held")[i % 5 == 0]
        out.append(Segment(f"dog {i // 3} é", i, i % 2, ("text", "image")[i % 2], kind, i % 3, split, ids, f"{i}.png"))
    return out


@pytest.fixture
def folder(tmp_path):
    """A finished data set of two shards, the second without rows, and a third."""
    rows = segments(30)
    parts = (rows[:20], [], rows[20:])
    infos = [shards.write_shard(tmp_path / shard_name(i), part, {"made": i}) for i, part in enumerate(parts)]
    manifest = Manifest(LAYOUT, 100, {"text": "ab"}, {"variants": 2}, True, tuple(infos), (("bad.png", "is empty"),))
    shards.write_manifest(tmp_path, manifest)
    return tmp_path


def refused(folder, *words, **options):
    with pytest.raises(ShardError) as caught:
        open_shards(folder, **options)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_what_is_written_is_read(folder):
    found, rows = open_shards(folder, layout=LAYOUT, checksums=True), segments(30)
    assert len(found) == 30
    assert found.ids.dtype == np.int32
    assert found.lengths.tolist() == [len(row.ids) for row in rows]
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(found.segment(i), row.ids)
    for name in ("group", "modality", "kind", "split", "file"):
        words = getattr(found.rows, name)
        assert [words.names[code] for code in words.codes] == [getattr(row, name) for row in rows]
        assert len(set(words.names)) == len(words.names)
    for name in ("sample", "part", "variant"):
        assert getattr(found.rows, name).tolist() == [getattr(row, name) for row in rows]
    assert found.rows.split.where("held").sum() == 6
    assert not found.rows.split.where("nothing").any()
    assert read_manifest(folder).tokens == {
        m: sum(len(r.ids) for r in rows if r.modality == m) for m in ("image", "text")
    }
    assert read_manifest(folder).skipped == (("bad.png", "is empty"),)


def test_segments_are_views(folder):
    found = open_shards(folder)
    assert np.shares_memory(found.segment(3), found.ids)


def test_the_same_rows_are_the_same_bytes(folder, tmp_path):
    other = tmp_path / "other.parquet"
    assert shards.write_shard(other, segments(30)[:20], {"made": 0}).sha256 == read_manifest(folder).shards[0].sha256
    assert other.read_bytes() == (folder / shard_name(0)).read_bytes()
    assert shards.write_shard(other, segments(30)[:20], {"made": 1}).sha256 != read_manifest(folder).shards[0].sha256


def test_a_shard_remembers_what_it_was_made_from(folder):
    table, meta, info = read_shard(folder / shard_name(2))
    assert meta["made"] == 2
    assert info == read_manifest(folder).shards[2]
    assert len(table) == info.rows == 10


def test_an_id_takes_less_than_two_bytes(tmp_path):
    ids = np.random.default_rng(0).integers(0, 12_000, (500, 90)).astype(np.int32)
    rows = [Segment("dog", i, 1, "image", "", 0, "train", ids[i], f"{i}.png") for i in range(500)]
    assert shards.write_shard(tmp_path / "x", rows, {}).bytes < 2 * ids.size


def test_a_set_without_rows(tmp_path):
    info = shards.write_shard(tmp_path / shard_name(0), [], {})
    for infos in ((), (info,)):
        shards.write_manifest(tmp_path, Manifest(LAYOUT, 100, {}, {}, True, infos))
        found = open_shards(tmp_path)
        assert (len(found), len(found.ids), found.rows.group.names) == (0, 0, ())


# ---------------------------------------------------------------------------------------------------------------------
# Faults


def test_faults_of_the_folder(folder, tmp_path):
    refused(tmp_path / "nothing", "nothing", "does not exist")
    refused(folder / shard_name(0), "is a file", "folder")
    refused(folder, "another layout", layout={"alphabets": [["text", 99]]})
    (folder / shards.MANIFEST).unlink()
    refused(folder, "no manifest.json", "prepare")


def test_not_finished(folder):
    shards.write_manifest(folder, replace(read_manifest(folder), complete=False))
    refused(folder, "not finished", "run the same panglot prepare again")


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_shard_cut_short(folder, kept):
    path = folder / shard_name(0)
    path.write_bytes(path.read_bytes()[:kept])
    refused(folder, shard_name(0), "damaged or cut short", "again")


def test_a_shard_that_is_missing_or_another(folder):
    (folder / shard_name(2)).write_bytes((folder / shard_name(0)).read_bytes())
    refused(folder, shard_name(2), "is not the one the manifest tells of")
    (folder / shard_name(2)).unlink()
    refused(folder, shard_name(2), "is missing", "again")


def test_a_shard_of_the_same_size_is_told_by_its_checksum(folder):
    info = shards.write_shard(folder / shard_name(0), segments(30)[:20], {"made": 7})
    assert info.bytes == read_manifest(folder).shards[0].bytes
    open_shards(folder)
    refused(folder, shard_name(0), "manifest", checksums=True)


def test_a_flipped_bit_never_goes_unnoticed(folder):
    path = folder / shard_name(0)
    whole, first = path.read_bytes(), open_shards(folder)
    for at in range(4, len(whole) - 8, 97):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        refused(folder, shard_name(0), checksums=True)
        try:
            found = open_shards(folder)
        except ShardError:
            continue
        np.testing.assert_array_equal(found.ids, first.ids)  # the bit was one that says nothing of ids


def test_a_parquet_file_of_something_else(folder):
    pq.write_table(pa.table({"x": [1]}), folder / shard_name(0))
    refused(folder, shard_name(0), "damaged")
    meta = {b"panglot": b'{"version": 1}'}
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(meta), folder / shard_name(0))
    refused(folder, shard_name(0), "is not a shard")


def test_ids_outside_the_layout(folder):
    manifest = read_manifest(folder)
    for wrong in (100, -1):
        rows = [replace(row, ids=np.array([5, wrong], np.int32)) for row in segments(2)]
        info = shards.write_shard(folder / shard_name(0), rows, {})
        shards.write_manifest(folder, replace(manifest, shards=(info,)))
        refused(folder, "ids outside", "0 to 99")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(version=2), ["version 2", "update"]),
        (lambda m: m.update(format="zip"), ["damaged", "something else"]),
        (lambda m: m.pop("layout"), ["damaged", "layout"]),
        (lambda m: m["shards"][0].pop("rows"), ["damaged"]),
        (lambda m: m["shards"][0].update(rows="many"), ["damaged"]),
        (lambda m: m["shards"][0].update(tokens=[1]), ["damaged"]),
        (lambda m: m["shards"][0].update(file="../../secret"), ["damaged"]),
        (lambda m: m.update(skipped=3), ["damaged"]),
        (lambda m: m.update(vocabulary="x"), ["damaged"]),
        (lambda m: m["shards"][0].update(rows=21), [shard_name(0), "manifest"]),
    ],
)
def test_a_manifest_that_cannot_be(folder, change, words):
    path = folder / shards.MANIFEST
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    refused(folder, *words)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none(folder, data):
    (folder / shards.MANIFEST).write_bytes(data)
    refused(folder, "manifest.json", "damaged")


def test_a_full_disk_leaves_what_was_there(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardError) as caught:
        shards.write_shard(folder / shard_name(0), segments(3), {})
    said = str(caught.value)
    assert all(word in said for word in (shard_name(0), "No space left", "again", "kept"))
    assert "\n" not in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
