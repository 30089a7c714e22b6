"""What compiled code may read: numbers that lie in memory as they are, one after the other."""

from torch import Tensor

__all__ = ["in_memory"]


def in_memory(x: Tensor) -> Tensor:
    """X in rows, with the conjugation or the change of sign that torch has put off carried out.

    ``x.conj()``, ``x.mH`` and the imaginary part of either are views with a mark, which ``contiguous`` leaves on them.
    """
    return x.resolve_conj().resolve_neg().contiguous()
