r"""Forward mode over forward mode, which torch does not nest through custom Functions: it takes the inner one as zero.

Where two forward levels are active, the solution s₀ is found without derivatives, and then improved in plain operations
of the parameters θ by

    s ← s − M₀⁻¹ F(s; θ),     M₀ = ∂F/∂s at s₀ and the value of θ, a constant.

Its value does not change, since F vanishes there, but its derivatives do: if s agrees with the true solution s*(θ) up
to derivatives of order j, the new error is (I − M₀⁻¹M)(s − s*) up to higher order, where the first factor vanishes at
the value of θ, and the second to order j; so the product vanishes to order j + 1. As many steps as there are levels
make all derivatives exact that can be asked for.
"""

from typing import Any

from torch import Tensor

from pmaf.transforms import innermost, levels_of, recorded

__all__ = ["derivative_levels", "with_plain_derivatives"]


def derivative_levels(params: Any) -> int:
    """How many derivatives the active transforms can take.

    Args:
        params: tensors or ``None``.

    Returns:
        The number of levels.

    Raises:
        RuntimeError: if reverse mode outside of torch.func could take any number more.
    """
    if recorded(*(None if p is None else innermost(p) for p in params)):
        raise RuntimeError(
            "pmaf: forward mode over forward mode is not supported for tensors that require a gradient outside of "
            "torch.func; detach them, or use torch.func.grad or torch.func.jacrev for the outer derivative"
        )
    return levels_of("Jvp", "Grad")


def with_plain_derivatives(
    rule: Any, params: tuple[Tensor | None, ...], outputs: tuple[Tensor, ...], levels: int
) -> Any:
    """A solution with derivatives of up to ``levels`` orders in plain operations.

    Args:
        rule: the layer's rule, see :mod:`pmaf.implicit.base`.
        params: the parameters, in the graph of the active transforms.
        outputs: what the solver returned for their values: solution, aux, reports.
        levels: how many derivatives are taken.

    Returns:
        The outputs, with another solution in front.
    """
    constants = tuple(None if p is None else p.detach() for p in params)
    _, start, aux, reports = rule.split((*constants, *outputs), len(rule.aux_type._fields))
    solution = start
    for _ in range(levels):
        missing = rule.equations.residual(params, solution, aux)
        missing = tuple(m.expand_as(s) for m, s in zip(missing, start, strict=True))
        step = rule.solve(constants, start, aux, missing)
        solution = tuple(s - d for s, d in zip(solution, step, strict=True))
    return (*solution, *aux, *reports)
