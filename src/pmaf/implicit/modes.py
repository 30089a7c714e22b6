"""How an answer is differentiated, as an object the caller gives as ``backward=``."""

from dataclasses import dataclass

from pmaf.checks.values import set_reals

__all__ = ["Implicit", "Unrolled"]


@dataclass(frozen=True, kw_only=True)
class Implicit:
    r"""Differentiate the optimality conditions, in closed form; the default.

    A difference of eigenvalues of at most :math:`\mathrm{atol} + \mathrm{rtol}\,\|X\|` counts as zero: the answer is
    then not unique, and the component of the gradient that would divide by it is dropped.

    Args:
        rtol: relative tolerance; by default ten machine precisions times √n, n counted up to 4096.
        atol: absolute tolerance.

    Raises:
        ValueError: if a tolerance is negative.
    """

    rtol: float | None = None
    atol: float = 0.0

    def __post_init__(self) -> None:
        set_reals(self, "non-negative", "rtol", "atol")


@dataclass(frozen=True)
class Unrolled:
    """Run the solver under autograd: through its loop, or through :func:`torch.linalg.eigh`; a comparison.

    Memory grows with the number of steps, the derivative is only as accurate as the iteration is converged, and where
    the solver takes a whole eigenbasis, any repeated eigenvalue, wanted or not, makes the gradient NaN. The solver must
    be written in torch; there is no policy for degenerate answers.

    Example:
        >>> import torch, pmaf
        >>> A = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
        >>> b = torch.tensor([6.0, 4.0])
        >>> (unrolled,) = torch.autograd.grad(pmaf.less(A, b, backward=pmaf.Unrolled())[0], A)
        >>> (implicit,) = torch.autograd.grad(pmaf.less(A, b)[0], A)
        >>> torch.allclose(unrolled, implicit, atol=1e-5)
        True
    """
