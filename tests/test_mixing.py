"""Batches: the same for the same seed and step, of whole samples, in the shares that are stated."""

from collections import Counter

import numpy as np
import pytest
import streams

from panglot.layout import MARKS
from panglot.mixing import ALONE, BOTH, ECHO, GIVEN, MODALITIES, REQUEST, TEXT, TOLD, TOLD_FIRST, WORDS, Mixer, Segments
from panglot.stream import pack_segment, unpack
from panglot.tokenizers.base import Codes

L = streams.LAYOUT
KINDS = (("text", ""), ("image", "photo"), ("image", "emoji"), ("audio", ""), ("video", ""))


def packed(*rows: tuple[int, int, int, Codes]) -> Segments:
    """Segments of (group, kind, medium, codes)."""
    ids = [pack_segment(codes, L) for *_, codes in rows]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])])
    group, kind, medium = (np.array([row[i] for row in rows]) for i in range(3))
    return Segments(np.concatenate(ids), offsets, group, kind, medium, KINDS)


def book(groups: int = 4, texts: bool = True) -> Segments:
    """In each group: its word, 2 photos of 2 variants, 8 emoji, a sound and a video, each of its own symbol."""
    rows = []
    for g in range(groups):
        medium = iter(range(100 * g, 100 * g + 100))
        one = np.full((1, 1), g, np.int32)
        if texts:
            rows.append((g, 0, next(medium), streams.text(f"word {g}")))
        for _ in range(2):
            m = next(medium)
            rows += [(g, 1, m, picture(g, n)) for n in (1, 3)]
        rows += [(g, 2, next(medium), picture(g, 2)) for _ in range(8)]
        rows.append((g, 3, next(medium), Codes("audio", {"samples": 1280, "rate": 16000}, {"audio/1": one[0]})))
        header = {"height": 20, "width": 20, "frames": 1, "fps": 8.0, "samples": None, "rate": None}
        key = Codes("image", {"height": 20, "width": 20}, {"image/32": one})
        rows.append((g, 4, next(medium), Codes("video", header, {}, (key,))))
    return packed(*rows)


def picture(group: int, levels: int) -> Codes:
    sizes = ((32, (1, 1)), (16, (2, 2)), (8, (4, 4)))[:levels]
    return Codes("image", {"height": 32, "width": 32}, {f"image/{s}": np.full(n, group, np.int32) for s, n in sizes})


NAMES = {tuple(streams.text(f"word {g}").arrays["text"].tolist()): g for g in range(4)}
PHRASES = {1: pack_segment(streams.text("photo"), L), 2: pack_segment(streams.text("emoji"), L)}


def mixer(segments: Segments | None = None, **options) -> Mixer:
    return Mixer(segments or book(), L, PHRASES, **{"rows": 4, "length": 256, "noise": 0.0, **options})


def samples(batch):
    """ids, weights and modality of every sample of a batch."""
    for number in range(batch.samples.max() + 1):
        where = batch.samples == number
        yield batch.ids[where], batch.weights[where], batch.modality[where]


def drawn(mix: Mixer, count: int):
    """Parts, ids, weights and modality of so many samples."""
    rng = np.random.default_rng(3)
    found = (mix.sample(rng) for _ in range(count))
    return [(unpack(ids, L), ids, weights, modality) for ids, weights, modality in found]


@pytest.fixture(scope="module")
def many():
    """Samples of the whole book."""
    return drawn(mixer(), 2500)


def media_of(parts) -> list[Codes]:
    return [p for p in parts if isinstance(p, Codes) and group_of(p) is not None]


def group_of(part: Codes) -> int | None:
    if part.modality == "text":
        return NAMES.get(tuple(part.arrays["text"].tolist()))
    arrays = part.children[0].arrays if part.children else part.arrays
    return int(next(iter(arrays.values())).flat[0])


def test_a_batch_depends_on_seed_and_step_alone():
    one, other = mixer(seed=1), mixer(seed=1)
    other.batch(5)
    for step in (0, 7, 3):
        a, b = one.batch(step), other.batch(step)
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))
    assert not np.array_equal(one.batch(0).ids, one.batch(1).ids)
    assert not np.array_equal(one.batch(0).ids, mixer(seed=2).batch(0).ids)


def test_samples_are_whole_and_rows_are_full():
    mix = mixer()
    for step in range(5):
        batch = mix.batch(step)
        assert batch.ids.shape == batch.positions.shape == batch.samples.shape == (4, 256)
        assert {str(x.dtype) for x in (batch.ids, batch.positions, batch.samples)} == {"int64"}
        assert (batch.weights.dtype, batch.modality.dtype) == (np.float32, np.int8)
        found = list(samples(batch))
        assert len(found) > 10
        for ids, _, _ in found:
            parts = [part for part in unpack(ids, L) if not isinstance(part, str)]
            assert len({group_of(part) for part in parts} - {None}) == 1
        padding = batch.samples < 0
        assert (batch.ids[padding] == L.marks["pad"]).all()
        assert not batch.weights[padding].any()
        assert (batch.modality[padding] == -1).all()
        assert padding.mean() < 0.3
        for row in range(4):
            lengths = Counter(batch.samples[row][~padding[row]].tolist())
            assert batch.positions[row][~padding[row]].tolist() == [i for n in lengths.values() for i in range(n)]
            assert not padding[row][: (~padding[row]).sum()].any()


def test_shares_are_as_stated(many):
    kinds, requests, several, last, length = Counter(), 0, 0, Counter(), Counter()
    for parts, ids, *_ in many:
        media = media_of(parts)
        length[len(media)] += 1
        shape = tuple(sorted(p.modality == "text" for p in media))
        kinds[shape] += 1
        several += len(media) > 1
        requests += "give" in parts
        last[media[-1].modality] += len(media) > 1
        assert ("ask" in parts) == ("give" in parts)
        assert len(media) > 1 or "give" not in parts
        assert "give" not in parts or parts.index("give") == len(parts) - (3 if len(media) == 3 else 2)
        assert len(media) < 3 or [p.modality == "text" for p in media] == [False, True, False]
        assert len(ids) <= 256
    share = {shape: n / len(many) for shape, n in kinds.items()}
    assert share[(False,)] == pytest.approx(ALONE, abs=0.02)
    assert share[(True, True)] == pytest.approx(ECHO, abs=0.007)
    assert share[(False, True)] == pytest.approx(TEXT - ECHO, abs=0.03)
    assert share[(False, False, True)] == pytest.approx(BOTH, abs=0.03)
    assert share[(False, False)] == pytest.approx(1 - ALONE - TEXT - BOTH, abs=0.03)
    assert requests / several == pytest.approx(REQUEST, abs=0.03)
    assert last["text"] / several == pytest.approx((ECHO + (TEXT - ECHO) / 2) / (1 - ALONE), abs=0.04)


def test_kinds_are_drawn_by_the_root_of_their_number(many):
    found = Counter()
    for parts, *_ in many:
        media = media_of(parts)
        others = [p for p in media if p.modality != "text"]
        if (len(media), len(others)) == (2, 1):
            found[len(others[0].arrays) if others[0].modality == "image" else others[0].modality] += 1
    total = sum(found.values())
    roots = {"photo": 8**0.5, "emoji": 32**0.5, "audio": 2.0, "video": 2.0}
    whole = sum(roots.values())
    assert found[2] / total == pytest.approx(roots["emoji"] / whole, abs=0.04)
    assert found["audio"] / total == pytest.approx(roots["audio"] / whole, abs=0.03)
    assert (found[1] + found[3]) / total == pytest.approx(roots["photo"] / whole, abs=0.04)
    assert found[1] > found[3] > 0  # the shorter variant of a photo more often


def test_the_kind_stands_right_before_what_is_wanted(many):
    told, wanted = Counter(), Counter()
    words = {tuple(unpack_text(ids)): kind for kind, ids in PHRASES.items()}
    for parts, *_ in many:
        for i, part in enumerate(parts):
            if not (isinstance(part, Codes) and part.modality == "text"):
                continue
            kind = words.get(tuple(part.arrays["text"].tolist()))
            if kind is None:
                continue
            after = parts[i + 1] if parts[i + 1] != "give" else parts[-1]
            assert after.modality == "image"
            assert (len(after.arrays) == 2) == (KINDS[kind][1] == "emoji")
            assert parts[i + 1] != "give" or len(parts) - 1 - (i + 2) == (len(media_of(parts)) == 3)
            told["wanted" if i + 1 == len(parts) - 1 or parts[i + 1] == "give" else "given"] += 1
        images = [i for i, p in enumerate(parts) if isinstance(p, Codes) and p.modality == "image"]
        alone = len(media_of(parts)) == 1
        wanted["wanted"] += bool(images and images[-1] == len(parts) - 1 and not alone) + bool(images and alone)
        wanted["given"] += len([i for i in images if i != len(parts) - 1])
    assert told["wanted"] / wanted["wanted"] == pytest.approx(TOLD, abs=0.05)
    assert told["given"] / wanted["given"] == pytest.approx(TOLD_FIRST, abs=0.06)


def unpack_text(ids: np.ndarray) -> list[int]:
    return ids[1:-1].tolist()


def test_weights(many):
    """Each segment counts by the root of its length, texts more, what is given less; marks and phrases nothing."""
    for parts, ids, weights, modality in many[:300]:
        assert len(ids) == len(weights) == len(modality)
        media = media_of(parts)
        at = 0
        for place, part in enumerate(parts):
            piece = [L.marks[part]] if isinstance(part, str) else pack_segment(part, L).tolist()
            here = slice(at + 1, at + 1 + len(piece))
            at += len(piece)
            assert ids[here].tolist() == piece
            if isinstance(part, str) or group_of(part) is None:
                assert not weights[here].any()
                assert (modality[here] == -1).all()
                continue
            answer = place > parts.index("give") if "give" in parts else place == len(parts) - 1 and len(media) > 1
            weight = 1 if answer else GIVEN
            weight *= WORDS if part.modality == "text" else 1
            assert weights[here] == pytest.approx(weight * len(piece) ** -0.5)
            assert (modality[here] == MODALITIES.index(part.modality)).all()
        assert (weights[0], modality[0], modality[-1]) == (0, -1, -1)
        assert weights[-1] == pytest.approx(0.3)
        assert (ids[0], ids[-1]) == (L.marks["bos"], L.marks["eos"])


def test_some_codes_of_given_media_are_replaced():
    """By codes of the same alphabet, which do not count in the loss. What is wanted and texts stay as they are."""
    given = changed = 0
    for parts, _, weights, _ in drawn(mixer(noise=0.3), 400):
        if "give" not in parts:
            continue
        wanted = group_of(parts[-1])
        assert wanted in range(4)
        for part in parts[: parts.index("give")]:
            if not isinstance(part, Codes) or part.modality == "text":
                continue
            arrays = [a for p in (part, *part.children) for a in p.arrays.values()]
            values = np.concatenate([a.ravel() for a in arrays])
            given += len(values)
            changed += (values != wanted).sum()
            assert (weights == 0).sum() >= (values != wanted).sum()
    assert changed / given == pytest.approx(0.3, abs=0.04)


def test_every_order_of_media_is_learned(many):
    orders = {
        tuple(p.modality for p in parts if isinstance(p, Codes) and group_of(p) is not None) for parts, *_ in many
    }
    for a in MODALITIES:
        for b in MODALITIES:
            # a sound and a video have no other of their kind
            assert ((a, b) in orders) == (a != b or a in ("text", "image"))


def test_a_medium_that_is_alone_in_its_group():
    mix = mixer(packed((0, 1, 0, picture(3, 2))))
    for parts, *_ in drawn(mix, 50):
        assert parts[-1] == picture(3, 2)
        assert "give" not in parts
    assert (mix.batch(0).samples >= 0).mean() > 0.5


def test_without_texts_media_answer_each_other():
    several = [
        len([p for p in parts if isinstance(p, Codes)]) > 1 for parts, *_ in drawn(mixer(book(texts=False)), 500)
    ]
    assert np.mean(several) > 0.9


def test_no_medium_is_answered_by_itself():
    """Two pictures of one kind: each is only ever put beside the other."""
    one = packed((0, 1, 0, picture(1, 2)), (0, 1, 1, picture(2, 2)))
    pairs = [
        media
        for parts, *_ in drawn(mixer(one), 200)
        if len(media := [p for p in parts if isinstance(p, Codes) and p.modality == "image"]) == 2
    ]
    assert len(pairs) > 100
    assert all(a != b for a, b in pairs)


def test_texts_alone():
    mix = mixer(packed(*((g, 0, g, streams.text(f"word {g}")) for g in range(3))))
    assert all(len(parts) == 1 for parts, *_ in drawn(mix, 50))
    together = packed(*((0, 0, m, streams.text(f"word {m}")) for m in range(3)))
    assert {len([p for p in parts if isinstance(p, Codes)]) for parts, *_ in drawn(mixer(together), 80)} == {1, 2}


def test_segments_longer_than_half_a_row_are_left_out():
    rows = [(0, 0, 0, streams.text("word 0")), (0, 1, 1, picture(0, 3)), (0, 2, 2, picture(0, 2))]
    lengths = [len(pack_segment(codes, L)) for *_, codes in rows]
    assert lengths[1] > 20 >= max(lengths[0], lengths[2])
    mix = mixer(packed(*rows), rows=2, length=40)
    for step in range(20):
        batch = mix.batch(step)
        assert (batch.samples >= 0).any()
        for ids, *_ in samples(batch):
            assert all(isinstance(p, str) or len(p.arrays) < 3 for p in unpack(ids, L))


def test_a_sample_longer_than_a_row_does_not_end_the_batch():
    """Two pictures of nearly half a row each, a word and what kinds they are: together more than a row."""
    rows = [(0, 0, 0, streams.text("word 0")), (0, 1, 1, picture(0, 3)), (0, 1, 2, picture(0, 3))]
    mix = mixer(packed(*rows), rows=2, length=2 * len(pack_segment(picture(0, 3), L)))
    assert any(len(mix.sample(np.random.default_rng(i))[0]) > mix.length for i in range(50))
    assert all((mix.batch(step).samples >= 0).any(1).all() for step in range(40))


def test_marks_are_of_the_layout():
    assert {"bos", "eos", "ask", "give", "pad"} <= {*MARKS}


def test_texts_that_are_about_no_medium_are_drawn_themselves():
    alone = streams.text("a story of its own")
    rows = [(g, 0, 10 * g, streams.text(f"word {g}")) for g in range(2)]
    rows += [(g, 2, 10 * g + 1, picture(g, 1)) for g in range(2)]
    found = mixer(packed(*rows, (7, 0, 70, alone)))
    drawn = Counter()
    for step in range(30):
        for ids, *_ in samples(found.batch(step)):
            parts = [part for part in unpack(ids, L) if isinstance(part, Codes)]
            drawn["alone" if any(part == alone for part in parts) else "picture"] += 1
            assert any(part == alone or part.modality == "image" for part in parts) or len(parts) == 2  # an echo
    assert drawn["alone"] > 20
    assert drawn["picture"] > 20
