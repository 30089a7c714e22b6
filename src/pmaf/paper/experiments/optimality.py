r"""How close to the optimum the paper's solvers for least squares on the sphere come, and in how many steps.

The paper's protocol: for each seed s, ``torch.manual_seed(s)``, ``A = torch.randn(m, n)``, ``b = torch.randn(m, 1)``,
in float32; every method starts from A⁺b/‖A⁺b‖, stops when ½‖A u − b‖² changes by less than 1e-7, and has *failed* if it
has not after 100 steps. The baseline is SciPy's SLSQP. A problem is *inside* if ‖A⁺b‖ < 1: its unconstrained minimiser
lies inside the sphere and the multiplier of the answer is negative. Secular, which is not the paper's, is compared with
SLSQP in float64 throughout: near a zero objective the rounding of a float32 point would decide.

Reference: Xu, Wang, Liu, Gould, *PMaF: Deep Declarative Layers for Principal Matrix Features*, 2023, arXiv 2306.14759.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pmaf.certificate import certify
from pmaf.solvers.problem import LeastSquares, SphereAnswer
from pmaf.solvers.projected_gradient import ProjectedGradient
from pmaf.solvers.riemannian_gradient import RiemannianGradient
from pmaf.solvers.secular import Secular
from pmaf.solvers.slsqp import SLSQP
from pmaf.solvers.sphere import length, unconstrained
from pmaf.solvers.steps import Backtracking, TangentDecay

__all__ = [
    "CASE_METHODS",
    "CASE_SEEDS",
    "METHODS",
    "Case",
    "Missed",
    "Optimality",
    "Row",
    "case_studies",
    "optimality",
    "random_problems",
]

Progress = Callable[[int, int, str], None]
Method: TypeAlias = ProjectedGradient | RiemannianGradient | SLSQP | Secular

METHODS: dict[str, Method] = {
    "SciPy": SLSQP(),
    "PGD": ProjectedGradient(),
    "PGD+DW": ProjectedGradient(direction_weight=True),
    "PGD+RM": RiemannianGradient(),
    "PGD+RM+BLSOne": RiemannianGradient(step=Backtracking(initial=1.0)),
    "PGD+RM+BLSOne+DW": RiemannianGradient(step=Backtracking(initial=1.0), direction_weight=True),
    "PGD+RM+BLS": RiemannianGradient(step=Backtracking()),
    "PGD+RM+BLS+DW": RiemannianGradient(step=Backtracking(), direction_weight=True),
    "PGD+RM+TWD": RiemannianGradient(step=TangentDecay()),
    "PGD+RM+TWD+DW": RiemannianGradient(step=TangentDecay(), direction_weight=True),
    "Secular": Secular(),
}
CASE_SEEDS = (19, 38, 41, 66, 70, 72, 92, 170)
CASE_METHODS = ("SciPy", "PGD", "PGD+DW", "PGD+RM", "PGD+RM+BLSOne", "PGD+RM+TWD")

_ENTRIES = 1 << 25  # of A in one batch: 128 MiB
_SHORT = 1e-3  # an objective this much above the optimum, relatively, counts as a miss


class Row(NamedTuple):
    """One method at one size.

    Attributes:
        m: rows of A.
        n: columns of A.
        method: the paper's name of the method.
        failed_inside: problems with ‖A⁺b‖ < 1 that were still moving after the last step.
        failed_outside: the same with ‖A⁺b‖ > 1.
        better: problems whose objective is smaller than SciPy's, or equal to six significant digits as
            ``numpy.testing.assert_approx_equal`` counts them: to within 1e-5 of the leading decimal.
        mean_diff_percent: mean of (f − f_SciPy)/f_SciPy, in percent.
        mean_steps: mean number of steps.
        ms_per_problem: time of the batched solve over the number of problems, in milliseconds.
    """

    m: int
    n: int
    method: str
    failed_inside: int
    failed_outside: int
    better: int
    mean_diff_percent: float
    mean_steps: float
    ms_per_problem: float


class Missed(NamedTuple):
    """One method against the certified optimum, in float64.

    Attributes:
        problems: how many end more than 0.1 % above it.
        mean_percent: by how much the objective is above it, mean over all problems, in percent.
        mean_missed_percent: the same, mean over those problems alone; zero if there are none.
        worst_percent: the largest of all.
    """

    problems: int
    mean_percent: float
    mean_missed_percent: float
    worst_percent: float


class Optimality(NamedTuple):
    """What came out at one size.

    Attributes:
        rows: one for each method asked for, compared with SciPy as in the paper.
        missed: the same methods and SciPy, compared with the certified optimum.
        certified: problems whose optimum, found by Secular in float64, :func:`pmaf.certify` proves to be global.
    """

    rows: list[Row]
    missed: dict[str, Missed]
    certified: int


class Case(NamedTuple):
    """The path of one method through one problem.

    Attributes:
        seed: of the problem.
        method: the paper's name of the method.
        A: ``(m, n)``.
        b: ``(m,)``.
        iterates: the start and the point after each step, ``(steps + 1, n)``.
        distance: ‖A u − b‖ at the last point.
    """

    seed: int
    method: str
    A: Tensor
    b: Tensor
    iterates: Tensor
    distance: float

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.iterates) - 1


def random_problems(m: int, n: int, seeds: Sequence[int]) -> LeastSquares:
    """The paper's random problems, one for each seed, as one batch on the unit sphere.

    Args:
        m: rows of A.
        n: columns of A.
        seeds: one for each problem.

    Returns:
        A, ``(seeds, m, n)``, b, ``(seeds, m)``, in float32, and radius one.
    """
    A, b = [], []
    with torch.random.fork_rng(devices=()):
        for seed in seeds:
            torch.manual_seed(seed)
            A.append(torch.randn(m, n))
            b.append(torch.randn(m, 1)[:, 0])
    return LeastSquares(torch.stack(A), torch.stack(b), torch.tensor(1.0))


def optimality(
    m: int,
    n: int,
    problems: int = 1000,
    methods: Sequence[str] | None = None,
    seed0: int = 0,
    progress: Progress | None = None,
) -> Optimality:
    """Run methods on the paper's random problems of one size; all problems are solved as one batch.

    Only where A takes more than 128 MiB the batch is split. The baseline is always run, in double precision and problem
    by problem; at 1024×256 it takes most of the time.

    Args:
        m: rows of A.
        n: columns of A.
        problems: how many, one a seed.
        methods: names out of ``METHODS``; all of them if not given.
        seed0: the first seed.
        progress: called with the methods done, the methods in all, and the name of the next one.

    Returns:
        A row for each method, against SciPy and against the certified optimum.

    Raises:
        ValueError: if a size is not positive or a method unknown.

    Example:
        >>> from pmaf.paper.experiments.optimality import optimality
        >>> result = optimality(2, 2, problems=50, methods=["PGD+RM+TWD"])
        >>> [(row.method, row.failed_inside) for row in result.rows]
        [('PGD+RM+TWD', 0)]
    """
    names = list(METHODS) if methods is None else list(methods)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"pmaf: optimality does not know the method {unknown[0]!r}; it knows {', '.join(METHODS)}")
    if min(m, n, problems) < 1:
        raise ValueError(f"pmaf: optimality needs m, n and problems to be at least 1, got {m}, {n}, {problems}")
    size = max(1, _ENTRIES // (m * n))
    chunks = [range(first, min(first + size, seed0 + problems)) for first in range(seed0, seed0 + problems, size)]
    order = ["SciPy", *(name for name in names if name != "SciPy")]
    found: dict[str, list[_Outcome]] = {name: [] for name in order}
    best, certified = [], 0
    for c, seeds in enumerate(chunks):
        batch = random_problems(m, n, seeds)
        inside = length(unconstrained(batch)) < 1
        for i, name in enumerate(order):
            if progress is not None:
                progress(c * len(order) + i, len(chunks) * len(order), f"{m}×{n} {name}")
            found[name].append(_run(METHODS[name], batch, inside))
        double = _double(batch)
        u = Secular().solve(double).u
        best.append(double.objective(u))
        certified += int(certify(double.A, double.b, u).is_global.sum())
    if progress is not None:
        progress(len(chunks) * len(order), len(chunks) * len(order), f"{m}×{n}")
    joined = {name: _Outcome(*map(torch.cat, zip(*parts, strict=True))) for name, parts in found.items()}
    rows = [_row(m, n, name, joined[name], joined["SciPy"]) for name in names]
    optimum = torch.cat(best)
    return Optimality(rows, {name: _missed(own.reached, optimum) for name, own in joined.items()}, certified)


class _Outcome(NamedTuple):
    """What a method made of a batch, an entry for each problem."""

    objective: Tensor  # ½‖A u − b‖², evaluated in float32
    reached: Tensor  # the same point's, evaluated in float64
    exact: Tensor  # in float64, at the point that a solver of float64 finds
    failed: Tensor
    inside: Tensor
    steps: Tensor
    seconds: Tensor


def _run(method: Method, batch: LeastSquares, inside: Tensor) -> _Outcome:
    """Solve a batch and measure the time."""
    double = _double(batch)
    begin = time.perf_counter()
    answer: SphereAnswer = method.solve(double if isinstance(method, SLSQP) else batch)
    seconds = time.perf_counter() - begin
    share = torch.full(inside.shape, seconds / len(inside), dtype=torch.float64)
    objective = batch.objective(answer.u.to(batch.A.dtype)).double()
    reached = double.objective(answer.u.double())
    exact = double.objective(method.solve(double).u) if isinstance(method, Secular) else reached
    return _Outcome(objective, reached, exact, ~answer.finished, inside, answer.steps, share)


def _double(batch: LeastSquares) -> LeastSquares:
    return LeastSquares(*(tensor.double() for tensor in batch))


def _row(m: int, n: int, name: str, own: _Outcome, scipy: _Outcome) -> Row:
    """Count and average; what is not the paper's is compared in float64, where rounding does not decide."""
    exact = name == "Secular"
    f, baseline = (own.exact, scipy.exact) if exact else (own.objective, scipy.objective)
    scale = 10 ** torch.floor(torch.log10((f + baseline) / 2))
    better = (f <= baseline) | ((f - baseline) < 1e-5 * scale)
    relative = torch.where(f == baseline, 0, (f - baseline) / baseline)
    return Row(
        m,
        n,
        name,
        int((own.failed & own.inside).sum()),
        int((own.failed & ~own.inside).sum()),
        int(better.sum()),
        float(100 * relative.mean()),
        float(own.steps.double().mean()),
        float(1000 * own.seconds.mean()),
    )


def _missed(reached: Tensor, optimum: Tensor) -> Missed:
    """Count and average what is above the optimum; one below float32's rounding counts as that."""
    excess = (reached - optimum) / optimum.clamp_min(torch.finfo(torch.float32).eps)
    short = excess > _SHORT
    among = float(100 * excess[short].mean()) if bool(short.any()) else 0.0
    return Missed(int(short.sum()), float(100 * excess.mean()), among, float(100 * excess.max()))


def case_studies(seeds: Sequence[int] = CASE_SEEDS, methods: Sequence[str] = CASE_METHODS) -> list[Case]:
    """The paper's case studies: the paths of the methods through 2×2 problems.

    Args:
        seeds: of the problems.
        methods: names of iterative methods out of ``METHODS``.

    Returns:
        A case for each seed and method, seeds first.
    """
    cases = []
    for seed in seeds:
        A, b, radius = (tensor.squeeze(0) for tensor in random_problems(2, 2, [seed]))
        problem = LeastSquares(A, b, radius)
        for name in methods:
            method = METHODS[name]
            assert not isinstance(method, Secular), "Secular has no path"
            iterates = torch.stack(method.iterates(problem))
            distance = float((2 * problem.objective(iterates[-1])).sqrt())
            cases.append(Case(seed, name, A, b, iterates, distance))
    return cases
