"""The everyday call beside the general path: the same pairs, phases and derivatives, bit for bit in any company."""

from __future__ import annotations

import warnings

import pytest
import torch

import pmaf
from cases import randn
from pmaf import kernels

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
needs_kernels = pytest.mark.skipif(not kernels.available(), reason="there is no short way without compiled kernels")


def hermitian(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    X = randn(*shape, shape[-1], dtype=dtype, seed=seed)
    return X + X.mH


def centred(n: int, dtype: torch.dtype) -> torch.Tensor:
    """A matrix whose eigenvectors but one are orthogonal to the all-ones vector, more closely than ε."""
    i = torch.arange(n, dtype=torch.float64)
    angle = 2 * torch.pi * torch.outer(i, i) / n
    Q = torch.polar(torch.full_like(angle, n**-0.5), angle)
    spectrum = torch.tensor([0.0, *range(1, n)], dtype=torch.float64)
    X = (Q * spectrum) @ Q.mH
    return (X + X.mH).to(dtype) / 2


def references(batch: tuple[int, ...], n: int, k: int, dtype: torch.dtype) -> dict[str, torch.Tensor | None]:
    one, item, each = (randn(*shape, dtype=dtype, seed=9) for shape in ((n,), (*batch, n), (*batch, n, k)))
    return {"all ones": None, "one": one, "of an item": item, "of a column": each}


def derivatives(X, k, reference, **options):
    """Pairs, and first and second derivatives of a loss that sees the phase."""
    leaf = X.clone().requires_grad_()
    values, U = pmaf.ied(leaf, k, reference=reference, **options)
    H, Z = randn(*U.shape, dtype=X.dtype, seed=5), randn(*X.shape, dtype=X.dtype, seed=6)
    loss = (H.conj() * (U + U.square())).sum().real + (values * H[..., 0, :].real).sum()
    (quick,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
    (second,) = torch.autograd.grad((first.conj() * Z).sum().real + first.abs().square().sum(), leaf)
    return [x.detach() for x in (values, U, quick, first, second)]


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("against", ["all ones", "one", "of an item", "of a column"])
@pytest.mark.parametrize(("batch", "n", "k"), [((), 3, 1), ((4,), 4, 1), ((2, 3), 6, 2), ((), 41, 3)])
def test_the_short_way_is_that_of_the_general_path(dtype, against, batch, n, k):
    X, reference = hermitian(*batch, n, dtype=dtype), references(batch, n, k, dtype)[against]
    eps = torch.finfo(dtype).eps
    found = derivatives(X, k, reference)
    for ours, general in zip(found, derivatives(X, k, reference, backward=pmaf.Implicit()), strict=True):
        assert float((ours - general).abs().max()) <= 1e3 * eps * float(general.abs().max())
    R = torch.ones(n, 1, dtype=dtype) if reference is None else reference
    inner = ((R if against == "of a column" or reference is None else R[..., None]).conj() * found[1]).sum(-2)
    assert float(inner.real.min()) > 0
    assert not dtype.is_complex or float(inner.imag.abs().max()) <= 100 * eps


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_phase_that_the_reference_cannot_decide(dtype):
    X, eps = centred(7, dtype).expand(3, 7, 7), torch.finfo(dtype).eps
    general = derivatives(X, 2, None, backward=pmaf.Implicit())
    for ours, expected in zip(derivatives(X, 2, None), general, strict=True):
        assert float((ours - expected).abs().max()) <= 1e4 * eps * float(expected.abs().max())


def test_derivatives_of_a_phase_by_finite_differences():
    X, reference = (
        randn(4, 4, dtype=torch.complex128, seed=2).requires_grad_(),
        randn(4, dtype=torch.complex128, seed=3),
    )

    def vectors(X: torch.Tensor) -> torch.Tensor:
        return pmaf.ied(X + X.mH, 2, reference=reference).eigenvectors

    assert torch.autograd.gradcheck(vectors, X, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(vectors, X)


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("against", ["all ones", "of a column"])
@pytest.mark.parametrize(("n", "k"), [(3, 1), (8, 2), (41, 1)])
def test_an_item_has_the_bits_it_has_alone(dtype, against, n, k):
    X, reference = hermitian(19, n, dtype=dtype), references((19,), n, k, dtype)[against]
    H = randn(19, n, k, dtype=dtype, seed=5)

    def solve(at: slice | torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaf = X[at].clone().requires_grad_()
        values, U = pmaf.ied(leaf, k, reference=None if reference is None else reference[at])
        (gradient,) = torch.autograd.grad((values, U), leaf, (torch.ones_like(values), H[at]))
        return values.detach(), U.detach(), gradient

    whole, order = solve(slice(None)), torch.randperm(19, generator=torch.Generator().manual_seed(4))
    for mixed, straight in zip(solve(order), whole, strict=True):
        assert torch.equal(mixed, straight[order])
    for first, last in ((0, 1), (7, 8), (2, 9), (18, 19)):
        for part, all_of_it in zip(solve(slice(first, last)), whole, strict=True):
            assert torch.equal(part, all_of_it[first:last])


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beside", ["NaN", "repeated", "asymmetric"])
@pytest.mark.parametrize(("n", "k"), [(3, 1), (5, 2), (9, 1)])
def test_a_neighbour_that_takes_the_general_path_changes_no_bit(dtype, beside, n, k):
    """Of complex items the phase is followed by torch then, which rounds the gradient elsewhere."""
    X, others = hermitian(7, n, dtype=dtype), [0, 1, 2, 4, 5, 6]
    spoiled, H = X.clone(), randn(7, n, k, dtype=dtype, seed=5)
    if beside == "NaN":
        spoiled[3, 0, 0] = torch.nan
    elif beside == "repeated":
        spoiled[3] = torch.eye(n, dtype=dtype)
    else:
        spoiled[3, 0, 1] += 1e-4 * X[3].abs().max()

    def solve(X: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaf = X.clone().requires_grad_()
        found = pmaf.ied_ex(leaf, k)
        pairs = found.eigenvalues, found.eigenvectors
        (gradient,) = torch.autograd.grad(pairs, leaf, (torch.ones_like(pairs[0]), H))
        return gradient, *(x.detach() for x in found)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
        (gradient, *found), (expected, *alone) = solve(spoiled), solve(X)
    for x, y in zip(found, alone, strict=True):
        assert torch.equal(x[others], y[others])
    if dtype.is_complex:
        torch.testing.assert_close(gradient[others], expected[others])
    else:
        assert torch.equal(gradient[others], expected[others])


@pytest.mark.parametrize("shape", [(), (5,), (4, 2), (4, 1), (2, 4, 1)])
def test_a_reference_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="reference"):
        pmaf.ied(hermitian(2, 4, dtype=torch.float64), 2, reference=randn(*shape))


def test_a_reference_that_changes_before_the_backward_pass_is_noticed():
    X, reference = hermitian(4, dtype=torch.complex128).requires_grad_(), randn(4, dtype=torch.complex128)
    U = pmaf.ied(X, 1, reference=reference).eigenvectors
    reference.neg_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        U.real.sum().backward()
