import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panglot.tokenizers.quantize import FSQ, allocate_levels, fit_linear, principal_components

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=5)


@given(LEVELS)
def test_every_code_decodes_to_values_that_give_it_back(levels):
    fsq = FSQ(levels)
    codes = torch.arange(min(fsq.size, 5000))
    values = fsq.values(codes[None])
    assert values.shape == (1, len(levels), len(codes))
    assert values.abs().max() < 1
    again, found = fsq(torch.atanh(values))
    assert torch.equal(found[0], codes)
    assert torch.allclose(again, values, atol=1e-6)
    assert torch.equal(fsq.codes(values)[0], codes)


@given(LEVELS, st.integers(0, 2**31))
def test_any_input_is_in_range(levels, seed):
    fsq = FSQ(levels)
    z = torch.randn(4, len(levels), 7, generator=torch.Generator().manual_seed(seed)) * 100
    values, codes = fsq(z)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < fsq.size
    assert torch.equal(fsq.values(codes), values)


def test_gradient_passes_the_rounding():
    z = torch.zeros(1, 3, 2, requires_grad=True)
    FSQ((5, 5, 5))(z)[0].sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


@pytest.mark.parametrize("bits", [4, 10, 12, 13.5])
def test_allocation_fits_and_follows_the_variances(bits):
    levels = allocate_levels(np.array([9.0, 3.0, 1.0, 0.2, 0.1, 0.01]), bits)
    assert np.log2(levels).sum() <= bits
    assert np.log2(levels).sum() > bits - 1.1
    assert sorted(levels, reverse=True) == levels


def test_linear_start_explains_what_its_bits_allow():
    torch.manual_seed(0)
    mixing = torch.randn(3, 20)
    x = torch.randn(4000, 3) * torch.tensor([5.0, 2.0, 0.5]) @ mixing + 7
    errors = []
    for levels in ((2,), (4,), (8, 4), (16, 8, 4)):
        fsq = FSQ(levels)
        analysis, bias = torch.zeros(len(levels), 20), torch.zeros(len(levels))
        synthesis, offset = torch.zeros(20, len(levels)), torch.zeros(20)
        fit_linear(x, fsq, analysis, bias, synthesis, offset)
        decoded = fsq(x @ analysis.T + bias)[0] @ synthesis.T + offset
        errors.append(((decoded - x) ** 2).mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.03 * x.var(0).mean().item()


def test_components_of_wide_data_agree_with_the_exact_ones():
    torch.manual_seed(0)
    x = torch.randn(300, 3) * torch.tensor([9.0, 4.0, 2.0]) @ torch.randn(3, 4100)
    _, wide, _ = principal_components(x)
    _, narrow, _ = principal_components(x[:, :50].contiguous())
    assert wide[:3].min() > 1e3 * wide[3]
    assert narrow[:3].min() > 1e3 * narrow[3].abs()
