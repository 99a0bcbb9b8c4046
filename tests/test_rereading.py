"""An answer is read again as in training; the best read of several drawings is kept, and the best of several words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_generate import L, random_model, some_image

from panglot import generate, rereading
from panglot.generate import Settings
from panglot.media import Text
from panglot.stream import pack
from panglot.tokenizers import tokenizer


@pytest.fixture(scope="module")
def ours() -> generate.Panglot:
    return random_model(seed=3)


def text(words: str):
    return tokenizer("text").encode(Text(words))


def test_it_is_the_likelihood_of_the_words_behind_the_answer(ours):
    """Side by side as alone, and as the scores of each id's alphabet say, one position after the other."""
    pictures = [ours.encoded(some_image(20, 50)), ours.encoded(some_image(32, 32)), ours.encoded(some_image(8, 8))]
    words = [text("a dog"), text("rain"), text("a very long name of a thing")]
    found = rereading.likelihoods(ours.model, L, [[p] for p in pictures], [[w] for w in words])
    for picture, said, value in zip(pictures, words, found, strict=True):
        alone = rereading.likelihoods(ours.model, L, [[picture]], [[said]])
        np.testing.assert_allclose(alone, [value], rtol=1e-5)
        ids = torch.from_numpy(pack(["ask", picture, "give", said], L).astype(np.int64))[:-1]  # no eos
        first = len(ids) - said.arrays["text"].size - 1
        assert value == pytest.approx(slowly(ours, ids, first), rel=1e-4)


def slowly(ours: generate.Panglot, ids: torch.Tensor, first: int) -> float:
    """Log-likelihood of ids from a position on, each among its alphabet."""
    with torch.inference_mode():
        scores = ours.model.logits(ours.model(ids[None])[0]).double()
    total = 0.0
    for at in range(first, len(ids)):
        (start, stop) = next((a, b) for a, b in L.slices if a <= ids[at] < b)
        total += float(scores[at - 1, start:stop].log_softmax(-1)[ids[at] - start])
    return total


def test_a_medium_behind_words_is_read_as_well(ours):
    picture = ours.encoded(some_image(20, 50))
    ids = torch.from_numpy(pack(["ask", text("a dog"), "give", picture], L).astype(np.int64))[:-1]
    before = len(pack(["ask", text("a dog"), "give"], L)) - 1
    found = rereading.likelihoods(ours.model, L, [[text("a dog")]], [[picture]])
    assert found == pytest.approx([slowly(ours, ids, before + 1)], rel=1e-4)


def test_what_is_too_long_to_be_read_is_the_worst():
    small = random_model(positions=32)
    picture = small.encoded(some_image(32, 32))
    assert rereading.likelihoods(small.model, L, [[picture]], [[text("a dog " * 20)]]).tolist() == [-np.inf]


def test_the_best_read_of_the_tries_is_kept(ours):
    """Of each answer by itself, and the first where no words say what is to be seen."""
    settings = Settings(8, seed=4, temperature=1.0, top_p=1.0)
    all_tries = ours.answers(["dog"], "image", 8, settings=replace(settings, tries=1))
    read = rereading.likelihoods(ours.model, L, all_tries, [[text("dog")]] * 8)
    assert len(set(read.tolist())) > 2
    kept = ours.answers(["dog"], "image", 2, settings=settings)
    assert kept == [all_tries[int(read[:4].argmax())], all_tries[4 + int(read[4:].argmax())]]
    assert kept != all_tries[::4]
    wordless = ours.answers([some_image(20, 50)], "image", 2, settings=replace(settings, words=False))
    alone = ours.answers([some_image(20, 50)], "image", 8, settings=replace(settings, words=False, tries=1))
    assert wordless == alone[::4]


def test_a_word_for_the_way_of_showing_is_not_looked_for(ours):
    shy = generate.Panglot(ours.model, ours.layout, ours.fit, kinds=["draw it"])
    settings = Settings(8, seed=4, temperature=1.0, top_p=1.0)
    tries = ours.answers(["dog", "draw it"], "image", 4, settings=replace(settings, tries=1))
    read = rereading.likelihoods(ours.model, L, tries, [[text("dog")]] * 4)
    assert shy.answers(["dog", "draw it"], "image", settings=settings) == [tries[int(read.argmax())]]
    assert shy.answers(["draw it"], "image", settings=settings) == ours.answers(
        ["draw it"], "image", settings=replace(settings, tries=1)
    )


def test_of_words_for_a_picture_those_are_kept_from_which_it_would_be_drawn(ours, monkeypatch):
    """The likeliest ones where the picture is no likelier behind others."""
    picture, settings = some_image(20, 50), Settings(6, seed=1)
    (greedy,) = ours.answers([picture], "text", settings=replace(settings, tries=1))
    seen: list = []

    def scored(model, layout, given, answers):
        seen.append((given, answers))
        found = rereading.likelihoods(model, layout, given, answers)
        if answers[0][0].modality == "image":  # none but the last words would have it drawn
            found[:] = [-1e4 * (i + 1 < len(found)) for i in range(len(found))]
        return found

    monkeypatch.setattr(generate, "likelihoods", scored)
    (kept,) = ours.answers([picture], "text", settings=settings)
    (forward, texts), (behind, media) = seen
    assert texts[0] == greedy
    assert 1 < len(texts) <= 1 + generate.OTHER_WORDS * 4
    assert len({t[0].arrays["text"].tobytes() for t in texts}) == len(texts)
    assert behind == texts
    assert all(m == [ours.encoded(picture)] for m in media + forward)
    assert kept == texts[-1] != greedy
    monkeypatch.setattr(generate, "CHANNEL", 0.0)
    monkeypatch.setattr(generate, "likelihoods", lambda *a: -np.arange(len(a[2]), dtype=float))
    assert ours.answers([picture], "text", settings=settings) == [greedy]


def test_what_is_said_before_an_answer_is_chosen_as_well(ours, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        generate.Panglot, "_best_words", lambda self, said, prompts, settings: chosen.append(said) or said
    )
    ours.answers([some_image(20, 50)], "image", settings=Settings(8, tries=2))
    assert len(chosen) == 1


def test_texts_and_the_likeliest_answer_are_drawn_once(ours, monkeypatch):
    monkeypatch.setattr(generate, "likelihoods", lambda *_: pytest.fail("read again"))
    ours.answers(["dog"], "text", settings=Settings(8))
    ours.answers([some_image(20, 50)], "text", settings=Settings(8, tries=1))
    ours.answers([some_image(20, 50)], "text", settings=Settings(8, temperature=0))
    ours.answers(["dog"], "image", settings=Settings(8, temperature=0))
    ours.answers([some_image(20, 50)], "image", settings=Settings(8, temperature=0))
    ours.answers(["dog"], "image", settings=Settings(8, tries=1))
    ours.answers(["dog"], None, settings=Settings(8))  # answers of several kinds are not compared
