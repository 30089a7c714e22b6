r"""Problems that lie on several machines: arguments that are DTensors, torch's own distributed tensors.

A call with a DTensor among its arguments becomes a call with plain tensors on each rank, by two rules that know nothing
of what the function does:

- divided along a *batch* dimension, problems are solved where they lie, without communication;
- divided along the *rows* of a factor, A or F, whose answer depends on AᴴA alone, the rows are replaced by few others
  with the same Gram matrix, the same ones on every rank, which is one all-reduce; see :mod:`.rows`.

Gradients go back the same way and lie where the arguments lie. Which dimension is which, is said once a function, in
:mod:`.placements`; what passes between ranks is in :mod:`.collectives`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pmaf.operators.base import Operator

__all__ = ["spread"]


def spread(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether one of the arguments of a call is a DTensor, or made of them; costs nothing where nobody has any."""
    module: Any = sys.modules.get("torch.distributed.tensor")
    if module is None:
        return False
    kind = module.DTensor
    for x in (*args, *kwargs.values()):
        if isinstance(x, kind):
            return True
        if not isinstance(x, KNOWN) and isinstance(x, Operator) and any(isinstance(t, kind) for t in x.tensors):
            return True
    return False


KNOWN = (Tensor, bool, int, float, str)  # no operators, which takes longer to find out
