r"""The declarative network formula by the letter, DDN-E: what becomes of it when its inverse does not exist.

For :math:`u = \operatorname{argmin} -u^\top X u` subject to :math:`\|u\| = 1`, Gould et al. give, with
:math:`H = \lambda I - X` and an incoming gradient :math:`\bar u`,

.. math:: w = H^{-1}\bar u - \frac{u^\top H^{-1}\bar u}{u^\top H^{-1}u}\, H^{-1}u ,
          \qquad \bar X = \operatorname{sym}(w u^\top) .

H is singular by definition, its null vector is u. Adding :math:`\varepsilon I` makes it invertible, and the two terms
large and nearly equal: what is left of their difference in float32 has few digits. pmaf solves the bordered system that
the formula abbreviates instead.

Reference: Gould, Hartley, Campbell: Deep Declarative Networks, IEEE Trans. PAMI 44 (2022), proposition 4.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pmaf
from pmaf.linalg.lu import solve

__all__ = ["SHIFT", "leading_by_inverse"]

SHIFT = 1e-4
"""ε, of the size that float32 can tell from zero beside the entries of X."""


class _Inverse(torch.autograd.Function):
    """The leading eigenvector, with the gradient that the formula gives."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, solver: Any) -> Tensor:
        solution = pmaf.ied_ex(X, 1, solver=solver)
        u = solution.eigenvectors[..., 0].contiguous()
        ctx.save_for_backward(X, solution.eigenvalues, u)
        return u

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        X, values, u = ctx.saved_tensors
        eye = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
        H = (values[..., None] + SHIFT) * eye - X
        by_grad, by_u = solve(H, torch.stack((grad, u), -1)).unbind(-1)  # (B, m) each
        ratio = (u * by_grad).sum(-1, keepdim=True) / (u * by_u).sum(-1, keepdim=True)
        outer = (by_grad - ratio * by_u)[..., :, None] * u[..., None, :]
        return (outer + outer.mT) / 2, None


def leading_by_inverse(solver: Any) -> Callable[[Tensor], Tensor]:
    """A function from X, (B, m, m), to leading eigenvectors, (B, m, 1), differentiated by the formula above."""
    return lambda X: _Inverse.apply(X, solver)[..., None]  # type: ignore[no-untyped-call]
