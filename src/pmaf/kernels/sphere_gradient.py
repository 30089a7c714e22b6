"""Gradients of minimisers on the sphere, or in the ball."""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import CompiledFunction, in_memory
from pmaf.kernels.sphere import DATA, data_fields

__all__ = ["SphereGradients", "sphere_gradient"]

SPHERE_GRADIENT = CompiledFunction(
    "sphere_gradient",
    f"{DATA}, i threads, P u factor code vector_cotangent multiplier_cotangent w mu, "
    "P A_gradient b_gradient weights_gradient radius_gradient",
)


class SphereGradients(NamedTuple):
    """What the kernel finds; ``None`` where it was not asked for."""

    w: Tensor | None  # (*, n)
    mu: Tensor | None  # (*,)
    matrix: Tensor | None  # Ā, (*, m, n), or H̄, (*, n, n)
    right: Tensor | None  # b̄, (*, m), or ḡ, (*, n)
    weights: Tensor | None  # (*, m)
    radius: Tensor | None  # (*,)


def sphere_gradient(
    A: Tensor,
    b: Tensor,
    radius: Tensor,
    weights: Tensor | None,
    u: Tensor,
    factor: Tensor,
    code: Tensor,
    *,
    quadratic: bool = False,
    vector: Tensor | None,
    multiplier: Tensor | None,
    needs: tuple[bool, bool, bool, bool] = (True, True, False, False),
    solution: bool = False,
) -> SphereGradients:
    """Pull cotangents of u and λ back to A, b, weights and radius, or solve the bordered system alone.

    Args:
        A: as :func:`pmaf.kernels.sphere.sphere_minimum` was given it.
        b: likewise.
        radius: likewise.
        weights: likewise.
        u: what it found, ``(*, n)``.
        factor: what it left.
        code: its codes.
        quadratic: which problem it was.
        vector: the cotangent of u, ``(*, n)``; ``None`` for zero.
        multiplier: the cotangent of λ, ``(*,)``; ``None`` for zero.
        needs: which gradients are wanted: of A (symmetric for a quadratic), b, weights, radius; one item for each
            item of the batch.
        solution: whether w and μ are wanted.

    Returns:
        What was asked for.
    """
    batch, (m, n), real = u.shape[:-1], A.shape[-2:], radius.dtype
    data = data_fields(quadratic, batch, A, b, radius, weights)
    w = torch.empty_like(u, memory_format=torch.contiguous_format) if solution else None
    mu = torch.empty(batch, dtype=real) if solution else None
    gradients = (
        torch.empty((*batch, m, n), dtype=A.dtype) if needs[0] else None,
        torch.empty((*batch, m), dtype=A.dtype) if needs[1] else None,
        torch.empty((*batch, m), dtype=real) if needs[2] else None,
        torch.empty(batch, dtype=real) if needs[3] else None,
    )
    point = in_memory(u), in_memory(factor), in_memory(code)
    cotangents = [None if x is None else in_memory(x) for x in (vector, multiplier)]
    SPHERE_GRADIENT(*data, torch.get_num_threads(), *point, *cotangents, w, mu, *gradients)
    return SphereGradients(w, mu, *gradients)
