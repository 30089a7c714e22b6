"""Case studies in the plane: the circle, the level ellipses, and the path a method takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import pmaf
from pmaf.paper.report.figures import INK, SERIES, panel
from pmaf.paper.experiments.optimality import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_case", "optimum"]

_BLUE, _ORANGE, _GREEN, _RED = SERIES[0], SERIES[1], SERIES[2], SERIES[4]


def optimum(case: Case) -> tuple[Tensor, float]:
    """The certified global optimum of a case, and ‖A u − b‖ there."""
    A, b = case.A.double(), case.b.double()
    u = pmaf.less(A, b)
    return u, float((A @ u - b).norm())


def draw_case(case: Case, best: Tensor) -> str:
    """One panel: what a method does with one problem.

    Args:
        case: the path.
        best: the certified optimum, ``(2,)``.

    Returns:
        The drawing.
    """
    return panel(_painter(case, best), width=2.3, height=2.3, square=True)


def _painter(case: Case, best: Tensor) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        reach = 1.5
        line: Any = torch.linspace(-reach, reach, 161)
        x, y = torch.meshgrid(line, line, indexing="xy")
        points = torch.stack((x, y), -1)
        levels = ((points @ case.A.mT - case.b).square().sum(-1) / 2).sqrt()
        steps = torch.linspace(float(levels.min()), float(levels.max()), 10)[1:-1]
        axes.contour(
            x.numpy(),
            y.numpy(),
            levels.numpy(),
            levels=steps.tolist(),
            colors=_BLUE,
            linestyles="dashed",
            linewidths=0.7,
        )
        angle = torch.linspace(0, 2 * torch.pi, 181)
        axes.plot(angle.cos(), angle.sin(), color=_RED, linewidth=1.2)
        path = case.iterates
        axes.plot(path[:, 0], path[:, 1], color=_GREEN, linewidth=1.1, marker=".", markersize=3)
        axes.plot(*best.tolist(), marker="o", markersize=12, markerfacecolor="none", color=_ORANGE, markeredgewidth=2)
        axes.plot(*path[0].tolist(), marker="o", markersize=5, color=_RED)
        axes.plot(*path[-1].tolist(), marker="*", markersize=9, color=INK)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        axes.set_axis_off()

    return draw
