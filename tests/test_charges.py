"""What other models charge: the published examples, the data file against itself, limits, and `panglot count`."""

import inspect
import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import panglot
from panglot import charges, cli, media
from panglot.charges import Size
from panglot.media import MediaInfo
from panglot.testing import some_audio, some_image, some_video

DEMO = Path(panglot.__file__).parent / "assets" / "demo"
TABLE = charges.table()
MODELS = TABLE["models"]
FORMULAS = [(model, modality) for model, formulas in MODELS.items() for modality in formulas]

sides = st.integers(1, 12_000)


def info_of(example: dict) -> MediaInfo:
    sizes = {name: example[name] for name in ("width", "height", "fps", "frames") if name in example}
    modality = "video" if "frames" in example else "audio" if "seconds" in example else "image"
    return MediaInfo(modality, duration=example.get("seconds"), **sizes)


def numbers(model: str, modality: str = "image") -> dict:
    return {name: value for name, value in MODELS[model][modality].items() if name not in charges.SAID}


def tokens(model: str, width: int, height: int) -> int | None:
    return charges.charge(model, MediaInfo("image", width=width, height=height)).tokens


def heard(model: str, seconds: float) -> int | None:
    return charges.charge(model, MediaInfo("audio", duration=seconds)).tokens


# ---------------------------------------------------------------------------------------------------------------------
# The data file


@pytest.mark.parametrize("example", TABLE["examples"], ids=lambda e: " ".join(map(str, e.values()))[:60])
def test_every_published_example(example):
    model, info = example["model"], info_of(example)
    if "patches" in example:
        formula = numbers(model)
        got = charges.patches(info.width or 0, info.height or 0, formula["patch"], formula["budget"])
        assert got == example["patches"]
    else:
        assert charges.charge(model, info).tokens == example["tokens"]


def test_no_published_example_was_lost():
    kept = {(e["model"], e.get("width"), e.get("height"), e.get("seconds")) for e in TABLE["examples"]}
    assert kept >= {
        *(("gpt-5.4", n, n, None) for n in (1024, 2048)),
        *(("gpt-4.1-mini@older", *size, None) for size in ((1024, 1024), (1800, 2400))),
        *(("gpt-4o", *size, None) for size in ((1024, 1024), (2048, 4096))),
        *(("claude", *size, None) for size in ((1000, 1000), (1075, 1520))),
        ("gemini-2.5", 960, 540, None),
        ("gemini-2.5", None, None, 60),
        ("qwen2-audio", None, None, 1),
        ("qwen3-omni", None, None, 30),
        ("llama-4", 336, 336, None),
        ("llava-1.5", 3000, 2000, None),
    }
    assert all(e["source"] in TABLE["sources"] for e in TABLE["examples"])


@pytest.mark.parametrize(("model", "modality"), FORMULAS, ids=" ".join)
def test_a_formula_has_its_kind_numbers_and_source(model, modality):
    formula = MODELS[model][modality]
    assert modality in ("image", "audio", "video")
    assert formula["source"] in TABLE["sources"]
    parameters = inspect.signature(charges.KINDS[formula["kind"]]).parameters
    needed = {name for name, p in parameters.items() if p.default is p.empty} - {"size"}
    assert needed <= set(numbers(model, modality)) <= set(parameters) - {"size"}
    assert formula.get("bound", "") in ("", "at most", "about")


def test_sources_have_title_date_and_address():
    for source in TABLE["sources"].values():
        assert set(source) == {"title", "as_of", "url"}
        assert re.search(r"20\d\d", source["as_of"])
        assert source["url"].startswith("https://")
    assert isinstance(TABLE["version"], int)
    assert re.fullmatch(r"20\d\d-\d\d", TABLE["as_of"])


def test_each_kind_of_formula_is_used_and_names_its_source():
    used = {MODELS[model][modality]["kind"] for model, modality in FORMULAS}
    assert used == set(charges.KINDS)
    for kind, function in charges.KINDS.items():
        assert function.__doc__, kind
        assert kind == "fixed" or "Source" in function.__doc__


def test_what_is_usually_compared_is_there():
    assert set(charges.USUAL.split(",")) <= set(charges.models())
    assert len(set(charges.models())) == len(charges.models())


# ---------------------------------------------------------------------------------------------------------------------
# Formulas


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FORMULAS), sides, sides, st.floats(0.01, 4000), st.integers(1, 90_000))
def test_a_charge_is_a_whole_number_or_unknown(formula, width, height, seconds, frames):
    model, modality = formula
    info = MediaInfo(modality, width=width, height=height, duration=seconds, frames=frames, fps=frames / seconds)
    found = charges.charge(model, info).tokens
    assert found is None or (type(found) is int and found >= 0)


@settings(deadline=None, max_examples=60)
@given(sides, sides)
def test_limits_are_kept(width, height):
    assert 2 <= tokens("gpt-5.4", width, height) <= 3_000
    assert 2 <= tokens("gpt-5.4:original", width, height) <= 12_000
    assert tokens("gpt-4.1-mini@older", width, height) <= 2_489  # ceil(1,536 * 1.62)
    assert 1 <= tokens("claude", width, height) <= 1_568
    assert 1 <= tokens("claude-high", width, height) <= 4_784
    assert tokens("claude@older", width, height) <= 1_600
    assert 85 + 170 <= tokens("gpt-4o", width, height) <= 85 + 8 * 170
    assert 147 <= tokens("llama-4", width, height) <= 17 * 144 + 16 + 3
    assert tokens("gemini-2.5", width, height) % 258 == 0
    assert tokens("llava-1.5", width, height) == 576


@pytest.mark.parametrize("model", ["qwen2-vl", "qwen2.5-vl", "qwen2.5-vl:class", "qwen3-vl"])
@settings(deadline=None, max_examples=60)
@given(width=sides, height=sides)
def test_smart_resize_keeps_to_its_area(model, width, height):
    limits = numbers(model)
    across, down = charges.smart_resize(Size(width, height), **limits)
    if max(width, height) > 200 * min(width, height):
        assert tokens(model, width, height) is None
    else:
        assert limits["least"] <= across * down <= limits["most"]
        assert across % limits["factor"] == down % limits["factor"] == 0
        assert tokens(model, width, height) == across * down // limits["factor"] ** 2


@settings(deadline=None, max_examples=60)
@given(sides, sides, st.integers(0, 2000), st.integers(0, 2000))
def test_more_pixels_never_cost_less_where_nothing_is_scaled(width, height, wider, taller):
    larger = width + wider, height + taller
    assert tokens("gpt-5.6:original", *larger) >= tokens("gpt-5.6:original", width, height)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6000), st.integers(0, 500))
def test_larger_squares_never_cost_less(side, more):
    for model in ("claude", "claude-high", "gpt-4o", "gpt-image-1"):
        assert tokens(model, side + more, side + more) >= tokens(model, side, side)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 400_000), st.integers(0, 5_000))
def test_longer_sound_never_costs_less(milliseconds, more):
    for model in ("gpt-realtime", "gemini-2.5", "qwen2-audio", "qwen3-omni"):
        assert heard(model, (milliseconds + more) / 1000) >= heard(model, milliseconds / 1000)


@settings(deadline=None, max_examples=60)
@given(sides, sides)
def test_turning_a_picture_costs_nothing(width, height):
    for model in ("gpt-5.4", "gpt-4o", "claude", "gemini-2.5", "qwen2.5-vl", "llama-4"):
        assert tokens(model, width, height) == tokens(model, height, width)


@settings(deadline=None, max_examples=60)
@given(sides, sides)
def test_the_tier_of_claude_is_the_largest_size_that_fits(width, height):
    """Against trying every length of the longer side."""
    long, short = max(width, height), min(width, height)
    tried = [charges.cells(e, 28) * charges.cells(max(1, round(e * short / long)), 28) for e in range(1, long + 1)]
    assert tokens("claude", width, height) == [n for n in tried[:1568] if n <= 1568][-1]


def test_numbers_worked_out_by_hand():
    assert tokens("gpt-5.4", 3000, 2000) == 2_880  # 2,048 x 1,365, then 1,920 x 1,280: 60 * 40 * 1.2
    assert tokens("gpt-5.4:original", 3000, 2000) == 7_107  # 94 * 63 * 1.2 = 7,106.4
    assert tokens("claude", 3000, 2000) == 48 * 32  # 1,344 x 896
    assert tokens("qwen2.5-vl", 3000, 2000) == 107 * 71
    assert tokens("llama-4", 3000, 2000) == 144 * 16 + 3 * 4 + 3 + 3  # 3 x 5 tiles shrink it least
    assert tokens("llama-4", 672, 336) == 144 * 3 + 1 + 1 + 3
    assert tokens("llama-4", 100, 100) == 147
    assert tokens("gpt-4o", 128, 64) == 85 + 170  # is not enlarged to 768
    assert tokens("gpt-image-1:high", 512, 512) == 65 + 129 + 4_160
    assert tokens("gpt-image-1:high", 512, 500) == 65 + 129 + 6_240
    assert tokens("gemini-2.5", 1000, 1) == 258 * 1000  # the crop is at least one pixel
    assert heard("qwen2-audio", 60) == 750  # cut at 30 s
    assert heard("qwen3-omni", 1.01) == 14


def test_sizes_of_a_sound_are_exact():
    """30 s at 44.1 kHz are 3,000 frames, one sample less are 2,999: in floating point they could be either."""
    n = 30 * 44_100
    whole, less = (charges.charge("qwen3-omni", MediaInfo("audio", rate=44_100, samples=k)).tokens for k in (n, n - 1))
    assert (whole, less) == (390, 29 * 13 + 13)
    assert Size.of(MediaInfo("audio", rate=44_100, samples=n - 1)).seconds == Fraction(n - 1, 44_100)


def test_beyond_what_all_copies_say_it_is_unknown():
    assert tokens("gpt-5-nano", 1024, 1024) == 1_536
    assert tokens("gpt-5-nano", 1280, 1280) is None  # 1,600 patches
    assert tokens("gpt-5-nano", 3000, 64) is None  # longer than 2,048
    assert tokens("gpt-5-nano@older", 3000, 2000) == 3_585  # 47 * 31 patches * 2.46, rounded up


def test_video_of_qwen3_vl():
    def seen(frames, fps, width=640, height=480):
        size = {"width": width, "height": height}
        return charges.charge("qwen3-vl", MediaInfo("video", frames=frames, fps=fps, **size)).tokens

    assert seen(250, 25.0) == 10 * 20 * 15  # 20 frames, two a step
    assert seen(25, 25.0) == 2 * 20 * 15  # at least 4 frames
    assert seen(3, 25.0) == 2 * 20 * 15  # but no more than there are
    assert seen(1, 25.0) is None  # its code refuses one frame
    assert seen(90_000, 25.0) <= 25_165_824 // 1024 // 2  # 768 frames, scaled to the volume
    assert seen(250, 25.0, 8000, 30) is None  # too long a shape
    unknown = MediaInfo("video", width=640, height=480, fps=25.0)
    assert charges.charge("qwen3-vl", unknown).tokens is None


def test_unknown_is_said_where_nothing_is_published():
    video = MediaInfo("video", width=640, height=480, frames=50, fps=25.0, duration=2.0, rate=16000, samples=32000)
    assert [m for m in MODELS if charges.charge(m, video).tokens is not None] == [
        "gemini-2.5",
        *("gemini-3:low", "gemini-3:medium", "gemini-3:high", "qwen3-vl"),
    ]
    assert all(charges.charge(m, MediaInfo("text", characters=100)).tokens is None for m in MODELS)
    assert charges.charge("qwen3-omni", MediaInfo("image", width=10, height=10)).tokens is None
    assert charges.charge("gemini-2.5", MediaInfo("audio")).tokens is None  # a stream that tells no length
    assert str(charges.charge("claude", video)) == "unknown"
    assert str(charges.charge("gemini-3:low", video)) == "at most 140 (pictures)"


def test_nothing_is_decoded(tmp_path):
    """Half a photo cannot be opened, but its sizes are there, and so are its charges."""
    data = (DEMO / "photo.jpg").read_bytes()
    half = tmp_path / "half.jpg"
    half.write_bytes(data[: len(data) // 2])
    with pytest.raises(media.MediaError):
        media.open(half)
    whole = charges.count(DEMO / "photo.jpg", charges.models()).charges
    assert charges.count(half, charges.models()).charges == whole
    assert whole["claude"].tokens == 23 * 18


def test_panglot_counts_what_it_writes(tmp_path):
    """That `count` of a tokenizer is what its `encode` returns is part of the contract, which other tests hold."""
    panglot.save(some_image(40, 70), tmp_path / "a.png")
    panglot.save(some_audio(0.5, 16000), tmp_path / "a.wav")
    panglot.save(some_video(9, 32, 48, fps=20.0, rate=16000), tmp_path / "a.mp4")
    shutil.copy(DEMO / "text.txt", tmp_path / "a.txt")
    own = {
        name: charges.count(tmp_path / f"a.{name}", ["panglot"]).charges["panglot"] for name in ("png", "wav", "mp4")
    }
    assert own["png"].tokens == sum(-(-40 // s) * -(-70 // s) for s in (32, 16, 8))
    assert own["wav"].tokens == sum(panglot.tokenizer("audio").count(media.probe(tmp_path / "a.wav")).values())
    assert own["mp4"].tokens == sum(panglot.tokenizer("video").count(media.probe(tmp_path / "a.mp4")).values())
    assert [charge.bound for charge in own.values()] == ["", "", "at most"]
    text = charges.count(tmp_path / "a.txt", ["panglot"]).charges["panglot"]
    assert text.tokens == sum(panglot.encode(media.open(tmp_path / "a.txt")).tokens().values())


def test_panglot_does_not_guess_a_length_that_a_file_does_not_tell():
    video = MediaInfo("video", width=64, height=48, fps=25.0)
    assert charges.own_charge("a.webm", video).tokens is None
    assert charges.own_charge("a.ogg", MediaInfo("audio", rate=48000)).tokens is None


# ---------------------------------------------------------------------------------------------------------------------
# On the command line


@pytest.fixture
def count(capfd):
    """Run `panglot count`; returns exit code, standard output and standard error."""

    def run(*args) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(["count", *map(str, args)])
        return code, *capfd.readouterr()

    return run


def test_a_table_with_sources(count):
    code, out, err = count(DEMO / "photo.jpg", DEMO / "voice.ogg", "--for", "gpt-5.4,Claude,gemini-2.5,claude")
    assert (code, err) == (0, "")
    rows = {
        line.split("│")[1].strip(): [c.strip() for c in line.split("│")[2:4]]
        for line in out.splitlines()
        if "│" in line
    }
    assert rows == {"gpt-5.4": ["360", "unknown"], "claude": ["414", "unknown"], "gemini-2.5": ["1,032", "119"]}
    assert "claude: Anthropic, guide to vision, as of 2026-11" in out
    assert "https://" not in out
    more = count(DEMO / "photo.jpg", "--for", "claude", "--sources")[1]
    assert "https://platform.claude.com" in more
    assert "claude, image: All models before" in more


def test_many_files_run_down(count):
    files = [DEMO / "photo.jpg", DEMO / "voice.ogg", DEMO / "video.mp4"]
    out = count(*files, "--for", "gemini-2.5,claude")[1]
    assert "┃ file" in out
    assert re.search(r"│ video.mp4 +│ +663 │ +unknown │", out)


def test_json_is_an_object_a_file(count):
    code, out, err = count(DEMO / "photo.jpg", DEMO / "video.mp4", "--for", "all", "--price", "claude=3", "--json")
    photo, video = map(json.loads, out.splitlines())
    assert (code, err) == (0, "")
    assert (photo["width"], photo["height"], photo["modality"]) == (640, 480, "image")
    assert list(photo["charges"]) == list(charges.models())
    assert photo["charges"]["claude"] == {"tokens": 414, "dollars": 0.001242}
    assert photo["charges"]["gemini-3:low"] == {"tokens": 280, "bound": "at most"}
    assert video["charges"]["claude"] == {"tokens": None, "dollars": None}
    assert video["charges"]["panglot"]["bound"] == "at most"
    row = json.loads(count(DEMO / "photo.jpg", "--for", "claude", "--json", "--sources")[1])["charges"]["claude"]
    assert (row["as_of"], "Anthropic" in row["source"]) == ("2026-11", True)


def test_prices_only_if_given(count):
    assert "$" not in count(DEMO / "photo.jpg", "--for", "gpt-5.4")[1]
    out = count(DEMO / "photo.jpg", "--for", "gpt-5.4,claude", "--price", "gpt-5.4=2.5")[1]
    assert "360 = $0.000900" in out
    assert "414 │" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--for", "gtp-4o"], ["--for gtp-4o", "gpt-4o"]),
        (["--for", "zzz"], ["--for zzz", "--for all"]),
        (["--for", ","], ["--for", "names no model"]),
        (["--for", "claude", "--price", "claude"], ["--price claude", "MODEL=DOLLARS"]),
        (["--for", "claude", "--price", "claude=-1"], ["--price claude=-1", "MODEL=DOLLARS"]),
        (["--for", "claude", "--price", "claude=1/0"], ["--price claude=1/0", "MODEL=DOLLARS"]),
        (["--for", "claude", "--price", "claude=1e-400000000"], ["--price claude=1e-4", "MODEL=DOLLARS"]),
        (["--for", "claude", "--price", "claude=1e400"], ["--price claude=1e400", "MODEL=DOLLARS"]),
        (["--for", "claude", "--price", "gpt-5.4=1"], ["gpt-5.4", "--for"]),
    ],
)
def test_a_bad_wish_is_one_line(count, args, words):
    code, out, err = count(DEMO / "photo.jpg", *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("panglot: ")
    assert all(word in err for word in words), err


def test_a_bad_file_does_not_stop_the_others(count):
    code, out, err = count("nowhere.jpg", DEMO / "photo.jpg", "--for", "llava-1.5")
    assert code == 2
    assert err.startswith("panglot: nowhere.jpg: ")
    assert err.count("\n") == 1
    assert "576" in out
