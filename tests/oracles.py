"""Answers and gradients by other means than the library's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import scipy.optimize
import torch
from torch import Tensor


def less_mpmath(A: Tensor, b: Tensor, radius: float = 1.0, digits: int = 60) -> tuple[Tensor, float]:
    """Least squares on the sphere in high precision, by bisection of the secular equation; not for the hard case."""
    with mpmath.workdps(digits):
        M = mpmath.matrix(A.double().tolist())
        y = mpmath.matrix(b.double().tolist())
        Q, g = M.T * M, M.T * y
        s, V = mpmath.eigsy(Q)
        n = Q.rows
        gamma = V.T * g
        low, high = -s[0], -s[0] + mpmath.norm(g) / radius

        def excess(multiplier: Any) -> Any:
            return mpmath.sqrt(sum((gamma[i] / (s[i] + multiplier)) ** 2 for i in range(n))) - radius

        for _ in range(4 * digits):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
        u = V * mpmath.matrix([gamma[i] / (s[i] + high) for i in range(n)])
        return torch.tensor([float(x) for x in u], dtype=torch.float64), float(high)


def less_scipy(A: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """The same in double precision: SVD and Brent's method."""
    U, sigma, Vh = np.linalg.svd(A, full_matrices=True)
    n = A.shape[1]
    s = np.zeros(n)
    s[: len(sigma)] = sigma**2
    gamma = np.zeros(n)
    gamma[: len(sigma)] = sigma * (U.T @ b)[: len(sigma)]
    low, high = -s.min(), np.linalg.norm(gamma) / radius - s.min()
    width = 1e-14 * max(1.0, abs(high))
    multiplier = scipy.optimize.brentq(
        lambda t: np.linalg.norm(gamma / (s + t)) - radius, low + width, high + width, xtol=1e-15, rtol=1e-14
    )
    return Vh.T @ (gamma / (s + multiplier)), multiplier


def best_of_many(misfit: Callable[[Tensor], Tensor], n: int, radius: float, count: int = 200_000) -> float:
    """The smallest value of an objective over random points of the sphere: a bound from above of the minimum."""
    u = torch.randn(count, n, dtype=torch.float64)
    u = radius * u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    return float(misfit(u).min())


def newton_less(A: Tensor, b: Tensor, radius: Tensor, u: Tensor, multiplier: Tensor, steps: int = 2) -> Tensor:
    """Unrolled Newton on the stationarity system of real least squares: (u, λ), differentiable by plain autograd.

    Started at the solution, n steps carry exact derivatives of order 2ⁿ − 1, since Newton converges quadratically.
    """
    n = A.shape[-1]
    y = torch.cat((u, multiplier[..., None]), -1).detach()
    Q, g = A.mT @ A, (A.mT @ b[..., None])[..., 0]
    eye = torch.eye(n, dtype=A.dtype)
    for _ in range(steps):
        u, multiplier = y[..., :n], y[..., n]
        K = Q + multiplier[..., None, None] * eye
        upper = (K @ u[..., None])[..., 0] - g
        lower = (u.square().sum(-1) - radius**2) / 2
        M = torch.cat(
            (
                torch.cat((K, u[..., None]), -1),
                torch.cat((u, torch.zeros_like(multiplier)[..., None]), -1)[..., None, :],
            ),
            -2,
        )
        y = y - torch.linalg.solve(M, torch.cat((upper, lower[..., None]), -1))
    return y


def newton_eigenpair(X: Tensor, u: Tensor, value: Tensor, steps: int = 2) -> Tensor:
    """Unrolled Newton on one eigenpair of a symmetric matrix: (u, λ)."""
    n = X.shape[-1]
    X = (X + X.mT) / 2
    y = torch.cat((u, value[..., None])).detach()
    for _ in range(steps):
        u, value = y[:n], y[n]
        K = value * torch.eye(n, dtype=X.dtype) - X
        F = torch.cat((K @ u, (u @ u - 1)[None] / 2))
        M = torch.cat((torch.cat((K, u[:, None]), 1), torch.cat((u, u.new_zeros(1)))[None]), 0)
        y = y - torch.linalg.solve(M, F)
    return y


def eigh_pairs(X: Tensor, k: int, largest: bool = True, reference: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs by ``torch.linalg.eigh``, with the sign convention of the library."""
    s, V = torch.linalg.eigh((X + X.mH) / 2)
    if largest:
        s, V = s.flip(-1), V.flip(-1)
    s, V = s[..., :k], V[..., :k]
    inner = (V if reference is None else reference.conj()[..., None] * V).sum(-2, keepdim=True)
    phase = torch.sgn(inner).conj() if V.is_complex() else torch.where(inner < 0, -1.0, 1.0).to(V.dtype)
    return s, V * phase


def exact_pullback(s: Tensor, Q: Tensor, index: list[int], U_bar: Tensor, values_bar: Tensor | None = None) -> Tensor:
    """The symmetric gradient with respect to X = Q diag(s) Qᴴ, from the spectrum it was made of.

    Only the terms between a wanted eigenvalue and another occur; where two of these are equal the term is left out.
    """
    G = torch.zeros_like(Q)
    for column, i in enumerate(index):
        for j in range(len(s)):
            if j != i and abs(float(s[i] - s[j])) > 1e-12:
                G = G + (Q[:, j].conj() @ U_bar[:, column]) / (s[i] - s[j]) * torch.outer(Q[:, j], Q[:, i].conj())
        if values_bar is not None:
            G = G + values_bar[column] * torch.outer(Q[:, i], Q[:, i].conj())
    return (G + G.mH) / 2


def central_difference(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """The gradient of a scalar function of a real tensor, entry by entry."""
    grad = torch.zeros_like(x)
    flat = grad.view(-1)
    for i in range(x.numel()):
        bump = torch.zeros_like(x).view(-1)
        bump[i] = step
        bump = bump.view_as(x)
        flat[i] = (function(x + bump) - function(x - bump)) / (2 * step)
    return grad


def relative_error(x: Tensor, truth: Tensor) -> float:
    """‖x − truth‖/‖truth‖."""
    truth = truth.to(torch.complex128 if truth.is_complex() else torch.float64)
    size = float(torch.linalg.vector_norm(truth))
    return float(torch.linalg.vector_norm(x.to(truth.dtype) - truth)) / (size or 1.0)
