"""Samples as segments: each variant is what the tokenizers give, and what cannot be packed is told."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

import panglot
from panglot import media, variants
from panglot.convert import OptionError
from panglot.detail import ImagePlan
from panglot.fitting import Fit
from panglot.folders import Sample
from panglot.media import Image, Text
from panglot.stream import mark, unpack
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import ABSENT
from panglot.variants import Encoder, Options, coarser, shallower, within

IMAGE_HEAD = 10
PHOTO = Path(panglot.__file__).parent / "assets" / "demo" / "photo.jpg"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    some_image(64, 96, 1).save(folder / "picture.png")
    media.save(Image(np.ascontiguousarray(media.open(PHOTO).pixels[60:124, 60:156])), folder / "photo.png")
    some_audio(0.7, 22050, 2).save(folder / "sound.wav")
    some_video(10, 48, 64, 3, fps=8.0, rate=16000).save(folder / "film.mp4")
    some_video(6, 32, 32, 3, fps=8.0, rate=None).save(folder / "silent.mp4")
    Text("Once upon a time.\n").save(folder / "story.txt")
    (folder / "broken.png").write_bytes((folder / "picture.png").read_bytes()[:200])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "blank.txt").write_text(" \n")
    return folder


def sample(folder: Path, *names: str, text: str | None = None, kind: str | None = None) -> Sample:
    return Sample(names[0] if names else "row", folder, text, kind, tuple(folder / n for n in names))


def encoded(folder: Path, *names: str, options: Options | None = None, **facts):
    options = options or Options(held=0)
    encoder = Encoder(options, options.layout())
    segments, skipped = encoder.sample(7, sample(folder, *names, **facts))
    assert all(s.sample == 7 for s in segments)
    return segments, {s.name: s.reason for s in skipped}, encoder.layout


def decoded(segment, layout):
    (codes,) = unpack(np.concatenate([mark(layout, "bos"), segment.ids, mark(layout, "eos")]), layout)
    return codes


# ---------------------------------------------------------------------------------------------------------------------
# What the segments are


def test_a_picture_at_three_budgets(folder):
    segments, skipped, layout = encoded(folder, "picture.png", options=Options(variants=5, held=0))
    picture, coder = media.open(folder / "picture.png"), tokenizer("image")
    found = [decoded(s, layout) for s in segments]
    assert (skipped, [s.variant for s in segments]) == ({}, [0, 1, 2, 3, 4])
    assert found[0] == coder.encode(picture)
    assert found[1] == coder.encode(picture, stride=16)
    for codes in found[2:]:
        assert codes.header == {"height": 64, "width": 96}
        for name, array in codes.arrays.items():
            kept = array != ABSENT
            np.testing.assert_array_equal(array[kept], found[0].arrays[name][kept])
        assert 6 <= sum(codes.tokens().values()) <= 6 + 24 + 96


@pytest.mark.parametrize(("stride", "names"), [(16, [{"32", "16"}, {"32"}]), (32, [{"32"}])])
def test_a_coarser_finest_level(folder, stride, names):
    options = Options(variants=4, stride=stride, held=0)
    segments, _, layout = encoded(folder, "picture.png", "film.mp4", options=options)
    assert "image/8" not in layout.sizes
    pictures = [decoded(s, layout) for s in segments if s.modality == "image"]
    levels = [{name.removeprefix("image/") for name in codes.arrays} for codes in pictures]
    assert levels[: len(names)] == names
    assert len(levels) == (4 if stride == 16 else 1)
    film = decoded(next(s for s in segments if s.modality == "video"), layout)
    assert film == tokenizer("video").encode(media.open(folder / "film.mp4"), stride=stride, depth=3)


def test_a_sound_at_every_depth_once(folder):
    segments, _, layout = encoded(folder, "sound.wav", options=Options(variants=9, held=0))
    sound, coder = media.open(folder / "sound.wav"), tokenizer("audio")
    found = [decoded(s, layout) for s in segments]
    assert found[0] == coder.encode(sound, depth=4)
    assert {len(codes.arrays) for codes in found[1:]} == {2, 3}
    assert all(codes == coder.encode(sound, depth=len(codes.arrays)) for codes in found)


def test_a_video_with_sound_and_one_without(folder):
    segments, _, layout = encoded(folder, "film.mp4", options=Options(variants=3, held=0))
    film, coder = media.open(folder / "film.mp4"), tokenizer("video")
    fine, coarse = (decoded(s, layout) for s in segments)
    whole = coder.encode(film, stride=16, depth=3, keyframe=8)
    assert (fine, coarse) == (whole, shallower(coarser(whole, 16), 2))
    assert {name for child in coarse.children for name in child.arrays if name[:5] == "image"} == {
        "image/32",
        "image/16",
    }
    segments, _, layout = encoded(folder, "silent.mp4", options=Options(variants=3, held=0))
    whole = coder.encode(media.open(folder / "silent.mp4"), stride=16, keyframe=8)
    assert [decoded(s, layout) for s in segments] == [whole, coarser(whole, 16)]


def test_samples_of_one_origin_are_on_one_side(folder):
    encoder = Encoder(Options(held=0.5), Options().layout())
    splits = defaultdict(set)
    for n in range(40):
        sample = Sample(f"s{n}", folder, None, None, (folder / "story.txt",), {"origin": f"photo {n // 4}"})
        splits[n // 4] |= {segment.split for segment in encoder.sample(n, sample)[0]}
    assert all(len(sides) == 1 for sides in splits.values())
    assert set().union(*splits.values()) == {"train", "held"}


def test_a_text(folder):
    segments, _, layout = encoded(folder, "story.txt", options=Options(variants=3, held=0))
    (segment,) = segments
    assert tokenizer("text").decode(decoded(segment, layout)) == Text("Once upon a time.\n")
    assert (segment.modality, segment.variant, segment.file) == ("text", 0, "story.txt")


def test_a_text_under_the_name_of_a_picture_is_left_out(folder, tmp_path):
    (tmp_path / "dog.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    segments, skipped, _ = encoded(tmp_path, "dog.jpg", text="dog")
    assert segments == []
    assert "Git LFS pointer" in skipped["dog.jpg"]


def test_what_a_row_says_of_its_segments(folder):
    segments, skipped, layout = encoded(folder, "picture.png", "sound.wav", text="a dog", kind="photo")
    told = [(s.part, s.modality, s.kind, s.variant, s.file, s.group, s.split) for s in segments]
    assert told == [
        (0, "text", "", 0, "", "picture.png", "train"),
        *((1, "image", "photo", v, "picture.png", "picture.png", "train") for v in (0, 1)),
        *((2, "audio", "photo", v, "sound.wav", "picture.png", "train") for v in (0, 1)),
    ]
    assert tokenizer("text").decode(decoded(segments[0], layout)) == Text("a dog")
    assert skipped == {}


def test_groups(folder):
    joined = Options(join="text", held=0)
    for names, text, group in [
        (("picture.png",), "a dog", "a dog"),
        (("picture.png",), None, "picture.png"),
        ((), "a dog", "a dog"),
        (("story.txt",), None, "Once upon a time."),
    ]:
        segments, _, _ = encoded(folder, *names, text=text, options=joined)
        assert {s.group for s in segments} == {group}


# ---------------------------------------------------------------------------------------------------------------------
# What is drawn at random


def test_a_budget_is_kept_and_nearly_spent():
    pixels = media.open(PHOTO).pixels
    for width in (64, 96, 160):
        plan = ImagePlan(Image(np.ascontiguousarray(pixels[60:124, 60 : 60 + width])))
        least, most = plan.scaled[0].base, sum(a.size for a in plan.scaled[0].codes.arrays.values())
        last = 0
        for limit in range(least, most + 1, 7):
            n = sum(within(plan, limit).tokens().values())
            assert least <= n <= limit
            assert n >= last - 8
            last = max(last, n)
        assert sum(within(plan, most).tokens().values()) > 0.6 * most


def test_chance_depends_on_the_seed_and_the_name_alone(folder):
    def ids(seed: int, name: str = "photo.png"):
        encoder = Encoder(Options(variants=3, seed=seed, held=0), Options().layout())
        one = Sample(name, folder, None, None, (folder / "photo.png",))
        return [s.ids.tolist() for s in encoder.sample(0, one)[0]]

    first = ids(0)
    assert ids(0) == first
    others = [ids(1), ids(2), ids(0, "other name"), ids(0, "third name")]
    assert all(other[:2] == first[:2] for other in others)
    assert len({tuple(found[2]) for found in (first, *others)}) > 2


def test_how_many_are_held_out(folder):
    encoder = Encoder(Options(held=0.25, seed=3), Options().layout())
    splits = []
    for i in range(400):
        segments, _ = encoder.sample(i, Sample(f"row {i}", folder, "dog", None, ()))
        splits.append({s.split for s in segments})
    held = splits.count({"held"})
    assert 70 <= held <= 130
    assert splits.count({"train"}) == 400 - held
    assert encoded(folder, text="dog", options=Options(held=1))[0][0].split == "held"


# ---------------------------------------------------------------------------------------------------------------------
# Faults


def test_broken_files_are_told_and_stop_nothing(folder):
    names = ("broken.png", "picture.png", "empty.wav", "blank.txt", "missing.jpg")
    segments, skipped, _ = encoded(folder, *names, text="a dog")
    assert {s.part for s in segments} == {0, 2}
    assert set(skipped) == {"broken.png", "empty.wav", "blank.txt", "missing.jpg"}
    assert (skipped["empty.wav"], skipped["blank.txt"]) == ("is empty", "empty text")
    assert "cannot be read" in skipped["missing.jpg"]
    assert not any(str(folder) in reason or "\n" in reason for reason in skipped.values())


def test_a_caption_of_nothing_is_left_out(folder):
    segments, skipped, _ = encoded(folder, "broken.png", text="a dog")
    assert segments == []
    assert list(skipped) == ["broken.png"]


def test_what_is_too_long_in_every_variant(folder, tmp_path, monkeypatch):
    (tmp_path / "long.txt").write_text("word " * 3000)
    (tmp_path / "endless.txt").write_text("word " * 300_000)
    some_image(1100, 1100, 1).save(tmp_path / "huge.png")
    some_audio(40.0, 8000, 1).save(tmp_path / "long.wav")
    some_video(40, 64, 64, 3, fps=1.0, rate=8000).save(tmp_path / "long.mp4")
    read = []
    whole = media.open
    monkeypatch.setattr(media, "open", lambda path: read.append(path.name) or whole(path))
    names = ("long.txt", "endless.txt", "huge.png", "long.wav", "long.mp4")
    segments, skipped, _ = encoded(tmp_path, *names, options=Options(max_tokens=900))
    assert segments == []
    assert set(skipped) == set(names)
    assert set(skipped.values()) == {"is over --max-tokens 900; make it smaller or shorter, or allow more"}
    assert read == ["long.txt"]  # the others are told by their size
    assert encoded(tmp_path, text="word " * 300_000, options=Options(max_tokens=900))[1] == {
        "row": "is over --max-tokens 900; make it smaller or shorter, or allow more"
    }


def test_a_variant_that_is_too_long_is_left_out_alone(folder):
    options = Options(variants=8, max_tokens=100, held=0)
    segments, skipped, _ = encoded(folder, "picture.png", options=options)
    assert skipped == {"picture.png": "variant 0 is over --max-tokens 100"}
    assert [s.variant for s in segments] == [1, 2, 3, 4, 5, 6, 7]
    assert all(len(s.ids) <= 100 for s in segments)


def test_the_longest_text_that_is_not_too_long_is_kept(tmp_path):
    word = "word " * 2000
    (tmp_path / "a.txt").write_text(word)
    n = sum(tokenizer("text").count(Text(word)).values()) + 2
    assert len(encoded(tmp_path, "a.txt", options=Options(max_tokens=n))[0]) == 1
    assert len(encoded(tmp_path, "a.txt", options=Options(max_tokens=n - 1))[0]) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"join": "name"}, "--join name"),
        ({"variants": 0}, "--variants 0"),
        ({"stride": 12}, "--stride 12"),
        ({"depth": 0}, "--depth 0"),
        ({"depth": 99}, "--depth 99"),
        ({"held": 1.5}, "--held 1.5"),
        ({"held": float("nan")}, "--held nan"),
        ({"max_tokens": 0}, "--max-tokens 0"),
    ],
)
def test_options_that_are_not_on_offer(wrong, words):
    with pytest.raises(OptionError, match=words):
        Options(**wrong)


def test_fewer_codes_of_a_sound_are_the_first_of_more(folder):
    sound = media.open(folder / "sound.wav")
    deep = tokenizer("audio").encode(sound, depth=6)
    assert all(shallower(deep, d) == tokenizer("audio").encode(sound, depth=d) for d in range(1, 7))


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_depths(depth):
    options = Options(depth=depth, variants=100)
    sounds = [d for d, _ in options.videos(silent=False)]
    assert sounds == {1: [1, 1], 2: [1, 1], 3: [2, 2]}.get(depth, list(range(9, 1, -1)))
    assert [k for _, k in options.videos(silent=False)] == [8, 16] * (len(sounds) // 2)
    assert options.videos(silent=True) == ((options.depths("video")[0], 8), (options.depths("video")[0], 16))
    assert Options(depth=depth, variants=1).videos(silent=False) == ((options.depths("video")[0], 8),)
    assert {k for _, k in Options(depth=depth, stride=32).videos(silent=False)} == {32}
    assert options.depths("audio") == {1: (1,), 2: (2,), 3: (3, 2)}.get(depth, tuple(range(10, 1, -1)))
    assert options.depths("video") == {1: (1,), 2: (1,), 3: (2,)}.get(depth, tuple(range(9, 1, -1)))
    assert options.layout().depth == depth
    assert variants.HEAD > IMAGE_HEAD


def test_media_are_fitted_first(folder):
    fit = Fit(side=32, seconds=0.4, fps=4.0, frames=3)
    options = Options(held=0, fit=fit)
    for name, alone in (("photo.png", "picture"), ("sound.wav", "sound"), ("film.mp4", "video")):
        segments, skipped, layout = encoded(folder, name, options=options)
        assert skipped == {}, alone
        codes = unpack(np.concatenate([mark(layout, "bos"), segments[0].ids, mark(layout, "eos")]), layout)[0]
        wanted = fit(media.open(folder / name))
        assert tokenizer(codes.modality).decode(codes).info == wanted.info  # type: ignore[union-attr]
