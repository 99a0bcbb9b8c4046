"""Samples out of folders: rows, pairs and classes, and everything that must not become one."""

import json
import os
from pathlib import Path

import pytest

from panglot.folders import FolderError, Found, Sample, find


@pytest.fixture
def put(tmp_path):
    """Write files below tmp_path/set; content may be text, bytes, or a list of rows of JSON."""

    def write(**files: object) -> Path:
        for name, content in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                content = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in content)
            path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        return tmp_path / "set"

    return write


def told(found: Found) -> list[tuple]:
    return [(s.name, s.text, s.kind, [s.relative(f) for f in s.files]) for s in found.samples]


def reasons(found: Found) -> dict[str, str]:
    return {s.name: s.reason for s in found.skipped}


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def test_rows_of_one_and_of_several_media(put):
    rows = [
        {"file_name": "a/1.jpg", "text": " dog ", "kind": "photo", "speaker": "x"},
        {"image_file_name": "a/2.jpg", "audio_file_name": "2.wav", "video_file_name": None, "text": "cat"},
        {"text": "only words"},
    ]
    found = find([put(**{"metadata.jsonl": rows, "a/1.jpg": "x", "a/2.jpg": "x", "2.wav": "x"})])
    assert told(found) == [
        ("a/1.jpg", "dog", "photo", ["a/1.jpg"]),
        ("a/2.jpg", "cat", None, ["a/2.jpg", "2.wav"]),
        ("metadata.jsonl line 3", "only words", None, []),
    ]
    assert found.samples[0].row["speaker"] == "x"
    assert all(f.is_file() for s in found.samples for f in s.files)
    assert found.skipped == ()


def test_rows_of_a_table(put):
    table = "\ufefffile_name,text,kind\n1.jpg,a dog,\n2.jpg,,photo\n3.jpg,x,y,z\n"
    found = find([put(**{"metadata.csv": table, "1.jpg": "x", "2.jpg": "x", "3.jpg": "x"})])
    assert told(found) == [("1.jpg", "a dog", None, ["1.jpg"]), ("2.jpg", None, "photo", ["2.jpg"])]
    assert reasons(found) == {"metadata.csv line 4": "more cells than columns", "3.jpg": "in no row of the metadata"}


def test_what_is_wrong_with_a_row_is_told_with_its_line(put):
    rows = [
        "{broken",
        [1, 2],
        {"file_name": "missing.jpg"},
        {"file_name": "../secret.jpg"},
        {"file_name": "a/../../secret.jpg"},
        {"file_name": "/etc/passwd"},
        {"file_name": 7},
        {"file_name": "1.jpg", "text": 3},
        {"file_name": "1.jpg", "kind": ["photo"]},
        {"text": "  "},
        '{"file_name": "1.jpg", "text": "\\ud800"}',
        "[" * 100_000,
        "",
        {"file_name": "1.jpg", "text": ""},
    ]
    folder = put(**{"metadata.jsonl": rows, "1.jpg": "x", "2.jpg": "x"})
    (folder.parent / "secret.jpg").write_text("x")
    found = find([folder])
    assert told(found) == [("1.jpg", None, None, ["1.jpg"])]
    lines = {int(name.split()[-1]): reason for name, reason in reasons(found).items() if "line" in name}
    assert lines == {
        1: "bad JSON",
        2: "not a JSON object",
        3: "names a file that is missing",
        **dict.fromkeys((4, 5, 6), "names a file outside the folder"),
        7: "file_name is not a string",
        8: "text is not a string",
        9: "kind is not a string",
        10: "names no file and has no text",
        11: "text is not valid Unicode",
        12: "bad JSON",
        14: "empty text",
    }
    assert reasons(found)["2.jpg"] == "in no row of the metadata"


def test_rows_speak_for_the_folders_below_that_have_none(put):
    found = find(
        [
            put(
                **{
                    "metadata.jsonl": [
                        {"file_name": "a/1.jpg", "text": "one"},
                        {"file_name": "a/1.jpg", "text": "two"},
                    ],
                    "a/1.jpg": "x",
                    "a/1.txt": "not read",
                    "b/metadata.jsonl": [{"file_name": "2.jpg", "text": "three"}],
                    "b/2.jpg": "x",
                }
            )
        ]
    )
    names = [("a/1.jpg", "one"), ("a/1.jpg#2", "two"), ("b/2.jpg", "three")]
    assert [(s.name, s.text) for s in found.samples] == names
    assert reasons(found) == {"a/1.txt": "in no row of the metadata"}


def test_a_file_that_a_row_names_is_no_pair_of_its_own(put):
    files = {"rows/metadata.jsonl": [{"file_name": "1.jpg", "text": "dog"}], "rows/1.jpg": "x", "cat/1.jpg": "x"}
    found = find([put(**files)])
    assert [(s.name, s.text) for s in found.samples] == [("cat/1", "cat"), ("rows/1.jpg", "dog")]


# ---------------------------------------------------------------------------------------------------------------------
# Pairs and classes


def test_files_of_one_name_are_one_sample(put):
    files = {"dog.jpg": "x", "dog.WAV": "x", "dog.txt": "\ufeffa dog\n", "story.txt": "Once", "other.md": "# Title"}
    found = find([put(**files)])
    assert told(found) == [
        ("dog", "a dog", None, ["dog.WAV", "dog.jpg"]),
        ("other.md", None, None, ["other.md"]),
        ("story.txt", None, None, ["story.txt"]),
    ]


def test_media_without_text_take_it_from_the_folder_of_their_class(put):
    files = {"golden_retriever/1.jpg": "x", "golden_retriever/2.jpg": "x", "golden_retriever/2.txt": "my dog"}
    files |= {"train/cat/1.jpg": "x", "images/1.jpg": "x", "0.jpg": "x", "train/cat/1.wav": "x"}
    found = find([put(**files)])
    assert [(s.name, s.text, len(s.files)) for s in found.samples] == [
        ("0", None, 1),
        ("golden_retriever/1", "golden retriever", 1),
        ("golden_retriever/2", "my dog", 1),
        ("images/1", None, 1),
        ("train/cat/1", "cat", 2),
    ]


def test_what_is_no_sample_is_told(put):
    files = {
        ".hidden.jpg": "x",
        ".git/config": "x",
        "README.md": "about",
        "program.py": "x",
        "nothing": "x",
        "a.jpg": "x",
        "a.txt": "",
        "b.jpg": "x",
        "b.txt": b"\xff",
        "c.jpg": "x",
        "c.txt": "x\0",
        "d.jpg": "x",
        "d.txt": "d",
        "d.md": "more",
    }
    found = find([put(**files)])
    assert [(s.name, s.text) for s in found.samples] == [("a", None), ("b", None), ("c", None), ("d", "d")]
    assert reasons(found) == {
        ".hidden.jpg": "hidden",
        ".git": "hidden",
        "README.md": "tells about the folder",
        "program.py": "suffix .py is of no known medium",
        "nothing": "a name without suffix is of no known medium",
        "a.txt": "empty text",
        "b.txt": "is not UTF-8",
        "c.txt": "holds NUL bytes",
        "d.md": "another text of its name is used",
    }


def test_links_are_followed_within_the_folder_only(put, tmp_path):
    folder = put(**{"a/1.jpg": "x"})
    (tmp_path / "secret.jpg").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.jpg").write_text("x")
    (folder / "inside.jpg").symlink_to("a/1.jpg")
    (folder / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "dead.jpg").symlink_to("nothing")
    os.mkfifo(folder / "pipe.jpg")
    found = find([folder])
    assert [s.name for s in found.samples] == ["inside", "a/1"]
    assert reasons(found) == {
        "outside.jpg": "leads out of the folder",
        "folder": "leads out of the folder",
        "loop": "is a link to a folder",
        "dead.jpg": "is a link to nothing",
        "pipe.jpg": "is neither a file nor a folder",
    }
    (folder / "metadata.jsonl").write_text('{"file_name": "outside.jpg"}\n{"file_name": "folder/3.jpg"}\n')
    found = find([folder])
    assert found.samples == ()
    assert reasons(found)["metadata.jsonl line 1"] == "names a file outside the folder"
    assert reasons(found)["metadata.jsonl line 2"] == "names a file that is missing"


def test_a_folder_may_itself_be_a_link(put, tmp_path):
    put(**{"dog.jpg": "x"})
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert [s.name for s in find([tmp_path / "link"]).samples] == ["dog"]


# ---------------------------------------------------------------------------------------------------------------------
# Several folders, names, order


def test_names_of_several_folders_differ_and_do_not_tell_where_they_lie(put, tmp_path):
    put(**{"x/part/1.jpg": "x", "y/part/1.jpg": "x", "y/z/1.jpg": "x"})
    folders = [tmp_path / "set" / name for name in ("x/part", "y/part", "y/z")]
    found = find(folders)
    assert found.names == ("part", "part-2", "z")
    assert [s.name for s in found.samples] == ["part/1", "part-2/1", "z/1"]
    assert [s.relative(s.files[0]) for s in found.samples] == ["part/1.jpg", "part-2/1.jpg", "z/1.jpg"]
    assert str(tmp_path) not in "".join(s.name for s in found.samples)


def test_the_order_is_that_of_names_whatever_the_file_system_says(put, monkeypatch):
    folder = put(**{f"{d}/{n}.jpg": "x" for d in "zab" for n in (10, 2, 1)})
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = sorted(scandir(path), key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    first = find([folder])
    monkeypatch.setattr(os, "scandir", Backwards)
    assert find([folder]) == first
    assert [s.name for s in first.samples] == [f"{d}/{n}" for d in "abz" for n in (1, 10, 2)]


def test_names_that_are_no_text(put):
    folder = put(**{"good.jpg": "x"})
    Path(os.fsdecode(os.fsencode(folder) + b"/b\xffd.jpg")).write_text("x")
    found = find([folder])
    assert sorted(s.name for s in found.samples) == ["b\ufffdd", "good"]
    for sample in found.samples:
        sample.relative(sample.files[0]).encode()


def test_a_very_deep_folder(tmp_path):
    folder = tmp_path
    for _ in range(300):
        folder = folder / "deep"
    os.makedirs(folder)
    (folder / "1.jpg").write_text("x")
    assert len(find([tmp_path]).samples) == 1


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ["no folder"]),
        (["missing"], ["missing", "does not exist"]),
        (["set/dog.jpg"], ["dog.jpg", "is a file", "name the folder"]),
        (["set", "set/a"], ["set/a", "name only one"]),
        (["set/a", "set"], ["set", "name only one"]),
        (["set/a", "set/../set/a"], ["name only one"]),
    ],
)
def test_folders_that_cannot_be_searched(put, tmp_path, names, words):
    put(**{"dog.jpg": "x", "a/cat.jpg": "x"})
    with pytest.raises(FolderError) as caught:
        find([tmp_path / name for name in names])
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_an_empty_folder_has_nothing(tmp_path):
    assert find([tmp_path]) == Found((), (), (tmp_path.name,))
    assert Sample("a", tmp_path, None, None, ()).row == {}
