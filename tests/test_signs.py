"""The sign of a vector is never rounding noise: a generic vector decides where the reference sees nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmaf.linalg.signs import decided_sign, generic


def test_generic_is_the_same_in_every_precision():
    wide, narrow = (generic(4096, torch.empty(0, dtype=dtype)) for dtype in (torch.float64, torch.complex64))
    assert torch.equal(wide.float(), narrow)
    assert wide.abs().max() < 0.6


@pytest.mark.parametrize("n", [2, 4, 16, 256])
def test_generic_sees_every_walsh_vector(n):
    W = torch.ones(1, 1, dtype=torch.float64)
    while W.shape[-1] < n:
        W = torch.cat((torch.cat((W, W), -1), torch.cat((W, -W), -1)))
    assert (W @ generic(n, W)).abs().min() > 1e-3


@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), scale=st.floats(1e-16, 1e-13))
@settings(max_examples=50)
def test_noise_in_the_mean_does_not_decide(seed, n, scale):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, generator=generator, dtype=torch.float64)
    u = u - u.mean()
    u = (u / u.norm())[:, None]
    if (generic(n, u) @ u).abs() < 1e-3:
        return
    signs = {decided_sign(u + sign * scale / n, None, 1e-12).item() for sign in (-1, 0, 1)}
    assert len(signs) == 1


def test_complex_columns_are_turned_onto_the_real_axis():
    u = torch.tensor([[1j], [-1j]], dtype=torch.complex128) / 2**0.5
    turned = u * decided_sign(u, None, 0.0)
    assert (turned.imag.abs() < 1e-15).all()
    assert torch.equal(decided_sign(u, torch.tensor([[1.0], [0.0]], dtype=u.dtype), 0.0), torch.tensor([[-1j]]).to(u))
