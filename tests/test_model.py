"""The transformer against itself, packed, cached and ragged. Against transformers: test_checkpoint.py."""

import pytest
import torch

from panglot.model import ModelConfig, Transformer, _Packing

CONFIG = ModelConfig(
    vocab_size=97, width=48, layers=3, heads=6, kv_heads=2, head_dim=16, inner=80, positions=600, rope_theta=5000.0
)


def random_model(config: ModelConfig = CONFIG) -> Transformer:
    """A model whose every parameter, norms included, has an effect."""
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


@pytest.fixture(scope="module")
def model() -> Transformer:
    return random_model()


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "millions"), [("mini", 9.5), ("small", 23.4), ("base", 83.0)])
def test_sizes(name, millions):
    config = ModelConfig.sized(name, 20_000)
    with torch.device("meta"):
        model = Transformer(config)
    assert config.parameters == sum(p.numel() for p in model.parameters())
    assert config.parameters / 1e6 == pytest.approx(millions, rel=0.05)


def test_what_is_no_model():
    with pytest.raises(ValueError, match="no model size 'huge'"):
        ModelConfig.sized("huge", 10)
    with pytest.raises(ValueError, match="heads a multiple of kv_heads"):
        ModelConfig(97, 48, 3, 6, 4, 16, 80, 600)


def test_config_there_and_back():
    found = CONFIG.to_qwen3(bos=1, eos=2, pad=3)
    assert (found["bos_token_id"], found["eos_token_id"], found["pad_token_id"]) == (1, 2, 3)
    assert ModelConfig.from_qwen3(found) == CONFIG
    newer = {**found, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    del newer["rope_theta"]
    assert ModelConfig.from_qwen3(newer) == CONFIG


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "llama"},
        {"tie_word_embeddings": False},
        {"attention_bias": True},
        {"use_sliding_window": True},
        {"rope_scaling": {"rope_type": "yarn"}},
        {"hidden_size": None},
        {"hidden_size": "wide"},
        {"num_key_value_heads": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_configs_that_are_refused(change):
    with pytest.raises(ValueError, match=r"must be|not|int\(\)"):
        ModelConfig.from_qwen3({**CONFIG.to_qwen3(), **change})


def test_initialisation_is_seeded_and_scaled():
    torch.manual_seed(1)
    model = Transformer(CONFIG)
    torch.manual_seed(1)
    again = Transformer(CONFIG)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    layer = model.model.layers[0]
    assert layer.mlp.gate_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert layer.mlp.down_proj.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.1)
    assert layer.self_attn.o_proj.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.1)


def test_nothing_sees_what_comes_later(model):
    row = ids(1, 40)
    changed = row.clone()
    changed[0, 20:] = ids(1, 20, seed=1)
    before, after = model(row), model(changed)
    assert close(before[:, :20], after[:, :20])
    assert not close(before[:, 20:], after[:, 20:])


def test_packed_samples_do_not_see_each_other(model):
    lengths = [[5, 30, 1], [20, 9, 4]]
    row = torch.zeros(2, 40, dtype=torch.int64)
    positions, samples = torch.zeros_like(row), torch.full_like(row, -1)
    parts = []
    for b, line in enumerate(lengths):
        start = 0
        for number, length in enumerate(line):
            place = (b, slice(start, start + length))
            row[place], positions[place] = ids(length, seed=7 * b + number), torch.arange(length)
            samples[place] = number
            parts.append(place)
            start += length
    hidden = model(row, positions, samples)
    assert hidden.isfinite().all()
    for place in parts:
        assert close(hidden[place], model(row[place][None])[0])


def test_both_ways_to_keep_samples_apart(model):
    samples = torch.tensor([[0, 0, 0, 1, 2, 2, -1, -1], [3, 3, 3, 3, 3, 4, 4, 4]])
    x = torch.randn(2, 8, CONFIG.width)
    cos, sin = model.cos[None, :8, None], model.sin[None, :8, None]
    sparse, dense = (model.model.blocks[0](x, cos, sin, _Packing(samples, dense)) for dense in (False, True))
    assert close(sparse, dense)
    assert not close(sparse, model.model.blocks[0](x, cos, sin, None))


def test_another_embedding(model):
    other = torch.randn(11, CONFIG.width, requires_grad=True)
    hidden = model(ids(2, 8) % 11, embedding=other)
    scores = model.logits(hidden, 2, 7, embedding=other)
    assert scores.shape == (2, 8, 5)
    assert close(scores, hidden @ other[2:7].T)
    scores.sum().backward()
    assert other.grad is not None
    assert other.grad[:, 0].any()


def test_steps_equal_forward(model):
    row = ids(3, 50)
    whole = model(row)
    cache = model.cache(3, 50)
    parts = [model.prefill(list(row[:, :10]), cache)[:, None]]
    parts += [model.step(row[:, 10:17], cache)]
    parts += [model.step(row[:, i : i + 1], cache) for i in range(17, 50)]
    assert close(torch.cat(parts, 1), whole[:, 9:])
    assert cache.lengths.tolist() == [50] * 3


@pytest.mark.parametrize("lengths", [(3, 17, 1), (20, 300, 520)])
def test_ragged_rows_equal_single_rows(model, lengths):
    rows = [ids(n + 12, seed=n) for n in lengths]
    cache = model.cache(3, 600)
    found = [model.prefill([row[:n] for row, n in zip(rows, lengths, strict=True)], cache)[:, None]]
    for i in range(4):
        found.append(model.step(torch.stack([r[n + i, None] for r, n in zip(rows, lengths, strict=True)]), cache))
    found.append(model.step(torch.stack([r[n + 4 : n + 7] for r, n in zip(rows, lengths, strict=True)]), cache))
    # A second ragged part, the padding of which lies in the middle of the cache.
    ends = [n + 7 + more for n, more in zip(lengths, (5, 1, 3), strict=True)]
    parts = [row[n + 7 : end] for row, n, end in zip(rows, lengths, ends, strict=True)]
    last = model.prefill(parts, cache)
    assert cache.lengths.tolist() == ends
    hidden = torch.cat(found, 1)
    for b, (row, n, end) in enumerate(zip(rows, lengths, ends, strict=True)):
        whole = model(row[None, :end])[0]
        assert close(hidden[b], whole[n - 1 : n + 7])
        assert close(last[b], whole[-1])


def test_rows_that_are_kept(model):
    rows = [ids(9, seed=1), ids(4, seed=2), ids(6, seed=3)]
    cache = model.cache(3, 20)
    model.prefill(rows, cache)
    cache.keep(torch.tensor([2, 0, 0]))
    assert cache.batch == 3
    more = ids(3, 1)
    hidden = model.step(more, cache)
    for b, number in enumerate((2, 0, 0)):
        assert close(hidden[b, 0], model(torch.cat([rows[number], more[b]])[None])[0, -1])


def test_logits_of_a_range(model):
    cache = model.cache(1, 20)
    hidden = model.prefill([ids(5)], cache)
    with torch.inference_mode():
        scores = model.logits(hidden)
        assert scores.shape == (1, 97)
        assert close(scores, model(ids(1, 5))[:, -1] @ model.embedding.T)
        assert close(model.logits(hidden, 10, 30), scores[:, 10:30])


def test_a_cache_takes_the_weights_as_they_are():
    model = random_model()
    model.step(ids(1, 2), model.cache(1, 2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    with torch.inference_mode():
        hidden = model.step(ids(1, 2), model.cache(1, 2))
        assert close(model.logits(hidden), model.logits(model(ids(1, 2))))
        assert close(model.logits(hidden), hidden @ model.embedding.T)
        assert close(hidden, model(ids(1, 2)))


def test_what_does_not_fit(model):
    with pytest.raises(ValueError, match="a cache of 601 tokens, but the model has 600"):
        model.cache(1, 601)
    cache = model.cache(2, 4)
    model.step(ids(2, 3), cache)
    with pytest.raises(ValueError, match="rows of 5 tokens in a cache of 2 rows of 4"):
        model.step(ids(2, 2), cache)
    with pytest.raises(ValueError, match="1 rows"):
        model.prefill([ids(1)], cache)
    with pytest.raises(ValueError, match="ids for a cache"):
        model.prefill([ids(1), ids(0)], cache)


def test_everything_learns():
    model = random_model()
    scores = model.logits(model(ids(2, 12)))
    torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids(2, 12, seed=1).flatten()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
