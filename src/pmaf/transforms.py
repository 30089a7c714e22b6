"""When Python may look at the values of a tensor, and when looking costs nothing.

The value of a tensor that is traced or mapped is not there to be looked at, and that of a tensor on another device only
after the host has waited for all the work that was queued before. So every branch on values asks here first.
"""

from typing import Any

import torch
from torch import Tensor

from pmaf.operators import Operator

__all__ = ["anywhere", "cheap", "may_wait", "on_host", "readable"]


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


def may_wait(x: Any, plain: bool) -> bool:
    """Whether a call may wait for the values of x: on the host there is no need to, elsewhere plain functions do."""
    x = x.tensors[0] if isinstance(x, Operator) else x
    return plain or not isinstance(x, Tensor) or on_host(x)


def anywhere(mask: Tensor) -> bool:
    """Whether work for marked items is due: they are looked for where that costs nothing, and assumed elsewhere."""
    return not cheap(mask) or bool(mask.any())
