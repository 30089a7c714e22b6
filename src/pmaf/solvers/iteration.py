"""The one masked loop that all iterative solvers share.

A solver supplies ``step``, which advances every item of the batch and says which ones are done. The loop keeps the
items that were done before as they were, counts the steps of each, and ends when none is left. Nothing is written in
place, so the loop can be unrolled by autograd.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["State", "iterate"]

State = tuple[Tensor, ...]


def iterate(
    step: Callable[[State], tuple[State, Tensor]],
    state: State,
    batch_shape: torch.Size,
    max_steps: int,
    observe: Callable[[State, Tensor], None] | None = None,
) -> tuple[State, Tensor, Tensor]:
    """Repeat ``step`` until every item is done or ``max_steps`` is reached.

    Args:
        step: maps a state to the next one and to a mask of the items that are done with it.
        state: tensors whose leading dimensions are ``batch_shape``.
        batch_shape: the batch.
        max_steps: the most steps any item may take.
        observe: called with the state and the mask of unfinished items, before the first step and after each one.

    Returns:
        The last state, the mask of items that finished, and the number of steps each item took.
    """
    device = state[0].device
    active = torch.ones(batch_shape, dtype=torch.bool, device=device)
    steps = torch.zeros(batch_shape, dtype=torch.int64, device=device)
    if observe is not None:
        observe(state, active)
    for _ in range(max_steps):
        if not active.any():
            break
        proposed, done = step(state)
        state = tuple(
            torch.where(active.reshape(batch_shape + (1,) * (new.dim() - len(batch_shape))), new, old)
            for new, old in zip(proposed, state, strict=True)
        )
        steps = steps + active
        active = active & ~done
        if observe is not None:
            observe(state, active)
    return state, ~active, steps
