"""Problems of the orders at which torch and its BLAS share work among threads: every layer, every solver.

``python tests/large.py FILE`` saves the answers; see ``test_threads.py``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import pmaf
from cases import EIGEN_SOLVERS, REAL, SPHERE_SOLVERS, pair, randn, sym

SIZES = ((5, 160), (5, 256), (2, 512))  # batch and order
SMALL, MIDDLE, LARGE = SIZES


@dataclass(frozen=True)
class Large:
    """A layer with a solver on inputs of one size and one dtype."""

    name: str
    call: Callable[..., Tensor]
    make: Callable[[int, int], tuple[Tensor, ...]]  # batch and order, in double precision
    size: tuple[int, int]
    dtype: torch.dtype
    error: float  # what the solver leaves in double precision

    @property
    def key(self) -> str:
        return f"{self.name}-{self.size[0]}x{self.size[1]}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def tolerance(self) -> float:
        """Rounding times the condition of the worst of the problems below, some 1e5, or what the solver leaves."""
        return max(1e5 * torch.finfo(self.dtype).eps, 100 * self.error)

    def answer(self) -> tuple[Tensor, ...]:
        """The output, and the gradients of a weighted sum of it."""
        inputs = tuple(x.to(self.dtype).requires_grad_() for x in self.make(*self.size))
        output = self.call(*inputs)
        weight = randn(*output.shape, seed=9, dtype=output.dtype)
        return output.detach(), *torch.autograd.grad((weight * output).sum(), inputs)


# ---- inputs --------------------------------------------------------------------------------------------------------


@functools.cache
def basis(n: int) -> Tensor:
    return torch.linalg.qr(randn(n, n, seed=n))[0]


def spread(batch: int, n: int) -> tuple[Tensor]:
    """Four eigenvalues at either end stand apart, the positive ones further out: every solver converges."""
    ends = torch.tensor([9.0, 7.0, 5.5, 4.0]), torch.tensor([-2.0, -3.0, -3.5, -5.0])
    s = torch.cat((ends[0], torch.linspace(1, -1, n - 8), ends[1]))
    return (((basis(n) * s.double()) @ basis(n).mT) * (1 + 0.1 * torch.arange(batch).double())[:, None, None],)


def crowded(batch: int, n: int) -> tuple[Tensor]:
    """Gaussian matrices, whose eigenvalues crowd."""
    return (sym(randn(batch, n, n, seed=1)),)


def positive(batch: int, n: int) -> tuple[Tensor]:
    """Positive matrices, not symmetric, with one dominant eigenvalue."""
    return (randn(batch, n, n, seed=2).abs(),)


def factors(batch: int, n: int) -> tuple[Tensor]:
    """Half as many rows as columns."""
    s = torch.cat((torch.tensor([9.0, 7.0, 5.0, 4.0]), torch.linspace(3, 1, n // 2 - 4)))
    return ((s.double()[:, None] * basis(n)[: n // 2]).expand(batch, -1, -1).clone(),)


def equations(batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Well conditioned, the unconstrained minimiser a little longer than one, so that every method succeeds."""
    A = torch.cat((basis(n) * torch.linspace(3, 2.2, n).double(), 0.02 * randn(32, n, seed=3)))
    x = torch.nn.functional.normalize(randn(batch, n, seed=4), dim=-1)
    b = 1.7 * x @ A.mT + 0.05 * randn(batch, n + 32, seed=5)
    return A.expand(batch, -1, -1).clone(), b


def with_everything(batch: int, n: int) -> tuple[Tensor, ...]:
    A, b = equations(batch, n)
    return (
        A,
        b,
        1 + 0.1 * randn(n + 32, seed=6).abs(),
        randn(n + 32, 3, seed=7),
        torch.linspace(0.8, 1.2, batch).double(),
    )


def quadratics(batch: int, n: int) -> tuple[Tensor, Tensor]:
    return (*spread(batch, n), 4 * randn(batch, n, seed=8))


def chain(batch: int, n: int) -> tuple[Tensor]:
    """The values of a symmetric matrix with three diagonals; one item, since a sparse matrix has no batch."""
    diagonal = torch.cat((torch.tensor([9.0, 7.0]), torch.linspace(1, 0, n - 2)))
    return (torch.cat((diagonal, 0.3 * torch.ones(n - 1))).double(),)


def diagonal(batch: int, n: int) -> tuple[Tensor, Tensor]:
    return torch.cat((torch.tensor([9.0, 7.0]), torch.linspace(1, 0, n - 2))).double(), 0.02 * randn(n, seed=11)


def features(batch: int, n: int) -> tuple[Tensor]:
    """Images with n channels, the first ones stronger."""
    strength = torch.cat((torch.tensor([9.0, 6.0, 4.0]), torch.ones(n - 3))).double()
    return (randn(batch, n, 24, 24, seed=12) * strength[:, None, None],)


# ---- layers --------------------------------------------------------------------------------------------------------


def leading(k: int, **options: Any) -> Callable[..., Tensor]:
    return lambda X: pair(*pmaf.ied(sym(X), k, **options))


def everything(A: Tensor, b: Tensor, weights: Tensor, C: Tensor, radius: Tensor) -> Tensor:
    solution = pmaf.less_ex(A, b, weights=weights, free=C, radius=radius)
    return torch.cat((solution.u, solution.z, solution.multiplier[..., None]), -1)


def sparse(values: Tensor) -> Tensor:
    n = len(values) // 2 + 1
    i = torch.arange(n)
    places = torch.stack((torch.cat((i, i[1:], i[:-1])), torch.cat((i, i[:-1], i[1:]))))
    X = torch.sparse_coo_tensor(places, torch.cat((values, values[n:])), (n, n), check_invariants=False)
    return pair(*pmaf.ied(X, 2))


def by_products(d: Tensor, v: Tensor) -> Tensor:
    X = pmaf.MatVec(lambda d, v, V: d[:, None] * V + v[:, None] * (v @ V), len(d), (d, v))
    return pair(*pmaf.ied(X, 2))


def dominant(X: Tensor, **options: Any) -> Tensor:
    value, u = pmaf.dominant_pair(X, **options)
    return pair(value[..., None], u[..., None])


LAYERS = [
    ("less", pmaf.less, equations),
    ("less, m < n", lambda F: pmaf.less(F, F.detach().sum(-1), radius=0.1), factors),
    ("less, all arguments", everything, with_everything),
    ("less, ball", lambda A, b: pmaf.less(A, b, radius=8.0, constraint="ball"), equations),
    ("sphere_quadratic", lambda H, g: pmaf.sphere_quadratic(sym(H), g), quadratics),
    ("ied", leading(3), spread),
    ("ied, crowded", leading(1), crowded),
    ("ied, smallest", leading(2, largest=False), spread),
    ("ied(Gram)", lambda F: pair(*pmaf.ied(pmaf.Gram(F.mT), 2)), factors),
    ("ied(Gram), wide", lambda F: pair(*pmaf.ied(pmaf.Gram(F), 2)), factors),
    ("ied(MatVec)", by_products, diagonal),
    ("ied(sparse)", sparse, chain),
    ("dominant pair", dominant, positive),
    ("principal_projector", lambda X: pmaf.principal_projector(sym(X), 3), spread),
    ("nn.LESS", lambda A, b: pmaf.nn.LESS(radius=1.2)(A, b), equations),
    ("nn.IED", lambda X: pair(*pmaf.nn.IED(2)(sym(X))), spread),
    ("nn.PrincipalPool2d", pmaf.nn.PrincipalPool2d(2, center=True, scale=True), features),
]
MODES = [
    ("ied, fixed point", leading(1, backward=pmaf.FixedPoint()), spread, SIZES),
    ("ied, unrolled", leading(1, backward=pmaf.Unrolled()), spread, SIZES),
    ("ied, dense Jacobian", leading(1, backward=pmaf.DenseJacobian()), spread, SIZES[:1]),
    ("ied, dense fixed point", leading(1, backward=pmaf.FixedPoint(dense=True)), spread, SIZES[:1]),
    ("dominant pair, unrolled", lambda X: dominant(X, backward=pmaf.Unrolled()), positive, SIZES),
    ("less, unrolled", lambda A, b: pmaf.less(A, b, backward=pmaf.Unrolled()), equations, SIZES),
    ("less, dense Jacobian", lambda A, b: pmaf.less(A, b, backward=pmaf.DenseJacobian()), equations, SIZES[:1]),
]


def tables() -> Iterator[tuple[str, Callable[..., Tensor], Callable[..., Any], tuple[tuple[int, int], ...], float]]:
    """Name, layer, inputs, sizes and the error of the solver."""
    for name, call, make in LAYERS:
        yield name, call, make, SIZES, 0.0
    for name, call, make, sizes in MODES:
        yield name, call, make, sizes, 0.0
    for case in SPHERE_SOLVERS:
        sizes = ((5, 32),) if case.short == "slsqp" else SIZES  # the threads of SciPy's BLAS are not what is tested
        yield f"less, {case.name}", functools.partial(solved_less, case.make), equations, sizes, case.error
        if case.certified:
            yield (
                f"quadratic, {case.name}",
                functools.partial(solved_quadratic, case.make),
                quadratics,
                sizes,
                case.error,
            )
    for case in EIGEN_SOLVERS:
        sizes = tuple(size for size in SIZES if case.cls.suits(size[1]))
        for k in (1, 3) if case.cls.largest_k is None else (1,):
            yield f"ied {k}, {case.name}", functools.partial(solved_ied, case.make, k), spread, sizes, 0.0


def solved_less(make: Callable[[], Any], A: Tensor, b: Tensor) -> Tensor:
    return pmaf.less(A, b, solver=make())


def solved_quadratic(make: Callable[[], Any], H: Tensor, g: Tensor) -> Tensor:
    return pmaf.sphere_quadratic(sym(H), g, solver=make())


def solved_ied(make: Callable[[], Any], k: int, X: Tensor) -> Tensor:
    return pair(*pmaf.ied(sym(X), k, solver=make()))


CASES = [
    Large(name, call, make, size, dtype, error)
    for name, call, make, sizes, error in tables()
    for size in sizes
    for dtype in REAL
]

if __name__ == "__main__":
    torch.save({case.key: case.answer() for case in CASES}, sys.argv[1])
