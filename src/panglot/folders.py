"""What is in ordinary folders, and what belongs together: the samples of a data set, before any file is opened.

A sample is one thing, told in one or several media. Three ways of keeping a folder are understood:

- Rows: the folder has a `metadata.jsonl` or `metadata.csv`, one object a row, in the convention of Hugging Face's
  `imagefolder`: `file_name`, or `image_file_name`, `audio_file_name`, `video_file_name`, ... (several in a row are one
  sample), and if it likes `text`, `kind` (a short instruction such as "photo" or "say it") and columns of its own.
  It speaks for all folders below it that have none themselves.
- Pairs: `dog.jpg`, `dog.wav` and `dog.txt` are one sample; the text beside media is its text. A text without media is a
  sample of its own.
- Classes: media in `cat/001.jpg` that have no text beside them take "cat" from their folder.

What is left out is told, with the reason. Nothing is followed out of a folder, be it by a link or by a name in a row.

Not here: what kind of media a file holds (`panglot.media.probe` tells, by content), reading them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panglot._limits import MAX_BYTES

METADATA = ("metadata.jsonl", "metadata.csv")
TEXTS = (".txt", ".md")
MEDIA = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif"),
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aac", ".m4a"),
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".3gp"),
)
"""Suffixes of files that may be media; what they are is told by their content."""

NO_MEDIUM = "is text, no picture, sound or video (a Git LFS pointer, or a failed download?); fetch it again"
"""What is wrong with a text that has a suffix of MEDIA."""

ABOUT = ("readme", "license", "licence", "attribution")
"""Texts with these names tell about a folder and are no samples of it."""

NO_CLASS = (
    *("train", "test", "val", "valid", "validation", "dev", "held", "data", "dataset", "files", "media"),
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "video", "videos", "clip", "clips"),
    *("audio", "sound", "sounds", "wav", "wavs", "text", "texts"),
)
"""Names of folders that part a set by split or by medium, and say nothing of what is in their files."""

MAX_CAPTION = 2**20
"""Bytes of a text beside media."""

UNREADABLE = "cannot be read"


class FolderError(ValueError):
    """A folder that cannot be searched. One line: which, why, and what would help."""


@dataclass(frozen=True)
class Sample:
    """One thing, told in one or several media.

    name:   unique among all that were found, "/" between its parts, the same wherever the folders lie.
    folder: the folder that it was found in; label: what stands for that in names, "" where there is only one.
    text:   what it is, in words, or None; a text of its own, long or short, is a file instead.
    kind:   a short instruction that says which way of showing it the media are ("photo", "emoji", "say it"), or None.
    files:  the media, in order, all within `folder`; row: the row of metadata it came from, else empty.
    """

    name: str
    folder: Path
    text: str | None
    kind: str | None
    files: tuple[Path, ...]
    row: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def origin(self) -> str:
        """What it was made from, by its row's column `origin`, or else itself: what shares it is held out together."""
        return str(self.row.get("origin") or self.name)

    def relative(self, file: Path) -> str:
        """A file's name as it is told and stored: relative, "/" between its parts."""
        return _told(posixpath.join(self.label, file.relative_to(self.folder).as_posix()))


@dataclass(frozen=True)
class Skipped:
    """A file, a row or a part of one that is left out, and why; reasons are worded so that they can be counted."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What was found, always in the same order. names: what stands for each folder."""

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]
    names: tuple[str, ...]


def find(folders: Sequence[str | os.PathLike[str]]) -> Found:
    """The samples in folders and in the folders below them. Raises FolderError for what is no folder."""
    roots = _roots(folders)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for name, root in roots:
        search = _Search(root, name if len(roots) > 1 else "")
        search.run()
        samples += search.samples
        skipped += search.skipped
    return Found(tuple(samples), tuple(skipped), tuple(name for name, _ in roots))


def _roots(folders: Sequence[str | os.PathLike[str]]) -> list[tuple[str, Path]]:
    """(name, folder) of each; names are made different where they are not."""
    if not folders:
        raise FolderError("no folder is named: name at least one")
    out: list[tuple[str, Path]] = []
    true: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            fault = "is a file; name the folder it is in" if folder.exists() else "does not exist; check the name"
            raise FolderError(f"{folder}: {fault}")
        real = Path(os.path.realpath(folder))
        for other, path in zip(true, (path for _, path in out), strict=True):
            if real.is_relative_to(other) or other.is_relative_to(real):
                raise FolderError(f"{folder}: holds or lies in {path}, which is named too; name only one of them")
        taken = {name for name, _ in out}
        base = name = _told(real.name) or "root"
        while name in taken:
            name = f"{base}-{len(out) + 1}" if name == base else name + "+"
        true.append(real)
        out.append((name, folder))
    return out


def _told(name: str) -> str:
    """A name of the file system as text: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


@dataclass
class _Directory:
    """A folder. path: relative to the root, "" for that; files: names, sorted; scope: where the rows for them are."""

    path: str
    files: list[str]
    scope: str | None

    @property
    def metadata(self) -> str | None:
        return next((name for name in METADATA if name in self.files), None)


class _Search:
    """The search of one folder: a walk through all that lies in it, then rows, pairs and classes, in that order."""

    def __init__(self, root: Path, label: str) -> None:
        self.root, self.label = root, label
        self.real = os.path.realpath(root)
        self.samples: list[Sample] = []
        self.skipped: list[Skipped] = []
        self.names: set[str] = set()
        self.present: set[str] = set()
        self.outside: set[str] = set()

    def run(self) -> None:
        directories = self._walk()
        named: set[str] = set()
        rows = {d.path: self._rows(d, named) for d in directories if d.metadata}
        for directory in directories:
            self.samples += rows.get(directory.path, ())
            if directory.scope is None:
                self._pairs(directory, named)
                continue
            for name in directory.files:
                path = posixpath.join(directory.path, name)
                if path not in named and not (directory.metadata and name in METADATA):
                    self._skip(path, "hidden" if name.startswith(".") else "in no row of the metadata")
        self.skipped.sort(key=lambda s: s.name)

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.append(Skipped(_told(posixpath.join(self.label, path)), reason))

    # --- what there is

    def _walk(self) -> list[_Directory]:
        """All folders, each before those in it, in the order of their names."""
        found: list[_Directory] = []
        waiting: list[tuple[str, str | None]] = [("", None)]
        while waiting:
            path, scope = waiting.pop()
            try:
                with os.scandir(self.root / path) as entries:
                    listing = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._skip(path, f"{UNREADABLE} ({error.strerror})")
                continue
            files = [e.name for e in listing if not self._is_folder(path, e) and self._is_file(path, e)]
            folders = [e.name for e in listing if self._is_folder(path, e)]
            directory = _Directory(path, files, scope)
            if directory.metadata:
                directory.scope = scope = path
            found.append(directory)
            self.present.update(posixpath.join(path, name) for name in files)
            for name in reversed(folders):
                if name.startswith("."):
                    self._skip(posixpath.join(path, name), "hidden")
                else:
                    waiting.append((posixpath.join(path, name), scope))
        return found

    @staticmethod
    def _is_folder(path: str, entry: os.DirEntry[str]) -> bool:
        return entry.is_dir(follow_symlinks=False)

    def _is_file(self, path: str, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a file that lies within the root, links followed."""
        if entry.is_file(follow_symlinks=False):
            return True
        relative = posixpath.join(path, entry.name)
        if not entry.is_symlink():
            self._skip(relative, "is neither a file nor a folder")
            return False
        real = os.path.realpath(entry.path)
        if os.path.commonpath([real, self.real]) != self.real:
            self.outside.add(relative)
            self._skip(relative, "leads out of the folder")
        elif os.path.isdir(real):
            self._skip(relative, "is a link to a folder")
        elif not os.path.isfile(real):
            self._skip(relative, "is a link to nothing")
        else:
            return True
        return False

    # --- rows

    def _rows(self, directory: _Directory, named: set[str]) -> list[Sample]:
        """The samples of a folder's metadata; the files they name are added to `named`."""
        assert directory.metadata is not None
        metadata = posixpath.join(directory.path, directory.metadata)
        if directory.metadata == METADATA[0] and METADATA[1] in directory.files:
            self._skip(posixpath.join(directory.path, METADATA[1]), f"{METADATA[0]} is beside it")
        out: list[Sample] = []
        try:
            with open(self.root / metadata, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            self._skip(metadata, f"{UNREADABLE} ({error.strerror})")
            return out
        if len(data) > MAX_BYTES:
            self._skip(metadata, f"is over the limit of {MAX_BYTES >> 20} MiB; split the folder")
            return out
        for line, row in (_json_rows if metadata.endswith(".jsonl") else _csv_rows)(data):
            place = f"{metadata} line {line}"
            sample = self._skip(place, row) if isinstance(row, str) else self._of_row(directory.path, place, line, row)
            if sample is not None:
                out.append(sample)
                named.update(f.relative_to(self.root).as_posix() for f in sample.files)
        return out

    def _of_row(self, path: str, place: str, line: int, row: dict[str, Any]) -> Sample | None:
        files: list[str] = []
        for column, value in row.items():
            if (column != "file_name" and not column.endswith("_file_name")) or value in (None, ""):
                continue
            target = posixpath.normpath(posixpath.join(path, value)) if isinstance(value, str) else None
            fault = None
            if target is None:
                fault = f"{column} is not a string"
            elif target.startswith(("/", "../")) or target == ".." or target in self.outside:
                fault = "names a file outside the folder"
            elif target not in self.present:
                fault = "names a file that is missing"
            if fault is not None or target is None:
                return self._skip(place, fault or "")
            files.append(target)
        text, kind = row.get("text"), row.get("kind")
        for column, value in (("text", text), ("kind", kind)):
            if fault := _unfit(value):
                return self._skip(place, f"{column} {fault}")
        if text is not None and not text.strip():
            self._skip(place, "empty text")
        if not files and not (text and text.strip()):
            return self._skip(place, "names no file and has no text")
        return self._sample(files[0] if files else place, f"#{line}", text, kind, dict.fromkeys(files), row)

    def _sample(
        self, name: str, mark: str, text: str | None, kind: str | None, files: Any, row: dict[str, Any]
    ) -> Sample:
        """A sample whose name is unique; `mark` is added to the name while another has it."""
        name = _told(posixpath.join(self.label, name))
        while name in self.names:
            name += mark
        self.names.add(name)
        text, kind = ((value or "").strip() or None for value in (text, kind))
        return Sample(name, self.root, text, kind, tuple(self.root / f for f in files), row, self.label)

    # --- pairs and classes

    def _pairs(self, directory: _Directory, named: set[str]) -> None:
        stems: dict[str, list[str]] = {}
        for name in directory.files:
            stem, suffix = os.path.splitext(name)
            if posixpath.join(directory.path, name) in named:
                continue
            if name.startswith("."):
                self._skip(posixpath.join(directory.path, name), "hidden")
            elif suffix.lower() not in MEDIA and suffix.lower() not in TEXTS:
                said = f"suffix {_told(suffix)}" if suffix else "a name without suffix"
                self._skip(posixpath.join(directory.path, name), f"{said} is of no known medium")
            else:
                stems.setdefault(stem, []).append(name)
        for stem, names in stems.items():
            texts = sorted((n for n in names if not _is_medium(n)), key=lambda n: TEXTS.index(_suffix(n)))
            media = [posixpath.join(directory.path, n) for n in names if _is_medium(n)]
            texts = [posixpath.join(directory.path, n) for n in texts]
            if media:
                text = self._caption(texts[0]) if texts else _class_of(directory.path)
                for other in texts[1:]:
                    self._skip(other, "another text of its name is used")
                name = posixpath.join(directory.path, stem)
                self.samples.append(self._sample(name, "'", text, None, media, {}))
            elif stem.lower() in ABOUT:
                for path in texts:
                    self._skip(path, "tells about the folder")
            else:
                self.samples += [self._sample(path, "'", None, None, [path], {}) for path in texts]

    def _caption(self, path: str) -> str | None:
        """The text beside media, or None if it is of no use, which is then told."""
        try:
            with open(self.root / path, "rb") as file:
                data = file.read(MAX_CAPTION + 1)
            text = data.decode("utf-8-sig")
        except OSError as error:
            return self._skip(path, f"{UNREADABLE} ({error.strerror})")
        except UnicodeDecodeError:
            return self._skip(path, "is not UTF-8")
        if len(data) > MAX_CAPTION:
            return self._skip(path, f"is over the limit of {MAX_CAPTION >> 20} MiB for a text beside media")
        if "\0" in text:
            return self._skip(path, "holds NUL bytes")
        return text if text.strip() else self._skip(path, "empty text")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_medium(name: str) -> bool:
    return _suffix(name) in MEDIA


def _class_of(path: str) -> str | None:
    """What the name of a folder says of the files in it: "golden_retriever" says "golden retriever"."""
    name = posixpath.basename(path)
    return None if name.lower() in NO_CLASS else _told(name).replace("_", " ").strip() or None


def _unfit(value: Any) -> str | None:
    """What is wrong with a value that is to be a text, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        return "is not a string"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return "holds NUL characters" if "\0" in value else None


def _json_rows(data: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row or what is wrong with it) of each line that is not blank."""
    for number, line in enumerate(io.BytesIO(data), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError):
            yield number, "bad JSON"
        else:
            yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(data: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The same of a table whose first line names its columns; an empty cell is no value."""
    try:
        csv.field_size_limit(MAX_BYTES)
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError:
        yield 1, "not UTF-8"
        return
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            yield reader.line_num, "bad CSV; this and what follows is not read"
            return
        if row is None:
            return
        if None in row:
            yield reader.line_num, "more cells than columns"
        else:
            yield reader.line_num, {name: value for name, value in row.items() if value}
