"""Budgets and qualities: never exceeded, reached, shared; and what cannot be had is said in one line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import panglot as pg
from panglot import tokenfile
from panglot.budget import Wish, encode, fault
from panglot.detail import BudgetError, Focus
from panglot.media import Image, Text, Video
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers import tokenizer
from panglot.tokenizers.base import Codes

PHOTO = Path(pg.__file__).parent / "assets" / "demo" / "photo.jpg"


def spent(*codes: Codes) -> int:
    return sum(sum(c.tokens().values()) for c in codes)


def lively(height: int, width: int) -> Image:
    """A picture that is flat on the left and busy on the right."""
    rng = np.random.default_rng(1)
    pixels = np.full((height, width, 3), 120, np.uint8)
    busy = rng.integers(0, 256, (height // 4, width // 8, 3)).repeat(4, 0).repeat(4, 1)
    pixels[: busy.shape[0], width - busy.shape[1] :] = busy
    return Image(pixels)


def db(image: Image, codes: Codes) -> float:
    return float(10 * np.log10(255**2 / fault(image, codes)))


@settings(deadline=None, max_examples=8)
@given(st.integers(33, 200), st.integers(33, 200), st.integers(1, 900), st.booleans())
def test_a_budget_is_never_exceeded_and_any_budget_decodes(height, width, tokens, exact):
    image = some_image(height, width, 5)
    (codes,) = encode([image], Wish(tokens=tokens, exact=exact))
    assert spent(codes) <= tokens
    decoded = tokenizer("image").decode(codes)
    assert decoded.pixels.shape == image.pixels.shape
    data = tokenfile.dumps(codes, tokenizer("image").alphabets)
    assert tokenfile.loads(data) == [codes]


def test_a_budget_is_used_up_where_the_picture_is_larger():
    image = pg.open(PHOTO)
    for tokens in (200, 576, 1234):
        (codes,) = encode([image], Wish(tokens=tokens))
        assert spent(codes) == tokens


def test_detail_goes_where_it_is_needed():
    image = lively(256, 512)
    (codes,) = encode([image], Wish(tokens=900, exact=True))
    present = codes.arrays["image/8"] >= 0
    half = present.shape[1] // 2
    assert present[:, half:].mean() > 2 * present[:, :half].mean()


def test_a_budget_beats_the_same_tokens_spent_evenly():
    image = pg.open(PHOTO)
    uniform = tokenizer("image").encode(image, stride=16)
    (same,) = encode([image], Wish(tokens=spent(uniform), exact=True))
    assert db(image, same) > db(image, uniform) + 0.1


def test_a_flat_picture_takes_the_coarsest_level_alone():
    (codes,) = encode([Image(np.full((256, 256, 3), 90, np.uint8))], Wish(fidelity="high"))
    assert spent(codes) <= 100 < spent(tokenizer("image").encode(Image(np.zeros((256, 256, 3), np.uint8)))) / 10


def test_a_quality_is_reached_with_fewer_tokens_than_all():
    image = lively(256, 256)
    everything = tokenizer("image").encode(image)
    wanted = db(image, everything) - 1
    (codes,) = encode([image], Wish(psnr=wanted))
    assert db(image, codes) >= wanted
    assert spent(codes) < 0.7 * spent(everything)


def test_focus_gets_the_detail():
    image = pg.open(PHOTO)
    focus = Focus(200, 120, 128, 128)
    (plain,) = encode([image], Wish(tokens=900))
    (focused,) = encode([image], Wish(tokens=900, focus=focus))
    region = (slice(120, 248), slice(200, 328))

    def inside(codes: Codes) -> float:
        decoded = tokenizer("image").decode(codes).pixels[region].astype(float)
        return float(((decoded - image.pixels[region]) ** 2).mean())

    assert spent(focused) <= 900
    assert inside(focused) < 0.7 * inside(plain)


def test_silence_is_nearly_free_and_the_sound_keeps_its_codes():
    sound = some_audio(4.0, 16000, 3)
    samples = sound.samples.copy()
    samples[: 2 * 16000] = 0
    half = type(sound)(samples, 16000)
    all_codes = spent(tokenizer("audio").encode(half))
    (codes,) = encode([half], Wish(fidelity="high"))
    assert spent(codes) < 0.67 * all_codes
    assert fault(half, codes) <= fault(half, tokenizer("audio").encode(half)) + 0.15


def test_one_budget_over_a_whole_message():
    message = [some_image(128, 128, 1), some_audio(2.0, 16000, 2), Text("a word"), some_video(9, 64, 64, 3)]
    least = spent(*encode(message, Wish(tokens=10_000_000))) // 4
    codes = encode(message, Wish(tokens=least))
    assert spent(*codes) <= least
    assert [c.modality for c in codes] == ["image", "audio", "text", "video"]
    for medium, c in zip(message, codes, strict=True):
        decoded = pg.decode(c)
        assert decoded.modality == medium.modality
    assert pg.decode(codes[2]) == Text("a word")
    assert abs(pg.decode(codes[3]).info.duration - 9 / 25) < 0.2  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("message", "wish", "words"),
    [
        ([Text("a long text of many words, none of which can be left out")], {"tokens": 2}, "allow at least that"),
        ([some_audio(1.0, 16000, 3)], {"psnr": 30.0}, "--fidelity or --tokens"),
        ([some_image(64, 64, 1)], {"psnr": 80.0}, "out of reach: all detail gives"),
        ([some_image(64, 64, 1)], {"psnr": 15.0, "fidelity": "low"}, "give one of them"),
        ([some_image(64, 64, 1)], {"fidelity": "best"}, "choose low, medium, high"),
        ([some_image(64, 64, 1)], {"tokens": 0}, "at least 1"),
        ([some_image(128, 128, 1)], {"tokens": 20, "fidelity": "high"}, "over --tokens 20"),
        ([some_image(64, 64, 1)], {"focus": Focus(40, 0, 40, 10)}, "outside the picture of 64 x 64"),
        ([some_audio(1.0, 16000, 3)], {"focus": Focus(0, 0, 4, 4)}, "this is audio"),
    ],
)
def test_what_cannot_be_had_is_one_line_with_a_remedy(message, wish, words):
    with pytest.raises(BudgetError, match=words) as caught:
        encode(message, Wish(**wish))
    assert "\n" not in str(caught.value)


def test_a_focus_in_words_waits_for_the_shared_space():
    with pytest.raises(BudgetError, match="shared space"):
        Focus.parse("the dog")
    assert Focus.parse("1, 2,3,4") == Focus(1, 2, 3, 4)


def test_the_same_from_python():
    image = some_image(96, 96, 4)
    assert spent(pg.encode(image, tokens=60)) <= 60


def test_video_is_thinned_before_it_is_given_up():
    clip = some_video(17, 96, 96, 5, rate=None)
    full = spent(tokenizer("video").encode(clip, stride=8))
    (codes,) = encode([clip], Wish(tokens=full // 3))
    assert spent(codes) <= full // 3
    decoded = tokenizer("video").decode(codes)
    assert isinstance(decoded, Video)
    assert decoded.frames.shape[1:] == clip.frames.shape[1:]


def test_a_flat_picture_is_as_good_as_is_said():
    """Its blocks were predicted to gain nothing, and so what was called all detail lacked most of it."""
    image = Image(np.full((128, 128, 3), 90, np.uint8))
    everything = db(image, tokenizer("image").encode(image))
    (codes,) = encode([image], Wish(psnr=everything - 0.1))
    assert db(image, codes) >= everything - 0.1
    (codes,) = encode([image], Wish(fidelity="high"))
    assert db(image, codes) >= min(38.0, everything - 0.5) - 0.01
    (codes,) = encode([image], Wish(tokens=10**6))
    assert db(image, codes) == everything


def test_a_quality_takes_about_as_few_tokens_as_the_budget_that_gives_it():
    image = pg.open(PHOTO)
    wanted = db(image, tokenizer("image").encode(image)) - 1.5
    (codes,) = encode([image], Wish(psnr=wanted))
    (less,) = encode([image], Wish(tokens=int(0.93 * spent(codes))))
    assert db(image, codes) >= wanted > db(image, less)


@pytest.mark.parametrize("shape", [(5, 3000), (500, 1), (40, 700)])
@pytest.mark.parametrize("tokens", [1, 2, 7, 18])
def test_long_thin_pictures_fit_any_budget(shape, tokens):
    image = some_image(*shape, 3)
    (codes,) = encode([image], Wish(tokens=tokens))
    assert spent(codes) <= tokens
    assert tokenizer("image").decode(codes).pixels.shape == image.pixels.shape


def test_a_large_picture_in_a_message_is_scaled_as_far_as_the_budget_wants():
    message = [some_image(1000, 1500, 1), Text("a dog")]
    words = spent(tokenizer("text").encode(message[1]))
    codes = encode(message, Wish(tokens=words + 1))
    assert spent(*codes) == words + 1
    assert pg.decode(codes[1]) == message[1]
    with pytest.raises(BudgetError, match=f"allow at least|the coarsest takes {words + 1}"):
        encode(message, Wish(tokens=words))


def test_a_fault_names_the_medium():
    with pytest.raises(BudgetError) as caught:
        encode([some_image(64, 64, 1), some_audio(1.0, 16000, 3)], Wish(psnr=20.0))
    assert caught.value.medium == 1


@pytest.mark.parametrize("words", ["\u00b2,0,1,1", "--1,0,1,1", f"{'9' * 5000},0,1,1", "1,2,3"])
def test_a_focus_that_is_none(words):
    with pytest.raises(BudgetError, match="give X,Y,W,H"):
        Focus.parse(words)
