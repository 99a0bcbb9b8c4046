from pathlib import Path

import numpy as np
import pytest

from panglot import tokenfile
from panglot.media import Audio, Image, Video
from panglot.testing import TokenizerContract, some_image, some_video
from panglot.tokenizers import change, tokenizer
from panglot.tokenizers.base import Codes, CodesError
from panglot.tokenizers.image import to_pixels
from panglot.tokenizers.video import _Encoder

GOLDEN = Path(__file__).parent / "data" / "golden_video.pgt"


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean())


class TestVideoContract(TokenizerContract):
    counts_exactly = False
    prefixes_decode = False
    blocks_may_be_absent = True

    def tokenizer(self):
        return tokenizer("video")

    def samples(self):
        return [
            some_video(11, 64, 48, 1),
            some_video(6, 33, 70, 2, rate=None),
            some_video(1, 32, 32, 3),
            some_video(9, 40, 40, 4, fps=10.0, rate=8000),
        ]

    def options(self):
        return ({"depth": 2}, {"stride": 8, "depth": 1}, {"stride": 16, "depth": 1, "keyframe": 8})


def kinds(codes: Codes) -> list[str]:
    return [child.modality for child in codes.children if child.modality != "audio"]


def test_one_frame_is_an_image():
    tok, picture = tokenizer("video"), some_image(70, 50, 3)
    for stride in (32, 16, 8):
        codes = tok.encode(Video(picture.pixels[None], 25.0, None), stride=stride)
        assert codes.children == (tokenizer("image").encode(picture, stride=stride),)
        assert np.array_equal(tok.decode(codes).frames[0], tokenizer("image").decode(codes.children[0]).pixels)


def test_a_still_picture_costs_little_more_than_the_picture():
    picture = some_image(256, 256, 3)
    tok = tokenizer("video")
    codes = tok.encode(Video(picture.pixels[None].repeat(125, 0), 25.0, None))
    still, image = sum(codes.tokens().values()), sum(tokenizer("image").encode(picture, stride=16).tokens().values())
    assert still <= 1.05 * image
    frames = tok.decode(codes).frames
    assert len(frames) == 125
    assert (frames == frames[0]).all()


def test_a_cut_starts_a_keyframe():
    a, b = some_image(64, 96, 3).pixels, 255 - some_image(64, 96, 8).pixels
    codes = tokenizer("video").encode(Video(np.stack([a] * 6 + [b] * 5), 25.0, None))
    assert kinds(codes) == ["image", "same", "change", "image", "same"]
    decoded = tokenizer("video").decode(codes).frames
    assert len(decoded) == 11
    assert psnr(decoded[5], a) > 15 < psnr(decoded[6], b)


def test_what_does_not_change_stays_to_the_bit_and_what_moves_is_followed():
    still = some_image(128, 128, 3).pixels
    frames = still[None].repeat(13, 0).copy()
    for i in range(1, 13):
        frames[i, 40:60, 8 + 4 * i : 28 + 4 * i] = (250, 30, 30)
    tok = tokenizer("video")
    codes = tok.encode(Video(frames, 25.0, None), stride=8)
    decoded = tok.decode(codes).frames
    assert (decoded[:, 96:] == decoded[0, 96:]).all()
    held = decoded[:1].repeat(13, 0)
    box = np.s_[1:, 32:64]
    assert psnr(decoded[box], frames[box]) > psnr(held[box], frames[box]) + 1.5


def test_sound_stays_beside_its_picture():
    video = some_video(50, 32, 32, 3, fps=25.0, rate=16000)
    codes = tokenizer("video").encode(video, depth=1)
    frames = sounds = 0
    for child in codes.children:
        if child.modality == "audio":
            sounds += len(child.arrays["audio/1"])
            assert frames / 25 - 0.16 < sounds * 0.08 <= frames / 25 + 0.08
        else:
            frames += {"image": 1}.get(child.modality) or (
                int(child.arrays["span"][0]) + 1 if "span" in child.arrays else 4 * (int(child.arrays["hold"][0]) + 1)
            )
    alone = tokenizer("audio").encode(video.audio, depth=1)
    whole = np.concatenate([c.arrays["audio/1"] for c in codes.children if c.modality == "audio"])
    assert np.array_equal(whole, alone.arrays["audio/1"])


def test_pieces_of_decoding_add_up_and_carry_their_own_sound():
    video = some_video(13, 32, 48, 5, fps=12.5, rate=11025)
    tok = tokenizer("video")
    codes = tok.encode(video, depth=1)
    pieces, whole = list(tok.decode_stream(codes)), tok.decode(codes)
    assert np.array_equal(np.concatenate([p.frames for p in pieces]), whole.frames)
    ends = np.cumsum([len(p.frames) for p in pieces])
    marks = np.cumsum([len(p.audio.samples) for p in pieces])
    assert marks[-1] == len(video.audio.samples)
    assert list(marks[:-1]) == [round(end / 12.5 * 11025) for end in ends[:-1]]


def test_golden_codes():
    tok = tokenizer("video")
    (codes,) = tokenfile.read(GOLDEN, tok.alphabets)
    video = some_video(9, 48, 64, 11, rate=8000)
    encoded = tok.encode(video, depth=2)
    assert kinds(encoded) == kinds(codes)
    assert psnr(tok.decode(codes).frames, video.frames) == pytest.approx(
        psnr(tok.decode(encoded).frames, video.frames), abs=0.3
    )


def test_bad_parts_are_refused():
    tok = tokenizer("video")
    good = tok.encode(some_video(6, 32, 32, 1), depth=1)
    headless = Codes("video", good.header, {}, good.children[1:])
    with pytest.raises(CodesError, match="begin with a keyframe"):
        tok.decode(headless)
    with pytest.raises(CodesError, match="no part 'smell'"):
        tok.decode(Codes("video", good.header, {}, (*good.children, Codes("smell"))))
    other = tokenizer("image").encode(Image(np.zeros((64, 64, 3), np.uint8)), stride=16)
    with pytest.raises(CodesError, match="size differs"):
        tok.decode(Codes("video", {**good.header, "frames": 1}, {}, (other,)))


def test_silent_and_empty_sound():
    tok = tokenizer("video")
    video = Video(some_image(32, 32).pixels[None], 25.0, Audio(np.zeros(0, np.float32), 16000))
    decoded = tok.decode(tok.encode(video))
    assert decoded.audio is not None
    assert len(decoded.audio.samples) == 0


def test_encoder_and_decoder_go_on_from_the_same_frame():
    clip, tok = some_video(9, 70, 90, 5, rate=None), tokenizer("video")
    for stride in (16, 8):
        encoder = _Encoder(tok, clip, stride, None, stride)
        parts = [*encoder.push(clip), *encoder.finish()]
        assert encoder.last is not None
        assert "change" in kinds(tok.join(parts))
        assert np.array_equal(to_pixels(encoder.last)[0, :70, :90], tok.decode(tok.join(parts)).frames[-1])


def test_a_fine_keyframe_is_kept_where_nothing_changes_and_changes_stay_coarse():
    clip, tok = some_video(9, 64, 96, 5, rate=None), tokenizer("video")
    codes = tok.encode(clip, stride=16, keyframe=8)
    key = codes.children[0]
    assert key.arrays.keys() == {"image/32", "image/16", "image/8"}
    fine = tokenizer("image").encode(Image(clip.frames[0]), stride=8)
    assert np.array_equal(tok.decode(codes).frames[0], tokenizer("image").decode(fine).pixels)
    assert "change" in kinds(codes)
    still = Video(clip.frames[:1].repeat(9, 0), 8.0, None)
    assert kinds(tok.encode(still, stride=16, keyframe=8)) == ["image", "same"]
    shown = tok.decode(tok.encode(clip, stride=16, keyframe=8)).frames
    assert psnr(shown, clip.frames) > psnr(tok.decode(tok.encode(clip, stride=16)).frames, clip.frames)


def test_a_keyframe_is_not_coarser_than_changes():
    with pytest.raises(CodesError, match="keyframe 32: coarser than the changes"):
        tokenizer("video").encode(some_video(3, 64, 64, 5, rate=None), stride=16, keyframe=32)


def test_large_frames_go_in_strips_and_change_little(monkeypatch):
    clip, tok = some_video(5, 300, 64, 6, rate=None), tokenizer("video")
    whole = tok.encode(clip)
    monkeypatch.setattr(change, "PASS", 128 * 64)
    assert len(list(change.strips(320, 64))) == 3
    parts = tok.encode(clip)
    assert tok.decode(parts).frames.shape == clip.frames.shape
    assert abs(psnr(tok.decode(parts).frames, clip.frames) - psnr(tok.decode(whole).frames, clip.frames)) < 0.3


def checkers(seed: int, side: int = 64) -> np.ndarray:
    """A texture uint8 [side, side, 3] that is grey in a thumbnail."""
    half = np.random.default_rng(seed).integers(-120, 121, (side // 2, side // 2))
    sign = np.array([[1, -1], [-1, 1]])
    return (128 + np.kron(half, sign)).astype(np.uint8)[..., None].repeat(3, 2)


@pytest.mark.parametrize("after", [1, 2, 3, 6])
def test_no_frame_is_lost_where_change_cannot_follow(after):
    """Textures with the thumbnail of a flat grey: no cut, and every one wants a keyframe of its own."""
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None], (64, 1, 3))
    frames = [np.full((64, 64, 3), 128, np.uint8), *(checkers(i) for i in range(after)), ramp, ramp]
    tok = tokenizer("video")
    codes = tok.encode(Video(np.stack(frames), 10.0, None))
    decoded = tok.decode(codes).frames
    assert codes.header["frames"] == len(decoded) == len(frames)
    like_the_ramp = [np.corrcoef(frame.ravel(), ramp.ravel())[0, 1] > 0.9 for frame in decoded]
    assert like_the_ramp == [False] * (1 + after) + [True, True]


def test_a_video_keeps_its_rates():
    tok, first = tokenizer("video"), some_video(4, 32, 32, 1, fps=10.0, rate=16000)
    for other in (some_video(4, 32, 32, 1, fps=25.0), some_video(4, 32, 32, 1, fps=10.0, rate=8000)):
        with pytest.raises(CodesError, match="changes from 10 frames/s, sound 16000 Hz"):
            list(tok.encode_stream([first, other]))
    with pytest.raises(CodesError, match="sound None"):
        list(tok.encode_stream([first, some_video(4, 32, 32, 1, fps=10.0, rate=None)]))


def test_headers_that_cannot_be():
    tok = tokenizer("video")
    good = tok.encode(some_video(6, 32, 32, 1), depth=1)
    for name, value, fault in (("frames", 1 << 62, "at most"), ("fps", 1e-320, "frames/s"), ("fps", 1e5, "frames/s")):
        with pytest.raises(CodesError, match=fault):
            tok.decode(Codes("video", {**good.header, name: value}, {}, good.children))
    gone = {"span": np.array([3], np.int32), "change/16": np.full((2, 2), 1, np.int32)}
    with pytest.raises(CodesError, match="or a prefix"):
        tok.decode(Codes("video", good.header, {}, (good.children[0], Codes("change", {}, gone))))
