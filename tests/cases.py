"""Problems with known answers, layers and solvers: one table each, and a new solver is one new row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import pmaf

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
WORKING = REAL + COMPLEX
HALF = (torch.float16, torch.bfloat16)

# Spectra that people meet: the quaternion matrix of an exact rotation, and a homography's normal matrix.
ROTATION = (1.0, -1 / 3, -1 / 3, -1 / 3)
HOMOGRAPHY = (0.0, 1.53, 1.53, 4.0, 4.0, 4.0, 10.47, 10.47, 12.0)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random numbers that are the same, up to rounding, in every precision."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(shape, generator=rng(seed), dtype=wide).to(dtype)


def orthogonal(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random unitary matrix in double precision."""
    return torch.linalg.qr(randn(n, n, seed=seed, dtype=torch.complex128 if dtype.is_complex else torch.float64))[0]


def with_spectrum(values: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """A Hermitian matrix with these eigenvalues, and its eigenvalues and eigenvectors in double precision."""
    Q = orthogonal(len(values), seed, dtype)
    s = torch.tensor(values, dtype=torch.float64)
    X = (Q * s) @ Q.mH
    return ((X + X.mH) / 2).to(dtype), s, Q


def with_singular_values(m: int, values: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """An ``(m, n)`` matrix with these singular values, in double precision."""
    n = len(values)
    left, right = orthogonal(m, seed, dtype), orthogonal(n, seed + 1, dtype)
    size = min(m, n)
    s = torch.tensor(values[:size], dtype=torch.float64)
    return (left[:, :size] * s) @ right[:, :size].mH


def symmetric(*batch: int, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    X = randn(*batch, n, n, seed=seed, dtype=dtype)
    return (X + X.mH) / 2


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def hermitian(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a Hermitian matrix as one of any matrix: what is perturbed entry by entry stays Hermitian."""
    return lambda X, *rest: function((X + X.mH) / 2, *rest)


# ---- solvers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SolverCase:
    """One solver: its short name, its class, which says what it can do, and settings for tight answers."""

    name: str
    cls: Any
    settings: dict[str, Any]

    def make(self) -> Any:
        return self.cls(
            **{name: value() if isinstance(value, type) else value for name, value in self.settings.items()}
        )

    @property
    def certified(self) -> bool:
        """Finds the global optimum of every problem."""
        return bool(self.cls.certified)

    @property
    def complex(self) -> bool:
        return bool(self.cls.suits(1, 1, torch.complex128))

    @property
    def error(self) -> float:
        """Of u, in double precision on the layers below."""
        return 1e-6 if not self.certified else 1e-11 if self.short == "krylov_trust_region" else 1e-12

    @property
    def gap(self) -> float | None:
        """Relative error of the nearest eigenvalue left out; None where it is not known."""
        return (
            {"closed_form": 1e-3, "simultaneous_iteration": 1e-10, "block_lanczos": 1e-10}.get(self.short, 1e-13)
            if self.cls.gives_gap
            else None
        )

    @property
    def short(self) -> str:
        """The short name, without what tells variants apart."""
        return self.name.split(",")[0]

    @property
    def differences(self) -> dict[str, float]:
        """How finite differences have to be taken through a forward pass of this accuracy."""
        return {} if self.error <= 1e-11 else {"eps": 1e-4, "atol": 1e-3, "rtol": 1e-2}

    def suits(self, layer: LayerCase) -> bool:
        return bool(self.cls.suits(layer.n, layer.k))


DESCENT = {"tol": 1e-18, "max_steps": 2000}
SETTINGS = {
    "projected_gradient": DESCENT,
    "riemannian_gradient": DESCENT,
    "slsqp": {"tol": 1e-15, "max_steps": 500},
    "power_iteration": {"max_steps": 5000},
    "simultaneous_iteration": {"max_steps": 5000},
}
SPHERE_SOLVERS = [
    *(SolverCase(name, cls, SETTINGS.get(name, {})) for name, cls in pmaf.solvers.SPHERE.items()),
    SolverCase(
        "riemannian_gradient, backtracking",
        pmaf.solvers.RiemannianGradient,
        {**DESCENT, "step": pmaf.solvers.Backtracking},
    ),
]
EIGEN_SOLVERS = [SolverCase(name, cls, SETTINGS.get(name, {})) for name, cls in pmaf.solvers.EIGEN.items()]


def ids(cases: Any) -> Any:
    return {"argvalues": cases, "ids": [case.name for case in cases]}


# ---- problems on the sphere ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SphereCase:
    """Least squares on the sphere with an answer known in closed form."""

    name: str
    A: Any
    b: Any
    radius: float
    u: Any  # None where there are several; then only the multiplier is known
    multiplier: float
    status: pmaf.Status = pmaf.Status.CONVERGED


SPHERE_CASES = [
    SphereCase("identity", [[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0], 1.0, [0.6, 0.8], 4.0),
    SphereCase("identity inside", [[1.0, 0.0], [0.0, 1.0]], [0.3, 0.4], 1.0, [0.6, 0.8], -0.5),
    SphereCase("radius", [[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0], 10.0, [6.0, 8.0], -0.5),
    # (σᵢ² + λ) uᵢ = σᵢ bᵢ with λ = 1 and σ = (1, 2): u = (0.6, 0.8) needs b = (2·0.6, 5·0.8/2)
    SphereCase("diagonal", [[1.0, 0.0], [0.0, 2.0]], [1.2, 2.0], 1.0, [0.6, 0.8], 1.0),
    SphereCase("tall", [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], [1.2, 2.0, 7.0], 1.0, [0.6, 0.8], 1.0),
    SphereCase("one unknown", [[2.0]], [3.0], 1.0, [1.0], 2.0),
    SphereCase("one unknown, negative", [[2.0]], [-3.0], 0.5, [-0.5], 8.0),
    # m < n: null space spanned by e₂, λ = 1: u₁ = 2/(4 + 1)·3 = 1.2 > 1, so choose λ = 2: u₁ = 2b/6 = 1
    SphereCase("wide", [[2.0, 0.0]], [3.0], 1.0, [1.0, 0.0], 2.0),
    SphereCase("b = 0", [[1.0, 0.0], [0.0, 2.0]], [0.0, 0.0], 1.0, None, -1.0, pmaf.Status.NOT_UNIQUE),
    SphereCase("A = 0", [[0.0, 0.0], [0.0, 0.0]], [1.0, 2.0], 3.0, None, 0.0, pmaf.Status.NOT_UNIQUE),
    # hard: γ₁ = 0 and ‖γ₂/(d₂)‖ = 2·0.9/3 = 0.6 < 1, so u₁ = ±0.8
    SphereCase("hard", [[1.0, 0.0], [0.0, 2.0]], [0.0, 0.9], 1.0, None, -1.0, pmaf.Status.NOT_UNIQUE),
    SphereCase("hard, m < n", [[1.0, 0.0]], [0.5], 1.0, None, 0.0, pmaf.Status.NOT_UNIQUE),
]


# ---- eigenpairs ----------------------------------------------------------------------------------------------------

SPECTRA = {
    "simple": (5.0, 3.0, 1.0, -2.0, -4.0),
    "rotation": ROTATION,
    "homography": HOMOGRAPHY,
    "all negative": (-1.0, -2.0, -5.0),
    "large negative": (2.0, 1.0, 0.0, -50.0),
    "rank one": (4.0, 0.0, 0.0, 0.0, 0.0),
    "one": (3.0,),
    "clustered unwanted": (2.0, 1.0, 1.0 - 1e-9, 1.0 - 2e-9, -1.0),
}


# ---- layers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerCase:
    """A layer as a function of tensors to one tensor, and inputs on which it is smooth."""

    name: str
    family: str  # "sphere" or "eigen"
    call: Callable[..., Tensor]  # call(*inputs, solver=...)
    make: Callable[..., tuple[Tensor, ...]]  # make(dtype, *batch)
    batched: bool = True  # leading dimensions of the inputs are batch dimensions
    k: int = 1
    n: int = 4  # order of the matrix whose eigenpairs are wanted
    twice: bool = True  # torch.sparse_coo_tensor, as a function of the values, is differentiable only once

    def inputs(self, dtype: torch.dtype, *batch: int, requires_grad: bool = False) -> tuple[Tensor, ...]:
        return tuple(x.detach().requires_grad_(requires_grad) for x in self.make(dtype, *batch))


def joined(value: Tensor, vector: Tensor) -> Tensor:
    """One number and one vector of each item, in one tensor."""
    return torch.cat((value[..., None], vector), -1)


def real_type(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real()


def separated(dtype: torch.dtype, *batch: int, n: int = 4) -> Tensor:
    """Hermitian matrices with well separated eigenvalues of both signs."""
    s = torch.tensor([6.0, 3.0, 1.0, -2.0, -5.0][:n], dtype=torch.float64)
    count = torch.Size(batch).numel()
    Q = torch.stack([orthogonal(n, 10 + i, dtype) for i in range(count)]).reshape(*batch, n, n)
    return ((Q * s) @ Q.mH).to(dtype)


def factor(dtype: torch.dtype, *batch: int, m: int = 5, n: int = 3, values: Any = (3.0, 2.0, 1.0, 0.4)) -> Tensor:
    """Matrices with these singular values."""
    s = torch.tensor(values[: min(m, n)], dtype=torch.float64)
    count = torch.Size(batch).numel()
    pairs = [(orthogonal(m, 30 + i, dtype), orthogonal(n, 60 + i, dtype)) for i in range(count)]
    F = torch.stack([(L[:, : len(s)] * s) @ R[:, : len(s)].mH for L, R in pairs])
    return F.reshape(*batch, m, n).to(dtype)


def right_side(dtype: torch.dtype, *batch: int, m: int = 5) -> Tensor:
    return 4 * randn(*batch, m, seed=7, dtype=dtype)


def beyond(A: Tensor, noise: float = 0.2) -> Tensor:
    """A right-hand side whose unconstrained minimiser is a little too long: the multiplier is positive, not large."""
    x = randn(*A.shape[:-2], A.shape[-1], 1, seed=8, dtype=A.dtype)
    x = 1.7 * x / torch.linalg.vector_norm(x, dim=-2, keepdim=True)
    return (A @ x)[..., 0] + noise * randn(*A.shape[:-1], seed=7, dtype=A.dtype)


def _problem(t: torch.dtype, *b: int) -> tuple[Tensor, ...]:
    A = factor(t, *b, values=(3.0, 2.6, 2.2))
    return A, beyond(A)


def pair(values: Tensor, U: Tensor) -> Tensor:
    """Eigenvalues above their eigenvectors, as one tensor ``(*, n + 1, k)``."""
    return torch.cat((values[..., None, :].to(U.dtype), U), -2)


def triplets(A: Tensor, **options: Any) -> Tensor:
    """Two singular values above their vectors, as one tensor ``(*, 1 + m + n, 2)``."""
    U, S, Vh = pmaf.svd(A, 2, **options)
    return torch.cat((S[..., None, :].to(U.dtype), U, Vh.mT), -2)


def svd_module(A: Tensor, **options: Any) -> Tensor:
    """The smallest singular value above its vectors."""
    U, S, Vh = pmaf.nn.SVD(1, largest=False, **options)(A)
    return torch.cat((S[..., None, :].to(U.dtype), U, Vh.mT), -2)


def sym(X: Tensor) -> Tensor:
    return (X + X.mH) / 2


def _everything(A: Tensor, b: Tensor, weights: Tensor, C: Tensor, radius: Tensor, **options: Any) -> Tensor:
    solution = pmaf.less_ex(A, b, weights=weights, free=C, radius=radius, **options)
    return torch.cat((solution.u, solution.multiplier[..., None].to(A.dtype), solution.z), -1)


def _matvec(d: Tensor, v: Tensor, **options: Any) -> Tensor:
    X = pmaf.MatVec(lambda d, v, V: d[:, None] * V + v[:, None] * (v.conj() @ V), d.shape[-1], (d, v))
    return pair(*pmaf.ied(X, 2, **options))


def _products(d: Tensor, v: Tensor, **options: Any) -> Tensor:
    """The triplets of diag(d) above the row v."""
    A = pmaf.MatVec(lambda d, v, V: torch.cat((d[:, None] * V, (v @ V)[None])), d.shape[-1], (d, v))
    U, S, Vh = pmaf.svd(A, 2, **options)
    return torch.cat((S[None].to(U.dtype), U, Vh.mT), -2)


def _sparse(values: Tensor, **options: Any) -> Tensor:
    rows, columns = torch.tensor([[0, 1, 2, 3, 0, 1, 1, 2, 2, 3], [0, 1, 2, 3, 1, 0, 2, 1, 3, 2]])
    values = (values + values[[0, 1, 2, 3, 5, 4, 7, 6, 9, 8]]) / 2  # entry (i, j) beside entry (j, i)
    X = torch.sparse_coo_tensor(torch.stack((rows, columns)), values, (4, 4), check_invariants=False)
    return pair(*pmaf.ied(X, 1, **options))


LAYERS = [
    LayerCase("less", "sphere", pmaf.less, _problem),
    LayerCase(
        "less, m < n",
        "sphere",
        lambda A, b, **o: pmaf.less(A, b, radius=0.2, **o),
        lambda t, *b: (factor(t, *b, m=2, n=3), right_side(t, *b, m=2)),
    ),
    LayerCase(
        "less, all arguments",
        "sphere",
        _everything,
        lambda t, *b: (
            factor(t, *b, m=6, n=2),
            right_side(t, *b, m=6),
            torch.rand((*b, 6), generator=rng(3), dtype=real_type(t)) + 0.5,
            factor(t, *b, m=6, n=1),
            torch.rand(b, generator=rng(4), dtype=real_type(t)) + 0.5,
        ),
    ),
    LayerCase(
        "less, ball",
        "sphere",
        lambda A, b, **o: pmaf.less(A, b, radius=8.0, constraint="ball", **o),
        lambda t, *b: (factor(t, *b), right_side(t, *b)),
    ),
    LayerCase(
        "sphere_quadratic",
        "sphere",
        lambda H, g, **o: pmaf.sphere_quadratic(sym(H), g, **o),
        lambda t, *b: (separated(t, *b, n=3), right_side(t, *b, m=3)),
    ),
    LayerCase("ied, k = 1", "eigen", lambda X, **o: pair(*pmaf.ied(sym(X), 1, **o)), lambda t, *b: (separated(t, *b),)),
    LayerCase(
        "ied, k = 3", "eigen", lambda X, **o: pair(*pmaf.ied(sym(X), 3, **o)), lambda t, *b: (separated(t, *b),), k=3
    ),
    LayerCase(
        "ied, smallest",
        "eigen",
        lambda X, **o: pair(*pmaf.ied(sym(X), 1, largest=False, **o)),
        lambda t, *b: (separated(t, *b),),
    ),
    LayerCase(
        "ied(Gram)",
        "eigen",
        lambda F, **o: pair(*pmaf.ied(pmaf.Gram(F), 2, **o)),
        lambda t, *b: (factor(t, *b, m=5, n=4),),
        k=2,
    ),
    LayerCase(
        "ied(Gram), wide",
        "eigen",
        lambda F, **o: pair(*pmaf.ied(pmaf.Gram(F), 2, **o)),
        lambda t, *b: (factor(t, *b, m=3, n=5),),
        k=2,
        n=5,
    ),
    LayerCase(
        "ied(Gram), smallest",
        "eigen",
        lambda F, **o: pair(*pmaf.ied(pmaf.Gram(F), 1, largest=False, **o)),
        lambda t, *b: (factor(t, *b, m=5, n=3),),
    ),
    LayerCase(
        "ied(MatVec)",
        "eigen",
        _matvec,
        lambda t, *b: (torch.tensor([5.0, 3.0, 1.0, -1.0], dtype=t), 0.5 * randn(4, seed=5, dtype=t)),
        batched=False,
        k=2,
    ),
    LayerCase(
        "ied(sparse)",
        "eigen",
        _sparse,
        lambda t, *b: (torch.tensor([4.0, 2, 1, -1, 0.5, 0.5, 1, 1, -1, -1], dtype=t),),
        batched=False,
        twice=False,
    ),
    LayerCase(
        "principal_projector",
        "eigen",
        lambda X, **o: pmaf.principal_projector(sym(X), 2, **o),
        lambda t, *b: (separated(t, *b),),
        k=2,
    ),
    LayerCase(
        "ied(Gram), weights",
        "eigen",
        lambda F, w, **o: pair(*pmaf.ied(pmaf.Gram(F, weights=w), 2, **o)),
        lambda t, *b: (
            factor(t, *b, m=5, n=4),
            torch.rand((*b, 5), generator=rng(3), dtype=torch.float64).to(real_type(t)) + 0.5,
        ),
        k=2,
    ),
    LayerCase(
        "spectral_function",
        "eigen",
        lambda X, **o: pmaf.spectral_function(sym(X), "exp", **o),
        lambda t, *b: (separated(t, *b) / 3,),
        k=4,
    ),
    LayerCase(
        "spectral_function, k = 2",
        "eigen",
        lambda X, **o: pmaf.spectral_function(sym(X), "sqrt", 2, **o),
        lambda t, *b: (separated(t, *b),),
        k=2,
    ),
    LayerCase(
        "spectral_function, callable",
        "eigen",
        lambda X, **o: pmaf.spectral_function(sym(X), torch.tanh, **o),
        lambda t, *b: (separated(t, *b) / 6,),
        k=4,
    ),
    LayerCase(
        "ied(metric)",
        "eigen",
        lambda X, F, **o: pair(*pmaf.ied(sym(X), 2, metric=pmaf.Gram(F), **o)),
        lambda t, *b: (separated(t, *b), factor(t, *b, m=6, n=4, values=(2.0, 1.5, 1.0, 0.7))),
        k=2,
    ),
    LayerCase(
        "ied(near)",
        "eigen",
        lambda X, **o: pair(*pmaf.ied(sym(X), 2, near=2.5, **o)),
        lambda t, *b: (separated(t, *b),),
        k=2,
    ),
    LayerCase("svd", "eigen", triplets, lambda t, *b: (factor(t, *b, m=5, n=3),), k=2, n=3),
    LayerCase("svd, wide", "eigen", triplets, lambda t, *b: (factor(t, *b, m=3, n=5),), k=2, n=3),
    LayerCase(
        "svd(MatVec)",
        "eigen",
        _products,
        lambda t, *b: (torch.tensor([3.0, 2.0, 1.0], dtype=t), 0.3 * randn(3, seed=5, dtype=t)),
        batched=False,
        k=2,
        n=3,
    ),
    LayerCase(
        "dominant_pair",
        "eigen",
        lambda X, **o: joined(*pmaf.dominant_pair(X, **o)),
        lambda t, *b: (separated(t, *b) + 0.2 * randn(*b, 4, 4, seed=7, dtype=t),),
    ),
    LayerCase("nn.LESS", "sphere", lambda A, b, **o: pmaf.nn.LESS(radius=2.0, **o)(A, b), _problem),
    LayerCase(
        "nn.IED",
        "eigen",
        lambda X, **o: pair(*pmaf.nn.IED(2, largest=False, **o)(sym(X))),
        lambda t, *b: (separated(t, *b),),
        k=2,
    ),
    LayerCase("nn.SVD", "eigen", svd_module, lambda t, *b: (factor(t, *b, m=5, n=3),), n=3),
    LayerCase(
        "nn.SpectralFunction",
        "eigen",
        lambda X, **o: pmaf.nn.SpectralFunction("abs", **o)(sym(X)),
        lambda t, *b: (separated(t, *b),),
        k=4,
    ),
    LayerCase(
        "nn.PrincipalPool2d, projector",
        "eigen",
        lambda x, **o: pmaf.nn.PrincipalPool2d(2, "projector", center=True, scale=True, **o)(x),
        lambda t, *b: (randn(*b, 3, 2, 4, seed=5, dtype=t),),
        k=2,
    ),
    LayerCase(
        "nn.PrincipalPool2d",
        "eigen",
        lambda x, **o: pmaf.nn.PrincipalPool2d(2, center=True, scale=True, **o)(x),
        lambda t, *b: (randn(*b, 3, 2, 4, seed=5, dtype=t),),
        k=2,
    ),
]


@dataclass(frozen=True)
class Row:
    """A layer with a solver: one row of the tables of behaviour."""

    layer: LayerCase
    solver: SolverCase | None  # None: the default

    @property
    def name(self) -> str:
        return self.layer.name if self.solver is None else f"{self.layer.name}, {self.solver.name}"

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.layer.call(*inputs) if self.solver is None else self.layer.call(*inputs, solver=self.solver.make())

    @property
    def error(self) -> float:
        return 1e-12 if self.solver is None else self.solver.error

    @property
    def differences(self) -> dict[str, float]:
        return {} if self.solver is None else self.solver.differences


def layer(name: str) -> LayerCase:
    (found,) = [layer for layer in LAYERS if layer.name == name]
    return found


ROWS = (
    [Row(case, None) for case in LAYERS]
    + [Row(layer("less"), solver) for solver in SPHERE_SOLVERS if solver.name == solver.short != "secular"]
    + [
        Row(layer("sphere_quadratic"), solver)
        for solver in SPHERE_SOLVERS
        if solver.certified and solver.name != "secular"
    ]
    + [
        Row(layer(name), solver)
        for solver in EIGEN_SOLVERS
        for name in ("ied, k = 1", "ied, k = 3")
        if solver.suits(layer(name))
    ]
)
