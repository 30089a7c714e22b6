"""What torch is doing just now: compiling, mapping, differentiating; nothing else names its private modules.

The value of a tensor that is traced or mapped is not there to be looked at, and that of a tensor on another device only
after the host has waited for all the work that was queued before. So every branch on values asks here first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "anywhere",
    "cheap",
    "jvp_by_vjp",
    "levels_of",
    "nests_forward_mode",
    "no_autocast",
    "on_host",
    "outside_transforms",
    "readable",
    "untracked",
]


def readable(x: Tensor) -> bool:
    """Whether Python may look at the values of x: not while compiling, inside vmap, on meta, or in a graph capture."""
    if torch.compiler.is_compiling() or x.is_meta:
        return False
    functorch = torch._C._functorch
    if x.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False
    if functorch.is_legacy_batchedtensor(x):  # of autograd.grad(..., is_grads_batched=True)
        return False
    if type(x) in (Tensor, torch.nn.Parameter) and functorch.maybe_current_level() is None:
        return True  # by far the most frequent case
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return False
        x = functorch.get_unwrapped(x)
    return not isinstance(x, torch._subclasses.FakeTensor)


def on_host(x: Tensor) -> bool:
    """Whether x lies in the memory of the host, which has to wait for the values of any other device."""
    return x.is_cpu


def cheap(x: Tensor) -> bool:
    """Whether Python may look at the values of x without waiting for a device: what does not, synchronises nothing."""
    return on_host(x) and readable(x)


def anywhere(mask: Tensor) -> bool:
    """Whether work for marked items is due: they are looked for where that costs nothing, and assumed elsewhere."""
    return not cheap(mask) or bool(mask.any())


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which autocast does not lower the precision."""
    kind = x.device.type
    needed = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if needed else nullcontext()


def levels_of(*names: str) -> int:
    """How many of the active transforms of torch.func are of these kinds."""
    functorch = torch._C._functorch
    kinds = [getattr(functorch.TransformType, name) for name in names]
    return sum(level.key() in kinds for level in functorch.get_interpreter_stack() or [])


def nests_forward_mode() -> bool:
    """Whether two levels of forward mode are active."""
    return levels_of("Jvp") > 1


def outside_transforms() -> bool:
    """Whether no transform of ``torch.func`` is active."""
    return torch._C._functorch.maybe_current_level() is None


def jvp_by_vjp(function: Callable[..., Any], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Any:
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
