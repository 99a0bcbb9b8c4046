"""What judges look at, what they measure without a network, and that they come back from disk as they were."""

import json

import numpy as np
import pytest
import torch

from panglot.judges import (
    BANDS,
    FRAMES,
    SIDE,
    Judge,
    JudgeError,
    Judges,
    Network,
    SceneJudge,
    centre,
    ground,
    items,
    load_judge,
    load_judges,
    measured,
    picture_input,
    save_judge,
    sound_input,
)
from panglot.media import Audio, Image, Video
from panglot.tokenizers.spectrum import RATE

LABELS = (("dog", "photo"), ("dog", "draw it"), ("cat", "photo"))


def tone(hertz: float, seconds: float = 0.5, loud: float = 0.5, rate: int = RATE) -> Audio:
    t = np.arange(round(seconds * rate)) / rate
    return Audio((loud * np.sin(2 * np.pi * hertz * t)).astype(np.float32), rate)


def spot(x: int, y: int, colour=(200, 30, 30), back=(20, 20, 220)) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3] with a square of 16 pixels."""
    pixels = np.full((SIDE, SIDE, 3), back, np.uint8)
    pixels[y : y + 16, x : x + 16] = colour
    return pixels


def network(labels=LABELS, seed=0) -> Network:
    torch.manual_seed(seed)
    return Network(3, len(labels))


class Fixed(Network):
    """Says what it was told to, whatever it sees."""

    def __init__(self, scores):
        super().__init__(3, len(scores[0]))
        self.said = torch.tensor(scores)

    def forward(self, x):
        return self.said[: len(x)]


def folder(path, rows):
    for row in rows:
        file = path / row["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image(spot(4, 4)).save(file)
    (path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_sound_is_seen_alike_however_loud_and_at_whatever_rate():
    quiet, loud = sound_input(tone(800, loud=0.05)), sound_input(tone(800, loud=0.9))
    assert quiet.shape == (1, BANDS, FRAMES)
    assert quiet.dtype == np.uint8
    assert np.abs(quiet.astype(int) - loud).mean() < 4
    assert np.abs(sound_input(tone(800, rate=48_000)).astype(int) - loud).mean() < 4
    assert np.abs(sound_input(tone(2500)).astype(int) - loud).mean() > 6


def test_a_tone_is_in_its_band_for_as_long_as_it_lasts():
    low, high = (sound_input(tone(hertz))[0] for hertz in (300, 3000))
    assert low[:, 10].argmax() < high[:, 10].argmax()
    assert low[:, :20].max() == 255
    assert low[:, 40:].max() == 0


def test_silence_and_long_sounds_have_a_picture_too():
    assert sound_input(Audio(np.zeros(0, np.float32), RATE)).shape == (1, BANDS, FRAMES)
    assert sound_input(tone(500, 10)).shape == (1, BANDS, FRAMES)


def test_ground_and_centre():
    pixels = picture_input(spot(40, 10))
    assert ground(pixels) == pytest.approx(np.array([20, 20, 220]) / 255)
    x, y = centre(pixels)
    assert (x, y) == pytest.approx(((40 + 7.5) / 31.5 - 1, (10 + 7.5) / 31.5 - 1))
    assert centre(np.full((3, SIDE, SIDE), 7, np.uint8)) == pytest.approx([0, 0])


def test_motion_is_where_to_and_place_is_where():
    frames = [picture_input(spot(x, 20)) for x in range(0, 48, 6)]
    assert measured("motion", frames)[0] > 0.5
    assert measured("motion", frames[::-1])[0] < -0.5
    assert abs(measured("motion", frames)[1]) < 1e-6
    assert abs(measured("place", frames)[0]) < 0.2


def test_a_scene_is_read_by_network_and_by_nearest_mean():
    labels = (("concept", "dog"), ("concept", "cat"))
    means = {"colour": {"blue": [0.1, 0.1, 0.9], "red": [0.9, 0.1, 0.1]}, "place": {"left": [-1, 0], "right": [1, 0]}}
    means |= {"count": {"two": [1, 1, 0, 0], "three": [1, 1, 1, 0]}}
    judge = SceneJudge(Judge(Fixed([[0.0, 2.0]] * 2), labels), means)
    found = judge.read([picture_input(spot(44, 24))], ("concept", "colour", "place", "motion"))
    assert found == {"concept": "cat", "colour": "blue", "place": "right"}
    two = np.maximum(picture_input(spot(4, 4)), picture_input(spot(40, 40)))
    three = np.maximum(two, picture_input(spot(44, 6)))
    assert [judge.read([picture], ("count",)) for picture in (two, three)] == [{"count": "two"}, {"count": "three"}]


def test_a_picture_has_the_likeliest_pair_and_the_concept_of_most_weight():
    judges = Judges(picture=Judge(Fixed([[1.0, 1.0, 1.2], [0.0, 3.0, 0.0]]), LABELS))
    found = judges.pictures([spot(0, 0)] * 2, ("photo", "draw it"))
    assert found == [(("cat", "photo"), "dog"), (("dog", "draw it"), "dog")]
    assert judges.pictures([spot(0, 0)], ("photo",)) == [(("cat", "photo"), "cat")]
    assert judges.pictures([spot(0, 0)], ("sketch",)) == [(("", ""), "")]


def test_a_video_is_judged_by_all_its_frames():
    judges = Judges(picture=Judge(Fixed([[0.0, 0.0, 1.5], [0.0, 0.0, 1.5], [9.0, 0.0, 0.0]]), LABELS))
    assert judges.video(Video(np.stack([spot(0, 0)] * 3), 8.0)) == "dog"
    assert judges.video(Video(np.stack([spot(0, 0)] * 2), 8.0)) == "cat"


def test_judges_come_back_as_they_were(tmp_path):
    judge = Judge(network(), LABELS, {"seed": 3})
    inputs = [picture_input(spot(x, 20)) for x in (0, 20, 40)]
    save_judge(tmp_path, "picture", judge)
    save_judge(tmp_path, "scene", judge, {"place": {"left": [0.0, 1.0]}})
    found = load_judges(tmp_path)
    assert found.sound is None
    assert found.picture is not None
    assert found.scene is not None
    assert found.picture.labels == LABELS
    assert found.picture.facts == {"seed": 3}
    assert np.array_equal(found.picture.scores(inputs), judge.scores(inputs))
    assert found.scene.means == {"place": {"left": [0.0, 1.0]}}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("picture.json", "picture.safetensors", "scene.json", "scene.safetensors")
    ]
    assert judge.scores([]).shape == (0, 3)


@pytest.mark.parametrize("harm", ["cut", "labels", "json", "gone"])
def test_damaged_judges_are_told_in_a_line(tmp_path, harm):
    save_judge(tmp_path, "picture", Judge(network(), LABELS))
    weights, facts = tmp_path / "picture.safetensors", tmp_path / "picture.json"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:500])
    elif harm == "labels":
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"labels": [["dog", "photo"]]}))
    elif harm == "json":
        facts.write_text("{")
    else:
        weights.unlink()
    with pytest.raises(JudgeError, match=r"picture\.json: cannot be used .* trained again") as fault:
        load_judge(tmp_path, "picture")
    assert "\n" not in str(fault.value)


def test_items_are_what_the_metadata_says(tmp_path):
    rows = [
        {"file_name": "a.png", "text": "dog", "kind": "photo", "concept": "dog"},
        {"file_name": "b.png", "text": "cat on red", "kind": "scene", "concept": "cat", "seen": False},
    ]
    folder(tmp_path / "pets", rows)
    folder(tmp_path / "wild", [{"file_name": "c.png", "text": "fox"}])
    found = items(tmp_path)
    assert [(i.set, i.modality, i.pair, i.text, i.is_scene) for i in found] == [
        ("pets", "image", ("dog", "photo"), "dog", False),
        ("pets", "image", ("cat", "scene"), "cat on red", True),
        ("wild", "image", ("fox", ""), "fox", False),
    ]
    assert found[0].open().pixels.shape == (SIDE, SIDE, 3)


def test_a_folder_without_words_is_told(tmp_path):
    (tmp_path / "note.md").write_text("nothing to see")
    with pytest.raises(JudgeError, match="no media with a text"):
        items(tmp_path)
