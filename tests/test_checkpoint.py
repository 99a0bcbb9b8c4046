"""Checkpoints: read back as written, the same model in transformers, and one line for whatever is wrong with them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from panglot import checkpoint
from panglot.checkpoint import FILES, CheckpointError, load, save
from panglot.layout import MARKS, Layout
from panglot.media import Text
from panglot.model import ModelConfig, Transformer
from panglot.tokenizers.base import Alphabet
from panglot.tokenizers.text import TextTokenizer

TEXT = TextTokenizer.load()
LAYOUT = Layout((*TEXT.alphabets, Alphabet("mark", len(MARKS)), Alphabet("image/32", 60)))
CONFIG = ModelConfig(LAYOUT.size, 32, 2, 4, 2, 8, 48, 128, rope_theta=5000.0)
EXTRA = {"steps": 7, "data": {"names": ["Wort", "字"]}}
TEXTS = [
    "",
    "a dog's  bark,\n\n\n 2026\t...",
    "<image> <bos></s><|endoftext|>[PAD]<|im_start|>",
    "image/32 Ġ Ċ <0x0A>",
    "狗叫了三声。犬が吠える 개가 짖는다",
    "كلب ينبح שלום पानी भौंकता ไทย ភាសាខ្មែរ",
    "Straße ÅÅ e\u0301é ﬁ \u212b İı ẞ",
    "👩‍👩‍👧‍👦🏳️‍🌈 \u200d\ufeff\ufffd\x00\x1b\u2028\x85",
    "".join(map(chr, range(0x250))),
    "x" * 100 + " " * 100 + "." * 100,
]


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    save(folder, model, LAYOUT.to_json(), EXTRA, torch.float32)
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.fixture(scope="module")
def transformers():
    """Imported once, because that takes 8 s, and without a look at the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        import transformers

        yield transformers


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(3))


def test_read_back(model, whole):
    state = torch.random.get_rng_state()
    again, layout, extra = load(whole)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.config == CONFIG
    assert (layout, extra) == (LAYOUT.to_json(), EXTRA)
    assert {p.name for p in whole.iterdir()} == {*FILES}
    for (name, a), (other, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
        assert b.requires_grad
    assert torch.equal(again(ids(1, 9)), model(ids(1, 9)))


def test_half_precision(model, tmp_path):
    save(tmp_path / "m", model, LAYOUT.to_json())
    again, _, extra = load(tmp_path / "m")
    assert extra == {}
    assert json.loads((tmp_path / "m/config.json").read_bytes())["torch_dtype"] == "float16"
    assert (tmp_path / "m/model.safetensors").stat().st_size < 2 * CONFIG.parameters + 5000
    assert all(torch.equal(a.half().float(), b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_same_model_in_transformers(transformers, model, whole):
    theirs, told = transformers.Qwen3ForCausalLM.from_pretrained(whole, dtype=torch.float32, output_loading_info=True)
    assert not any(told.values())
    assert sum(p.numel() for p in theirs.parameters()) == CONFIG.parameters
    with torch.no_grad():
        difference = theirs(ids(2, 100)).logits - model.logits(model(ids(2, 100)))
        assert difference.abs().max() < 1e-4
    assert [theirs.generation_config.eos_token_id, theirs.config.bos_token_id] == [
        LAYOUT.marks["eos"],
        LAYOUT.marks["bos"],
    ]


@torch.inference_mode()
def test_the_same_words_in_transformers(transformers, model, whole):
    theirs = transformers.Qwen3ForCausalLM.from_pretrained(whole, dtype=torch.float32).eval()
    prompt = ids(1, 12)
    found = theirs.generate(prompt, do_sample=False, max_new_tokens=40, min_new_tokens=40, use_cache=True)
    cache = model.cache(1, 60)
    hidden, ours = model.prefill([prompt[0]], cache), [prompt]
    for _ in range(40):
        scores = model.logits(hidden)
        scores[:, LAYOUT.marks["eos"]] = -torch.inf  # as min_new_tokens asks
        ours.append(scores.argmax(-1, keepdim=True))
        hidden = model.step(ours[-1], cache)[:, 0]
    assert torch.equal(torch.cat(ours, 1), found)


def test_a_model_of_transformers_comes_back(transformers, whole, copy):
    """As after training it further there: the files that transformers writes, beside panglot's own."""
    theirs = transformers.Qwen3ForCausalLM.from_pretrained(whole, dtype=torch.float32)
    theirs.save_pretrained(copy)
    again, _, _ = load(copy)
    assert again.config == CONFIG
    with torch.no_grad():
        assert (theirs(ids(1, 50)).logits - again.logits(again(ids(1, 50)))).abs().max() < 1e-4


def test_the_same_text_in_transformers(transformers, whole):
    theirs = transformers.AutoTokenizer.from_pretrained(whole)
    for text in TEXTS:
        found = theirs(text)["input_ids"]
        assert found == TEXT.encode(Text(text)).arrays["text"].tolist()
        assert all(0 <= token < LAYOUT.sizes["text"] for token in found)
        assert theirs.decode(found) == text
    assert len(theirs) == LAYOUT.sizes["text"]
    assert not theirs.all_special_tokens


def test_a_checkpoint_takes_the_place_of_another(model, copy):
    save(copy, model, LAYOUT.to_json(), {"steps": 8})
    assert load(copy)[2] == {"steps": 8}
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_nothing_else_is_overwritten(model, copy, tmp_path):
    (copy / "thesis.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"holds thesis\.txt"):
        save(copy, model, LAYOUT.to_json())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        save(tmp_path / "file", model, LAYOUT.to_json())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "file"]


def test_a_failure_leaves_the_old_one(model, copy, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(copy, model, LAYOUT.to_json(), {"steps": 8})
    assert load(copy)[2] == EXTRA
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_the_old_one_comes_back_if_the_new_one_cannot_take_its_place(model, copy, monkeypatch):
    rename = checkpoint.os.rename

    def fail(source, target):
        if str(source).endswith(".part"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(checkpoint.os, "rename", fail)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save(copy, model, LAYOUT.to_json(), {"steps": 8})
    assert load(copy)[2] == EXTRA
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_a_layout_that_does_not_fit_is_not_saved(model, tmp_path):
    bigger = Layout((*LAYOUT.alphabets, Alphabet("split", 2)))
    other_text = Layout(
        (Alphabet("text", 100), *LAYOUT.alphabets[1:-1], Alphabet("rest", 60 + TEXT.alphabets[0].size - 100))
    )
    for layout, words in ((bigger, "layout has"), (other_text, "text tokenizer has")):
        with pytest.raises(CheckpointError, match=words):
            save(tmp_path / "m", model, layout.to_json())
    with pytest.raises(CheckpointError, match="not a layout"):
        save(tmp_path / "m", model, {})
    assert not list(tmp_path.iterdir())


def refused(folder: Path, words: str) -> None:
    """One line that names the place, the fault and, after a semicolon, the remedy."""
    with pytest.raises(CheckpointError, match=words) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


@pytest.mark.parametrize("name", sorted({*FILES} - {"generation_config.json", "tokenizer_config.json"}))
def test_files_that_are_missing_empty_or_cut_short(copy, name):
    path = copy / name
    content = path.read_bytes()
    for kept in (0, 5, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:kept])
        refused(copy, name)
    path.unlink()
    refused(copy, "no such file")


def test_no_folder(tmp_path):
    refused(tmp_path / "none", "no such folder")
    refused(tmp_path, "no such file")


@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}'])
def test_json_that_is_something_else(copy, content):
    for name in ("config.json", "layout.json", "panglot.json", "tokenizer.json"):
        kept = (copy / name).read_bytes()
        (copy / name).write_bytes(content)
        refused(copy, str(copy))
        (copy / name).write_bytes(kept)


def test_a_header_with_flipped_bits(copy):
    """No bit of the length, of names, types and shapes changes unnoticed."""
    path = copy / "model.safetensors"
    content = path.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].rstrip()
    names = header.index(b'"model.')  # behind the metadata, which nobody reads
    for place in [*range(8), *range(8 + names, 8 + len(header), 13)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 7
        path.write_bytes(flipped)
        refused(copy, "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 64}, "weights, not"),
        ({"num_hidden_layers": 10**12}, "weights, not"),
        ({"num_attention_heads": 2, "num_key_value_heads": 4}, "multiple of kv_heads"),
        ({"num_attention_heads": 2, "head_dim": 16, "num_key_value_heads": 1}, "weights, not"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, r"k_proj.weight has shape \(16, 32\), not \(24, 32\)"),
        ({"max_position_embeddings": 10**12}, "at most 262144 positions"),
        ({"hidden_size": float("inf")}, "infinity"),
        ({"rope_theta": 0}, "rope_theta > 0"),
        ({"rope_parameters": "yes"}, "rope_type is 'yes'"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"vocab_size": 100}, "layout has"),
    ],
)
def test_a_config_that_does_not_fit(copy, changes, words):
    edit(copy / "config.json", **changes)
    refused(copy, words)


def test_weights_that_do_not_fit(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    first = "model.layers.0.self_attn.q_proj.weight"
    renamed = {k.replace("q_proj", "p_proj"): v for k, v in weights.items()}
    broken = {**weights, first: weights[first].clone().fill_(float("nan"))}
    for other, words in (
        ({**weights, "more": torch.zeros(1)}, "weights, not"),
        (renamed, "p_proj.weight has shape .*not none"),
        ({**weights, first: weights[first].reshape(16, 64)}, r"q_proj.weight has shape \(16, 64\)"),
        (broken, "no numbers"),
    ):
        save_file(other, path)
        refused(copy, words)
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, path)
    load(copy)


def test_another_layout(copy):
    bigger = Layout((*LAYOUT.alphabets, Alphabet("split", 2)))
    (copy / "layout.json").write_text(json.dumps(bigger.to_json()))
    refused(copy, f"the layout has {LAYOUT.size + 2} ids, the model {LAYOUT.size}")


def test_another_text_tokenizer(copy):
    TextTokenizer.train(["some words, some other words"] * 9, 300).save(copy / "tokenizer.json")
    refused(copy, "the text tokenizer has .* the layout 2048 ids for text")


def test_other_tokenizers(copy):
    found = json.loads((copy / "panglot.json").read_bytes())["tokenizers"]
    assert set(found) == {"text", "image", "audio", "video"}
    edit(copy / "panglot.json", tokenizers={**found, "audio": "0" * 64, "video": None})
    refused(copy, "trained with other tokenizers: audio, video")
    edit(copy / "panglot.json", tokenizers=[])
    refused(copy, "trained with other tokenizers: text, image, audio, video")
