r"""The eigenpairs nearest to a number, from all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh

__all__ = ["Nearest"]


@dataclass(frozen=True, kw_only=True)
class Nearest(Solver):
    """The k eigenpairs nearest to a number, nearest first, of equal distance the larger first.

    All pairs are found, O(n³), so that a number equal to an eigenvalue is as good as any other.

    Args:
        shift: the number, σ.
    """

    use = "what ``near=`` asks for"
    leaves_basis = True

    shift: float = 0.0

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the k pairs of every item.

        Args:
            X: the operator.
            k: how many pairs.
            largest: without a meaning here.
            start: refused, since a direct method has no use for it.

        Returns:
            The pairs, the eigenbasis, and the gap.
        """
        self.accept(X, k, start)
        found = Eigh().solve(X, X.n, largest=False)
        s, V = found.eigenvalues, found.eigenvectors
        order = self.order(s)
        wanted, left_out = order[..., :k], order[..., k:]
        values = s.gather(-1, wanted)
        vectors = V.gather(-1, wanted[..., None, :].expand(*V.shape[:-1], k))
        others = s.gather(-1, left_out)
        if k == X.n:
            gap = torch.full_like(s[..., 0], torch.inf)
            return found._replace(eigenvalues=values, eigenvectors=vectors, next=gap, gap=gap)
        distances, which = (values[..., :, None] - others[..., None, :]).abs().amin(-2).min(-1)
        following = others.gather(-1, which[..., None])[..., 0]
        return found._replace(eigenvalues=values, eigenvectors=vectors, next=following, gap=distances)

    @torch.no_grad()
    def order(self, s: Tensor) -> Tensor:
        """Indices of eigenvalues by distance; where that of two differs by rounding only, the larger comes first.

        Two of equal distance lie on either side of σ. So those below it stand back by the rounding, and on each side
        the order is that of the values, however they crowd.
        """
        s = s.detach()
        distance = (s - self.shift).abs()
        size = s.abs().amax(-1, keepdim=True) + abs(self.shift)
        rounding = relative_tolerance(None, s.dtype, s.shape[-1]) * size
        return torch.where(s < self.shift, distance + rounding, distance).argsort(dim=-1, stable=True)
