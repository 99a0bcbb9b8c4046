"""The report on folders: what it counts is what is there, and what it foretells is what preparing makes."""

import json
import threading
from collections import Counter

import pytest

from panglot import media, scan
from panglot.folders import FolderError
from panglot.media import Text
from panglot.prepare import prepare
from panglot.scan import Coverage, Report, estimate, grids
from panglot.shards import open_shards
from panglot.testing import some_audio, some_image, some_video
from panglot.variants import Options


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files") / "things"
    folder.mkdir()
    rows = []
    for i in range(5):
        some_image(64, 40 + 8 * i, i).save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": "dog" if i < 4 else "cat"})
    for i in range(3):
        some_audio(0.5 + 0.2 * i, 16000, i).save(folder / f"{i}.wav")
        rows.append({"audio_file_name": f"{i}.wav", "text": ("dog", "dog", "cow")[i], "speaker": f"s{i % 2}"})
    some_video(9, 32, 48, 1, fps=8.0, rate=16000).save(folder / "f.mp4")
    rows.append({"video_file_name": "f.mp4", "image_file_name": "0.png", "text": "cat"})
    Text("Once upon a time.").save(folder / "story.txt")
    rows += [{"file_name": "story.txt"}, {"file_name": "bad.wav", "text": "dog"}, {"file_name": "none.png"}]
    (folder / "bad.wav").write_bytes(b"RIFF1234WAVEfmt ")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return scan.scan([folder])


def test_media_and_what_pairs_with_what(folder, report):
    assert (report.samples, report.groups) == (11, 4)
    assert report.files == {"text": 1, "image": 5, "audio": 3, "video": 1}
    assert report.bytes["image"] == sum((folder / f"{i}.png").stat().st_size for i in range(5))
    assert report.pairs["image"] == {"text": 6, "image": 6, "audio": 0, "video": 1}
    assert report.pairs["text"] == {"text": 10, "image": 6, "audio": 3, "video": 1}
    assert report.group_pairs["image"] == {"text": 2, "image": 2, "audio": 1, "video": 1}
    assert report.group_pairs["audio"] == {"text": 2, "image": 1, "audio": 2, "video": 0}


def test_what_is_left_out(report):
    left_out = dict(report.reasons())
    assert left_out["names a file that is missing"] == ["metadata.jsonl line 12"]
    (broken,) = [reason for reason, names in left_out.items() if names == ["bad.wav"]]
    assert "damaged" in broken
    assert len(left_out) == len(report.skipped) == 2


def test_concepts_and_speakers(report):
    concepts = {name: coverage.counts for name, coverage in report.concepts.items()}
    assert concepts["image"] == {"dog": 4, "cat": 2}
    assert concepts["audio"] == {"dog": 2, "cow": 1}
    assert concepts["video"] == {"cat": 1}
    assert concepts["text"] == {"dog": 6, "cat": 2, "cow": 1}
    assert report.speakers is not None
    assert report.speakers.counts == {"s0": 2, "s1": 1}


def test_imbalance_is_the_most_frequent_over_the_one_in_the_middle():
    coverage = Coverage.of(Counter({"a": 9, "b": 3, "c": 3, "d": 1, "e": 1}))
    assert coverage.imbalance == 3
    assert coverage.as_dict() == {
        "distinct": 5,
        "most": [["a", 9], ["b", 3], ["c", 3], ["d", 1], ["e", 1]],
        "least": [["e", 1], ["d", 1], ["c", 3], ["b", 3], ["a", 9]],
        "imbalance": 3,
    }
    assert Coverage.of(Counter()).imbalance == 0


@pytest.mark.parametrize("variants", [1, 2])
def test_tokens_are_those_that_preparing_makes(folder, tmp_path, variants):
    options = Options(variants=variants, depth=2, held=0)  # with two depths at most, none are drawn at random
    report = scan.scan([folder], options)
    data = open_shards(prepare([folder], tmp_path / "set", options).folder)
    made = {m: data.lengths[data.rows.modality.where(m)] for m in ("text", "image", "audio", "video")}
    assert report.segments == {m: len(n) for m, n in made.items()}
    for modality in ("text", "image", "audio"):
        assert report.shares[modality] == made[modality].sum()
    assert report.shares["video"] >= made["video"].sum()
    assert sum(report.tokens.values()) == report.total
    assert {"image/32", "image/16", "image/8", "audio/1", "audio/2", "headers"} < set(report.tokens)


def test_random_variants_are_told_by_their_mean(folder, tmp_path):
    options = Options(variants=12, held=0)
    report = scan.scan([folder], options)
    data = open_shards(prepare([folder], tmp_path / "set", options).folder)
    pictures = data.lengths[data.rows.modality.where("image")].sum()
    assert 0.7 * pictures < report.shares["image"] < 1.5 * pictures
    assert report.segments["image"] == data.rows.modality.where("image").sum()


def test_what_a_model_would_take(report):
    assert report.train_seconds == 4 * report.total / 1500
    assert report.train_bytes > 4 * report.total
    said = estimate(report)
    assert all(words in said for words in ("1,500 tokens a second", "4 epochs", f"{report.total:,} tokens", "at most"))


def test_the_size_on_disk_is_about_right(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for i in range(40):
        some_image(64, 64, i).save(folder / f"{i}.png")
    made = prepare([folder], tmp_path / "set", Options(held=0)).manifest
    said = scan.scan([folder]).shard_bytes
    assert 0.5 < said / sum(shard.bytes for shard in made.shards) < 1.5


def test_what_is_too_long_is_left_out(folder):
    report = scan.scan([folder], Options(max_tokens=60))
    assert dict(report.reasons())["variant 0 is over --max-tokens 60"]
    assert report.shares["image"] < 60 * report.segments["image"]


def test_tables(report):
    tables = {title: (head, rows) for title, head, rows in grids(report)}
    assert next(iter(tables)) == "11 samples"
    assert all(len(row) == len(head) for head, rows in tables.values() for row in rows)
    assert ["names a file that is missing", "1", "metadata.jsonl line 12"] in tables["left out: 2"][1]
    assert ["speakers", "2", "s0 2, s1 1", "s1 1, s0 2", "2.0"] in tables["coverage"][1]


def test_json_holds_all_of_it(report):
    said = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert said["samples"] == 11
    assert said["concepts"]["image"]["most"] == [["dog", 4], ["cat", 2]]
    assert said["skipped"][0]["first"]
    assert said["assumed"] == {"tokens_per_second": 1500, "epochs": 4, "model": "mini"}


def test_a_plot_is_a_picture(report, tmp_path):
    scan.plot(report, tmp_path / "out.png")
    assert media.probe(tmp_path / "out.png").format == "png"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    scan.plot(Report(), tmp_path / "empty.png")


def test_files_are_probed_side_by_side_and_never_decoded(folder, monkeypatch):
    probed, threads = [], set()
    probe = media.probe

    def watched(path):
        probed.append(path.name)
        threads.add(threading.get_ident())
        return probe(path)

    monkeypatch.setattr(media, "probe", watched)
    monkeypatch.setattr(media, "open_stream", None)
    told = []
    scan.scan([folder], progress=told.append)
    assert sorted(probed) == sorted(p.name for p in folder.iterdir() if p.name != "metadata.jsonl")
    assert threading.get_ident() not in threads
    assert told == sorted(told)
    assert told[-1] == 1


def test_no_samples_and_no_folder(tmp_path):
    (tmp_path / "x.xyz").write_text("x")
    report = scan.scan([tmp_path])
    assert (report.samples, report.total, len(report.skipped)) == (0, 0, 1)
    assert list(grids(report))
    with pytest.raises(FolderError, match="does not exist"):
        scan.scan([tmp_path / "missing"])
