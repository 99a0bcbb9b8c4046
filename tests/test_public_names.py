"""What `panglot` offers, and what importing it costs. A name that is added or removed here is a decision."""

import subprocess
import sys

import pytest

import panglot

PUBLIC = {
    *("Text", "Image", "Audio", "Video", "MediaInfo", "MediaError"),
    *("open", "probe", "save", "open_stream"),
    *("Codes", "Alphabet", "Tokenizer", "CodesError", "tokenizer"),
    *("encode", "decode", "read_tokens", "write_tokens", "TokenFileError"),
    *("load", "Panglot"),
    "__version__",
}


def test_the_public_names_are_these():
    assert set(panglot.__all__) == PUBLIC
    assert set(dir(panglot)) == PUBLIC
    assert list(panglot.__all__) == sorted(panglot.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_name_is_there(name):
    assert getattr(panglot, name) is getattr(panglot, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'encrypt'"):
        _ = panglot.encrypt


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert panglot.__version__ == version("panglot")


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import panglot", "torch numpy PIL av soundfile scipy matplotlib typer"),
        ("import panglot.cli", "torch numpy PIL av soundfile scipy matplotlib"),
        ("import panglot; panglot.open; panglot.probe; panglot.Codes", "torch scipy matplotlib"),
        ("import panglot; panglot.tokenizer('text')", "torch scipy matplotlib"),
    ],
)
def test_imports_stay_light(statement, unwanted):
    code = f"{statement}; import sys; print(*[m for m in {unwanted.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
