"""The baselines that panglot is measured against: a weak baseline would flatter, so each is held to what is known."""

import io
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import _common  # noqa: E402
import _inputs  # noqa: E402
import _movies  # noqa: E402
import _peers  # noqa: E402
import _pictures  # noqa: E402
import _sounds  # noqa: E402
import image_fidelity  # noqa: E402
import sound_fidelity  # noqa: E402
import speed  # noqa: E402
import video_fidelity  # noqa: E402
from _klt import Klt, lloyd_max  # noqa: E402

from panglot.measure import align, mel_distance, psnr  # noqa: E402
from panglot.media import Audio  # noqa: E402


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return _inputs.photo(128, 128)


@pytest.fixture(scope="module")
def speechlike() -> Audio:
    return Audio(_inputs.sound(4, 16_000), 16_000)


def patches(pixels: np.ndarray, side: int) -> np.ndarray:
    view = np.lib.stride_tricks.sliding_window_view(pixels, (side, side, 3))[::4, ::4, 0]
    return view.reshape(-1, side * side * 3).astype(np.float32)


# KLT and quantisers


def test_lloyd_max_of_a_normal_source_reaches_the_errors_of_max_1960():
    samples = np.sort(np.random.default_rng(0).normal(size=100_000))
    for levels, error in {1: 1.0, 2: 0.3634, 4: 0.1175, 8: 0.03454}.items():
        assert lloyd_max(samples, levels)[1] == pytest.approx(error, rel=0.03)


def test_klt_psnr_rises_with_bits(picture):
    klt = Klt.fit(patches(_inputs.photo(256, 256, seed=1), 8), keep=64)
    scores = [psnr(picture, image_fidelity.klt_code(klt, picture, 8, bits)) for bits in (2, 6, 12, 24, 48)]
    assert all(b > a + 0.3 for a, b in pairwise(scores))


@settings(max_examples=12, deadline=None)
@given(bits=st.floats(0, 60), seed=st.integers(0, 3))
def test_levels_keep_within_the_bits_and_leave_no_room(bits, seed):
    rng = np.random.default_rng(seed)
    klt = Klt.fit(rng.normal(size=(400, 12)).astype(np.float32) * 2.0 ** -np.arange(12), keep=12)
    levels = klt.levels(bits)
    spent = sum(map(math.log2, levels))
    assert spent <= bits + 1e-6
    assert bits < 1 or spent > bits - 1


def test_water_filling_gives_strong_components_more_levels():
    rng = np.random.default_rng(0)
    klt = Klt.fit((rng.normal(size=(4000, 6)) * 3.0 ** -np.arange(6)).astype(np.float32), keep=6)
    first, second, third, *rest = klt.levels(10)
    assert 1.5 < first / second < 5  # one level more for a third of the error, where levels are many
    assert 1.5 < second / third < 5
    assert len(rest) <= 1


# Payloads


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Pil.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 4}])
def test_jpeg_payload_is_what_lies_between_the_scan_headers_and_the_next_marker(picture, options):
    data = jpeg(picture, quality=40, **options)
    payload = _pictures.jpeg_scan_bytes(data)
    assert 0 < payload < len(data) - 150
    longer = data[:2] + b"\xff\xfe\x00\x42" + bytes(64) + data[2:]  # a comment segment is no payload
    assert _pictures.jpeg_scan_bytes(longer) == payload


def test_jpeg_payload_of_a_baseline_file_by_hand(picture):
    data = jpeg(picture, quality=40)
    scan = data.index(b"\xff\xda")
    header = 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    assert _pictures.jpeg_scan_bytes(data) == len(data) - len(b"\xff\xd9") - scan - header


@pytest.mark.parametrize(
    "count", [_pictures.jpeg_scan_bytes, _pictures.webp_payload_bytes, _pictures.avif_payload_bytes]
)
def test_payload_of_another_format_is_refused(count):
    with pytest.raises(ValueError, match="not a"):
        count(b"GIF89a" + bytes(100))


@pytest.mark.parametrize("codec", [_pictures.JPEG, _pictures.WEBP, _pictures.AVIF], ids=lambda c: c.format)
def test_best_within_keeps_the_budget_and_improves_with_it(picture, codec):
    fast = _pictures.Codec(codec.format, codec.top, codec.settings[:1], codec.payload, (0.5, 0.25))
    coded = [_pictures.best_within(picture, fast, budget, psnr) for budget in (400, 1600)]
    assert all(c is not None and c.bytes <= b for c, b in zip(coded, (400, 1600), strict=True))
    assert psnr(picture, coded[1].pixels) > psnr(picture, coded[0].pixels) + 0.5
    assert _pictures.best_within(picture, fast, 5, psnr) is None


def test_sei_units_are_not_counted():
    frames = _inputs.moving(6, 64, 96)
    for name, (_, codec, _) in _movies.ENCODERS.items():
        packets, size = _movies.encode(frames, 25.0, name, 30)
        everything = sum(packet.size for packet in packets)
        assert 200 < everything - size < 3000  # x264 and x265 write their settings into one message
        assert _movies.without_sei(b"", codec) == 0
        assert _movies.decode(packets, name).shape == frames.shape
        assert _movies.mean_psnr(frames, _movies.decode(packets, name)) > 22


def test_a_codec_in_a_process_of_its_own_gives_the_same_video():
    frames = _inputs.moving(4, 192, 256)
    for name in _movies.ENCODERS:
        here, apart = (search(frames, 25.0, name, 5000) for search in (_movies.best_within, _movies.best_within_apart))
        assert here is not None
        assert apart is not None
        assert (here.bytes, here.how) == (apart.bytes, apart.how)
        assert np.array_equal(here.frames, apart.frames)
    assert _movies.best_within_apart(frames, 25.0, "x264", 5) is None
    with pytest.raises(_common.Missing, match=r"x266's process ended with exit code 1: KeyError"):
        _movies.best_within_apart(frames, 25.0, "x266", 900)


def test_the_process_of_a_codec_holds_no_torch():
    code = "import sys, _movies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS).returncode == 0


# Peers


def told(*lines: str, limit: float = 60.0, then: str = "") -> _peers.Timing:
    """What `listened` makes of a process that prints these lines and then does something."""
    code = "import time\n" + "".join(f"print({line!r}, flush=True)\n" for line in lines) + then
    return _peers.listened([sys.executable, "-c", code], limit)


NAMED, BEGIN, SECOND = '{"name": "X", "parameters": 7}', '{"begin": 0}', '{"seconds": 1.0, "distinct": 99}'


def test_a_peer_is_timed_without_its_first_call():
    slow, other = '{"seconds": 5.0, "distinct": 99}', '{"seconds": 2.0, "distinct": 99}'
    timing = told(NAMED, BEGIN, slow, BEGIN, SECOND, BEGIN, other, '{"end": true}')
    assert (timing.name, timing.parameters, timing.distinct) == ("X", 7, 99)
    assert (timing.seconds, timing.bound) == (1.5, False)
    assert told(NAMED, BEGIN, slow, '{"end": true}').seconds == 5.0


def test_a_peer_that_takes_too_long_has_a_lower_bound():
    timing = told(NAMED, BEGIN, limit=1.0, then="time.sleep(60)")
    assert timing.bound
    assert 0.9 < timing.seconds < 10


def test_a_peer_that_is_stopped_later_keeps_what_it_has_shown():
    timing = told(NAMED, BEGIN, SECOND, BEGIN, limit=1.0, then="time.sleep(60)")
    assert (timing.seconds, timing.bound) == (1.0, False)


def test_a_peer_that_fails_says_why():
    with pytest.raises(_common.Missing, match="exit code 1: ValueError: no luck"):
        told(NAMED, BEGIN, SECOND, then="raise ValueError('no luck')")
    with pytest.raises(_common.Missing, match="pip install it"):
        told('{"missing": "pip install it"}')


def test_every_peer_has_a_row_and_a_goal_has_a_peer():
    names = {f"{kind}/{name}" for kind, peers in _peers.PEERS.items() for name in peers}
    assert names <= set(speed.row_names())
    assert set(speed.WANTED) <= names


# Sound


def test_linear_sound_code_improves_with_bits(speechlike):
    trained = _sounds.Linear.fit([Audio(_inputs.sound(6, 16_000, seed=s), 16_000) for s in (1, 2)], keep=48)
    distances = []
    for bits in (5, 20, 80):
        coded = trained.code(speechlike, bits)
        assert coded.bits == bits * 50  # 4 s of blocks of 80 ms
        assert coded.audio.samples.shape == speechlike.samples.shape
        distances.append(mel_distance(speechlike, coded.audio))
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > distances[2] + 0.5


def test_spectrum_inverts(speechlike):
    samples = speechlike.samples[:16_000].astype(np.float64)
    back = _sounds.Linear._istft(_sounds.Linear._stft(samples), len(samples))
    np.testing.assert_allclose(back[512:-512], samples[512:-512], atol=1e-9)


def test_opus_keeps_its_rate_and_the_sound(speechlike):
    coded = _sounds.opus(speechlike, 6000)
    assert 3000 < coded.bits / 4 < 8000
    assert mel_distance(speechlike, coded.audio) < 15
    x, y = align(speechlike.samples, coded.audio.samples, 2400)
    assert np.corrcoef(x, y)[0, 1] > 0.5


def test_a_missing_program_names_its_debian_package(monkeypatch, speechlike):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(_common.Missing, match="apt-get install codec2"):
        _sounds.codec2(speechlike, "1300")


# Bookkeeping


def test_tokens_at_the_same_quality_are_interpolated_and_marked():
    points = [(20.0, 100.0), (24.0, 400.0), (28.0, 1600.0)]
    assert video_fidelity.same_quality(points, 22.0) == (pytest.approx(200), "")
    assert video_fidelity.same_quality(points, 18.0) == (pytest.approx(100), "<=")
    assert video_fidelity.same_quality(points, 30.0) == (pytest.approx(1600), ">=")


def test_margins_have_the_right_sign():
    image = image_fidelity.margins({"panglot/16": 25.0, "jpeg/16": 23.0, "panglot/8": 28.0})
    rows = {row["peer"]: row for row in image.rows}
    assert rows["jpeg"]["stride 16, effort 0"] == 2.0
    assert rows["panglot, stride 16"]["stride 8, effort 0"] == 3.0
    assert rows["avif"]["stride 8, effort 0"] is None
    sound = sound_fidelity.checks({"panglot/10": {"mel dB, esc10": 3.0}, "opus/6k": {"mel dB, esc10": 5.0}})
    assert next(r for r in sound.rows if r["peer"] == "opus/6k" and r["what"] == "mel dB, esc10")["margin"] == 2.0


@pytest.mark.parametrize("script", ["image_fidelity", "sound_fidelity", "video_fidelity", "speed", "memory"])
def test_every_script_explains_itself_and_refuses_unknown_rows(script, tmp_path):
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--data", str(tmp_path), "--only", "nonsense"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert "no such row; there are" in run.stderr
    assert "Traceback" not in run.stderr
