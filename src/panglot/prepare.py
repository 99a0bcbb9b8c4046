"""Folders of files to a token data set: every text and medium of a sample becomes a packed segment of a stream.

    prepare(["photos"], "tokens", Options(join="text", variants=3))

Samples are cut into chunks that depend on nothing but the samples; a chunk becomes one shard, which remembers a digest
of everything it was made from, the bytes of the files included. So a run that was ended goes on where it was, a shard
whose files have changed is made again, and the result is the same to the byte however many processes made it.

Not here: what is in a folder (`panglot.folders`), how a sample becomes segments (`panglot.variants`), the format of
shards (`panglot.shards`).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from panglot.convert import OptionError
from panglot.folders import Sample, find
from panglot.layout import Layout
from panglot.shards import (
    AGAIN,
    MANIFEST,
    Manifest,
    Segment,
    ShardError,
    ShardInfo,
    read_manifest,
    read_shard,
    samples_a_shard,
    shard_name,
    write_manifest,
    write_shard,
)
from panglot.tokenizers import MODALITIES
from panglot.tokenizers.weights import ASSETS
from panglot.variants import METHOD, Encoder, Options

WEIGHTS = {m: "text.json" if m == "text" else f"{m}.safetensors" for m in MODALITIES}

CHUNK_BYTES = 2**24
"""What a shard is made from, at most, unless a single sample is larger; and see `shards.samples_a_shard`."""

OURS = re.compile(r"shard-\d{5}\.parquet|\.(shard-\d{5}\.parquet|manifest\.json)\.\d+\.tmp")

Progress = Callable[[float], None]


# ---------------------------------------------------------------------------------------------------------------------
# Chunks


@dataclass(frozen=True)
class _Chunk:
    """Samples that become one shard. first: the number of the first of them."""

    number: int
    first: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class _Done:
    info: ShardInfo
    skipped: tuple[tuple[str, str], ...]
    kept: bool


@dataclass(frozen=True)
class _Job:
    """What every chunk is made with. begun: the manifest as it stands before there are shards."""

    out: Path
    options: Options
    begun: Manifest

    def run(self, chunk: _Chunk, check: Callable[[], None] = lambda: None) -> _Done:
        """Make one shard, unless it is there. check: called between samples; what it raises ends the work."""
        path = self.out / shard_name(chunk.number)
        made_from = self._digest(chunk)
        try:
            _, meta, info = read_shard(path)
            if meta["made_from"] == made_from:
                return _Done(info, tuple((n, r) for n, r in meta["skipped"]), True)
        except (ShardError, KeyError):
            pass
        encoder = Encoder(self.options, Layout.from_json(self.begun.layout))
        segments: list[Segment] = []
        skipped: list[tuple[str, str]] = []
        for number, sample in enumerate(chunk.samples, chunk.first):
            check()
            found, left_out = encoder.sample(number, sample)
            segments += found
            skipped += [(s.name, s.reason) for s in left_out]
        info = write_shard(path, segments, {"made_from": made_from, "skipped": skipped})
        return _Done(info, tuple(skipped), False)

    def _digest(self, chunk: _Chunk) -> str:
        """Of all that the shard depends on."""
        samples = [
            [s.name, s.origin, s.text, s.kind, [[s.relative(f), _content(f)] for f in s.files]] for s in chunk.samples
        ]
        said = [chunk.first, samples, self.begun.layout, self.begun.tokenizers, self.begun.options]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _chunks(samples: Sequence[Sample]) -> list[_Chunk]:
    out: list[_Chunk] = []
    first, size, most = 0, 0, samples_a_shard(len(samples))
    for number, sample in enumerate(samples):
        own = sum(_size(file) for file in sample.files)
        if number > first and (number - first == most or size + own > CHUNK_BYTES):
            out.append(_Chunk(len(out), first, tuple(samples[first:number])))
            first, size = number, 0
        size += own
    return [*out, _Chunk(len(out), first, tuple(samples[first:]))]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ---------------------------------------------------------------------------------------------------------------------
# The whole


@dataclass(frozen=True)
class Prepared:
    """What was made. samples: how many were found; kept: shards that were there already."""

    folder: Path
    manifest: Manifest
    samples: int
    kept: int


def prepare(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: Options | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> Prepared:
    """Make the token data set of folders of files, or finish one that was begun.

    workers: processes; with more than one, call this from under `if __name__ == "__main__":`.
    Raises FolderError, OptionError, or ShardError where nothing can be made or written; a broken file raises nothing.
    """
    out, options = Path(out), options or Options()
    if workers < 1:
        raise OptionError(f"--workers {workers}: choose at least 1")
    found = find(folders)
    if not found.samples:
        raise ShardError(f"{', '.join(map(str, folders))}: {_nothing([(s.name, s.reason) for s in found.skipped])}")
    layout = options.layout()
    weights = {m: hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() for m, name in WEIGHTS.items()}
    how = asdict(options) | {"folders": list(found.names), "method": METHOD}
    begun = Manifest(layout.to_json(), layout.size, weights, how)
    _begin(out, [Path(f) for f in folders], begun)
    chunks = _chunks(found.samples)
    job, tell = _Job(out, options, begun), progress or (lambda part: None)
    done = _here(job, chunks, tell) if min(workers, len(chunks)) == 1 else _in_processes(job, chunks, workers, tell)
    skipped = (*((s.name, s.reason) for s in found.skipped), *(s for d in done for s in d.skipped))
    manifest = replace(begun, complete=True, shards=tuple(d.info for d in done), skipped=skipped)
    _tidy(out, {s.file for s in manifest.shards} if manifest.rows else set())
    if not manifest.rows:
        (out / MANIFEST).unlink()
        raise ShardError(f"{', '.join(map(str, folders))}: {_nothing(skipped)}")
    write_manifest(out, manifest)
    return Prepared(out, manifest, len(found.samples), sum(d.kept for d in done))


def _nothing(skipped: Sequence[tuple[str, str]]) -> str:
    if not skipped:
        return "nothing to prepare: no media and no texts are there"
    name, reason = skipped[-1]
    return f"nothing could be prepared; {len(skipped)} left out, the last: {name}: {reason}"


def _begin(out: Path, folders: Sequence[Path], begun: Manifest) -> None:
    """Take the folder of the data set, new or begun with the same options. Raises ShardError."""
    for folder in folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise ShardError(f"{out}: lies in {folder}, which it is made from; choose another folder for it")
    if out.exists() and not out.is_dir():
        raise ShardError(f"{out}: is a file; name a folder")
    if (out / MANIFEST).exists():
        old = read_manifest(out)
        if (old.layout, old.tokenizers) != (begun.layout, begun.tokenizers) and old.options == begun.options:
            raise ShardError(f"{out}: was made with other tokenizers; delete it, or choose another folder")
        for name, value in begun.options.items():
            if (was := old.options.get(name)) != value:
                said = name.replace("_", "-")
                raise ShardError(f"{out}: was made with {said} {was}, not {value}; delete it, or choose another folder")
    elif out.exists():
        other = [f.name for f in sorted(out.iterdir()) if not _is_ours(f)]
        if other:
            raise ShardError(f"{out}: holds other things ({other[0]}); choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out, begun)


def _tidy(out: Path, wanted: set[str]) -> None:
    """Remove shards of an earlier, longer list of samples, and what a killed run left half-written."""
    for path in list(out.iterdir()):
        if path.name not in wanted and path.name != MANIFEST and _is_ours(path):
            path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether `prepare` gives files such names; other tools have shards of theirs, which are not to be touched."""
    return OURS.fullmatch(path.name) is not None


def _here(job: _Job, chunks: Sequence[_Chunk], tell: Progress) -> list[_Done]:
    """In this process. One thread, as in the others: sums in another order could move a code."""
    threads, done = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for chunk in chunks:
            done.append(job.run(chunk))
            tell(len(done) / len(chunks))
    finally:
        torch.set_num_threads(threads)
    return done


def _in_processes(job: _Job, chunks: Sequence[_Chunk], workers: int, tell: Progress) -> list[_Done]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _start, (job, stop)) as pool:
        futures = {pool.submit(_work, chunk): chunk for chunk in chunks}
        try:
            for n, future in enumerate(as_completed(futures), 1):
                future.result()
                tell(n / len(chunks))
        except BrokenProcessPool:
            remedy = f"{AGAIN} with --workers 1: what is finished is kept"
            raise ShardError(f"{job.out}: a process was ended, perhaps for want of memory; {remedy}") from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


_job: _Job | None = None
_stop: Any = None


def _start(job: _Job, stop: Any) -> None:
    """What a process does first: it ends with its parent, however that ends, and leaves Ctrl-C to it."""
    global _job, _stop
    _job, _stop = job, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(chunk: _Chunk) -> _Done:
    assert _job is not None

    def check() -> None:
        if _stop.is_set():
            raise KeyboardInterrupt

    return _job.run(chunk, check)
