r"""The inside of the ball: the minimiser without a constraint, u = Q⁺g, which is the answer where it lies in the ball.

Of several minimisers it is the one of least norm, so that an answer inside exists exactly if *it* lies inside: a rank
that A or H lacks cannot push it to the boundary. What counts as zero is what the layer's tolerances say.

An eigenbasis of AᴴA knows σ² to ε‖A‖², which is not enough to tell a small singular value from none. Items whose
smallest eigenvalue is that close to zero are decomposed once more, in double precision: A by its singular values, H by
its eigenvalues. Where the host would have to wait for a device, and the solver left no basis, a filter of
:mod:`pmaf.linalg.cholesky` takes their place, to fewer digits.
"""

import torch
from torch import Tensor

from pmaf.linalg.batched import adjoint_matvec, matvec
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.cholesky import definite_inverse
from pmaf.linalg.dtypes import double, widened
from pmaf.solvers.base import LeastSquares, SphereQuadratic
from pmaf.transforms import anywhere, cheap

__all__ = ["least_norm"]

SUSPECT = 1e3  # an eigenvalue of Q below this many roundings of ‖Q‖ is not known to a digit worth having
REFINEMENTS = 2


def least_norm(
    problem: LeastSquares | SphereQuadratic,
    s: Tensor,
    V: Tensor,
    scale: Tensor,
    tolerance: Tensor,
    rtol: float,
    near: Tensor,
) -> tuple[Tensor, Tensor]:
    """The minimiser without a constraint, of least norm where there are several.

    Args:
        problem: what is solved.
        s: eigenvalues of Q in units of the scale, ascending; the smallest alone where V is empty.
        V: eigenvectors, or empty.
        scale: the units.
        tolerance: eigenvalues of Q up to here count as zero, ``(*,)``.
        rtol: singular values up to here, relative to the largest, count as zero.
        near: items where it matters, ``(*,)``: the others are outside for sure.

    Returns:
        u, ``(*, n)``, and the smallest eigenvalue of Q in units of the scale, ``(*,)``.
    """
    matrix, right, _ = problem
    quadratic = isinstance(problem, SphereQuadratic)
    unit = scale if quadratic else scale.sqrt()
    wide = double(matrix.dtype) if V.shape[-1] == 0 else widened(matrix)
    A, b = matrix.to(wide) / unit[..., None, None], right.to(wide) / unit[..., None]
    if quadratic:
        A = (A + A.mH) / 2

    def descent(u: Tensor) -> Tensor:
        return b - matvec(A, u) if quadratic else adjoint_matvec(A, b - matvec(A, u))

    if V.shape[-1] == 0:
        Q = A if quadratic else A.mH @ A
        Q = torch.where(Q.isfinite(), Q, 0)
        singular = s[..., 0] <= tolerance
        pseudo_inverse = definite_inverse(Q, singular, tolerance.to(Q.real.dtype))

        def solve(g: Tensor) -> Tensor:
            return pseudo_inverse(g[..., None])[..., 0]

    else:
        inverse = safe_inverse(s, s > tolerance[..., None])

        def solve(g: Tensor) -> Tensor:
            return matvec(V, adjoint_matvec(V, g.to(V.dtype)) * inverse).to(wide)

    rest = descent(torch.zeros_like(b if quadratic else A[..., 0, :]))
    u = solve(rest)
    for _ in range(REFINEMENTS):
        rest = descent(u)
        better = u + solve(rest)
        lower = torch.linalg.vector_norm(descent(better), dim=-1) < torch.linalg.vector_norm(rest, dim=-1)
        u = torch.where(lower[..., None], better, u)
    if V.shape[-1] == 0:
        # The filter leaves √ε of u in a null space; Q Q⁺u has none, and ε‖Q⁺u‖ of rounding.
        clean = matvec(Q, solve(u))
        clean = clean + solve(descent(clean))
        before, after = (torch.linalg.vector_norm(descent(x), dim=-1) for x in (u, clean))
        rounding = torch.finfo(u.dtype).eps * (
            torch.linalg.vector_norm(b, dim=-1) + torch.linalg.vector_norm(u, dim=-1)
        )
        u = torch.where((singular & (after <= 4 * torch.maximum(before, rounding)))[..., None], clean, u)
    u, smallest = u.expand(*problem.batch_shape, -1), s[..., 0].expand(problem.batch_shape)
    suspect = near & (s[..., 0] <= SUSPECT * torch.finfo(matrix.dtype).eps) & A.isfinite().flatten(-2).all(-1)
    if (V.shape[-1] > 0 or cheap(suspect)) and anywhere(suspect):
        u, smallest = again(u, smallest, A, b, suspect.expand(problem.batch_shape), quadratic, rtol)
    return u.to(matrix.dtype), smallest


def again(
    u: Tensor, smallest: Tensor, A: Tensor, b: Tensor, suspect: Tensor, quadratic: bool, rtol: float
) -> tuple[Tensor, Tensor]:
    """The suspect items from a decomposition in double precision.

    Args:
        u: what there is, ``(*, n)``.
        smallest: the smallest eigenvalues of Q, ``(*,)``.
        A: the matrix, Hermitian if the problem is a quadratic, ``(*, m, n)``.
        b: ``(*, m)``.
        suspect: ``(*,)``.
        quadratic: whether A is H.
        rtol: singular values up to here, relative to the largest, count as zero.

    Returns:
        u and the smallest eigenvalues with these items replaced.
    """
    batch, wide = suspect.shape, double(A.dtype)
    index = suspect.reshape(-1).nonzero()[:, 0]
    F = A.expand(*batch, *A.shape[-2:]).reshape(-1, *A.shape[-2:])[index].to(wide)
    y = b.expand(*batch, -1).reshape(-1, b.shape[-1])[index].to(wide)
    if quadratic:
        sigma, right = torch.linalg.eigh(F)
        left, bottom = right, sigma[:, 0]
    else:
        left, sigma, adjoint = torch.linalg.svd(F, full_matrices=False)
        right = adjoint.mH
        bottom = sigma[:, -1].square() if F.shape[-2] >= F.shape[-1] else sigma.new_zeros(len(F))
    largest = sigma.abs().amax(-1, keepdim=True) if sigma.shape[-1] else sigma.new_zeros(len(sigma), 1)
    inverse = safe_inverse(sigma, sigma > rtol * largest)
    found = matvec(right, adjoint_matvec(left, y) * inverse)
    flat = u.reshape(-1, u.shape[-1]).index_copy(0, index, found.to(u.dtype))
    smallest = smallest.reshape(-1).index_copy(0, index, bottom.to(smallest.dtype)).reshape(batch)
    return flat.reshape(u.shape), smallest
