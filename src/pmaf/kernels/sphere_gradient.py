"""Gradients of minimisers on the sphere, or in the ball."""

from typing import NamedTuple

import torch
from torch import Tensor

from pmaf.kernels.calls import CompiledFunction, in_memory
from pmaf.kernels.real_form import complex_matrix, complex_vector, real_problem, real_vector
from pmaf.kernels.sphere import DATA, data_fields

__all__ = ["SphereGradients", "sphere_gradient"]

SPHERE_GRADIENT = CompiledFunction(
    "sphere_gradient",
    f"{DATA}, i threads, P u factor code vector_cotangent multiplier_cotangent w mu, "
    "P A_gradient b_gradient weights_gradient radius_gradient",
)


class SphereGradients(NamedTuple):
    """What the kernel finds; ``None`` where it was not asked for."""

    w: Tensor | None  # (B, n)
    mu: Tensor | None  # (B,)
    matrix: Tensor | None  # Ā, (B, m, n), or H̄, (B, n, n)
    right: Tensor | None  # b̄, (B, m), or ḡ, (B, n)
    weights: Tensor | None  # (B, m)
    radius: Tensor | None  # (B,)


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
        u: what it found, ``(B, n)``.
        factor: what it left.
        code: its codes.
        quadratic: which problem it was.
        vector: the cotangent of u, ``(B, n)``; ``None`` for zero.
        multiplier: the cotangent of λ, ``(B,)``; ``None`` for zero.
        needs: which gradients are wanted: of A (symmetric for a quadratic), b, weights, radius; one item for each
            item of the batch.
        solution: whether w and μ are wanted.

    Returns:
        What was asked for.
    """
    if A.is_complex():
        found = sphere_gradient(
            *real_problem(A, b, radius, weights),
            *(real_vector(u), factor, code),
            quadratic=quadratic,
            vector=None if vector is None else real_vector(vector),
            multiplier=multiplier,
            needs=needs,
            solution=solution,
        )
        return found._replace(
            w=None if found.w is None else complex_vector(found.w),
            matrix=None if found.matrix is None else complex_matrix(found.matrix),
            right=None if found.right is None else complex_vector(found.right),
            weights=None if found.weights is None else found.weights.unflatten(-1, (2, -1)).sum(-2),
        )
    data = data_fields(quadratic, A, b, radius, weights)
    B, (m, n) = data[1], A.shape[-2:]
    w, mu = (A.new_empty(B, n), A.new_empty(B)) if solution else (None, None)
    shapes = (B, m, n), (B, m), (B, m), (B,)
    gradients = [A.new_empty(shapes[i]) if need else None for i, need in enumerate(needs)]
    point = in_memory(u), in_memory(factor), in_memory(code)
    cotangents = [None if x is None else in_memory(x) for x in (vector, multiplier)]
    SPHERE_GRADIENT(*data, torch.get_num_threads(), *point, *cotangents, w, mu, *gradients)
    return SphereGradients(w, mu, *gradients)
