"""Write the golden token files and stream again: `python tests/make_golden.py`, after new weights were shipped on
purpose."""

import json
from pathlib import Path

from test_stream import GOLDEN, golden_parts

from panglot.convert import write_tokens
from panglot.layout import Layout
from panglot.stream import pack
from panglot.testing import some_audio, some_image, some_video
from panglot.tokenizers import tokenizer

DATA = Path(__file__).parent / "data"


def main() -> None:
    write_tokens(DATA / "golden_image.pgt", tokenizer("image").encode(some_image(80, 100, 11)))
    write_tokens(DATA / "golden_audio.pgt", tokenizer("audio").encode(some_audio(1.0, 24000, 11)))
    video = some_video(9, 48, 64, 11, rate=8000)
    write_tokens(DATA / "golden_video.pgt", tokenizer("video").encode(video, depth=2))
    layout = Layout.standard()
    golden = {"layout": layout.to_json(), "ids": pack(golden_parts(), layout).tolist()}
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
