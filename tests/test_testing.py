"""The contract suite itself: an honest tokenizer passes every property, one that breaks a property fails it."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

from panglot.media import Audio, Image, Text, Video, sample_at
from panglot.testing import (
    TokenizerContract,
    cut,
    illegal_codes,
    random_codes,
    size,
    some_audio,
    some_image,
    some_text,
    some_video,
)
from panglot.tokenizers.base import ABSENT, Alphabet, Codes, CodesError, Tokenizer

BLOCK = 8


class Honest(Tokenizer[Image]):
    """Grey means of 8x8 blocks, then of their quarters; every rule of the contract is kept."""

    modality = "image"
    alphabets = (Alphabet("grey/8", 16), Alphabet("grey/4", 256))

    def encode(self, media, levels=2):
        return self.join(self.encode_stream([media], levels=levels))

    def encode_stream(self, chunks, levels=2):
        held = None
        for chunk in chunks:
            held = chunk.pixels if held is None else np.concatenate([held, chunk.pixels])
            whole = len(held) // BLOCK * BLOCK
            if whole:
                yield self._piece(held[:whole], levels)
                held = held[whole:]
        if held is not None and len(held):
            yield self._piece(held, levels)

    def _piece(self, pixels, levels):
        height, width = pixels.shape[:2]
        grey = np.pad(pixels.mean(2), ((0, -height % BLOCK), (0, -width % BLOCK)), "edge")
        arrays = {}
        for alphabet, block in list(zip(self.alphabets, (8, 4), strict=True))[:levels]:
            h, w = grey.shape[0] // block, grey.shape[1] // block
            means = grey.reshape(h, block, w, block).mean((1, 3))
            arrays[alphabet.name] = (means * alphabet.size / 256).astype(np.int32)
        return Codes("image", {"height": height, "width": width}, arrays)

    def join(self, pieces):
        parts = list(pieces)
        height = sum(part.header["height"] for part in parts)
        arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
        return Codes("image", {"height": height, "width": parts[0].header["width"]}, arrays)

    def decode(self, codes):
        self.check(codes)
        height, width = codes.header.get("height"), codes.header.get("width")
        if codes.modality != "image" or type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise CodesError("no size")
        shape = (-(-height // BLOCK), -(-width // BLOCK))
        grey = codes.arrays["grey/8"]
        if grey.shape != shape or grey.min() < 0:
            raise CodesError("wrong shape")
        fine = codes.arrays.get("grey/4", np.full((2 * shape[0], 2 * shape[1]), ABSENT))
        if fine.shape != (2 * shape[0], 2 * shape[1]):
            raise CodesError("wrong shape")
        means = np.where(fine == ABSENT, grey.repeat(2, 0).repeat(2, 1) * 16 + 8, fine)
        pixels = means.repeat(4, 0).repeat(4, 1)[:height, :width]
        return Image(np.stack([pixels] * 3, 2).astype(np.uint8))

    def count(self, media, levels=2):
        info = getattr(media, "info", media)
        blocks = -(-info.height // BLOCK) * -(-info.width // BLOCK)
        return dict(list({"grey/8": blocks, "grey/4": 4 * blocks}.items())[:levels])


class HonestContract(TokenizerContract):
    prefixes_decode = True
    blocks_may_be_absent = True
    made = Honest

    def __init__(self):
        self._tokenizer = self.made()

    def tokenizer(self):
        return self._tokenizer

    def samples(self):
        return [some_image(33, 40, 1), some_image(16, 9, 2)]

    def options(self):
        return [{}, {"levels": 1}]


def contract(tokenizer):
    return type("Contract", (HonestContract,), {"made": tokenizer})()


PROPERTIES = [name for name, _ in inspect.getmembers(TokenizerContract, inspect.isfunction) if name.startswith("test_")]


@pytest.mark.parametrize("name", PROPERTIES)
def test_an_honest_tokenizer_passes(name):
    getattr(contract(Honest), name)()


class Moody(Honest):
    """Every second time another code."""

    calls = 0

    def encode(self, media, **options):
        codes = super().encode(media, **options)
        self.calls += 1
        codes.arrays["grey/8"][0, 0] = self.calls % 2
        return codes


class BatchPads(Honest):
    def encode_batch(self, media, **options):
        tallest = max(m.pixels.shape[0] for m in media)
        padded = [Image(np.pad(m.pixels, ((0, tallest - m.pixels.shape[0]), (0, 0), (0, 0)))) for m in media]
        return [self.encode(m, **options) for m in padded]


class BatchForgetsOptions(Honest):
    def encode_batch(self, media, **_):
        return [self.encode(m) for m in media]


class NoCarry(Honest):
    """Each chunk is padded for itself, as if it were a picture."""

    def encode_stream(self, chunks, levels=2):
        for chunk in chunks:
            yield self._piece(chunk.pixels, levels)


class LosesTheEnd(Honest):
    def encode(self, media, levels=2):
        return self._piece(media.pixels, levels)

    def encode_stream(self, chunks, levels=2):
        pieces = list(super().encode_stream(chunks, levels))
        yield from pieces[: max(1, len(pieces) - 1)]


class OverRange(Honest):
    def _piece(self, pixels, levels):
        codes = super()._piece(pixels, levels)
        codes.arrays["grey/8"][-1, -1] = 16
        return codes


class OtherModality(Honest):
    def join(self, pieces):
        codes = super().join(pieces)
        return Codes("picture", codes.header, codes.arrays)


class HeaderOfNumPy(Honest):
    def join(self, pieces):
        codes = super().join(pieces)
        return Codes("image", {name: np.int64(value) for name, value in codes.header.items()}, codes.arrays)


class ForgetsSize(Honest):
    """Returns the padded picture."""

    def decode(self, codes):
        pixels = super().decode(codes).pixels
        return Image(np.pad(pixels, ((0, -len(pixels) % BLOCK), (0, 0), (0, 0))))


class NoisyDecoder(Honest):
    rng = np.random.default_rng(0)

    def decode(self, codes):
        return Image(super().decode(codes).pixels // 2 + self.rng.integers(0, 99, dtype=np.uint8))


class CountsOneLess(Honest):
    def count(self, media, levels=2):
        return {name: n - 1 for name, n in super().count(media, levels).items()}


class CountsOneMore(Honest):
    def count(self, media, levels=2):
        return {name: n + 1 for name, n in super().count(media, levels).items()}


class CountsOnlyMedia(Honest):
    """Right for a medium, wrong for what is known before decoding."""

    def count(self, media, levels=2):
        return super().count(media, levels) if isinstance(media, Image) else {"grey/8": 1}


class OnlyLikelyCodes(Honest):
    """Knows a legal code only when its encoder would give it: quarters near their block."""

    def decode(self, codes):
        fine = codes.arrays.get("grey/4")
        if fine is not None and fine.shape == tuple(2 * n for n in codes.arrays["grey/8"].shape) and fine.max() > 250:
            raise CodesError("unlikely")
        return super().decode(codes)


class RandomChangesSize(Honest):
    def decode(self, codes):
        picture = super().decode(codes)
        return Image(picture.pixels[:-1]) if codes.arrays["grey/8"].max() == 15 else picture


class NeedsAllLevels(Honest):
    def decode(self, codes):
        if "grey/4" not in codes.arrays:
            raise CodesError("incomplete")
        return super().decode(codes)


class NeedsAllBlocks(Honest):
    def decode(self, codes):
        if any((array == ABSENT).any() for array in codes.arrays.values()):
            raise CodesError("incomplete")
        return super().decode(codes)


class Trusting(Honest):
    """Decodes without looking at the range."""

    def check(self, codes):
        pass


class TrustingHeader(Honest):
    def decode(self, codes):
        return super().decode(Codes("image", {"height": 8, "width": 8, **codes.header}, codes.arrays))


class WrongException(Honest):
    def decode(self, codes):
        codes.header["height"] + 0
        return super().decode(codes)


class Chatty(Honest):
    def decode(self, codes):
        try:
            return super().decode(codes)
        except CodesError as error:
            raise CodesError(f"{error}\nand so on") from None


class NoCodes(Honest):
    def _piece(self, pixels, levels):
        return Codes("image", {"height": len(pixels), "width": pixels.shape[1]})


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (NoCodes, "test_samples_give_codes"),
        (Moody, "test_encoding_is_deterministic"),
        (BatchPads, "test_batch_equals_single"),
        (BatchForgetsOptions, "test_batch_equals_single"),
        (NoCarry, "test_streamed_equals_whole"),
        (LosesTheEnd, "test_streamed_equals_whole"),
        (OverRange, "test_codes_are_in_range"),
        (OtherModality, "test_codes_are_in_range"),
        (OverRange, "test_codes_fit_in_a_token_file"),
        (HeaderOfNumPy, "test_codes_fit_in_a_token_file"),
        (ForgetsSize, "test_decoding_returns_size_rate_and_duration"),
        (NoisyDecoder, "test_decoding_is_deterministic"),
        (CountsOneLess, "test_count_agrees_with_encode"),
        (CountsOneMore, "test_count_agrees_with_encode"),
        (CountsOnlyMedia, "test_count_agrees_with_encode"),
        (OnlyLikelyCodes, "test_every_legal_array_decodes"),
        (RandomChangesSize, "test_every_legal_array_decodes"),
        (NeedsAllLevels, "test_any_prefix_decodes"),
        (NeedsAllBlocks, "test_any_blocks_may_be_absent"),
        (Trusting, "test_illegal_codes_raise_codes_error"),
        (TrustingHeader, "test_illegal_codes_raise_codes_error"),
        (WrongException, "test_illegal_codes_raise_codes_error"),
        (Chatty, "test_illegal_codes_raise_codes_error"),
    ],
)
def test_a_broken_tokenizer_fails(broken, name):
    with pytest.raises((AssertionError, CodesError, TypeError, KeyError)):
        getattr(contract(broken), name)()


def test_every_property_has_a_tokenizer_that_fails_it():
    (mark,) = test_a_broken_tokenizer_fails.pytestmark
    assert {name for _, name in mark.args[1]} == set(PROPERTIES)


def test_one_sample_is_not_enough():
    suite = contract(Honest)
    suite.samples = lambda: [some_image(8, 8)]
    with pytest.raises(AssertionError, match="two samples"):
        suite.test_samples_give_codes()


def test_an_upper_bound_may_be_high_but_not_low():
    for tokenizer, honest in ((CountsOneMore, True), (CountsOneLess, False)):
        suite = contract(tokenizer)
        suite.counts_exactly = False
        if honest:
            suite.test_count_agrees_with_encode()
        else:
            with pytest.raises(AssertionError):
                suite.test_count_agrees_with_encode()


def test_the_suite_must_be_filled_in():
    for method in (TokenizerContract().tokenizer, TokenizerContract().samples):
        with pytest.raises(NotImplementedError, match="return"):
            method()


def test_importing_needs_neither_pytest_nor_torch():
    code = "import sys, panglot.testing; assert not {'pytest', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the parts of the suite


def test_illegal_codes_have_one_fault_each():
    codes = Honest().encode(some_image(16, 16))
    faults = [fault for fault, bad in illegal_codes(codes, Honest()) if bad != codes]
    assert len(faults) == len(set(faults)) == 3 + 2 * 5 + 2 * 2 + 2 * 2


def test_random_codes_are_legal_and_keep_what_is_absent():
    array = np.array([[ABSENT, 3, 200, 7]])
    codes = Codes("image", {}, {}, (Codes("image", {}, {"grey/4": array}),))
    drawn = random_codes(codes, Honest(), 1)
    Honest().check(drawn)
    assert drawn != codes
    assert np.array_equal(drawn.children[0].arrays["grey/4"] == ABSENT, array == ABSENT)
    assert drawn == random_codes(codes, Honest(), 1) != random_codes(codes, Honest(), 2)


@pytest.mark.parametrize("at", [(), (0.5,), (0.01, 0.02, 0.9, 1.0), np.linspace(0, 1, 50)])
def test_cut_pieces_add_up(at):
    text, image, audio = some_text(1), some_image(9, 7), some_audio(0.1, 8000, channels=2)
    video = some_video(7, 8, 8, fps=29.97, rate=22050)
    assert Text("".join(piece.text for piece in cut(text, at))) == text
    assert np.array_equal(np.concatenate([piece.pixels for piece in cut(image, at)]), image.pixels)
    assert np.array_equal(np.concatenate([piece.samples for piece in cut(audio, at)]), audio.samples)
    frames = 0
    for piece in (pieces := cut(video, at)):
        start, frames = frames, frames + len(piece.frames)
        last = frames == len(video.frames)
        end = len(video.audio.samples) if last else sample_at(frames, 29.97, 22050)
        assert len(piece.audio.samples) == end - sample_at(start, 29.97, 22050)
    assert np.array_equal(np.concatenate([piece.frames for piece in pieces]), video.frames)
    assert np.array_equal(np.concatenate([piece.audio.samples for piece in pieces]), video.audio.samples)


def test_nothing_is_cut_from_nothing():
    assert cut(Text(""), (0.5,)) == [Text("")]
    assert cut(some_video(3, 4, 4, rate=None), (0.5,))[0].audio is None


def test_size_tells_media_apart():
    sound = some_audio(0.5, 8000)
    different = [
        some_image(4, 5),
        some_image(5, 4),
        sound,
        Audio(sound.samples[:-1], 8000),
        Audio(sound.samples, 8001),
        some_video(2, 4, 5),
        some_video(2, 4, 5, rate=None),
        some_video(2, 4, 5, fps=24.0, rate=None),
        some_video(3, 4, 5, rate=None),
        Text("a"),
        Text("b"),
    ]
    assert len({size(media) for media in different}) == len(different)


# --- made-up media


def test_made_up_media_have_the_size_asked_for():
    assert some_image(5, 7).pixels.shape == (5, 7, 3)
    assert some_audio(0.25, 16000).samples.shape == (4000,)
    assert some_audio(0.25, 16000, channels=2).samples.shape == (4000, 2)
    assert abs(some_audio(0.25, 16000).samples).max() <= 1
    video = some_video(10, 6, 4, fps=20.0, rate=8000)
    assert video.frames.shape == (10, 6, 4, 3)
    assert video.audio.samples.shape == (4000,)
    assert some_video(2, 6, 4, rate=None).audio is None
    assert len(some_text(words=5).text.split(" ")) == 5
    assert some_audio(0.0).samples.size == 0


def test_made_up_media_follow_the_seed_and_have_structure():
    picture = some_image(64, 64, 3).pixels
    assert np.array_equal(picture, some_image(64, 64, 3).pixels)
    assert not np.array_equal(picture, some_image(64, 64, 4).pixels)
    assert np.abs(np.diff(picture.astype(int), axis=0)).mean() < picture.std() / 4  # neighbours are alike
    assert picture.std() > 10
    sound = some_audio(1.0, 16000, 3).samples
    assert np.array_equal(sound, some_audio(1.0, 16000, 3).samples)
    assert not np.array_equal(sound, some_audio(1.0, 16000, 4).samples)
    power = np.abs(np.fft.rfft(sound)) ** 2
    assert power[:4000].sum() > 0.95 * power.sum()
    video = some_video(9, 32, 32, 3, rate=None).frames
    assert np.array_equal(video[0], some_image(32, 32, 3).pixels)
    assert not np.array_equal(video[0], video[8])
    assert some_text(1) == some_text(1) != some_text(2)
    assert isinstance(some_video(1, 4, 4), Video)
