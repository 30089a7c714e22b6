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
    return torch.randn(*shape, generator=rng(seed), dtype=wide).to(dtype)


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
    """One solver: its short name, the object, tuned for tight answers, and what it can do."""

    name: str
    make: Callable[[], Any]
    direct: bool = False  # a finite number of operations, exact to rounding
    certified: bool = True  # finds the global optimum of every problem
    transforms: bool = True  # torch tensors throughout, so that it runs inside function transforms
    k_max: int = 10**6
    symmetric_only: bool = False
    sizes: range = range(1, 10**6)


SPHERE_SOLVERS = [
    SolverCase("secular", lambda: pmaf.solvers.Secular(), direct=True),
]
EIGEN_SOLVERS = [
    SolverCase("eigh", lambda: pmaf.solvers.Eigh(), direct=True),
]


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
