"""The primer recipe: its table, what it holds back, and every kind of file it makes, from inputs made here."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

PRIMER = Path(__file__).parents[1] / "recipes" / "primer"
sys.path.insert(0, str(PRIMER))

import build  # noqa: E402
import clips  # noqa: E402
import pictures  # noqa: E402
import scenes  # noqa: E402
import sounds  # noqa: E402
from concepts import BY_WORD, CONCEPTS, WAKE_PHRASES  # noqa: E402
from items import Item, generator  # noqa: E402

import panglot  # noqa: E402
from panglot.media import MediaError  # noqa: E402

BLOCK = 1_280


def rng(*names) -> np.random.Generator:
    return generator(0, *names)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory) -> Path:
    """A red disc with an opaque blue left half, on nothing."""
    path = tmp_path_factory.mktemp("drawing") / "disc.png"
    y, x = np.mgrid[0:128, 0:128]
    pixels = np.zeros((128, 128, 4), np.uint8)
    pixels[(x - 64) ** 2 + (y - 64) ** 2 < 60**2] = (255, 0, 0, 255)
    pixels[(pixels[..., 3] > 0) & (x < 64)] = (0, 0, 255, 255)
    Pillow.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def bang(tmp_path_factory) -> Path:
    """Four seconds of faint noise, 24 kHz, with a loud second from 2.0 s and a less loud half second from 0.5 s."""
    path = tmp_path_factory.mktemp("bang") / "bang.wav"
    samples = np.random.default_rng(0).normal(size=4 * 24_000) * 1e-4
    samples[48_000:72_000] *= 2_000
    samples[12_000:24_000] *= 800
    soundfile.write(path, samples, 24_000)
    return path


# The table


def test_words_are_plain_and_unlike():
    words = [concept.word for concept in CONCEPTS]
    assert len(words) >= 60
    assert len({*words, *WAKE_PHRASES}) == len(words) + len(WAKE_PHRASES)
    for word in words:
        assert word == word.lower()
        assert len(word.split()) <= 2
    for field in ("emoji", "digit"):
        values = [v for concept in CONCEPTS if (v := getattr(concept, field)) is not None]
        assert len(set(values)) == len(values)


def test_every_concept_has_pictures_and_no_photo_or_sound_means_two_words():
    for concept in CONCEPTS:
        assert (concept.emoji is None) == (concept.digit is not None), concept.word
    uses = Counter(name for concept in CONCEPTS for name in (*concept.photos, *concept.sounds))
    assert set(uses.values()) == {1}
    assert sum(bool(concept.sounds) for concept in CONCEPTS) >= 25


def test_digits_that_a_mirror_would_spoil_are_not_mirrored():
    assert [c.digit for c in CONCEPTS if c.digit is not None] == list(range(10))
    assert not any(c.mirror for c in CONCEPTS if c.digit is not None)


# What is held back


def test_a_sixth_of_the_colours_is_held_back_and_every_colour_place_count_and_motion_is_learnt():
    for relation, values in scenes.RELATIONS.items():
        seen = [s for s in scenes.grid(relation) if not s.unseen]
        for names in (scenes.COLOURS, values, scenes.OBJECTS):
            left = [n for n in names if not any(n in (s.colour, s.value, s.object) for s in seen)]
            assert not left
    held = Counter(scenes.unseen(word)["colour"] for word in scenes.OBJECTS)
    assert held == dict.fromkeys(scenes.COLOURS, 2)


def test_training_shows_no_held_back_pair_and_held_has_as_many_seen_as_new():
    for relation in scenes.RELATIONS:
        train = pictures.chosen_scenes(relation, "train", seed=1)
        held = pictures.chosen_scenes(relation, "held", seed=1)
        pairs = {(s.object, value) for s in train for value in (s.colour, s.value)}
        new = [s for s in held if s not in train]
        assert new
        assert {s.colour for s in held} <= set(scenes.COLOURS)
        assert {s.colour for s in train} == set(scenes.TAUGHT_COLOURS)
        assert {s.value for s in train} == set(scenes.TAUGHT[relation])
        assert len(held) == 2 * len(new)
        for s in new:
            assert (s.object, s.colour) not in pairs or (s.object, s.value) not in pairs
            assert pictures.scene_row(s, "scene", "noto")["seen"] is False


def test_colours_of_training_alone_are_far_from_those_that_are_held_back():
    for name, rgb in scenes.MORE_COLOURS.items():
        apart = [np.linalg.norm(np.subtract(rgb, other)) for n, other in scenes.TAUGHT_COLOURS.items() if n != name]
        assert min(apart) > 70, name


def test_other_grounds_are_no_colour_of_a_scene():
    """No emoji and no clip shows a ground that a scene holds out."""
    for ground in pictures.GROUNDS:
        others = [np.asarray(colour) for colour in scenes.COLOURS.values()]
        assert min(np.linalg.norm(np.asarray(ground) - other) for other in others) > 45
    seen = set()
    for seed in range(40):
        pixels = np.asarray(pictures.ground(np.random.default_rng(seed))).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) == 1
        seen.add(tuple(int(v) for v in pixels[0]))
    assert seen == set(pictures.GROUNDS)


def test_text_says_the_scene():
    assert scenes.Scene("dog", "red", "place", "left").text == "dog on red, left"
    assert scenes.Scene("dog", "blue", "count", "three").text == "three dog on blue"
    assert scenes.Scene("dog", "red", "motion", "left").text == "dog on red, moving left"


# Pictures


def test_an_emoji_is_drawn_large_and_never_mirrored(drawing):
    for n in range(12):
        pixels = pictures.emoji(drawing, "dog", rng("emoji", n)).pixels
        assert pixels.shape == (64, 64, 3)
        assert tuple(pixels[32, 20]) == (0, 0, 255)


@pytest.mark.parametrize("word", scenes.OBJECTS)
def test_a_sticker_shows_no_colour_place_or_number_that_is_held_back(tmp_path, word):
    Pillow.new("RGB", (128, 128), (251, 3, 251)).convert("RGBA").save(tmp_path / "full.png")
    held, grounds, places, numbers = scenes.unseen(word), set(), set(), set()
    for n in range(300):
        pixels = pictures.sticker(tmp_path / "full.png", word, rng("sticker", n)).pixels
        ink = np.abs(pixels.astype(float) - (251, 3, 251)).max(axis=2) < 1
        y, x = np.nonzero(ink)
        ground = pixels[~ink][0]
        assert (pixels[~ink] == ground).all()
        for name, colour in scenes.COLOURS.items():
            assert np.linalg.norm(ground - np.asarray(colour, float)) >= (80 if name == held["colour"] else 48)
        grounds.add(tuple(ground.tolist()))
        if ink.sum() == pictures.OBJECT**2:
            corner = 8 * round(x.min() / 8), 8 * round(y.min() / 8)
            places |= {name for name, at in pictures.CORNERS.items() if at == corner}
        else:
            numbers.add(ink.sum() / pictures.SMALL**2)
    assert places == set(scenes.TAUGHT["place"]) - {held["place"]}
    assert numbers == {1, 2, 3, 4} - {scenes.COUNTS[held["count"]]}
    assert len(grounds) == 300


def test_a_plain_photo_is_the_centre(tmp_path):
    pixels = np.zeros((128, 256, 3), np.uint8)
    pixels[:, 64:192] = (10, 200, 30)
    Pillow.fromarray(pixels).save(tmp_path / "wide.png")
    plain = pictures.photo(tmp_path / "wide.png", True, True, rng()).pixels
    assert (plain[:, 4:-4] == (10, 200, 30)).all()
    moved = pictures.photo(tmp_path / "wide.png", False, True, rng("moved")).pixels
    assert moved.shape == (64, 64, 3)
    assert not np.array_equal(moved, plain)


@pytest.mark.parametrize("place", scenes.PLACES)
def test_an_object_is_where_its_caption_says(drawing, place):
    for n in range(8):
        shown = scenes.Scene("dog", "white", "place", place)
        pixels = pictures.scene(drawing, shown, rng(place, n)).pixels.astype(float)
        y, x = np.nonzero(np.abs(pixels - pixels[0, 0]).max(axis=2) > 40)
        across, down = x.mean() - 31.5, y.mean() - 31.5
        found = max(("left", -across), ("right", across), ("top", -down), ("bottom", down), key=lambda pair: pair[1])
        assert found[0] == place
        assert found[1] > 6
        assert len(x) > 800


@pytest.mark.parametrize("word", scenes.COUNTS)
def test_as_many_objects_as_the_caption_says(drawing, word):
    pixels = pictures.scene(drawing, scenes.Scene("dog", "white", "count", word), rng(word)).pixels.astype(float)
    ink = (np.abs(pixels - pixels[0, 0]).max(axis=2) > 60).sum()
    one = np.pi * (60 / 128 * 28) ** 2
    assert round(ink / one) == scenes.COUNTS[word]


# Sounds


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60_000), st.integers(1, 20), st.integers(1, 4))
def test_finished_sounds_are_whole_blocks_at_the_peak(length, most, least):
    samples = np.random.default_rng(length).normal(size=length).astype(np.float32)
    found = sounds.finish(samples, most, 0.7, min(least, most))
    assert len(found.samples) % BLOCK == 0
    assert min(least, most) * BLOCK <= len(found.samples) <= most * BLOCK
    if length > 2:
        assert np.abs(found.samples).max() == pytest.approx(0.7, abs=1e-5)


def test_silence_stays_silent():
    assert not sounds.finish(np.zeros(5_000, np.float32), 13).samples.any()


def test_trim_finds_the_word():
    samples = np.zeros(32_000, np.float32)
    samples[8_000:12_000] = 0.5
    assert 4_000 <= len(sounds.trim(samples)) <= 4_000 + 3 * 320
    assert len(sounds.trim(np.zeros(100, np.float32))) == 100


def test_windows_are_the_loudest_and_apart(bang):
    samples = sounds.read(bang)
    found = sounds.windows(samples, 13 * BLOCK, 4)
    assert abs(found[0] - 32_000) < 1_400
    assert len(set(found)) == 4
    assert min(abs(a - b) for i, a in enumerate(found) for b in found[:i]) >= 240 * 16
    assert sounds.windows(samples[:100], 13 * BLOCK, 3) == [0, 0, 0]


@pytest.mark.parametrize("variant", range(3))
def test_natural_sounds_are_a_second_in_whole_blocks(bang, variant):
    made = (
        sounds.window(bang, variant, rng(variant)),
        sounds.note(bang, variant, rng(variant)),
        sounds.effect(bang, variant, 3, rng(variant)),
        sounds.said(bang, variant, rng(variant)),
    )
    for audio in made:
        assert audio.rate == 16_000
        assert len(audio.samples) % BLOCK == 0
        assert 4 * BLOCK <= len(audio.samples) <= 20 * BLOCK
        assert 0.35 < np.abs(audio.samples).max() <= 0.81


def test_a_semitone_up_is_shorter(bang):
    assert len(sounds.read(bang)) == 64_000
    assert len(sounds.read(bang, 1.0)) == pytest.approx(64_000 * 2 ** (-1 / 12), abs=2)


def test_held_voices_are_nobody_of_training():
    train, held = ({voice.name for voice in sounds.VOICES[s]} for s in ("train", "held"))
    assert len(train) >= 24
    assert len(held) >= 4
    assert not {v.variant for v in sounds.VOICES["train"]} & {v.variant for v in sounds.VOICES["held"]}
    assert all(30 <= v.pitch <= 70 and 130 <= v.speed <= 190 for side in sounds.VOICES.values() for v in side)


def _wave(seconds: float) -> bytes:
    tone = (np.sin(np.arange(int(22_050 * seconds)) * 0.1) * 9_000).astype("<i2")
    quiet = np.zeros(4_000, "<i2")
    head = bytearray(44)
    head[24:28] = (22_050).to_bytes(4, "little")
    return bytes(head) + quiet.tobytes() + tone.tobytes() + quiet.tobytes()


def test_long_words_are_said_faster(monkeypatch):
    speeds = []

    def run(command, **_):
        speeds.append(int(command[command.index("-s") + 1]))
        return type("Done", (), {"stdout": _wave(250 / speeds[-1])})

    monkeypatch.setattr(sounds.subprocess, "run", run)
    audio = sounds.spoken("soccer ball", sounds.Voice("en-gb", "m1", 50, 150), rng())
    assert speeds[0] == 150
    lengths = [250 / speed + 0.04 for speed in speeds]  # what is left at both ends is 20 ms each
    assert lengths[-1] < 1.21
    assert min(lengths[:-1]) > 1.19
    assert len(audio.samples) <= 15 * BLOCK


def test_a_missing_espeak_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MediaError, match="apt-get install espeak-ng"):
        sounds.pronounce("dog", sounds.VOICES["train"][0], 150)


# Clips


@pytest.mark.parametrize("motion", [*scenes.MOTIONS, "shrinking", "bouncing"])
def test_objects_move_as_said_and_stay_inside(motion):
    places = clips.track(motion, 40, rng(motion))
    x, y, size = np.array(places).T
    assert len(places) == 9
    assert (x >= 0).all() and (y >= 0).all() and (x + size <= 64).all() and (y + size <= 64).all()  # noqa: PT018
    path, sign = {"left": (x, -1), "right": (x, 1), "up": (y, -1), "down": (y, 1), "shrinking": (size, -1)}.get(
        motion, (y, 0)
    )
    assert (np.diff(path) * sign > 0).all() if sign else (np.diff(path) > 0).any() and (np.diff(path) < 0).any()


def test_a_clip_has_nine_frames_and_sound_to_its_end(tmp_path, drawing, bang):
    sounds.note(bang, 0, rng()).save(tmp_path / "bang.flac")
    shown = scenes.Scene("dog", "white", "motion", "right")
    clips.scene_clip(drawing, shown, tmp_path / "bang.flac", rng()).save(tmp_path / "clip.mp4")
    video = panglot.open(tmp_path / "clip.mp4")
    assert video.frames.shape == (9, 64, 64, 3)
    assert video.fps == 8
    assert video.audio.rate == 16_000
    assert len(video.audio.samples) == 18_000
    ink = [np.nonzero(np.abs(f.astype(float) - f[0, 0]).max(axis=2) > 60)[1].mean() for f in video.frames]
    assert ink[-1] - ink[0] > 12


# The build


@pytest.fixture(scope="module")
def data(tmp_path_factory, drawing, bang) -> Path:
    """The source data in small: two files of every kind that the table names."""
    root = tmp_path_factory.mktemp("data")
    names = [name for c in CONCEPTS for name in (*c.photos, *c.sounds)] + [
        "signdigits/",
        "mnist/",
        "fsdd/",
        "picovoice_wake/",
    ]
    names += ["soundfx/", "maxaudio/", "librosa/"]
    rows: dict[Path, list[dict]] = {}

    def add(folder: str, label, source: Path, split: str, n: int, **more) -> None:
        name = f"{label}_{split}_{n}{source.suffix}".replace(" ", "_")
        row = {"file_name": name, "text": str(label), "label": label, "source_id": f"{split} {label} {n}"} | more
        rows.setdefault(root / split / folder, []).append(row)
        (root / split / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / split / folder / name)

    for split in ("train", "bench"):
        for n in range(2):
            for folder, label in (name.split("/") for name in names):
                if label and not (folder == "soundfx" and split == "bench"):
                    source = drawing if folder in ("caltech101", "grocery") else bang
                    kind = {"instrument": label, "kind": label} if folder in ("philharmonia", "librosa") else {}
                    add(folder, label, source, split, n, **kind)
            for concept in CONCEPTS:
                if concept.digit is not None:
                    add("signdigits", concept.digit, drawing, split, n)
                    add("mnist", concept.digit, drawing, split, n)
                    add("fsdd", concept.digit, bang, split, n, text=concept.word, speaker=split, split_key=split)
            for phrase in WAKE_PHRASES:
                add("picovoice_wake", phrase, bang, split, n)
    for folder, lines in rows.items():
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for style in ("noto", "fxemoji"):
        (root / "train" / style).mkdir()
        for concept in CONCEPTS:
            if concept.emoji:
                shutil.copyfile(drawing, root / "train" / style / f"{concept.emoji}.png")
    (root / "ATTRIBUTION.md").write_text("# Attribution\n")
    return root


def _plan(data: Path, out: Path, seed: int = 1) -> list[Item]:
    stills = build.plan_stills(data, seed)
    return stills + build.plan_clips(data, out, seed, stills)


def test_the_plan_keeps_its_promises_and_notices_a_broken_one(data, tmp_path):
    items = _plan(data, tmp_path)
    assert len({item.path for item in items}) == len(items)
    assert all(build.promises(items).values())
    spoilt = [item for item in items if item.folder != "train/sounds"]
    leak = next(item for item in items if item.folder == "held/voices")
    spoilt.append(Item("train/voices/dog/leak.flac", leak.row, leak.make))
    spoilt += [Item(i.path.replace("held/", "train/"), i.row, i.make) for i in items if i.row.get("seen") is False]
    assert list(build.promises(spoilt).values()) == [True, False, False, False]
    assert not next(iter(build.promises([i for i in items if i.folder != "train/clips"]).values()))


def test_clips_of_training_hear_only_training(data, tmp_path):
    for item in _plan(data, tmp_path):
        if item.path.endswith(".mp4"):
            split = item.path.split("/")[0]
            sound = next(a for a in (*item.make.args, *item.make.keywords.values()) if str(a).endswith(".flac"))
            assert sound.relative_to(tmp_path).parts[0] == split
            if split == "train" and item.row["text"] in scenes.OBJECTS:
                assert item.row["motion"] != scenes.unseen(item.row["text"])["motion"]


def test_a_build_is_repeated_to_the_byte_and_kept_where_it_is_there(data, tmp_path):
    kinds = ("emoji", "photos", "scenes/place", "sounds", "speech", "clips", "scenes/motion")
    files = []
    for out in (tmp_path / "a", tmp_path / "b"):
        items = _plan(data, out)
        some = [next(i for i in items if i.path.startswith(f"held/{kind}/")) for kind in kinds]
        needed = {
            str(a.relative_to(out)) for i in some for a in i.make.args if isinstance(a, Path) and out in a.parents
        }
        for item in [i for i in items if i.path in needed] + some:
            (out / item.path).parent.mkdir(parents=True, exist_ok=True)
            build._make((out, 1, item))
        files.append([(out / item.path).read_bytes() for item in some])
        build.write_metadata(out, some)
        assert json.loads((out / "held/emoji/metadata.jsonl").read_text())["file_name"].startswith("airplane/")
    assert files[0] == files[1]
    (tmp_path / "a" / some[0].path).write_bytes(b"mine")
    build._make((tmp_path / "a", 1, some[0]))
    assert (tmp_path / "a" / some[0].path).read_bytes() == b"mine"


def test_another_seed_does_not_mix(tmp_path):
    build.claim(tmp_path, 1)
    build.claim(tmp_path, 1)
    with pytest.raises(SystemExit, match="another version or seed"):
        build.claim(tmp_path, 2)


def test_missing_data_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"metadata.jsonl: not found"):
        build.plan_stills(tmp_path, 1)


def test_credits_count_what_was_used(data, tmp_path):
    items = [i for i in build.plan_stills(data, 1) if i.row["concept"] == "dog" and i.folder == "train/photos"]
    build.write_credits(data, tmp_path, items)
    assert f"| caltech101 | {len(items)} |" in (tmp_path / "SOURCES.md").read_text()
    assert (tmp_path / "ATTRIBUTION.md").exists()
    assert BY_WORD["dog"].photos == ("caltech101/dalmatian",)
