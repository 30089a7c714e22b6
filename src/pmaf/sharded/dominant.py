r"""The dominant pair of a general matrix whose vectors are divided among ranks, as of PageRank.

Power iteration u ← X u/‖X u‖, and the adjoint of its fixed point. With P = I − u uᵀ the derivative of u is that of the
linear iteration u̇ = P(X u̇ + Ẋ u)/λ, whose adjoint q = P(ū + Xᵀq/λ) converges like the power iteration itself; then

    θ̄ = ∂⟨q/λ + λ̄ u, X(θ)u⟩/∂θ,   ū enlarged by λ̄(X + Xᵀ)u, since λ = uᵀX u.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pmaf.errors import GradientWarning
from pmaf.linalg.dtypes import working_dtype
from pmaf.sharded.krylov import inner
from pmaf.sharded.products import Vectors, signs
from pmaf.solution import DominantSolution, Status
from pmaf.solvers.eigen.subspace import default_rtol

__all__ = ["dominant"]

STEPS = 10_000


def dominant(function: str, arguments: Mapping[str, Any]) -> DominantSolution:
    """The solution of :func:`pmaf.dominant_pair_ex` for a function of DTensors.

    Args:
        function: the public function, for messages.
        arguments: of the call, by name.

    Returns:
        The solution, made of DTensors: the eigenvector divided by rows, all else replicated.

    Raises:
        TypeError: if the matrix is not real.
    """
    X = arguments["X"]
    if X.dtype.is_complex:
        raise TypeError(f"pmaf.{function}: X must be real, got a pmaf.MatVec of {X.dtype}")
    rows, dtype = Vectors(function, X), X.dtype
    params = rows.params(working_dtype(dtype))
    u, value, told = SharedDominant.apply(rows, *params)  # type: ignore[no-untyped-call]
    gap = torch.full_like(value, torch.nan)
    u = u * signs(rows, u, value[None], gap, told[2] * value.abs(), value.abs(), arguments.get("reference"))
    fields = (value.to(dtype), told[0].long(), told[1].long(), told[2], gap)
    eigenvalue, status, steps, residual, gap = map(rows.replicated, fields)
    return DominantSolution(eigenvalue, rows.whole(u.to(dtype))[:, 0], status, steps, residual, gap)


class SharedDominant(torch.autograd.Function):
    """This rank's rows of the eigenvector, the eigenvalue, and what is told of them, as functions of parameters."""

    @staticmethod
    def forward(ctx: Any, rows: Vectors, *params: Any) -> Any:
        """Iterate, and give a status."""
        like = params[0].to_local()
        rtol = default_rtol(like.dtype)
        u = rows.noise(like.new_empty(0, 1)) + rows.n**-0.5
        u = u / inner(u, u, rows.groups)[0, 0].sqrt()
        for step in range(1, STEPS + 1):  # noqa: B007 — how many there were is told
            image = rows.image(params, u).to_local()
            value, square = inner(torch.cat((u, image), -1), image, rows.groups)[:, 0]
            misfit = (square - value.square()).clamp_min(0).sqrt()
            if not bool(misfit > 1e-6 * value.abs()):  # where the difference of squares has no digits left
                off = image - value * u
                misfit = inner(off, off, rows.groups)[0, 0].sqrt()
            if not bool(misfit > rtol * value.abs()):
                break
            u = image / square.sqrt()
        residual = misfit / torch.where(value == 0, 1, value.abs())
        status = torch.where(misfit > rtol * value.abs(), Status.MAX_STEPS, Status.CONVERGED)
        failed = ~(residual.isfinite() & (square > 0))
        status = torch.where(failed, Status.NON_FINITE, status)
        u, value = torch.where(failed, torch.nan, u), torch.where(failed, torch.nan, value)
        told = torch.stack([status.to(value.dtype), torch.full_like(value, step), residual])
        ctx.rows, ctx.failed = rows, bool(failed)
        ctx.save_for_backward(*params, u, value)
        ctx.mark_non_differentiable(told)
        return u, value, told

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_u: Tensor, of_value: Tensor, _: Any) -> Any:
        """The adjoint of the fixed point."""
        rows = ctx.rows
        *params, u, value = ctx.saved_tensors
        if ctx.failed:
            return None, *(torch.zeros_like(p) for p in params)

        def project(x: Tensor) -> Tensor:
            part: Tensor = u @ inner(u, x, rows.groups)
            return x - part

        of_u = project(of_u + of_value * (rows.image(tuple(params), u).to_local() + rows.adjoint(tuple(params), u)))
        q, size = of_u, inner(of_u, of_u, rows.groups)[0, 0]
        for _step in range(STEPS):
            new = of_u + project(rows.adjoint(tuple(params), q)) / value
            moved, length = inner(new - q, new - q, rows.groups)[0, 0], inner(new, new, rows.groups)[0, 0]
            q = new
            if not bool(moved > (10 * torch.finfo(q.dtype).eps) ** 2 * torch.maximum(length, size)):
                break
        else:
            warnings.warn(
                f"pmaf.{rows.function}: the adjoint iteration left a part of the gradient out",
                GradientWarning,
                stacklevel=2,
            )
        return None, *rows.gradients(params, u, q / value + of_value * u, ctx.needs_input_grad[1:])
