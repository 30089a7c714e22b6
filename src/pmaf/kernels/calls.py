"""Calls of the compiled functions: each takes one C structure, of which the fields are named here in their order."""

from struct import Struct

import torch
from torch import Tensor

from pmaf.kernels.loader import kernels

__all__ = ["NO_MEMORY", "TYPES", "CompiledFunction", "in_memory", "stride"]

TYPES = {torch.float32: 0, torch.float64: 1, torch.complex64: 2, torch.complex128: 3}  # as in calls.h
NO_MEMORY = 32  # a code of every function: nothing was computed


class CompiledFunction:
    """A function ``pmaf_NAME(instruction set, structure)`` of the library.

    Args:
        name: without the prefix.
        fields: kinds and names, such as ``"i type, q batch n, P X"``, the kinds as in the module ``struct``: integers
            i and q (64 bits), numbers d, pointers P.
    """

    def __init__(self, name: str, fields: str) -> None:
        groups = [group.split() for group in fields.split(",")]
        self.name, self.fields = name, fields
        self.struct = Struct("@" + "".join(kind * len(names) for kind, *names in groups))

    def __call__(self, *values: int | float | Tensor | None) -> int:
        """Call it with the values of its fields, in their order, which is several times as quick as by name.

        Args:
            *values: numbers, and for a pointer a tensor whose numbers lie in memory as they are, or ``None``.

        Returns:
            The codes of all items, or-ed together.

        Raises:
            RuntimeError: if there are no compiled kernels.
            MemoryError: if the kernel found no memory.
        """
        loaded = kernels()
        if loaded is None:
            raise RuntimeError(f"pmaf.kernels.{self.name}: there are no compiled kernels; see pmaf.kernels.reason()")
        call = self.struct.pack(*[x.data_ptr() if isinstance(x, Tensor) else x or 0 for x in values])
        seen: int = getattr(loaded.library, f"pmaf_{self.name}")(loaded.isa, call)
        if seen & NO_MEMORY:
            raise MemoryError(f"pmaf.kernels.{self.name}: no memory to work in; use another solver")
        return seen


def stride(x: Tensor | None) -> int:
    """How far items lie apart: 0 where one item serves all."""
    return 0 if x is None or x.shape[0] == 1 else x.stride(0)


def in_memory(x: Tensor) -> Tensor:
    """X in rows, with the conjugation or the change of sign that torch has put off carried out.

    ``x.conj()``, ``x.mH`` and the imaginary part of either are views with a mark, which ``contiguous`` leaves on them.
    """
    return x.resolve_conj().resolve_neg().contiguous()
