r"""Leading eigenpairs by inverse iteration, with shifts that Cholesky factorisations prove to lie above the spectrum.

For the largest eigenvalue λ₁ of X, σI − X is positive definite exactly if σ > λ₁, which a Cholesky factorisation
decides; a Rayleigh quotient ρ = uᴴXu, on the other hand, is never above λ₁. So λ₁ stays in a bracket [lo, hi] that
every factorisation narrows: success moves hi to σ, and gives u ← (σI − X)⁻¹u / ‖·‖, which damps all other
eigenvectors by (σ − λ₁)/(σ − λⱼ); failure moves lo to σ. The shift is σ = ρ + ‖Xu − ρu‖ where the bracket allows,
which is of the order of the error of u, so that the error is squared in each step; otherwise the bracket is halved,
or, while hi is only a crude bound, searched from below in steps that grow eightfold: u may begin right beside another
eigenvector. Where halving fails, hi itself is next, which finds at once what lies right below its bound, such as an
eigenvalue that repeats.

The next pair follows from X − c uuᴴ, whose largest eigenvalue is λ₂. Because uuᴴ is moved to the far end of the
spectrum, the new vector is orthogonal to u to working precision, however close λ₁ and λ₂ are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.arguments import set_integers
from pmaf.definite import factorise, substitute
from pmaf.operators import Gram, Operator
from pmaf.products import double, matvec
from pmaf.reading import anywhere
from pmaf.solvers.problem import EigenAnswer

__all__ = ["InverseIteration", "first_vector", "leading_pair", "scaled_to_one", "spectral_norm"]


def scaled_to_one(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of Frobenius norm at most one.

    Args:
        A: ``(*, m, n)``.

    Returns:
        A divided by its Frobenius norm, zero where it is not finite; that norm, ``(*,)``; and a mask of the items that
        are finite.
    """
    peak = A.abs().amax((-2, -1)) if A.numel() else A.real.new_zeros(A.shape[:-2])
    sound = peak.isfinite()
    peak = torch.where(sound & (peak > 0), peak, 1)
    A = torch.where(sound[..., None, None], A / peak[..., None, None], 0)
    length = torch.linalg.vector_norm(A, dim=(-2, -1))
    return A / torch.where(length > 0, length, 1)[..., None, None], peak * length, sound


def first_vector(n: int, dtype: torch.dtype, device: torch.device, which: int) -> Tensor:
    """A unit vector of no particular direction, made on the device; the fractional parts of j²φ are equidistributed."""
    j = torch.arange(1, n + 1, dtype=torch.float64, device=device)
    angle = 2 * torch.pi * torch.frac(j.square() * (5**0.5 - 1) / 2 + j * (which + 1) * 2**0.5)
    v = (angle.cos() + 0.1).to(double(dtype))
    v = v * torch.polar(torch.ones_like(angle), angle * 2**0.5) if dtype.is_complex else v
    unit: Tensor = v / torch.linalg.vector_norm(v)
    return unit.to(dtype)


def spectral_norm(X: Tensor, steps: int = 10) -> Tensor:
    """‖X‖ of Hermitian matrices, ``(*,)``, from below and to the first digit, by power iteration."""
    v = first_vector(X.shape[-1], X.dtype, X.device, -1).expand(X.shape[:-1])
    length = torch.ones_like(v[..., 0].real)
    for _ in range(steps):
        v = matvec(X, v)
        length = torch.linalg.vector_norm(v, dim=-1)  # ≤ ‖X‖
        v = v / torch.where(length > 0, length, 1)[..., None]
    return length


def leading_pair(
    X: Tensor, u: Tensor, top: Tensor, tight: bool, max_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest eigenvalue and its vector.

    Args:
        X: Hermitian, of norm at most one, ``(*, n, n)``.
        u: unit vectors to begin with, ``(*, n)``.
        top: upper bounds of the eigenvalue, ``(*,)``.
        tight: whether the bounds are more than a guess, so that it pays to begin there.
        max_steps: the most factorisations.

    Returns:
        λ₁, ``(*,)``; u, ``(*, n)``; a mask of the items whose λ₁ is proven to be the largest up to rounding; and the
        number of factorisations of each.
    """
    n = X.shape[-1]
    noise = 2 * torch.finfo(X.dtype).eps * n**0.5  # shifts closer to the spectrum than this prove nothing
    eye = torch.eye(n, dtype=X.dtype, device=X.device)
    lo, hi = torch.full_like(top, -torch.inf), top + noise
    safe = torch.full_like(
        top, tight, dtype=torch.bool
    )  # σ = hi comes next, because a shift in the upper half has failed
    active = torch.ones_like(top, dtype=torch.bool)
    steps = torch.zeros_like(top, dtype=torch.int64)
    for _ in range(max_steps):
        Xu = matvec(X, u)
        rho = (u.conj() * Xu).sum(-1).real
        error = torch.linalg.vector_norm(Xu - rho[..., None] * u, dim=-1).clamp(min=noise)
        lo = torch.maximum(lo, rho)
        near, middle = torch.maximum(rho + error, rho + 8 * (lo - rho)), (lo + hi) / 2
        sigma = torch.where(near < middle, near, torch.maximum(middle, lo + noise / 2))
        sigma = torch.where(safe, hi, sigma)
        L, above = factorise(sigma[..., None, None] * eye - X)
        v = substitute(torch.where(above[..., None, None], L, eye), u[..., None])[..., 0]
        v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        u = torch.where((active & above)[..., None], v, u)
        hi, lo = torch.where(above, torch.minimum(hi, sigma), hi), torch.where(above, lo, sigma)
        safe = ~above & ~safe & (sigma >= middle)
        steps = steps + active
        active = active & ~(above & (sigma - rho <= 2 * noise))
        if not anywhere(active):
            break
    rho = (u.conj() * matvec(X, u)).sum(-1).real
    return rho, u, hi - rho <= 16 * noise, steps


@dataclass(frozen=True, kw_only=True)
class InverseIteration:
    r"""The k leading eigenpairs by certified inverse iteration: nothing but Cholesky factorisations and substitutions.

    Does not wait for the device: factorisations report success there, and the number of steps is fixed, except on the
    CPU, where looking whether all items are done costs nothing. So it can be captured in a CUDA graph, and it is what
    :func:`pmaf.ied_ex` uses on accelerators. An item counts as done when a factorisation has proven that no eigenvalue
    lies above the one found by more than a few units of rounding; k + 1 pairs are found, the last one for the gap.

    Works in the dtype of X, batched, on repeated, clustered and zero eigenvalues as well. A Gram matrix is formed, in
    double precision, from the smaller side of F; eigenvalues that are rounding errors count as zero.

    Cost: about ten factorisations, 10·n³/3, for each pair on the CPU; ``max_steps`` of them elsewhere.

    Args:
        max_steps: the most factorisations for one pair; by default 18, or 28 in double precision.

    Raises:
        ValueError: if ``max_steps`` is not positive.

    References:
        Parlett, The Symmetric Eigenvalue Problem (1998), chapters 3, 4 and 5.

    Example:
        >>> import torch, pmaf
        >>> pmaf.ied(torch.diag(torch.tensor([1.0, 3.0])), 1, solver=pmaf.solvers.InverseIteration()).eigenvalues
        tensor([3.])
    """

    max_steps: int | None = None

    def __post_init__(self) -> None:
        set_integers(self, "max_steps")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k largest (smallest) eigenpairs of every item.

        Args:
            X: the operator; anything but a Gram matrix is made dense.
            k: how many pairs.
            largest: algebraically largest, else smallest.
            start: ``(*, n, p)``, first guesses of the vectors.

        Returns:
            The pairs, without an eigenbasis.
        """
        if isinstance(X, Gram):
            return self._solve_gram(X.factor, k, largest, start)
        A, scale, sound = scaled_to_one(X.dense())
        sign = 1.0 if largest else -1.0
        values, U, done, steps = self._pairs(sign * A, k, start)
        return answer(values, U, done & sound, steps, scale, sign, k == X.n, spectral_norm(A))

    def _solve_gram(self, F: Tensor, k: int, largest: bool, start: Tensor | None) -> EigenAnswer:
        """The same from the factor, by the smaller side."""
        r, n = F.shape[-2:]
        G, scale, sound = scaled_to_one(F)
        G = G.to(double(F.dtype))
        rows = r < n and largest and k <= r
        sign = 1.0 if largest else -1.0
        if start is not None and rows:
            start = G @ start.to(G.dtype)
        A = G @ G.mH if rows else G.mH @ G
        values, U, done, steps = self._pairs(sign * A, k, start)
        values = torch.where(values.abs() > n * torch.finfo(values.dtype).eps, values, 0)
        if rows:
            if k == r:  # the other eigenvalues of FᴴF are zero
                values = torch.cat((values[..., :k], torch.zeros_like(values[..., :1])), -1)
            image = G.mH @ U
            length = torch.linalg.vector_norm(image, dim=-2, keepdim=True)
            Q, R = torch.linalg.qr(image / torch.where(length > 0, length, 1))
            U = Q * torch.sgn(R.diagonal(dim1=-2, dim2=-1))[..., None, :]
        square = scale.to(values.dtype).square()
        return narrowed(answer(values, U, done & sound, steps, square, sign, k == n, spectral_norm(A)), F)

    def _pairs(self, X: Tensor, k: int, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The k + 1 largest eigenvalues, fewer if there are no more, the vectors of the first k, a mask, and steps."""
        n = X.shape[-1]
        limit = self.max_steps if self.max_steps is not None else 18 if torch.finfo(X.dtype).bits < 64 else 28
        top = torch.ones_like(X[..., 0, 0].real)
        values: list[Tensor] = []
        vectors: list[Tensor] = []
        done, steps = torch.ones_like(top, dtype=torch.bool), torch.zeros_like(top, dtype=torch.int64)
        for i in range(min(k + 1, n)):
            u = first_vector(n, X.dtype, X.device, i).expand(X.shape[:-1])
            if start is not None and i < start.shape[-1]:
                given = start[..., i].to(X.dtype)
                given = given / torch.linalg.vector_norm(given, dim=-1, keepdim=True)
                given = torch.where(given.isfinite().all(-1, keepdim=True), given, 0)
                u = given + torch.finfo(X.dtype).eps ** 0.5 * u  # an unwanted eigenvector must not stay one
                u = (u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)).expand(X.shape[:-1])
            for v in vectors:
                u = u - (v.conj() * u).sum(-1, keepdim=True) * v
            u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
            top, u, proven, taken = leading_pair(X, u, top, i > 0, limit)
            values.append(top)
            done, steps = done & proven, steps + taken
            if i < k:
                vectors.append(u)
                X = X - ((top + 2)[..., None] * u)[..., :, None] * u.conj()[..., None, :]
        return torch.stack(values, -1), torch.stack(vectors, -1), done, steps


def answer(
    values: Tensor, U: Tensor, done: Tensor, steps: Tensor, scale: Tensor, sign: float, every: bool, norm: Tensor
) -> EigenAnswer:
    """Back to the units of the data, with the last value as the nearest one left out unless every one is selected."""
    k = U.shape[-1]
    original = values * (sign * scale)[..., None]
    outside = torch.full_like(norm, -sign * torch.inf) if every else original[..., k]
    return EigenAnswer(original[..., :k], U, done, steps, outside, norm=norm * scale)


def narrowed(found: EigenAnswer, like: Tensor) -> EigenAnswer:
    """The same in the precision of a tensor."""
    real = like.real.dtype
    return found._replace(
        eigenvalues=found.eigenvalues.to(real),
        eigenvectors=found.eigenvectors.to(like.dtype),
        next=None if found.next is None else found.next.to(real),
        norm=None if found.norm is None else found.norm.to(real),
    )
