"""Quadratics on the sphere from products alone: the generalised Lanczos trust region method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.arguments import set_integers, set_reals
from pmaf.operators import Dense, Gram, Operator
from pmaf.products import adjoint_matvec
from pmaf.solvers.krylov_sphere import solve_krylov
from pmaf.solvers.problem import LeastSquares, SphereAnswer, SphereQuadratic
from pmaf.solvers.secular import magnitude
from pmaf.solvers.subspace import random_block, scaled

__all__ = ["KrylovTrustRegion"]


@dataclass(frozen=True, kw_only=True)
class KrylovTrustRegion:
    r"""The global minimiser from products with Q alone, for large n; needs no entry of Q = AᴴA or H.

    .. math:: \min_u\ \tfrac12 u^H Q u - \mathrm{Re}\,g^H u \quad\text{subject to}\quad \|u\| = r

    Q of any signs. The answer is accepted if its residual ‖(Q + λI)u − g‖, measured with one more product, is small and
    the smallest Ritz value of Q is settled well enough to tell that λ is not below −λ_min(Q); the hard case included.
    That is as sure as an eigenvalue can be known from products: z would have to be orthogonal to an eigenvector.
    Steps grow like √κ, κ = (λ_max + λ)/(λ_min + λ). An item that needs more than ``max_steps`` is reported as
    unfinished, with the best point found.

    Batched, real and complex. Cost for each item: two columns of products a step, and O(n k²) in all for full
    orthogonalisation of k = 2 × steps vectors, which are kept.

    Args:
        rtol: the residual to reach, relative to :math:`(\|Q\| + |\lambda|)\,r`; by default 30 units in the last place.
        max_steps: the most steps an item may take; by default 500. n/2 steps always suffice.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> from pmaf.solvers.problem import SphereQuadratic
        >>> H, g = torch.diag(torch.tensor([-1.0, 2.0, 3.0])), torch.tensor([0.0, 1.5, 0.0])  # hard
        >>> answer = KrylovTrustRegion().solve(SphereQuadratic(H, g, torch.tensor(1.0)))
        >>> answer.multiplier.round(decimals=4), answer.u.abs().round(decimals=4)
        (tensor(1.), tensor([0.8660, 0.5000, 0.0000]))
    """

    rtol: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")
        set_reals(self, "positive", "rtol")

    def solve(self, problem: LeastSquares | SphereQuadratic, start: Tensor | None = None) -> SphereAnswer:
        """Solve every item of the batch.

        Args:
            problem: least squares or a quadratic on the sphere.
            start: a guess of the answer, ``(*, n)``.

        Returns:
            The minimiser, its multiplier and the gap.
        """
        size = magnitude(problem[0])
        scale = size[..., None, None]
        if isinstance(problem, LeastSquares):
            Q: Operator = Gram(problem.A)
            g = adjoint_matvec(problem.A, problem.b / (size * problem.radius)[..., None]) / size[..., None]
            unit = size.square()
        else:
            Q = Dense(problem.H)
            g = problem.g / (size * problem.radius)[..., None]
            unit = size

        def product(V: Tensor) -> Tensor:
            """Q V over the square of the scale, with no large number on the way."""
            inner = V / scale if isinstance(problem, LeastSquares) else V
            return Q.matmat(inner) / scale

        g = g.expand(*problem.batch_shape, problem.n)
        return in_units(solve_krylov(product, g, start, self.rtol, self.max_steps), problem.radius, unit)

    def solve_operator(self, Q: Operator, g: Tensor, radius: Tensor, start: Tensor | None = None) -> SphereAnswer:
        """Solve a quadratic whose Hermitian matrix is known by its products only.

        Args:
            Q: the operator; items whose products are not finite get NaN.
            g: ``(*, n)``.
            radius: ``(*,)``.
            start: a guess of the answer, ``(*, n)``.

        Returns:
            The minimiser, its multiplier and the gap.
        """
        batch = torch.broadcast_shapes(Q.batch_shape, g.shape[:-1], radius.shape)
        V = torch.linalg.qr(random_block(Q.n, min(2, Q.n), g.dtype, g.device))[0]
        operator = scaled(Q, True, V)
        g = torch.where(operator.sound[..., None], g / (operator.scale * radius)[..., None], torch.nan)
        answer = solve_krylov(operator.__call__, g.expand(*batch, Q.n), start, self.rtol, self.max_steps)
        return in_units(answer, radius, operator.scale)


def in_units(answer: SphereAnswer, radius: Tensor, scale: Tensor) -> SphereAnswer:
    """The answer in the units of the data, where Q was divided by ``scale`` and u by the radius."""
    assert answer.multiplier is not None
    assert answer.gap is not None
    u = answer.u * radius[..., None]
    return answer._replace(u=u, multiplier=answer.multiplier * scale, gap=answer.gap * scale)
