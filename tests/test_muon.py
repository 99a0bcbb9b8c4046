"""Muon against its definition and against torch's."""

import pytest
import torch

from panglot import muon
from panglot.muon import Muon, computes_bfloat16, orthogonal


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def bfloat16(request, monkeypatch):
    """On a processor with instructions for bfloat16, and on one without."""
    monkeypatch.setattr(muon, "computes_bfloat16", lambda device: request.param)
    return request.param


def test_what_computes_bfloat16(monkeypatch):
    found = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    for capability, expected in ((None, False), ("avx2", False), ("avx512_bf16", True), ("amx_bf16", True)):
        found.clear()
        found.update({capability: True} if capability else {})
        computes_bfloat16.cache_clear()
        assert computes_bfloat16("cpu") is expected
        assert computes_bfloat16("cuda")
    computes_bfloat16.cache_clear()


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 24, 80), (2, 80, 24)])
def test_singular_values_come_near_one(shape, bfloat16):
    x = noise(*shape) * torch.tensor([1e-3, 1.0, 1e3])[: shape[0], None, None]
    found = orthogonal(x)
    assert found.shape == x.shape
    assert (found.dtype == torch.bfloat16) == bfloat16
    values = torch.linalg.svdvals(found.float())
    assert values.max() < 1.3
    # The smallest of a square matrix of noise are too small for five iterations.
    assert (values[:, :-3] if shape[1] == shape[2] else values).min() > 0.6
    assert (values > 0.6).float().mean() > 0.9


def test_singular_vectors_stay(bfloat16):
    x = noise(1, 20, 60)
    u, _, v = torch.linalg.svd(x[0], full_matrices=False)
    turned = u.T @ orthogonal(x)[0].float() @ v.T
    assert (turned - torch.diag(turned.diagonal())).abs().max() < (3e-2 if bfloat16 else 1e-3)


def test_a_matrix_of_nothing_stays():
    assert not orthogonal(torch.zeros(1, 4, 4)).any()


@pytest.mark.parametrize("shape", [(48, 48), (32, 96), (96, 32)])
def test_steps_are_those_of_torch(shape):
    """As torch.optim.Muon, which iterates in bfloat16: the same direction and size, step after step."""
    ours, theirs = (torch.nn.Parameter(noise(*shape, seed=1)) for _ in range(2))
    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    optimizers = (Muon([ours], **options), torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options))
    for step in range(3):
        before = ours.detach().clone()
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.data.copy_(before)
            parameter.grad = noise(*shape, seed=10 + step)
            optimizer.step()
        moved, wanted = ((p.detach() - before).flatten() for p in (ours, theirs))
        assert torch.cosine_similarity(moved, wanted, dim=0) > 0.99
        assert moved.norm() / wanted.norm() == pytest.approx(1, abs=0.02)


def test_matrices_of_one_shape_do_not_mix():
    """Stepped together or alone, a matrix goes the same way; one without a gradient stays."""
    shapes = [(16, 40), (16, 40), (40, 16), (16, 40)]
    together = [torch.nn.Parameter(noise(*shape, seed=i)) for i, shape in enumerate(shapes)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizer, optimizers = Muon(together, lr=0.1), [Muon([p], lr=0.1) for p in alone]
    for step in range(2):
        for i, (a, b) in enumerate(zip(together[:-1], alone[:-1], strict=True)):
            a.grad = noise(*a.shape, seed=100 * step + i)
            b.grad = a.grad.clone()
        optimizer.step()
        for one in optimizers:
            one.step()
    for i, (a, b) in enumerate(zip(together, alone, strict=True)):
        assert torch.allclose(a, b, atol=1e-5)
        assert torch.equal(a, noise(*a.shape, seed=i)) == (i == 3)


def test_steps_have_the_size_of_adamws():
    """About 0.2 of the learning rate for each number of the matrix (arXiv 2502.16982)."""
    parameter = torch.nn.Parameter(torch.zeros(64, 256))
    parameter.grad = noise(64, 256) * 1e-4
    Muon([parameter], lr=1e-3).step()
    assert parameter.detach().square().mean().sqrt() == pytest.approx(0.2e-3, rel=0.2)
