r"""Leading eigenpairs by inverse iteration, with shifts that Cholesky factorisations prove to lie above the spectrum.

Each pair is the largest one of a matrix, found by :mod:`pmaf.linalg.leading_pair`. The next pair follows from X − c
uuᴴ, whose largest eigenvalue is λ₂. Because uuᴴ is moved to the far end of the spectrum, the new vector is orthogonal
to u to working precision, however close λ₁ and λ₂ are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_integers
from pmaf.linalg.dtypes import double
from pmaf.linalg.leading_pair import leading_pair
from pmaf.linalg.scaling import scaled_to_one, spectral_norm
from pmaf.linalg.vectors import completed, first_vector, perturbed
from pmaf.operators.base import Operator
from pmaf.operators.gram import Gram
from pmaf.solvers.base import EigenAnswer, Solver

__all__ = ["CholeskyInverseIteration"]


@dataclass(frozen=True, kw_only=True)
class CholeskyInverseIteration(Solver):
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
        >>> X = torch.diag(torch.tensor([1.0, 3.0]))
        >>> pmaf.ied(X, 1, solver=pmaf.solvers.CholeskyInverseIteration()).eigenvalues
        tensor([3.])
    """

    needs = "the matrix, or the factor of a Gram matrix"
    use = "to keep the host from waiting for a GPU; the default there for ied_ex"
    takes_start = True
    waits = False

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
        G, scale, sound = scaled_to_one(F.to(double(F)))
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
            U = completed(image / torch.where(length > 0, length, 1))
        square = scale.to(values.dtype).square()
        return in_precision_of(answer(values, U, done & sound, steps, square, sign, k == n, spectral_norm(A)), F)

    def _pairs(self, X: Tensor, k: int, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The k + 1 largest eigenvalues, fewer if there are no more, the vectors of the first k, a mask, and steps."""
        n = X.shape[-1]
        limit = self.max_steps if self.max_steps is not None else 18 if torch.finfo(X.dtype).bits < 64 else 28
        top: Tensor | None = None
        values: list[Tensor] = []
        vectors: list[Tensor] = []
        done = torch.ones_like(X[..., 0, 0], dtype=torch.bool)
        steps = torch.zeros_like(done, dtype=torch.int64)
        for i in range(min(k + 1, n)):
            u = first_vector(n, X.dtype, X.device, i).expand(X.shape[:-1])
            if start is not None and i < start.shape[-1]:
                share = torch.finfo(X.dtype).eps ** 0.5  # enough, since the value found is proven to be the largest
                u = perturbed(start[..., i : i + 1], u[..., None], share)[..., 0].expand(X.shape[:-1])
            for v in vectors:
                u = u - (v.conj() * u).sum(-1, keepdim=True) * v
            u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True)
            top, u, proven, taken = leading_pair(X, u, top, limit)
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


def in_precision_of(found: EigenAnswer, like: Tensor) -> EigenAnswer:
    """The same in the precision of a tensor."""
    real = like.real.dtype
    return found._replace(
        eigenvalues=found.eigenvalues.to(real),
        eigenvectors=found.eigenvectors.to(like.dtype),
        next=None if found.next is None else found.next.to(real),
        norm=None if found.norm is None else found.norm.to(real),
    )
