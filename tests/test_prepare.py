"""Data sets of folders: complete, the same however they were made, and never a mix."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from panglot import prepare as preparing
from panglot import shards
from panglot.convert import OptionError
from panglot.folders import FolderError, Sample
from panglot.layout import Layout
from panglot.prepare import prepare
from panglot.shards import ShardError, open_shards, shard_name
from panglot.testing import some_audio, some_image
from panglot.variants import Options

OPTIONS = Options(join="text", variants=3, held=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven samples: pictures and sounds of three words, a text alone; and four things that are left out."""
    folder = tmp_path_factory.mktemp("files") / "things"
    folder.mkdir()
    rows = []
    for i in range(6):
        some_image(32 + 8 * i, 40, i).save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": ("dog", "cat", "cow")[i % 3], "kind": "photo"})
    for i in range(4):
        some_audio(0.3, 16000, i).save(folder / f"{i}.wav")
        rows.append({"audio_file_name": f"{i}.wav", "text": ("dog", "cat", "cow")[i % 3]})
    (folder / "bad.png").write_bytes((folder / "0.png").read_bytes()[:60])
    rows += [{"file_name": "bad.png", "text": "dog"}, {"text": "a story"}, {"file_name": "missing.png"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{oops\n")
    (folder / "other.xyz").write_text("x")
    return folder


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 3)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The files of the data set, made in this process without a break."""
    out = tmp_path_factory.mktemp("whole") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_SAMPLES", 3)
        prepare([folder], out, OPTIONS)
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(*words: str, error: type[Exception] = ShardError, **call):
    with pytest.raises(error) as caught:
        prepare(**call)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said


# ---------------------------------------------------------------------------------------------------------------------
# What is made


def test_everything_is_there_once(folder, tmp_path):
    told = []
    found = prepare([folder], tmp_path / "set", OPTIONS, told.append)
    data = open_shards(tmp_path / "set", layout=OPTIONS.layout().to_json(), checksums=True)
    rows = data.rows
    assert (found.samples, found.kept, len(found.manifest.shards)) == (12, 0, 4)
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert set(rows.group.names) == {"dog", "cat", "cow", "a story"}
    media = [(rows.file.names[f], v) for f, v in zip(rows.file.codes, rows.variant, strict=True)]
    texts = 10 + 1  # one for each sample that has media, and the story
    assert media.count(("", 0)) == texts
    assert sorted(m for m in media if m[0]) == sorted(
        [(f"{i}.png", v) for i in range(6) for v in range(3)] + [(f"{i}.wav", v) for i in range(4) for v in range(3)]
    )
    assert sorted(set(rows.sample.tolist())) == [*range(10), 11]
    kinds = {
        (rows.modality.names[m], rows.kind.names[k]) for m, k in zip(rows.modality.codes, rows.kind.codes, strict=True)
    }
    assert kinds == {("text", ""), ("image", "photo"), ("audio", "")}
    held = {int(s) for s in rows.sample[rows.split.where("held")]}
    assert 0 < len(held) < 11
    assert not held & {int(s) for s in rows.sample[rows.split.where("train")]}
    assert dict(found.manifest.skipped).keys() == {
        "metadata.jsonl line 13",
        "metadata.jsonl line 14",
        "other.xyz",
        "bad.png",
    }
    assert sum(found.manifest.tokens.values()) == len(data.ids)
    assert Layout.from_json(data.manifest.layout).size == data.manifest.vocabulary


def test_the_manifest_tells_how_it_was_made_but_not_where(folder, whole):
    said = json.loads(whole["manifest.json"])
    assert said["options"]["variants"] == 3
    assert said["options"]["folders"] == ["things"]
    assert all(len(digest) == 64 for digest in said["tokenizers"].values())
    assert not any(str(folder.parent).encode() in data for data in whole.values())


def test_the_same_files_elsewhere_and_later_are_the_same_bytes(folder, whole, tmp_path):
    copy = tmp_path / "elsewhere" / "things"
    copy.mkdir(parents=True)
    for path in sorted(folder.iterdir(), reverse=True):
        (copy / path.name).write_bytes(path.read_bytes())
    prepare([copy], tmp_path / "set", OPTIONS)
    assert contents(tmp_path / "set") == whole


def test_without_join_each_sample_is_a_group(folder, tmp_path):
    prepare([folder], tmp_path / "set", Options(variants=1))
    rows = open_shards(tmp_path / "set").rows
    pairs = set(zip(rows.group.codes.tolist(), rows.sample.tolist(), strict=True))
    assert len(pairs) == len(rows.group.names) == 11


# ---------------------------------------------------------------------------------------------------------------------
# However it was made

SCRIPT = """
import sys
from panglot import prepare as preparing, shards
from panglot.variants import Options
if __name__ == "__main__":
    shards.SHARD_SAMPLES = 3
    options = Options(join="text", variants=3, held=0.3)
    preparing.prepare([sys.argv[1]], sys.argv[2], options, workers=2)
"""


def test_two_processes_that_are_killed_leave_what_two_others_finish(folder, whole, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "set"
    process = subprocess.Popen([sys.executable, tmp_path / "script.py", folder, out])
    end = time.monotonic() + 120
    while not list(out.glob("shard-*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(children) >= 2
    assert psutil.wait_procs(children, 30)[1] == []  # nobody goes on alone
    done = list(out.glob("shard-*"))
    assert 1 <= len(done) < 4
    assert all(path.read_bytes() == whole[path.name] for path in done)
    with pytest.raises(ShardError, match="not finished"):
        open_shards(out)
    (out / ".shard-00003.parquet.1.tmp").write_bytes(b"half")
    again = prepare([folder], out, OPTIONS, workers=2)
    assert again.kept == len(done)
    assert contents(out) == whole


def test_a_finished_set_is_left_as_it_is(folder, whole, tmp_path, monkeypatch):
    prepare([folder], tmp_path / "set", OPTIONS)
    monkeypatch.setattr(preparing, "Encoder", None)
    again = prepare([folder], tmp_path / "set", OPTIONS)
    assert again.kept == 4
    assert contents(tmp_path / "set") == whole


def test_a_full_disk_is_told_and_what_was_finished_is_kept(folder, whole, tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) > 3:  # the manifest that says it is not finished, and two shards
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        refused("No space left", "again", folders=[folder], out=tmp_path / "set", options=OPTIONS)
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"manifest.json", shard_name(0), shard_name(1)}
    assert prepare([folder], tmp_path / "set", OPTIONS).kept == 2
    assert contents(tmp_path / "set") == whole


def test_a_damaged_shard_is_made_again(folder, whole, tmp_path):
    prepare([folder], tmp_path / "set", OPTIONS)
    path = tmp_path / "set" / shard_name(1)
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "set" / shard_name(2)).unlink()
    assert prepare([folder], tmp_path / "set", OPTIONS).kept == 2
    assert contents(tmp_path / "set") == whole


# ---------------------------------------------------------------------------------------------------------------------
# Never a mix


@pytest.fixture
def changing(folder, tmp_path):
    copy = tmp_path / "copy" / "things"
    copy.mkdir(parents=True)
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    prepare([copy], tmp_path / "set", OPTIONS)
    return copy


def test_a_file_that_changed_is_encoded_again(changing, whole, tmp_path):
    path = changing / "4.png"
    before = path.stat()
    pixels = some_image(32 + 8 * 4, 40, 77)
    pixels.save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert prepare([changing], tmp_path / "set", OPTIONS).kept == 3
    after = contents(tmp_path / "set")
    assert {name for name in after if after[name] != whole[name]} == {"manifest.json", shard_name(1)}
    prepare([changing], tmp_path / "fresh", OPTIONS)
    assert contents(tmp_path / "fresh") == after


def test_samples_that_went_or_came(changing, tmp_path):
    rows = (changing / "metadata.jsonl").read_text().splitlines(keepends=True)
    for lines in (rows[1:5], ['{"text": "first"}\n', *rows]):
        (changing / "metadata.jsonl").write_text("".join(lines))
        prepare([changing], tmp_path / "set", OPTIONS)
        prepare([changing], tmp_path / f"fresh {len(lines)}", OPTIONS)
        assert contents(tmp_path / "set") == contents(tmp_path / f"fresh {len(lines)}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(join="text", variants=2, held=0.3), ("variants 3, not 2",)),
        (Options(join=None, variants=3, held=0.3), ("join text, not None",)),
        (Options(join="text", variants=3, held=0.3, seed=1), ("seed 0, not 1",)),
        (Options(join="text", variants=3, held=0.3, max_tokens=9), ("max-tokens 2048, not 9",)),
        (Options(join="text", variants=3, held=0.3, depth=3), ("depth 4, not 3",)),
    ],
)
def test_other_options_want_another_folder(folder, whole, tmp_path, options, words):
    prepare([folder], tmp_path / "set", OPTIONS)
    refused(*words, "another folder", folders=[folder], out=tmp_path / "set", options=options)
    assert contents(tmp_path / "set") == whole


def test_another_method_wants_another_folder(folder, whole, tmp_path, monkeypatch):
    prepare([folder], tmp_path / "set", OPTIONS)
    monkeypatch.setattr(preparing, "METHOD", 99)
    refused("method 2, not 99", "another folder", folders=[folder], out=tmp_path / "set", options=OPTIONS)
    assert contents(tmp_path / "set") == whole


def test_other_weights_or_another_folder_want_another_folder(folder, whole, tmp_path):
    prepare([folder], tmp_path / "set", OPTIONS)
    (tmp_path / "others").mkdir()
    some_image(32, 32).save(tmp_path / "others" / "1.png")
    call = {"folders": [tmp_path / "others"], "out": tmp_path / "set", "options": OPTIONS}
    refused("things", "others", "another folder", **call)
    assert contents(tmp_path / "set") == whole
    manifest = json.loads(whole["manifest.json"])
    manifest["tokenizers"]["image"] = "0" * 64
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    refused("other tokenizers", folders=[folder], out=tmp_path / "set", options=OPTIONS)


def test_where_a_set_cannot_go(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    refused("holds other things", "letter.txt", folders=[folder], out=tmp_path / "full")
    refused("is a file", folders=[folder], out=tmp_path / "full" / "letter.txt")
    refused("lies in", folders=[folder], out=folder / "set")
    refused("lies in", folders=[folder], out=folder)
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    (tmp_path / "full" / "letter.txt").unlink()
    prepare([folder], tmp_path / "full", Options(variants=1))


def test_a_damaged_manifest_wants_to_be_deleted(folder, whole, tmp_path):
    prepare([folder], tmp_path / "set", OPTIONS)
    (tmp_path / "set" / "manifest.json").write_text("{")
    refused("manifest.json", "damaged", "delete it", folders=[folder], out=tmp_path / "set", options=OPTIONS)
    (tmp_path / "set" / "manifest.json").unlink()
    assert prepare([folder], tmp_path / "set", OPTIONS).kept == 4
    assert contents(tmp_path / "set") == whole


def test_shards_of_other_tools_are_not_touched(folder, tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("shard-00000-of-00005.parquet", ".editor.tmp"):
        (tmp_path / "set" / name).write_text("theirs")
        refused("holds other things", name, folders=[folder], out=tmp_path / "set", options=OPTIONS)
        assert (tmp_path / "set" / name).read_text() == "theirs"
        (tmp_path / "set" / name).unlink()
    prepare([folder], tmp_path / "set", OPTIONS)
    (tmp_path / "set" / "shard-00000-of-00005.parquet").write_text("theirs")
    prepare([folder], tmp_path / "set", OPTIONS)
    assert (tmp_path / "set" / "shard-00000-of-00005.parquet").read_text() == "theirs"


# ---------------------------------------------------------------------------------------------------------------------
# Nothing to make


def test_nothing_to_prepare(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("empty", "nothing to prepare", folders=[tmp_path / "empty"], out=tmp_path / "set")
    (tmp_path / "empty" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    refused("nothing could be prepared", "bad.png", folders=[tmp_path / "empty"], out=tmp_path / "set")
    assert list((tmp_path / "set").iterdir()) == []
    refused("does not exist", error=FolderError, folders=[tmp_path / "missing"], out=tmp_path / "set")
    refused("--workers 0", error=OptionError, folders=[tmp_path / "empty"], out=tmp_path / "set", workers=0)


def test_chunks_are_bounded_in_bytes_too(folder, monkeypatch):
    from panglot.folders import find

    samples = find([folder]).samples
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 100)
    monkeypatch.setattr(preparing, "CHUNK_BYTES", 12_000)
    chunks = preparing._chunks(samples)
    assert [s for chunk in chunks for s in chunk.samples] == list(samples)
    assert [chunk.first for chunk in chunks] == [sum(len(c.samples) for c in chunks[:i]) for i in range(len(chunks))]
    for chunk in chunks:
        size = sum(f.stat().st_size for s in chunk.samples for f in s.files)
        assert size <= 12_000 or len(chunk.samples) == 1
    assert 1 < len(chunks) < len(samples)


@pytest.mark.parametrize(
    ("samples", "size"), [(1, 16), (17, 16), (300, 16), (512, 32), (4095, 128), (4096, 256), (30000, 256)]
)
def test_small_data_sets_have_work_for_every_worker(samples, size, monkeypatch, tmp_path):
    monkeypatch.setattr(shards, "SHARD_SAMPLES", 256)
    found = [Sample(str(n), tmp_path, None, None, ()) for n in range(samples)]
    chunks = preparing._chunks(found)
    assert [s for chunk in chunks for s in chunk.samples] == found
    assert {len(chunk.samples) for chunk in chunks[:-1]} <= {size}
    assert len(chunks) == -(-samples // size)
