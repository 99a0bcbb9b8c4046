"""What is in folders of files, before anything is encoded: `panglot scan`.

Every file is probed, none is decoded. Told are the media and what pairs with what, what is left out and why, tokens by
alphabet, how evenly concepts and speakers are covered, and what a data set and a model made of it would take.

Tokens of texts are exact, of pictures and sounds too but for the variants that are drawn at random, of which the mean
is told; those of videos are the most that there can be, since what does not change costs nothing.

Not here: what belongs together (`panglot.folders`), encoding (`panglot.prepare`).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panglot import media
from panglot.folders import MEDIA, NO_MEDIUM, Sample, Skipped, find
from panglot.media import MediaError, MediaInfo, Text
from panglot.shards import samples_a_shard
from panglot.tokenizers import MODALITIES, tokenizer
from panglot.variants import Options, fault

HEADS = {"text": 2, "image": 7, "audio": 6, "video": 14}
"""Marks and header of a segment, about."""

TOKEN_BYTES, ROW_BYTES = 1.3, 10
"""What an id and what else stands in a row take in a shard, about: the 3.3 M ids and 78,280 rows of the primer take
4.1 MB, photographs a little more."""

SHARD_BYTES = 2900
"""What a shard takes beside its rows."""

RATE, EPOCHS = 1500, 4
"""Tokens a second at which `mini` trains on two cores, and how often it is assumed to see everything."""

MODEL_BYTES, LOADED_BYTES = 2**30, 8
"""Memory that training `mini` takes, about, and for each id of the data set while it is read."""

SHOWN = 5

Progress = Callable[[float], None]
Counts = dict[str, int]


@dataclass(frozen=True)
class Coverage:
    """How evenly something is covered. counts: how often each word of it occurs, the most frequent first."""

    counts: Counts

    @classmethod
    def of(cls, words: Counter[str]) -> Coverage:
        return cls(dict(sorted(words.items(), key=lambda item: (-item[1], item[0]))))

    @property
    def imbalance(self) -> float:
        """How many times more often the most frequent occurs than the one in the middle."""
        found = list(self.counts.values())
        return found[0] / found[len(found) // 2] if found else 0.0

    def as_dict(self) -> dict[str, Any]:
        items = [list(item) for item in self.counts.items()]
        ends = {"most": items[:SHOWN], "least": items[-SHOWN:][::-1]}
        return {"distinct": len(items), **ends, "imbalance": round(self.imbalance, 3)}


@dataclass
class Report:
    """What was found. Tables of pairs: of how many samples, or groups of the same text, have both modalities.

    files, bytes, segments: by modality; tokens: of data sets by alphabet, `headers` among them; concepts: distinct
    texts by modality of what they are about; speakers: None where no row has a `speaker`.
    """

    samples: int = 0
    groups: int = 0
    files: Counts = field(default_factory=dict)
    bytes: Counts = field(default_factory=dict)
    pairs: dict[str, Counts] = field(default_factory=dict)
    group_pairs: dict[str, Counts] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    segments: Counts = field(default_factory=dict)
    tokens: Counts = field(default_factory=dict)
    shares: Counts = field(default_factory=dict)
    concepts: dict[str, Coverage] = field(default_factory=dict)
    speakers: Coverage | None = None

    @property
    def total(self) -> int:
        """Tokens in all."""
        return sum(self.shares.values())

    @property
    def shard_bytes(self) -> int:
        shards = -(-self.samples // samples_a_shard(self.samples))
        return round(TOKEN_BYTES * self.total + ROW_BYTES * sum(self.segments.values()) + SHARD_BYTES * shards)

    @property
    def train_bytes(self) -> int:
        return MODEL_BYTES + LOADED_BYTES * self.total

    @property
    def train_seconds(self) -> float:
        return EPOCHS * self.total / RATE

    def reasons(self) -> list[tuple[str, list[str]]]:
        """(reason, names of what is left out for it), the most frequent first."""
        found: dict[str, list[str]] = defaultdict(list)
        for s in self.skipped:
            found[s.reason].append(s.name)
        return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        reasons = [{"reason": r, "count": len(names), "first": names[:SHOWN]} for r, names in self.reasons()]
        assumed = {"tokens_per_second": RATE, "epochs": EPOCHS, "model": "mini"}
        return {
            "samples": self.samples,
            "groups": self.groups,
            "files": self.files,
            "bytes": self.bytes,
            "pairs": self.pairs,
            "group_pairs": self.group_pairs,
            "skipped": reasons,
            "segments": self.segments,
            "tokens": self.tokens,
            "tokens_per_modality": self.shares,
            "tokens_of_video": "at most",
            "shard_bytes": self.shard_bytes,
            "train_bytes": self.train_bytes,
            "train_seconds": round(self.train_seconds),
            "assumed": assumed,
            "concepts": {name: coverage.as_dict() for name, coverage in self.concepts.items()},
            "speakers": self.speakers.as_dict() if self.speakers else None,
        }


def scan(
    folders: Sequence[str | os.PathLike[str]], options: Options | None = None, progress: Progress | None = None
) -> Report:
    """Look at all files of folders. options: of the data set whose tokens are told. Raises FolderError."""
    options, tell = options or Options(), progress or (lambda part: None)
    found = find(folders)
    report = Report(samples=len(found.samples))
    skipped = list(found.skipped)
    paths = {file: s.relative(file) for s in found.samples for file in s.files}
    infos: dict[Path, MediaInfo] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for n, (path, info) in enumerate(zip(paths, pool.map(_probed, paths), strict=True), 1):
            if isinstance(info, str):
                skipped.append(Skipped(paths[path], info))
            else:
                infos[path] = info
            tell(n / len(paths))
    for info in infos.values():
        _add(report.files, info.modality, 1)
        _add(report.bytes, info.modality, info.bytes or 0)
    costs = _Costs(options)
    usable = [s for s in found.samples if not s.files or any(file in infos for file in s.files)]
    for sample in usable:
        _cost(sample, infos, costs, report, skipped)
    _relate(usable, infos, report)
    report.skipped = tuple(skipped)
    for name in ("files", "bytes", "segments", "shares"):
        counts = getattr(report, name)
        setattr(report, name, {m: counts[m] for m in MODALITIES if m in counts})
    return report


def _add(counts: Counts, name: str, n: int) -> None:
    counts[name] = counts.get(name, 0) + n


def _probed(path: Path) -> MediaInfo | str:
    """What a file is, or what is wrong with it."""
    try:
        info = media.probe(path)
        return NO_MEDIUM if info.modality == "text" and path.suffix.lower() in MEDIA else info
    except (MediaError, OSError) as error:
        return fault(error, path)
    except MemoryError:
        return "needs more memory than there is"


# --- tokens


class _Costs:
    """Tokens by alphabet of each variant of a medium, from its size alone."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.texts: dict[str, int] = {}

    def text(self, text: str) -> list[Counts]:
        if text not in self.texts:
            long = len(text) > 33 * self.options.max_tokens
            self.texts[text] = len(text) if long else sum(tokenizer("text").count(Text(text)).values())
        return [{"text": self.texts[text]}]

    def of(self, info: MediaInfo) -> Iterator[Counts]:
        options, info = self.options, self.options.fit.info(info)
        if info.modality == "image":
            whole = tokenizer("image").count(info, stride=options.stride)
            names = list(whole)
            yield whole
            for variant in range(1, options.variants if len(names) > 1 else 1):
                # Of the random ones the mean; their split flags are not known.
                finer = {name: whole[name] // 2 for name in names[1:]}
                yield {name: whole[name] for name in names[:-1]} if variant == 1 else whole | finer
            return
        if info.modality == "audio":
            # The depths after the first are in random order; as a whole they are these.
            depths = options.depths("audio")[: options.variants]
            yield from (tokenizer("audio").count(info, depth=depth) for depth in depths)
            return
        for depth, keyframe in options.videos(silent=not (info.rate and info.samples)):
            yield tokenizer("video").count(info, stride=options.video_stride, depth=depth, keyframe=keyframe)


def _cost(sample: Sample, infos: dict[Path, MediaInfo], costs: _Costs, report: Report, skipped: list[Skipped]) -> None:
    """Add the segments of one sample to the report."""
    told = [("text", sample.name, costs.text(sample.text))] if sample.text is not None else []
    for file in sample.files:
        if file not in infos:
            continue
        info, name = infos[file], sample.relative(file)
        if info.modality == "text":
            long = (info.characters or 0) > 33 * costs.options.max_tokens
            text = "" if long else media.open(file).text  # type: ignore[union-attr]
            told.append(("text", name, [{"text": info.characters or 0}] if long else costs.text(text)))
        else:
            told.append((info.modality, name, list(costs.of(info))))
    for modality, name, variants in told:
        for variant, counts in enumerate(variants):
            n = sum(counts.values()) + HEADS[modality]
            if n > costs.options.max_tokens and modality != "video":
                skipped.append(Skipped(name, f"variant {variant} is over --max-tokens {costs.options.max_tokens}"))
                continue
            for alphabet, count in counts.items():
                _add(report.tokens, alphabet, count)
            _add(report.tokens, "headers", HEADS[modality])
            _add(report.segments, modality, 1)
            _add(report.shares, modality, n)


# --- what goes with what


def _relate(samples: Sequence[Sample], infos: dict[Path, MediaInfo], report: Report) -> None:
    """Pairs, concepts and speakers."""
    groups: dict[str, set[str]] = defaultdict(set)
    found: list[set[str]] = []
    concepts: dict[str, Counter[str]] = defaultdict(Counter)
    speakers: Counter[str] = Counter()
    for sample in samples:
        media_of = [infos[file].modality for file in sample.files if file in infos]
        has = {*media_of, *(["text"] if sample.text is not None else [])}
        found.append(has)
        groups[sample.text if sample.text is not None else f"\0{sample.name}"] |= has
        if sample.text is not None:
            concepts["text"][sample.text] += 1
            for modality in media_of:
                concepts[modality][sample.text] += 1
        if sample.row.get("speaker") not in (None, ""):
            speakers[str(sample.row["speaker"])] += 1
    report.groups = len(groups)
    report.pairs, report.group_pairs = _pairs(found), _pairs(groups.values())
    report.concepts = {m: Coverage.of(concepts[m]) for m in MODALITIES if m in concepts}
    report.speakers = Coverage.of(speakers) if speakers else None


def _pairs(sets: Any) -> dict[str, Counts]:
    """[a][b]: how many have both a and b; [a][a]: how many have a."""
    table: dict[str, Counts] = {a: dict.fromkeys(MODALITIES, 0) for a in MODALITIES}
    for has in sets:
        for a in has:
            for b in has:
                table[a][b] += 1
    seen = [m for m in MODALITIES if table[m][m]]
    return {a: {b: table[a][b] for b in seen} for a in seen}


# --- how it is shown


def grids(report: Report) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, head and rows of each table of a report."""
    modalities = [m for m in MODALITIES if m in report.files or m in report.segments]
    rows = [
        [
            m,
            f"{report.files.get(m, 0):,}",
            sized(report.bytes.get(m, 0)),
            f"{report.segments.get(m, 0):,}",
            ("at most " if m == "video" else "") + f"{report.shares.get(m, 0):,}",
            f"{report.shares.get(m, 0) / max(1, report.total):.1%}",
        ]
        for m in modalities
    ]
    yield f"{report.samples:,} samples", ["modality", "files", "bytes", "segments", "tokens", "share"], rows
    if report.groups < report.samples:
        yield f"{report.groups:,} groups of the same text that have both", *_pair_rows(report.group_pairs)
    yield "samples that have both", *_pair_rows(report.pairs)
    rows = [[name, f"{n:,}", f"{n / max(1, report.total):.1%}"] for name, n in report.tokens.items()]
    yield "tokens by alphabet", ["alphabet", "tokens", "share"], rows
    covered = {f"concepts in {m}": c for m, c in report.concepts.items()}
    covered |= {"speakers": report.speakers} if report.speakers else {}
    head = ["what", "distinct", "most frequent", "least frequent", "imbalance"]
    if covered:
        yield "coverage", head, [_covered(name, coverage) for name, coverage in covered.items()]
    if report.skipped:
        said = [
            [reason, f"{len(names):,}", ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")]
            for reason, names in report.reasons()
        ]
        yield f"left out: {len(report.skipped):,}", ["why", "how many", "the first"], said


def _pair_rows(table: dict[str, Counts]) -> tuple[list[str], list[list[str]]]:
    return ["", *table], [[a, *(f"{n:,}" for n in row.values())] for a, row in table.items()]


def _covered(name: str, coverage: Coverage) -> list[str]:
    items = [f"{_short(word)} {n:,}" for word, n in coverage.counts.items()]
    ends = [", ".join(items[:3]), ", ".join(items[-3:][::-1])]
    return [name, f"{len(items):,}", *ends, f"{coverage.imbalance:.1f}"]


def _short(word: str) -> str:
    return word if len(word) <= 24 else word[:23] + "…"


def estimate(report: Report) -> str:
    """What it would take, in a sentence."""
    most = "at most " if "video" in report.shares else ""
    hours, minutes = divmod(round(report.train_seconds / 60), 60)
    return (
        f"A data set takes about {sized(report.shard_bytes)}; training `mini` on it about {sized(report.train_bytes)} "
        f"of memory and {most}{hours} h {minutes:02} min: {report.total:,} tokens, {EPOCHS} epochs, at the "
        f"{RATE:,} tokens a second of two cores."
    )


def sized(n: float) -> str:
    """Bytes, as people say them."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while n >= 1024 and len(units) > 1:
        n /= 1024
        del units[0]
    return f"{n:,.0f} B" if units[0] == "B" else f"{n:,.1f} {units[0]}"


def plot(report: Report, path: Path) -> None:
    """Write a PNG, whole or not at all: how often each concept occurs in each modality, and who has the tokens."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _plot(report, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _plot(report: Report, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    for modality, coverage in report.concepts.items():
        counts = list(coverage.counts.values())
        left.step(range(1, len(counts) + 1), counts, where="mid", label=f"{modality}: {len(counts):,}")
    left.set(title="concepts by modality", xlabel="concepts, the most frequent first", ylabel="samples", yscale="log")
    if report.concepts:
        left.legend()
    names = list(report.shares)
    right.bar(names, [report.shares[name] / max(1, report.total) for name in names])
    right.set(title=f"share of {report.total:,} tokens", ylim=(0, 1))
    figure.savefig(path, format="png")
