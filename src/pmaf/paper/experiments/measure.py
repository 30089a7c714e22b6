r"""One turn of a method: how long forward and backward take, and how far its gradient is from the exact one.

The loss is :math:`\langle C, U U^T\rangle` for k leading eigenvectors U, which depends on neither their signs nor their
basis. Its gradient, in double precision from all eigenvectors V of the rest, is

.. math:: \bar X = V W U^T + U W^T V^T, \qquad W_{ij} = \frac{(V^T C U)_{ij}}{\lambda_j - \lambda_i} .
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

import pmaf

__all__ = ["Leading", "Turn", "in_turn", "now", "reference_gradient", "turn"]

Leading: TypeAlias = Callable[[Tensor], Tensor]
"""From X, (B, n, n), to its leading eigenvectors, (B, n, k)."""


class Turn(NamedTuple):
    """Seconds forward and backward, and the relative error of the gradient."""

    forward: float
    backward: float
    error: float


def turn(leading: Leading, X: Tensor, C: Tensor, exact: Tensor) -> Turn:
    """Differentiate ⟨C, U Uᵀ⟩ by a method and compare with the exact gradient."""
    leaf, device = X.clone().requires_grad_(), str(X.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
        start = now(device)
        U = leading(leaf)
        loss = ((C @ U) * U).sum()
        middle = now(device)
        (gradient,) = torch.autograd.grad(loss, leaf)
        end = now(device)
    difference = (gradient + gradient.mT).double().cpu() / 2 - exact
    return Turn(middle - start, end - middle, float(difference.norm() / exact.norm()))


def in_turn(methods: Mapping[str, Leading], X: Tensor, C: Tensor, number: int) -> dict[str, Turn]:
    """Every method on the same matrices, another one first each time, so that a change of the load hits all alike."""
    exact, names, first = reference_gradient(X, C), list(methods), number % len(methods)
    return {name: turn(methods[name], X, C, exact) for name in names[first:] + names[:first]}


def reference_gradient(X: Tensor, C: Tensor, k: int = 1) -> Tensor:
    """The gradient of ⟨C, U Uᵀ⟩ by the formula above, on the CPU in double precision."""
    X, C = X.double().cpu(), C.double().cpu()
    values, vectors = torch.linalg.eigh(X)
    U, V = vectors[..., -k:], vectors[..., :-k]
    half = V @ ((V.mT @ C @ U) / (values[..., None, -k:] - values[..., :-k, None])) @ U.mT
    gradient: Tensor = half + half.mT
    return gradient


def now(device: str) -> float:
    """The time when all that was asked of the device is done."""
    if device != "cpu":
        getattr(torch, torch.device(device).type).synchronize()
    return time.perf_counter()
