"""Signs and phases: the reference decides, and where it is orthogonal to the vector something that is not noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pmaf
from cases import randn
from pmaf.linalg.signs import generic


def graph_laplacian(n: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    W = torch.rand(n, n, dtype=dtype, generator=generator).triu(1)
    return W + W.mT


def laplacian(W: torch.Tensor) -> torch.Tensor:
    return torch.diag_embed(W.sum(-1)) - W


def double_centred(P: torch.Tensor) -> torch.Tensor:
    squared = torch.cdist(P, P).square()
    return (
        -(squared - squared.mean(-1, keepdim=True) - squared.mean(-2, keepdim=True) + squared.mean((-2, -1), True)) / 2
    )


def normalised_rows(P: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(P, P.shape[-1:])


FAMILIES = {
    "laplacian": (lambda n, g, t: graph_laplacian(n, g, t), laplacian, {"k": 2, "largest": False}),
    "centred": (lambda n, g, t: torch.randn(n, 5, dtype=t, generator=g), double_centred, {"k": 2}),
    "layer norm": (
        lambda n, g, t: torch.randn(n, n // 2, dtype=t, generator=g) * torch.arange(1, n // 2 + 1).to(t),
        lambda P: normalised_rows(P).mT @ normalised_rows(P),
        {"k": 2},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), n=st.sampled_from((8, 24, 40)))
def test_nearly_equal_inputs_have_equal_signs(family, dtype, seed, n):
    make, matrix, options = FAMILIES[family]
    generator = torch.Generator().manual_seed(seed)
    data = make(n, generator, dtype)
    noise = 1e-6 * torch.randn(20, *data.shape, dtype=dtype, generator=generator)
    noise = (noise + noise.mT) / 2 if family == "laplacian" else noise
    X = matrix(torch.cat((data[None], data + noise)))
    found = pmaf.ied_ex((X + X.mT) / 2, **options)
    U = found.eigenvectors[..., -1 if family == "laplacian" else 0]
    beside = found.eigenvalues.diff(dim=-1).abs()[..., 0]
    if float(torch.minimum(found.gap, beside).min()) < 1e-2 * float(torch.linalg.matrix_norm(X[0], 2)) / n:
        return  # 1e-6 may turn the vector itself
    if abs(float(generic(U.shape[-1], U) @ U[0])) > 1e-3:  # the sign changes somewhere, but rarely
        assert bool(((U @ U[0]) > 0).all())


def test_the_second_vector_of_a_graph_does_not_flip():
    generator = torch.Generator().manual_seed(0)
    W = graph_laplacian(40, generator, torch.float32)
    U = torch.stack(
        [
            pmaf.ied(laplacian(W + 1e-6 * graph_laplacian(40, generator, W.dtype)), 2, largest=False)[1]
            for _ in range(99)
        ]
    )
    assert bool((U[:, :, 1] @ U[0, :, 1] > 0).all())
    assert bool((U[:, :, 0].sum(-1) > 0).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_a_sum_above_rounding_still_decides(dtype):
    X = randn(6, 6, seed=3, dtype=dtype)
    U = pmaf.ied(X + X.mH, 4).eigenvectors.sum(-2)
    assert float(U.real.min()) >= 0
    assert float((U.imag if dtype.is_complex else torch.zeros(1)).abs().max()) <= 1e-14


def test_the_phase_of_a_complex_vector_orthogonal_to_the_reference_is_decided():
    """And its derivative follows the phase."""
    q = torch.linalg.qr(torch.cat((torch.ones(5, 1), torch.randn(5, 4)), 1).to(torch.complex128))[0]
    X = (q * torch.tensor([0.0, 5.0, 3.0, 1.0, 2.0])) @ q.mH
    U = pmaf.ied(X, 2).eigenvectors
    inner = generic(5, U).to(U.dtype) @ U
    assert float(inner.real.min()) > 0
    assert float(inner.imag.abs().max()) <= 1e-14
    C = torch.eye(5, dtype=X.dtype) - torch.ones(5, 5, dtype=X.dtype) / 5
    Z = randn(5, 5, seed=2, dtype=torch.complex128).requires_grad_()

    def vectors(Z):
        Y = C @ (Z + Z.mH) @ C  # stays in the space that is orthogonal to the all-ones vector
        return pmaf.ied(X + 0.1 * Y, 2).eigenvectors

    assert torch.autograd.gradcheck(vectors, Z)
    assert torch.autograd.gradgradcheck(vectors, Z)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_a_reference_for_each_column(dtype):
    X = randn(3, 6, 6, seed=5, dtype=dtype)
    X = X + X.mH
    reference = randn(3, 6, 2, seed=6, dtype=dtype)
    U = pmaf.ied(X, 2, reference=reference).eigenvectors
    inner = (reference.conj() * U).sum(-2)
    assert float(inner.real.min()) > 0
    assert float((inner - inner.real).abs().max()) <= 1e-14
    for i in range(2):
        alone = pmaf.ied(X, 2, reference=reference[..., i]).eigenvectors
        torch.testing.assert_close(alone[..., i], U[..., i])
    with pytest.raises(ValueError, match="reference"):
        pmaf.ied(X, 3, reference=reference)


def test_pooling_of_normalised_features_does_not_flip():
    """Their mean is rounding, whatever its direction."""
    torch.manual_seed(1)
    x = torch.randn(1, 12, 6, 6)
    x = x + 1e-6 * torch.randn(50, *x.shape[1:])
    x = x - x.mean((-2, -1), keepdim=True)
    U = pmaf.nn.PrincipalPool2d(1)(x)
    assert bool((U @ U[0] > 0).all())
