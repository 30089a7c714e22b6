"""Quadratics on the sphere from products alone: the generalised Lanczos trust region method, with blocks.

In an orthonormal basis V of a Krylov space of Q the problem is that of T = VᴴQV: small, and solved globally by its
secular equation, (T + λI) h = Vᴴg with ‖h‖ = 1. The block that starts the space is (g, z), z random but fixed. From g
alone no eigenvector orthogonal to g can be seen, so that space neither proves λ ≥ −λ_min(Q) nor contains the answer in
the *hard case*, where one of these eigenvectors is part of it.

References: Gould, Lucidi, Roma, Toint, Solving the trust-region subproblem using the Lanczos method (1999); Golub and
Underwood, The block Lanczos method for computing eigenvalues (1977).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers, set_reals
from pmaf.linalg.batched import adjoint_matvec
from pmaf.linalg.dtypes import double
from pmaf.linalg.krylov import KrylovSpace
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import magnitude
from pmaf.linalg.vectors import perturbed, random_block
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram
from pmaf.operators.scaled import scaled
from pmaf.solvers.base import LeastSquares, Solver, SphereAnswer, SphereQuadratic
from pmaf.solvers.iteration import State, iterate
from pmaf.solvers.sphere.geometry import length
from pmaf.solvers.sphere.secular import unit_solution

__all__ = ["KrylovTrustRegion", "solve_krylov"]

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class KrylovTrustRegion(Solver):
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
        >>> from pmaf.solvers.base import SphereQuadratic
        >>> H, g = torch.diag(torch.tensor([-1.0, 2.0, 3.0])), torch.tensor([0.0, 1.5, 0.0])  # hard
        >>> answer = KrylovTrustRegion().solve(SphereQuadratic(H, g, torch.tensor(1.0)))
        >>> answer.multiplier.round(decimals=4), answer.u.abs().round(decimals=4)
        (tensor(1.), tensor([0.8660, 0.5000, 0.0000]))
    """

    needs = "products"
    use = "large n where the misfit is well conditioned, and operators; the default for them"
    leaves_basis = True  # made by the forward pass, for the gap
    takes_start = True

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
        g = torch.where(operator.finite[..., None], g / (operator.scale * radius)[..., None], torch.nan)
        answer = solve_krylov(operator.__call__, g.expand(*batch, Q.n), start, self.rtol, self.max_steps)
        return in_units(answer, radius, operator.scale)


def in_units(answer: SphereAnswer, radius: Tensor, scale: Tensor) -> SphereAnswer:
    """The answer in the units of the data, where Q was divided by ``scale`` and u by the radius."""
    assert answer.multiplier is not None
    assert answer.gap is not None
    u = answer.u * radius[..., None]
    return answer._replace(u=u, multiplier=answer.multiplier * scale, gap=answer.gap * scale)


def solve_krylov(
    product: Product,
    g: Tensor,
    start: Tensor | None = None,
    rtol: float | None = None,
    max_steps: int | None = None,
) -> SphereAnswer:
    """Minimise ½ uᴴQu − Re gᴴu on the unit sphere, Q given by a function that multiplies a block of vectors by it.

    Args:
        product: maps ``(*, n, p)`` to Q times it; Hermitian, of a norm not far from one.
        g: ``(*, n)`` with all batch dimensions.
        start: a guess of the answer, ``(*, n)``.
        rtol: see :class:`KrylovTrustRegion`.
        max_steps: see :class:`KrylovTrustRegion`.

    Returns:
        The minimiser, its multiplier, and the gap to the smallest eigenvalue that was found.
    """
    *batch, n = g.shape
    eps = torch.finfo(g.dtype).eps
    rtol = 30 * eps if rtol is None else rtol
    noise = random_block(n, 3, g.dtype, g.device)
    columns = [g, noise[:, 0].expand_as(g)]
    if start is not None:  # beside z and not in its place: what a guess is blind to, z is not
        columns.append(perturbed(start.expand_as(g)[..., None], noise[:, 1:2], eps**0.5)[..., 0])
    block = torch.stack(columns, -1)[..., :n]  # (*, n, p)
    ahead, R = torch.linalg.qr(block)
    p = ahead.shape[-1]
    space = KrylovSpace(product, ahead, noise[:, :p])
    limit = min(-(-n // p), 500 if max_steps is None else max_steps)
    sizes = iter(rounds(limit))

    def advance(state: State) -> tuple[State, Tensor]:
        *_, steps = state
        size = next(sizes)
        for _ in range(size):
            space.extend()
        k = space.V.shape[-1]
        s, Y, usable = hermitian_eigh(space.H.to(double(g)))
        gamma = Y[..., 0, :].conj() * R[..., 0, :1]  # Yᴴ Vᴴ g
        solved = unit_solution(s, Y, gamma, usable, 60)
        t, multiplier = solved.t, solved.t - s[..., 0]
        u = (space.V @ solved.u.to(g.dtype)[..., None])[..., 0]
        u = u / length(u)[..., None]
        residual = length(product(u[..., None])[..., 0] + multiplier.to(g.real.dtype)[..., None] * u - g)
        slack = space.slack(Y.to(g.dtype))  # (*, k) residuals of the Ritz pairs
        tolerance = rtol * (s.abs().amax(-1) + multiplier.abs())
        # Each Ritz value has an eigenvalue within its slack, and none of these may lie below −λ. The bottom pair alone
        # does not tell: g may contribute an eigenvector, exact at once, while z is still on its way down.
        certain = (s - slack).amin(-1) + multiplier >= -tolerance
        settled = slack[..., 0] <= torch.maximum(t / 10, tolerance)
        good = (residual <= tolerance) & certain & settled
        over = good | ~usable | (k == n) | ~u.isfinite().all(-1)
        return (u, multiplier, t, good, steps + size), over

    real = torch.zeros(batch, dtype=double(g.real), device=g.device)
    state = (torch.zeros_like(g), real, real, real > 0, real.to(torch.int64))
    (u, multiplier, gap, good, steps), _, _ = iterate(advance, state, torch.Size(batch), len(rounds(limit)))
    kind = g.real.dtype
    return SphereAnswer(u=u, finished=good, steps=steps, multiplier=multiplier.to(kind), gap=gap.to(kind))


def rounds(limit: int) -> list[int]:
    """How many blocks to add before each solve of the projected problem: 4, then a quarter of what is there."""
    sizes: list[int] = []
    while (total := sum(sizes)) < limit:
        sizes.append(min(max(4, total // 4), limit - total))
    return sizes
