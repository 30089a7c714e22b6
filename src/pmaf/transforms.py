"""What torch is doing just now: compiling, mapping, differentiating; nothing else names its private modules.

The value of a tensor that is traced or mapped is not there to be looked at, and that of a tensor on another device only
after the host has waited for all the work that was queued before. So every branch on values asks here first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef
from torch.autograd import forward_ad

__all__ = [
    "anywhere",
    "cheap",
    "compiling",
    "followed",
    "follows_nothing",
    "innermost",
    "levels_of",
    "mapped_the_older_way",
    "may_wait",
    "nests_forward_mode",
    "no_autocast",
    "on_host",
    "one_node",
    "open_to_kernels",
    "outside_dual_levels",
    "outside_transforms",
    "readable",
    "recorded",
    "untracked",
    "wrapped",
]

functorch = torch._C._functorch
LAZY = (torch._C.DispatchKey.Conjugate, torch._C.DispatchKey.Negative)


def compiling() -> bool:
    """Whether torch traces the program, for ``torch.compile`` or ``torch.export``."""
    return torch.compiler.is_compiling()


def recorded(*tensors: Tensor | None) -> bool:
    """Whether autograd records operations with these tensors, so that a gradient can be asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def outside_transforms() -> bool:
    """Whether no transform of ``torch.func`` is active."""
    return functorch.maybe_current_level() is None


def outside_dual_levels() -> bool:
    """Whether no level of forward mode is active that was opened without ``torch.func``."""
    return forward_ad._current_level < 0


def follows_nothing() -> bool:
    """Whether nothing but reverse mode can be watching: no trace, no transform, no level of forward mode."""
    return not compiling() and outside_transforms() and outside_dual_levels()


def open_to_kernels(x: Tensor) -> bool:
    """Whether compiled code may work on the memory of x: on the host, with nothing but reverse mode watching."""
    return on_host(x) and follows_nothing() and torch._C._len_torch_dispatch_stack() == 0


def levels_of(*names: str) -> int:
    """How many of the active transforms of torch.func are of these kinds."""
    kinds = [getattr(functorch.TransformType, name) for name in names]
    return sum(level.key() in kinds for level in functorch.get_interpreter_stack() or [])


def nests_forward_mode() -> bool:
    """Whether two levels of forward mode are active."""
    return levels_of("Jvp") > 1


def followed(x: Tensor) -> bool:
    """Whether reverse mode follows what is done with x, on any level."""
    return levels_of("Grad") > 0 or recorded(x, innermost(x))


def wrapped(x: Tensor) -> bool:
    """Whether x carries a level of a transform of ``torch.func``."""
    return functorch.is_functorch_wrapped_tensor(x)


def innermost(x: Tensor) -> Tensor:
    """The tensor below all levels of ``torch.func``."""
    while wrapped(x):
        x = functorch.get_unwrapped(x)
    return x


def mapped_the_older_way(x: Tensor) -> bool:
    """Whether x is mapped by ``autograd.grad(..., is_grads_batched=True)``."""
    return functorch.is_legacy_batchedtensor(x)


def readable(x: Tensor) -> bool:
    """Whether Python may look at the values of x: not while compiling, inside vmap, on meta, or in a graph capture."""
    if torch.compiler.is_compiling() or x.is_meta:  # asked so often that a call of compiling() would be noticed
        return False
    if x.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return False
    if functorch.is_legacy_batchedtensor(x):
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


def may_wait(x: Tensor, raises: bool) -> bool:
    """Whether a call may wait for the values of x: on the host there is no need to, elsewhere one that raises does."""
    return raises or on_host(x)


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
    return not compiling() and outside_transforms() and not recorded(*tensors)


def one_node(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """An operator that ``torch.compile`` and ``torch.export`` see as one node.

    Compiled graphs call operators without what makes ``x.conj()`` and ``x.imag`` of it views that are read right, since
    what is traced has none (torch 2.13): ``x.conj() * x`` in the body would be x². Here it is switched on again.

    Args:
        name: of the operator, ``"pmaf::NAME"``.

    Returns:
        A decorator for its body, as :func:`torch.library.custom_op` returns one.
    """

    def registered(body: Callable[..., Any]) -> CustomOpDef:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            with lazy_views():
                return body(*args, **kwargs)

        operator: CustomOpDef = torch.library.custom_op(name, run, mutates_args=())
        return operator

    return registered


@contextmanager
def lazy_views() -> Iterator[None]:
    """Lazily conjugated and negated tensors are read right."""
    off = [key for key in LAZY if torch._C._dispatch_tls_is_dispatch_key_excluded(key)]
    for key in off:
        torch._C._dispatch_tls_set_dispatch_key_excluded(key, False)
    try:
        yield
    finally:
        for key in off:
            torch._C._dispatch_tls_set_dispatch_key_excluded(key, True)
