"""Forward mode by reverse mode, for places where torch does not nest forward mode; and who is watching."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["pushforward", "untracked"]


def pushforward(function: Callable[..., Any], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Any:
    """The Jacobian–vector product of ``function``, as the transpose of its vector–Jacobian product.

    v ↦ Jᴴv is linear, so *its* vector–Jacobian product with the tangents is J times them.

    Args:
        function: maps tensors to a tensor or a tuple of tensors.
        primals: where.
        tangents: in which direction, one for each primal.

    Returns:
        The change of what ``function`` returns.
    """
    value, vjp = torch.func.vjp(function, *primals)[:2]
    single = isinstance(value, Tensor)
    zeros = tuple(torch.zeros_like(v) for v in ((value,) if single else value))
    back = torch.func.vjp(lambda *v: vjp(v[0] if single else v), *zeros)[1]
    changes: tuple[Tensor, ...] = back(tuple(tangents))
    return changes[0] if single else changes


def untracked(*tensors: Tensor) -> bool:
    """Whether neither autograd nor a transform nor a trace follows operations with these tensors."""
    if torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
