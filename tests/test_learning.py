"""The loss against one computed naively, and the digits of embeddings."""

import numpy as np
import pytest
import streams
import torch

from panglot.learning import Learner, _features, loss
from panglot.mixing import MODALITIES, Batch
from panglot.model import ModelConfig, Transformer
from panglot.stream import pack
from panglot.tokenizers import tokenizer

L = streams.LAYOUT
CONFIG = ModelConfig(vocab_size=L.size, width=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=48, positions=400)


def learner() -> Learner:
    torch.manual_seed(0)
    made = Learner(Transformer(CONFIG), L)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def batch(rows: int = 2, length: int = 300) -> Batch:
    """Samples of all media, one after another, with weights drawn at random, a quarter of them 0."""
    rng = np.random.default_rng(4)
    shape = (rows, length)
    ids, positions = np.full(shape, L.marks["pad"], np.int64), np.zeros(shape, np.int64)
    samples, weights = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    modality, number = np.full(shape, -1, np.int8), 0
    for row in range(rows):
        used = 0
        while True:
            tokens = pack([streams.any_text(rng), streams.any_image(rng, size=(40, 40))], L)
            if used + len(tokens) > length:
                break
            here = slice(used, used + len(tokens))
            ids[row, here], positions[row, here], samples[row, here] = tokens, np.arange(len(tokens)), number
            weights[row, here] = rng.random(len(tokens)) * (rng.random(len(tokens)) < 0.75)
            modality[row, here] = rng.integers(-1, 4, len(tokens))
            used, number = used + len(tokens), number + 1
    assert number > 4
    return Batch(ids, positions, samples, weights, modality)


def naive(made: Learner, data: Batch) -> list[tuple[float, float, int]]:
    """(nats, weight, modality) of each target, sample by sample, over the slice in which it lies."""
    embedding, found = made.embedding(), []
    for number in range(data.samples.max() + 1):
        where = data.samples == number
        ids, weights, modality = data.ids[where], data.weights[where], data.modality[where]
        hidden = made.model(torch.from_numpy(ids)[None], embedding=embedding)[0]
        for at in range(1, len(ids)):
            if weights[at] > 0:
                start, stop = next((a, b) for a, b in L.slices if a <= ids[at] < b)
                scores = (hidden[at - 1] @ embedding[start:stop].T).log_softmax(-1)
                found.append((-float(scores[ids[at] - start]), float(weights[at]), int(modality[at])))
    return found


@torch.no_grad()
def test_loss_is_cross_entropy_over_the_legal_slice():
    made, data = learner(), batch()
    nats, weight, modality = made.losses(data)
    wanted = np.array(naive(made, data))
    assert len(nats) == len(wanted) > 100
    ours = np.stack([nats.numpy(), weight.numpy(), modality.numpy()], 1)
    assert np.allclose(ours[ours[:, 1].argsort()], wanted[wanted[:, 1].argsort()], atol=2e-4)
    value, figures = loss(made, data, 0)
    mean = (wanted[:, 0] * wanted[:, 1]).sum() / wanted[:, 1].sum()
    assert float(value) == pytest.approx(mean, abs=1e-4)
    assert figures["loss"] == pytest.approx(mean, abs=1e-4)
    for i, name in enumerate(MODALITIES):
        assert figures[name] == pytest.approx(wanted[wanted[:, 2] == i, 0].mean(), abs=1e-3)
    assert figures["tokens"] == (data.samples >= 0).sum()


def test_a_new_model_knows_nothing():
    """Before training, each slice costs about the logarithm of its size."""
    torch.manual_seed(0)
    made, data = Learner(Transformer(CONFIG), L), batch()
    with torch.no_grad():
        nats, weight, _ = made.losses(data)
    sizes = np.array([b - a for a, b in L.slices])
    where = (data.samples[:, 1:] == data.samples[:, :-1]) & (data.weights[:, 1:] > 0)
    which = np.searchsorted([b for _, b in L.slices], data.ids[:, 1:][where], side="right")
    assert float(nats.mean()) == pytest.approx(np.log(sizes[which]).mean(), abs=0.3)
    assert len(weight) == where.sum()


@torch.no_grad()
def test_folded_gives_the_same_logits_through_a_stock_model():
    made = learner()
    stock = Transformer(CONFIG)
    stock.load_state_dict(made.folded())
    ids = torch.from_numpy(batch().ids)[:, :120]
    ours = made.model.logits(made.model(ids, embedding=made.embedding()), embedding=made.embedding())
    assert torch.allclose(stock.logits(stock(ids)), ours, atol=1e-4)
    assert not torch.allclose(made.model.logits(made.model(ids)), ours, atol=1e-2)
    assert torch.equal(stock.embedding, made.embedding())


def test_gradients_reach_every_parameter():
    made = learner()
    loss(made, batch(), 0)[0].backward()
    digits = dict(made.digits.items())
    assert set(digits) == {name.replace("/", "_") for name in L.digits}
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        seen = "image" in name or not name.startswith("digits")  # sound and change are not in this batch
        assert bool(parameter.grad.any()) == seen, name
    assert all(digits[f"image_{s}"].grad.any() for s in (32, 16, 8))


def test_symbols_that_share_digits_are_near():
    """Features of a symbol are the digits that the quantiser gives it: its values are linear in them."""
    for name, level in zip(("image/32", "image/16"), tokenizer("image").network.levels, strict=False):  # type: ignore[attr-defined]
        features = _features(L.digits[name])
        assert features.shape == (L.sizes[name], sum(L.digits[name]))
        assert (features.sum(1) == len(L.digits[name])).all()
        values = level.fsq.values(torch.arange(L.sizes[name])[None])[0].T.double()
        solution = torch.linalg.lstsq(features.double(), values, driver="gelsd").solution
        assert torch.allclose(features.double() @ solution, values, atol=1e-9)
    assert _features((2, 3)).argmax(1).tolist() == [0, 1, 0, 1, 0, 1]
    assert _features((2, 3))[:, 2:].argmax(1).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_seen_symbol_moves_one_that_was_never_seen():
    made = learner()
    with torch.no_grad():
        before = made.embedding()
        made.digits["image_32"][0] += 1  # of the first digit, the value 0
        moved = (made.embedding() - before).abs().sum(1) > 0
    start, base = L.starts["image/32"], L.digits["image/32"][0]
    assert moved.nonzero().flatten().tolist() == list(range(start, start + L.sizes["image/32"], base))
