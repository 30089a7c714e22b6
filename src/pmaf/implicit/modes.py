"""How an answer is differentiated, as an object the caller gives as ``backward=``."""

from dataclasses import dataclass

__all__ = ["Implicit"]


@dataclass(frozen=True, kw_only=True)
class Implicit:
    r"""Differentiate the optimality conditions, in closed form; the default.

    A difference of eigenvalues of at most :math:`\mathrm{atol} + \mathrm{rtol}\,\|X\|` counts as zero: the answer is
    then not unique, and the component of the gradient that would divide by it is dropped.

    Args:
        rtol: relative tolerance; by default ten machine precisions times √n.
        atol: absolute tolerance.

    Raises:
        ValueError: if a tolerance is negative.
    """

    rtol: float | None = None
    atol: float = 0.0

    def __post_init__(self) -> None:
        if (self.rtol is not None and not self.rtol >= 0) or not self.atol >= 0:
            raise ValueError(f"pmaf: Implicit needs non-negative tolerances, got {self}")
