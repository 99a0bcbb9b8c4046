"""Whatever a model says is an answer: valid media of the wanted kind, within the budget, the same again."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import streams
import tiny
import torch

from panglot import generate
from panglot.checkpoint import CheckpointError, save
from panglot.fitting import Fit
from panglot.generate import GenerateError, Panglot, Settings, pick
from panglot.layout import BUDGETS, Layout
from panglot.media import Audio, Image, Text, Video
from panglot.model import ModelConfig, Transformer
from panglot.stream import pack, unpack
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers.base import Codes

L = Layout.standard(2, (32, 16), (32,))
FIT = Fit(side=32, seconds=0.4, fps=8, frames=6)
KINDS = {"text": Text, "image": Image, "audio": Audio, "video": Video}


def random_model(layout: Layout = L, positions: int = 1024, seed: int = 0, sure: float = 0.5) -> Panglot:
    """A model that has learned nothing; `sure`: how far its scores differ."""
    torch.manual_seed(seed)
    config = ModelConfig(layout.size, 32, 2, 2, 1, 16, 48, positions)
    model = Transformer(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * sure)
    return Panglot(model, layout, FIT)


@pytest.fixture(scope="module")
def ours() -> Panglot:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield random_model()
    torch.set_num_threads(threads)


def tokens(codes: Codes) -> int:
    return sum(codes.tokens().values())


@pytest.mark.parametrize("want", list(KINDS))
def test_answers_are_valid_media_of_the_wanted_kind(ours, want):
    told = []
    settings = {"tokens": 24, "temperature": 1.0, "top_p": 1.0}
    answers = ours.generate(["dog", some_image(20, 50)], want, 3, lambda *t: told.append(t), seed=5, **settings)
    assert [type(medium) for medium in answers] == [KINDS[want]] * 3
    assert len({repr(medium) for medium in answers}) > 1
    for medium in answers:
        if isinstance(medium, Image | Video):
            height, width = medium.pixels.shape[:2] if isinstance(medium, Image) else medium.frames.shape[1:3]
            assert height * width <= 32 * 32
        if isinstance(medium, Audio):
            assert 0 < len(medium.samples) <= 0.4 * 48000
        if isinstance(medium, Video):
            assert len(medium.frames) <= 6
    assert {row for row, *_ in told} == set(range(3 if want == "text" else 12))  # four tries of each


@pytest.mark.parametrize("budget", [1, 3, 10, 700])
def test_tokens_are_never_exceeded(ours, budget):
    settings = Settings(budget, temperature=1.2, top_p=1.0)
    for want in KINDS:
        told: list[tuple[int, str, int]] = []
        answers = ours.answers(["dog"], want, 4, lambda *token, told=told: told.append(token), settings)
        for (codes,) in answers:
            assert codes.modality == want
            assert tokens(codes) <= budget
        stated = {symbol for _, alphabet, symbol in told if alphabet == "budget"}
        assert stated == (set() if want == "text" else {min(i for i, n in enumerate(BUDGETS) if n >= budget)})


def test_every_token_is_told(ours):
    told: list[tuple[str, int]] = []
    (codes,) = ours.answers(
        ["dog"], "image", told=lambda row, *symbol: told.append(symbol), settings=Settings(20, tries=1)
    )[0]
    ids = [L.starts[alphabet] + symbol for alphabet, symbol in told]
    assert unpack([L.marks["bos"], *ids, L.marks["eos"]], L) == [codes]


def test_several_wants_come_in_order(ours):
    wanted = ["audio", "text", "image"]
    for answer in ours.answers(["dog"], wanted, 2, settings=Settings(12, seed=3, temperature=1.0)):
        assert [codes.modality for codes in answer] == wanted
    media = ours.generate(["dog"], ["text", "image"], 2, tokens=6)
    assert [type(medium) for medium in media] == [Text, Image] * 2


def test_without_a_wish_the_model_chooses_and_ends(ours):
    lengths, kinds = Counter(), Counter()
    for seed in range(6):
        for answer in ours.answers([], None, 4, settings=Settings(8, seed=seed, temperature=1.0, top_p=1.0)):
            lengths[len(answer)] += 1
            kinds.update(codes.modality for codes in answer)
    assert lengths[0]
    assert 1 <= max(lengths) <= 4
    assert kinds.total() > 5


def test_the_same_again_and_another_seed(ours):
    def once(seed):
        return ours.answers(["dog"], "image", 2, settings=Settings(30, seed=seed))

    assert once(1) == once(1)
    assert once(1) != once(2)
    assert once(1)[0] != once(1)[1]


def test_an_answer_does_not_depend_on_its_neighbours(ours):
    """Whatever is drawn beside it, and however long it takes: the same row and seed, the same answer."""
    settings = Settings(20, seed=4, temperature=1.0)
    asked = [["a dog barks", "loud"], ["rain"], [some_audio(0.2, 16000)], ["cat", some_image(32, 32)]]
    for want in ("image", "audio", ["text", "video"], None):
        whole = ours.answer_all(asked, want, settings=settings)
        for count in (1, 2, 3):
            assert ours.answer_all(asked[:count], want, settings=settings) == whole[:count]
        others = [["something else"], *asked[1:2], ["and more", "of it"]]
        assert ours.answer_all(others, want, settings=settings)[1] == whole[1]


def test_what_a_model_has_not_learned_cannot_be_wanted(ours):
    deaf = Panglot(ours.model, ours.layout, ours.fit, learned=("text", "image"))
    with pytest.raises(GenerateError, match="--want audio: this model has learned only text, image"):
        deaf.generate(["dog"], ["image", "audio"])


def test_a_request_is_read_once_however_many_answers_it_gets(ours, monkeypatch):
    read = []
    prefill = Transformer.prefill
    monkeypatch.setattr(
        Transformer, "prefill", lambda model, rows, cache: read.append(len(rows)) or prefill(model, rows, cache)
    )
    three = ours.answers([some_image(20, 50)], "audio", 3, settings=Settings(8))
    # For the words and for others; then the request, the same in words, and none at all, for guidance; whatever the
    # number of tries.
    assert read == [1, 1, 3]
    assert three[0] == ours.answers([some_image(20, 50)], "audio", 1, settings=Settings(8))[0]


def test_without_a_budget_it_is_the_largest_that_is_usual():
    shares = np.array([0.5, 0.2, 0.25, 0.04, 0.01])
    assert generate.largest(np.log(shares)) == 3
    assert generate.largest(np.log(shares) + 100) == 3
    assert generate.largest(np.zeros(200)) == 199  # none is at least so likely: all are the likeliest
    assert generate.largest(np.array([3.0])) == 0


def test_what_is_given_is_first_said_in_words(ours, monkeypatch):
    """Of media alone, only where another medium is wanted, and only by a model that has learned text."""
    asked = []
    run = generate._Run

    def watched(owner, prompts, wanted, settings, told, briefs=()):
        shown = [
            [[part if isinstance(part, str) else part.modality for part in p] for p in view]
            for view in (prompts, briefs)
        ]
        asked.append((wanted, *shown))
        return run(owner, prompts, wanted, settings, told, briefs)

    monkeypatch.setattr(generate, "_Run", watched)
    settings = Settings(8, longest=8, tries=1)
    requests = [["dog"], [some_image(20, 50)], [some_image(20, 50), "dog"]]
    answers = ours.answer_all(requests, "image", settings=settings)
    assert [[codes.modality for codes in answer] for answer in answers] == [["image"]] * 3
    seen = [["ask", "image", "give"], ["ask", "image", "text", "give"]]
    briefs = [["ask", "text", "give"], ["ask", "text", "give"], ["ask", "text", "text", "give"]]
    assert asked == [
        (["text"], seen, []),
        (["image"], [["ask", "text", "give"], *([*prompt, "text"] for prompt in seen)], briefs),
    ]
    asked.clear()
    ours.answer_all(requests, "text", settings=settings)
    ours.answer_all(requests, "image", settings=replace(settings, words=False))
    mute = Panglot(ours.model, ours.layout, ours.fit, learned=("image", "audio", "video"))
    mute.answer_all(requests, "image", settings=settings)
    assert [(wanted, briefs) for wanted, _, briefs in asked] == [(["text"], []), (["image"], []), (["image"], [])]


def test_words_of_what_is_given_weigh_more_than_it_does(ours):
    """With guidance, scores are those of the words, a quarter of the way to those of the medium, and away from none."""
    prompt = [ours._prompt([some_image(20, 50)])]
    briefs = ours._say(prompt, Settings(8))
    rows = [prompt[0], briefs[0], []]
    apart = [generate._Run(ours, [row], ["audio"], Settings(8, guidance=1.0), None) for row in rows]
    together = generate._Run(ours, prompt, ["audio"], Settings(8, guidance=3.0), None, briefs)
    start = ours.layout.starts["audio/1"]
    full, brief, none = (run._scores([0], start, start + 20) for run in apart)
    wanted = 0.25 * full + 0.75 * brief + 2 * (brief - none)
    np.testing.assert_allclose(together._scores([0], start, start + 20), wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(full - brief).max() > 1e-3


def test_a_video_is_read_with_the_keyframes_that_were_learned():
    fine = random_model(Layout.standard(2, (32, 16, 8), (32, 16)))
    found = {name for child in fine.encoded(some_video(6, 32, 32, 3)).children for name in child.arrays}
    assert "image/8" in found
    assert "change/8" not in found


def test_a_video_is_read_at_the_depth_that_was_learned(ours):
    """`prepare` gives the sound of a video one code less than a sound."""
    in_video, in_sound = (set(names(ours.encoded(m))) for m in (some_video(4, 20, 30), some_audio(0.3)))
    assert {name for name in in_video if name.startswith("audio")} == {"audio/1"}
    assert in_sound == {"audio/1", "audio/2"}


def names(codes: Codes) -> list[str]:
    return [*codes.arrays, *(name for child in codes.children for name in names(child))]


def likeliest(ours: Panglot, guidance: float = 1.0) -> np.ndarray:
    """The ids of one picture of a dog, each the likeliest."""
    told: list[int] = []

    def tell(row: int, alphabet: str, symbol: int) -> None:
        told.append(L.starts[alphabet] + symbol)

    ours.answers(["dog"], "image", told=tell, settings=Settings(12, temperature=0, guidance=guidance))
    return np.array(told)


def scores(ours: Panglot, before: np.ndarray, answer: np.ndarray) -> dict[int, torch.Tensor]:
    """Of each code of the coarsest level of an answer, the scores of all codes, by the pass that training uses."""
    start, size = L.starts["image/32"], L.sizes["image/32"]
    hidden = ours.model(torch.from_numpy(np.concatenate([before, answer]))[None])[0, len(before) - 1 :]
    codes = [at for at, token in enumerate(answer) if start <= token < start + size]
    assert codes
    return {int(answer[at]) - start: hidden[at] @ ours.model.embedding[start : start + size].T for at in codes}


ASKED = pack(["ask", streams.text("dog"), "give"], L)[:-1].astype(np.int64)


def test_answers_equal_those_of_the_training_pass(ours):
    """At temperature 0 each token is the likeliest of the legal ones."""
    for code, found in scores(ours, ASKED, likeliest(ours)).items():
        assert int(found.argmax()) == code


def test_guidance(ours):
    """Twice the difference that the request makes, against a row without one."""
    answer = likeliest(ours, guidance=2.0)
    assert answer.tolist() != likeliest(ours).tolist()
    given, without = scores(ours, ASKED, answer), scores(ours, ASKED[:1], answer)
    for code, found in given.items():
        assert int((without[code] + 2 * (found - without[code])).argmax()) == code


def test_words_are_not_guided(ours):
    """Nor is the choice of a medium, where the model chooses."""
    said, drawn, chosen = [], [], []
    for guidance in (1.0, 10.0):
        settings = Settings(6, temperature=1.0, top_p=1.0, guidance=guidance, tries=1)
        hot = replace(settings, temperature=8.0)
        (answer,) = ours.answers(["dog"], ["text", "image"], settings=settings)
        said.append(answer[0])
        drawn.append(answer[1])
        first: dict[int, int] = {}
        ours.answers(["dog"], None, 16, lambda row, _, symbol, first=first: first.setdefault(row, symbol), hot)
        chosen.append(first)
    assert said[0] == said[1]
    assert drawn[0] != drawn[1]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0].values())) > 2


def test_memory_grows_with_the_answer(ours, monkeypatch):
    settings = Settings(60, seed=2, temperature=1.0)
    whole = ours.answers(["dog", "cat"], "video", 2, settings=settings)
    monkeypatch.setattr(generate, "ROOM", 1)
    assert ours.answers(["dog", "cat"], "video", 2, settings=settings) == whole


def test_inputs_of_every_kind(ours):
    inputs = ["dog", Text("cat"), some_image(70, 50), some_audio(1.0, 22050), some_video(9, 40, 40, rate=22050)]
    codes = [ours.encoded(medium) for medium in inputs]
    assert [c.modality for c in codes] == ["text", "text", "image", "audio", "video"]
    assert (codes[2].header["height"], codes[2].header["width"]) == (32, 32)
    assert set(codes[2].arrays) == {"image/32", "image/16"}
    assert (codes[3].header["rate"], codes[3].header["samples"]) == (16000, 5 * 1280)
    assert len(codes[3].arrays) == 2
    assert (codes[4].header["fps"], codes[4].header["frames"]) == (8, 3)
    assert unpack(pack(codes, L), L) == codes
    assert len(ours.answers(inputs, "text", settings=Settings(4))[0]) == 1
    wider = random_model(Layout.standard(1, (32,), (32, 16)))
    assert set(wider.encoded(inputs[4]).tokens()) <= {"image/32", "change/32", "audio/1", "span", "hold", "split"}


def test_an_input_is_encoded_once(ours, monkeypatch):
    calls = []
    encode = ours.encoded
    monkeypatch.setattr(ours, "encoded", lambda medium: calls.append(medium) or encode(medium))
    ours.answers(["dog"], "text", 5, settings=Settings(2))
    assert calls == ["dog"]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"tokens": 0}, "--tokens 0: give at least 1"),
        ({"tokens": 1 << 40}, "--tokens 1099511627776: give at least 1, at most"),
        ({"temperature": -1.0}, "--temperature -1: choose a number from 0 to 10"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"top_p": 0.0}, "--top-p 0: choose a number above 0, at most 1"),
        ({"top_p": 1.5}, "--top-p 1.5"),
        ({"guidance": 0.0}, "--guidance 0: choose a number above 0, at most 20"),
        ({"tries": 0}, "--tries 0: choose from 1 to 64"),
        ({"guidance": float("inf")}, "--guidance inf"),
        ({"seed": -1}, "--seed -1: give 0 or more"),
        ({"longest": 0}, "longest 0: give at least 1"),
    ],
)
def test_settings_that_cannot_be(settings, fault):
    with pytest.raises(GenerateError, match=fault):
        Settings(**settings)


def test_requests_that_cannot_be_answered(ours):
    with pytest.raises(GenerateError, match="--want smell: choose among text, image, audio, video"):
        ours.answers(["dog"], ["image", "smell"])
    with pytest.raises(GenerateError, match=r"the inputs are \d+ tokens, the model reads 1024: give fewer or smaller"):
        ours.answers(["dog " * 2000], "image")
    small = random_model(positions=48)
    with pytest.raises(GenerateError, match="context is full before the answer is complete: ask for fewer tokens"):
        small.answers(["dog"], ["text", "image"] * 4, 3, settings=Settings(40, temperature=1.0))
    assert ours.answer_all([], "text") == []
    assert ours.answers(["dog"], "text", 0) == []


def test_loaded_from_disk(tmp_path):
    made = random_model(tiny.LAYOUT, 256)
    extra = {"data": {"options": {"fit": FIT.to_json()}}}
    save(tmp_path / "model", made.model, tiny.LAYOUT.to_json(), extra, torch.float32)
    loaded = generate.load(tmp_path / "model")
    assert (loaded.layout, loaded.fit) == (tiny.LAYOUT, FIT)
    settings = Settings(10, seed=1)
    assert loaded.answers(["dog"], "image", settings=settings) == made.answers(["dog"], "image", settings=settings)
    for bad in (
        {"data": []},
        {"data": {"options": {"fit": {"side": "x"}}}},
        {"data": {"options": {"fit": {"side": -1}}}},
    ):
        said = json.loads((tmp_path / "model" / "panglot.json").read_text())
        (tmp_path / "model" / "panglot.json").write_text(json.dumps({**said, "extra": bad}))
        with pytest.raises(CheckpointError, match="model: the sizes of its media are damaged"):
            generate.load(tmp_path / "model")
    with pytest.raises(CheckpointError, match="no such folder"):
        generate.load(tmp_path / "missing")


def test_picking():
    scores = np.log(np.array([0.1, 0.6, 0.25, 0.05], np.float32))
    random = np.random.default_rng(0)
    assert pick(scores, 0, 1.0, random) == 1
    found = Counter(pick(scores, 1.0, 1.0, random) for _ in range(4000))
    assert [found[i] / 4000 for i in range(4)] == pytest.approx([0.1, 0.6, 0.25, 0.05], abs=0.03)
    assert {pick(scores, 1.0, 0.8, random) for _ in range(300)} == {1, 2}
    assert {pick(scores, 1.0, 0.5, random) for _ in range(100)} == {1}
    sharp = Counter(pick(scores, 0.5, 1.0, random) for _ in range(4000))
    squares = np.array([0.1, 0.6, 0.25, 0.05]) ** 2
    assert [sharp[i] / 4000 for i in range(4)] == pytest.approx((squares / squares.sum()).tolist(), abs=0.03)
    assert pick(np.array([1e30, -1e30], np.float32), 1.0, 0.95, random) == 0
    assert pick(np.full(4, np.nan, np.float32), 1.0, 0.95, random) in range(4)
