from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panglot import tokenfile
from panglot.measure import mel_distance
from panglot.media import Audio
from panglot.testing import TokenizerContract, some_audio
from panglot.tokenizers import spectrum, tokenizer
from panglot.tokenizers.audio import blocks, spans
from panglot.tokenizers.base import Codes, CodesError

GOLDEN = Path(__file__).parent / "data" / "golden_audio.pgt"


class TestAudioContract(TokenizerContract):
    prefixes_decode = True

    def tokenizer(self):
        return tokenizer("audio")

    def samples(self):
        return [
            some_audio(0.7, 24000, 1),
            some_audio(0.5, 44100, 2, channels=2),
            some_audio(0.3, 8000, 3),
            some_audio(0.001, 16000, 4),
            some_audio(0, 16000, 5),
        ]

    def options(self):
        return ({}, {"depth": 3})


def test_first_codes_within_100_ms():
    for rate in (8000, 16000, 24000, 44100, 48000):
        sound, encoder = some_audio(0.2, rate).samples, tokenizer("audio").encoder(rate)
        step = rate // 1000
        fed = next(i for i in range(200) if encoder.push(sound[i * step : (i + 1) * step]).shape[1]) + 1
        assert fed <= 100


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000]))
def test_streamed_codes_equal_the_whole(seed, rate):
    rng = np.random.default_rng(seed)
    sound, tok = some_audio(rng.uniform(0.1, 3), rate, seed), tokenizer("audio")
    cuts = np.sort(rng.integers(0, len(sound.samples) + 1, int(rng.integers(1, 40))))
    pieces = [Audio(p, rate) for p in np.split(sound.samples, cuts)]
    assert tok.join(tok.encode_stream(pieces)) == tok.encode(sound)


def test_more_codes_are_better():
    tok, sound = tokenizer("audio"), some_audio(4, 16000, 9)
    distances = [mel_distance(sound, tok.decode(tok.encode(sound, depth=d))) for d in (1, 4, 10)]
    assert distances == sorted(distances, reverse=True)


def test_long_sound_has_no_gaps(monkeypatch):
    """Decoding in segments gives about the same level everywhere, at the borders of segments too."""
    from panglot.tokenizers import audio

    monkeypatch.setattr(audio, "SEGMENT", 10)
    t = np.arange(16000 * 4) / 16000
    sound = Audio((0.4 * np.sin(2 * np.pi * 440 * t)).astype(np.float32), 16000)
    tok = tokenizer("audio")
    decoded = tok.decode(tok.encode(sound)).samples[16000:-3200]
    level = np.sqrt((decoded[: len(decoded) // 800 * 800].reshape(-1, 800) ** 2).mean(1))
    assert level.min() > 0.4 * np.median(level)


def test_golden_codes():
    tok = tokenizer("audio")
    (codes,) = tokenfile.read(GOLDEN, tok.alphabets)
    sound = some_audio(1.0, 24000, 11)
    encoded = tok.encode(sound)
    for name, array in codes.arrays.items():
        assert np.mean(encoded.arrays[name] == array) > 0.99
    assert mel_distance(sound, tok.decode(codes)) < 12


@pytest.mark.parametrize("depth", [0, -1, 11])
def test_unknown_depth(depth):
    with pytest.raises(CodesError, match="1 to 10 codes"):
        tokenizer("audio").encode(some_audio(0.1), depth=depth)


def test_rate_must_not_change():
    with pytest.raises(CodesError, match="rate changes"):
        list(tokenizer("audio").encode_stream([some_audio(0.1, 16000), some_audio(0.1, 8000)]))


@given(st.integers(1, 200000), st.integers(4000, 192000))
def test_blocks_cover_the_sound(samples, rate):
    n = blocks(samples, rate)
    assert (n - 1) * spectrum.BLOCK / spectrum.RATE < samples / rate + 1 / spectrum.RATE
    assert n * spectrum.BLOCK / spectrum.RATE >= samples / rate


def test_blocks_keep_as_many_codes_as_they_are_given():
    tok, sound = tokenizer("audio"), some_audio(3.0, 16000, 3)
    whole = tok.encode(sound)
    n = whole.arrays["audio/1"].size
    depths = np.array([0] * 5 + [10] * 20 + [3] * (n - 25))
    part = spans(whole, depths)
    assert part.tokens()["audio/10"] == 20
    assert part.tokens()["audio/1"] == n - 5
    assert part.tokens()["depth"] == len(part.children) == 1 + 2 + -(-(n - 25) // 16)
    back = tok.decode(part)
    assert back.samples.shape == sound.samples.shape
    assert np.abs(back.samples[: 4 * 1280]).max() < 0.01 < np.abs(back.samples[6 * 1280 :]).max()


def test_equal_depths_decode_as_a_prefix_does():
    tok, sound = tokenizer("audio"), some_audio(1.0, 16000, 3)
    whole, prefix = tok.encode(sound), tok.encode(sound, depth=4)
    part = spans(whole, np.full(whole.arrays["audio/1"].size, 4))
    np.testing.assert_allclose(tok.decode(part).samples, tok.decode(prefix).samples, atol=1e-4)


@pytest.mark.parametrize("fault", ["cover", "blocks of", "not spans"])
def test_wrong_spans_are_refused(fault):
    tok = tokenizer("audio")
    whole = spans(tok.encode(some_audio(1.0, 16000, 3)), np.full(13, 2))
    arrays = dict(whole.children[0].arrays)
    short = {name: array[:-1] for name, array in arrays.items() if name != "depth"}
    child = {
        "cover": {"depth": arrays["depth"] - 1} | short,
        "blocks of": arrays | {"depth": arrays["depth"] - 1},
        "not spans": {"audio/1": arrays["audio/1"]},
    }[fault]
    bad = Codes("audio", whole.header, {}, (Codes("span", {}, child),))
    with pytest.raises(CodesError, match=fault):
        tok.decode(bad)


@pytest.mark.parametrize("rate", [(1 << 62) + 1, 99_999_989])
def test_a_rate_beyond_reason_is_refused(rate):
    with pytest.raises(CodesError, match="over the limit of 768000 Hz"):
        tokenizer("audio").decode(Codes("audio", {"samples": 0, "rate": rate}, {"audio/1": np.zeros(0, np.int32)}))
