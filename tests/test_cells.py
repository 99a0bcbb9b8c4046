"""Which cases there are, how answers to them are counted, and what stands beside: chance, usual answer, judge."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from panglot.cells import Bench, Material, Row, chosen, rows, share, wilson
from panglot.judges import Item
from panglot.media import Audio, Image, Text, Video


def item(concept: str, modality: str = "image", kind: str = "photo", name: str = "photos", **row) -> Item:
    return Item(Path(f"{concept}-{kind}-{row.get('n', 0)}"), modality, name, kind, concept, concept, row)


def picture(level: int) -> Image:
    return Image(np.full((8, 8, 3), level, np.uint8))


TRAIN = (
    *(item("dog", n=n) for n in range(3)),
    *(item("cat", n=n) for n in range(5)),
    *(item(concept, kind="draw it", name="emoji") for concept in ("dog", "cat", "sun")),
    *(item(concept, "audio", "say it", "voices", voice="a") for concept in ("dog", "cat", "sun", "alexa")),
    item("dog", kind="scene", name="scenes", seen=True),
    item("dog", kind="sticker", name="stickers"),
)
HELD = (
    *(item("dog", n=n) for n in (10, 11)),
    item("cat", n=12),
    item("sun", kind="draw it", name="emoji", n=13),
    item("alexa", "audio", "say it", "speech", n=14),
    item("dog", "audio", "say it", "voices", voice="b", n=15),
    item("dog", kind="scene", name="scenes", seen=False),
)
MATERIAL = Material(TRAIN, HELD)

LEVELS = {0: ("dog", "photo"), 1: ("dog", "draw it"), 2: ("cat", "photo"), 3: ("sun", "draw it")}


class Reader:
    """Judges that read the answer out of the first value of a medium."""

    picture = sound = True

    def pictures(self, pictures, kinds):
        pairs = [LEVELS[int(p[0, 0, 0])] for p in pictures]
        return [(pair, pair[0]) for pair in pairs]

    def sounds(self, sounds, kinds):
        return [(("dog", "say it"), "dog") for _ in sounds]

    def video(self, video):
        return LEVELS[int(video.frames[0, 0, 0, 0])][0]


def found(given: str, want: str, kind: str = "") -> Row:
    (row,) = [r for r in rows(MATERIAL, 10, 0) if (r.given, r.want, r.kind) == (given, want, kind)]
    return row


def test_rows_ask_for_what_training_has_of_the_same_concepts():
    names = {(r.given, r.want, r.kind) for r in rows(MATERIAL, 10, 0)}
    assert ("word", "text", "") in names
    assert ("photos (photo)", "image", "draw it") in names
    assert ("speech (say it)", "text", "") in names
    assert not any(given == "speech (say it)" and want == "image" for given, want, _ in names)  # alexa has no picture
    assert not any("scene" in given or kind == "scene" for given, _, kind in names)
    assert not any(want == "video" for _, want, _ in names)
    assert not any(kind == "sticker" for _, _, kind in names)  # none is held out


def test_what_is_rendered_is_closed_and_what_is_recorded_is_not():
    closed = {r.given: r.closed for r in rows(MATERIAL, 10, 0)}
    assert closed == {
        "word": True,
        "photos (photo)": False,
        "emoji (draw it)": True,
        "speech (say it)": False,
        "voices (say it)": True,
    }


def test_requests_name_the_kind_where_a_medium_is_wanted():
    asked, told = found("word", "image", "photo"), found("photos (photo)", "text")
    assert asked.request(asked.cases[0], "dog") == ["dog", "photo"]
    assert told.request(told.cases[0], (seen := picture(0))) == [seen]


def test_classes_and_the_usual_answer_are_those_of_training():
    row = found("photos (photo)", "text")
    assert row.concepts == {"dog", "cat"}
    assert row.usual == "cat"
    assert found("word", "image", "photo").usual == "cat"
    assert {i.concept for i in found("word", "image", "photo").cases} == {"dog", "cat"}


def test_cases_are_spread_over_concepts():
    pool = [item("dog", n=n) for n in range(50)] + [item("cat", n=n) for n in range(2)]
    picked = chosen(pool, 6, 4, 0, "row")
    assert Counter(i.concept for i in picked) == {"dog": 4, "cat": 2}
    assert Counter(i.concept for i in chosen(pool, 2, 4, 0, "row")) == {"dog": 1, "cat": 1}
    assert chosen(pool, 6, 4, 0, "row") == picked
    assert chosen(pool, 6, 4, 1, "row") != picked


def test_texts_are_right_only_to_the_letter():
    row = found("photos (photo)", "text")
    answers = [Text(row.cases[0].text), Text("a " + row.cases[1].text), None]
    bench = Bench(MATERIAL, Reader())  # type: ignore[arg-type]
    bench._known = {i.path: (i.pair if i.concept == "dog" else ("sun", "photo"), "") for i in row.cases}
    tally = bench.tally(row, answers).to_json()
    assert (tally["right"], tally["cases"], tally["chance"]) == (1, 3, 0.5)
    assert tally["usual"] == pytest.approx(1 / 3, abs=1e-4)  # one of the three is a cat
    assert tally["judge"] == pytest.approx(2 / 3, abs=1e-4)  # how much of what is given the judge names


def test_pictures_are_right_in_the_kind_that_was_asked_for():
    row = found("word", "image", "photo")
    levels = {"dog": 1, "cat": 2}  # a drawing of a dog, a photo of a cat
    bench = Bench(MATERIAL, Reader())  # type: ignore[arg-type]
    bench._known = {i.path: (i.pair, i.concept) for i in HELD}
    tally = bench.tally(row, [picture(levels[i.concept]) for i in row.cases]).to_json()
    assert (tally["right"], tally["any_kind"]) == (1, 1.0)
    assert (tally["judge"], tally["judge_cases"]) == (1.0, 3)
    assert bench.tally(row, [None, None]).right == 0


def test_videos_are_right_by_their_frames_and_heard_by_their_sound():
    row = Row("word", "text", True, "video", "film it", (item("cat"), item("dog")), frozenset({"dog", "cat"}), "dog")
    frames = np.stack([picture(2).pixels] * 2)
    films = [Video(frames, 8.0, Audio(np.zeros(800, np.float32), 16_000)), Video(frames, 8.0)]
    tally = Bench(MATERIAL, Reader()).tally(row, films)  # type: ignore[arg-type]
    assert (tally.right, tally.heard) == (1, 0)
    assert tally.to_json()["judge"] is None
    assert Bench(MATERIAL, Reader()).tally(row, films[::-1]).heard == 1  # type: ignore[arg-type]


def test_real_media_are_judged_once_each(monkeypatch):
    opened = []
    monkeypatch.setattr(Item, "open", lambda self: opened.append(self.path) or picture(0))
    bench = Bench(MATERIAL, Reader())  # type: ignore[arg-type]
    row = found("word", "image", "photo")
    assert bench.worth(row) == (2, 3)
    assert bench.worth(row) == (2, 3)
    assert len(opened) == 3


def test_intervals():
    assert wilson(8, 10) == pytest.approx((0.4901, 0.9433), abs=1e-3)
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 20)[0] == pytest.approx(0)
    assert wilson(20, 20)[1] == pytest.approx(1)
    assert share(0, 0) == {"cases": 0, "right": 0, "share": None, "low": 0.0, "high": 1.0}
