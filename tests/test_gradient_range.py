"""Gradients of problems far from size one: those of the problem of size one, times a power of two, wherever that fits.

With data θ = 2^(e·in) θ' and answers y = 2^(e·out) y' the gradient of ⟨c, y⟩ is 2^(e·(out − in)) times that of ⟨c, y'⟩.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import pmaf
from cases import randn


class Scaled(NamedTuple):
    """A function, its data, and the powers of the unit that each of them, and the answer, have."""

    answer: Callable[..., Tensor]
    data: tuple[Tensor, ...]
    inwards: tuple[int, ...]
    outwards: float


def symmetric(n: int) -> Tensor:
    A = randn(n, n, seed=3)
    return A + A.mT


F, b, w = randn(5, 3, seed=1), randn(5, seed=2), randn(5, seed=4).abs() + 0.1
X, B, g = symmetric(4), symmetric(4) @ symmetric(4) + torch.eye(4, dtype=torch.float64), randn(4, seed=5)
r = torch.tensor(1.5, dtype=torch.float64)
KINDS: dict[str, Scaled] = {
    "gram values": Scaled(lambda F: pmaf.ied_ex(pmaf.Gram(F), 2).eigenvalues, (F,), (1,), 2),
    "gram smallest": Scaled(lambda F: pmaf.ied_ex(pmaf.Gram(F), 1, largest=False).eigenvalues, (F,), (1,), 2),
    "gram vectors": Scaled(lambda F: pmaf.ied_ex(pmaf.Gram(F), 1).eigenvectors, (F,), (1,), 0),
    "gram block Lanczos": Scaled(
        lambda F: pmaf.ied_ex(pmaf.Gram(F), 1, solver="block_lanczos").eigenvalues, (F,), (1,), 2
    ),
    "weighted values": Scaled(
        lambda F, w: pmaf.ied_ex(pmaf.Gram(F, weights=w), 1).eigenvalues, (F, w), (1, 0), 2
    ),
    "weighted vectors": Scaled(
        lambda F, w: pmaf.ied_ex(pmaf.Gram(F, weights=w), 1).eigenvectors, (F, w), (1, 0), 0
    ),
    "weights alone": Scaled(
        lambda F, w: pmaf.ied_ex(pmaf.Gram(F, weights=w), 1).eigenvectors, (F, w), (0, 1), 0
    ),
    "values": Scaled(lambda X: pmaf.ied_ex(X, 2).eigenvalues, (X,), (1,), 1),
    "values by eigh": Scaled(lambda X: pmaf.ied_ex(X, 2, solver="eigh").eigenvalues, (X,), (1,), 1),
    "vectors": Scaled(lambda X: pmaf.ied_ex(X, 2, largest=False).eigenvectors, (X,), (1,), 0),
    "sparse values": Scaled(lambda X: pmaf.ied_ex(X.to_sparse(), 1).eigenvalues, (X,), (1,), 1),
    "metric values": Scaled(lambda X, B: pmaf.ied_ex(X, 1, metric=B).eigenvalues, (X, B), (1, 0), 1),
    "metric vectors": Scaled(lambda X, B: pmaf.ied_ex(X, 1, metric=B).eigenvectors, (X, B), (1, 0), 0),
    "both matrices": Scaled(lambda X, B: pmaf.ied_ex(X, 1, metric=B).eigenvalues, (X, B), (1, 1), 0),
    "metric alone": Scaled(lambda X, B: pmaf.ied_ex(X, 1, metric=B).eigenvalues, (X, B), (0, 1), -1),
    "Gram metric": Scaled(
        lambda X, F: pmaf.ied_ex(X[:3, :3], 1, metric=pmaf.Gram(F)).eigenvalues, (X, F), (0, 1), -2
    ),
    "projector": Scaled(lambda F: pmaf.principal_projector_ex(pmaf.Gram(F), 2).projector, (F,), (1,), 0),
    "spectral function": Scaled(lambda X: pmaf.spectral_function_ex(X, "abs", 2).matrix, (X,), (1,), 1),
    "whole spectral function": Scaled(lambda X: pmaf.spectral_function_ex(X, "sqrt").matrix, (B,), (1,), 0.5),
    "root of a Gram matrix": Scaled(lambda F: pmaf.spectral_function_ex(pmaf.Gram(F), "sqrt", 2).matrix, (F,), (1,), 1),
    "inverse of a Gram matrix": Scaled(
        lambda F: pmaf.spectral_function_ex(pmaf.Gram(F), -0.25).matrix, (F,), (1,), -0.5
    ),
    "whole root of a Gram matrix": Scaled(
        lambda F: pmaf.spectral_function_ex(pmaf.Gram(F), "sqrt").matrix, (F,), (1,), 1
    ),
    "singular values": Scaled(lambda F: pmaf.svd_ex(F, 2).S, (F,), (1,), 1),
    "left vectors": Scaled(lambda F: pmaf.svd_ex(F, 2).U, (F,), (1,), 0),
    "dominant": Scaled(lambda F: pmaf.dominant_pair_ex(F[:3].abs()).eigenvalue, (F,), (1,), 1),
    "least squares": Scaled(lambda A, b, w: pmaf.less_ex(A, b, weights=w).u, (F, b, w), (1, 1, 0), 0),
    "least squares weights": Scaled(lambda A, b, w: pmaf.less_ex(A, b, weights=w).u, (F, b, w), (0, 0, 1), 0),
    "least squares radius": Scaled(lambda A, b, r: pmaf.less_ex(A, b, radius=r).u, (F, b, r), (0, 1, 1), 1),
    "multiplier": Scaled(lambda A, b: pmaf.less_ex(A, b).multiplier, (F, b), (1, 1), 2),
    "multiplier by eigh": Scaled(
        lambda A, b: pmaf.less_ex(A, b, solver="more_sorensen").multiplier, (F, b), (1, 1), 2
    ),
    "free": Scaled(lambda A, b, C: pmaf.less_ex(A, b, free=C).z, (F[:, :2], b, F[:, 2:]), (1, 1, 1), 0),
    "quadratic": Scaled(lambda H, g: pmaf.sphere_quadratic_ex(H, g).u, (X, g), (1, 1), 0),
    "quadratic multiplier": Scaled(lambda H, g: pmaf.sphere_quadratic_ex(H, g).multiplier, (X, g), (1, 1), 1),
    "ball": Scaled(lambda A, b: pmaf.less_ex(A, b, constraint="ball", radius=9.0).u, (F, b), (1, 1), 0),
}  # fmt: skip


def gradients(case: Scaled, dtype: torch.dtype, exponent: int) -> Any:
    data = [times(x, exponent * e, dtype).requires_grad_() for x, e in zip(case.data, case.inwards, strict=True)]
    y = case.answer(*data)
    cotangent = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).reshape(y.shape)
    return y.detach(), torch.autograd.grad(y, data, cotangent.to(y.dtype))


def times(x: Tensor, exponent: float, dtype: torch.dtype) -> Tensor:
    """2ᵉ x, in two steps, which a power beyond the range needs."""
    half = exponent // 2
    return (x.to(dtype) * 2.0**half * 2.0 ** (exponent - half)).detach()


@pytest.mark.filterwarnings("ignore::pmaf.RangeWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "exponents"), [
    (torch.float32, (-118, -100, -83, -50, 50, 83, 100, 120)), (torch.float64, (-1000, -700, -510, 510, 700, 1000)),
], ids=["single", "double"])  # fmt: skip
def test_gradients_are_those_of_size_one(kind, dtype, exponents):
    case = KINDS[kind]
    y, right = gradients(case, dtype, 0)
    for exponent in exponents:
        found, gradient = gradients(case, dtype, exponent)
        limit = torch.finfo(dtype)
        tolerance = 2e3 * limit.eps
        for power, near, away in [(case.outwards, y, found)] + [
            (case.outwards - e, h, k) for e, h, k in zip(case.inwards, right, gradient, strict=True)
        ]:
            size = float(near.abs().max())
            scale = exponent * power
            low, high = math.log2(limit.smallest_normal), math.log2(limit.max)
            if not low + 20 < scale + math.log2(size) < high - 6:
                continue
            expected = times(near, scale, dtype)
            error = float((away - expected).abs().max() / expected.abs().max())
            assert error <= tolerance, (kind, dtype, exponent, power, error)


def two_values(F: Tensor) -> Tensor:
    """Of degree two, so that second derivatives are of degree zero."""
    return pmaf.ied_ex(pmaf.Gram(F), 2).eigenvalues


FAR = pytest.mark.parametrize(("dtype", "exponent"), [
    (torch.float32, -100), (torch.float32, 90), (torch.float64, -700), (torch.float64, 700),
], ids=str)  # fmt: skip


@FAR
@pytest.mark.filterwarnings("ignore::pmaf.RangeWarning")
def test_transforms_of_what_is_far_from_size_one(dtype, exponent):
    near = randn(3, 5, 3, seed=6).to(dtype)
    far, tangent = times(near, exponent, dtype), randn(3, 5, 3, seed=7).to(dtype)
    tolerance = {"rtol": 0, "atol": 2e3 * torch.finfo(dtype).eps}

    def same(moved: Tensor, right: Tensor, degree: int) -> None:
        torch.testing.assert_close(times(moved, -exponent * degree, dtype), right, **tolerance)

    same(torch.func.jvp(two_values, (far,), (tangent,))[1], torch.func.jvp(two_values, (near,), (tangent,))[1], 1)
    slope = torch.func.vmap(torch.func.grad(lambda F: two_values(F).sum()))
    same(slope(far), slope(near), 1)
    bend = torch.func.hessian(lambda F: two_values(F)[0])
    same(bend(far[0]), bend(near[0]), 0)
    if abs(exponent) > 60:
        with pytest.raises(RuntimeError, match="scale the data towards one"):
            torch.func.jacfwd(torch.func.jacfwd(two_values))(far[0])
    mixed = torch.stack((near[0], far[1], torch.full_like(near[2], torch.nan))).requires_grad_()
    (gradient,) = torch.autograd.grad(two_values(mixed)[:2].sum(), mixed)
    same(gradient[1], slope(near)[1], 1)
    same(gradient[0], slope(near)[0], 0)
    assert int(gradient[2].count_nonzero()) == 0


@FAR
def test_a_matrix_far_from_size_one_that_a_batch_shares(dtype, exponent):
    A, b = F.to(dtype), randn(4, 5, seed=8).to(dtype)

    def slopes(exponent: int) -> tuple[Tensor, ...]:
        data = [times(x, exponent, dtype).requires_grad_() for x in (A, b)]
        return torch.autograd.grad(pmaf.less_ex(*data, solver="secular").u.sum(), data)

    for found, right in zip(slopes(exponent), slopes(0), strict=True):
        assert found.shape == right.shape
        torch.testing.assert_close(times(found, exponent, dtype), right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_a_function_that_is_too_small_for_its_type_is_out_of_range(power):
    F = randn(6, 3, dtype=torch.float32)
    assert int(pmaf.spectral_function_ex(pmaf.Gram(F), power, k=2).status) == pmaf.Status.CONVERGED
    assert int(pmaf.spectral_function_ex(pmaf.Gram(F * 2.0**-100), power, k=2).status) == pmaf.Status.OUT_OF_RANGE
