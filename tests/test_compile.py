"""What the table of transforms does not hold: the operators themselves, inductor, and packages for another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.library import opcheck

import pmaf
from cases import randn, sym
from pmaf.forward.custom_ops import encode
from pmaf.forward.eigen import EigenForward
from pmaf.forward.generalised import GeneralisedForward
from pmaf.forward.sphere import LeastSquaresForward, QuadraticForward
from pmaf.forward.triplets import TripletForward
from pmaf.kernels import available
from pmaf.operators.dense import Dense
from pmaf.operators.gram import Gram

SECULAR = encode(LeastSquaresForward(pmaf.solvers.Secular(), False, None, None, 0.0))
BALL = encode(LeastSquaresForward(pmaf.solvers.Secular(), True, None, None, 0.0))
FACTORISED = encode(LeastSquaresForward(pmaf.solvers.MoreSorensen(), False, None, None, 0.0))
QUADRATIC = encode(QuadraticForward(pmaf.solvers.Secular(), False, None, None, 0.0))


def symmetric(*shape: int) -> torch.Tensor:
    X = randn(*shape)
    return (X + X.mT) / 2


def eigen(operator, k: int, solver) -> str:
    return encode(EigenForward(operator.structure(), k, True, solver, None, None, 0.0, False))


X, F = symmetric(3, 5, 5), randn(2, 3, 6, seed=1)
A, b, C, radius = randn(3, 6, 4), randn(3, 6, seed=1), randn(1, 6, 2, seed=2), torch.ones(1, dtype=torch.float64)
GENERALISED = encode(
    GeneralisedForward(Dense(X).structure(), 2, True, pmaf.solvers.Eigh(), None, None, 0.0, False, 1e-6)
)
TRIPLETS = encode(TripletForward(2, True, None, None, None, 0.0))
U = torch.linalg.eigh(X)
DOUBT = torch.zeros(3, dtype=torch.bool)


def tridiagonal_arguments() -> tuple[object, ...]:
    """A right-hand side for what the compiled kernel leaves of X."""
    if not available():
        return ()
    found = EigenForward(Dense(X).structure(), 2, True, pmaf.solvers.Tridiagonal(), None, None, 0.0, False).run(X)
    return (X, *found.aux, found.solution[0], randn(3, 5, 2), True, False, 1e-12, 0.0)


CALLS = {
    "least squares": ("least_squares_on_sphere", (A, b, None, None, radius, None, SECULAR)),
    "all arguments": ("least_squares_on_sphere", (A, b, b.abs(), C, radius, None, BALL)),
    "all pairs": ("hermitian_eigh", (X,)),
    "quadratic": ("quadratic_on_sphere", (X, randn(3, 5, seed=3), radius, None, QUADRATIC)),
    "eigh": ("eigenpairs", (X, None, eigen(Dense(X), 2, pmaf.solvers.Eigh()))),
    "block_lanczos": ("eigenpairs", (X, None, eigen(Dense(X), 2, pmaf.solvers.BlockLanczos()))),
    "lanczos_eigh": ("eigenpairs", (X, None, eigen(Dense(X), 2, pmaf.solvers.LanczosEigh()))),
    "cholesky_inverse_iteration": (
        "eigenpairs",
        (X, None, eigen(Dense(X), 2, pmaf.solvers.CholeskyInverseIteration())),
    ),
    "more_sorensen": ("least_squares_on_sphere", (A, b, None, None, radius, None, FACTORISED)),
    "gram": ("eigenpairs", (F, None, eigen(Gram(F), 2, pmaf.solvers.Eigh()))),
    "tridiagonal": ("eigenpairs", (X, None, eigen(Dense(X), 2, pmaf.solvers.Tridiagonal()))),
    "generalised": (
        "generalised_eigenpairs",
        (X, X @ X.mH + torch.eye(5, dtype=X.dtype), None, GENERALISED),
    ),
    "triplets": ("singular_triplets", (F, None, TRIPLETS)),
    "complement in the tridiagonal form": ("complement_tridiagonal", tridiagonal_arguments()),
    "complement": (
        "complement",
        (X, U[0][:, -1:], U[1][..., -1:], randn(3, 5, 1), DOUBT, False, True, False, None, 0.0),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_operators_keep_the_rules_of_torch(name):
    operator, arguments = CALLS[name]
    if "tridiagonal" in name and not available():
        pytest.skip("there are no compiled kernels")
    results = opcheck(getattr(torch.ops.pmaf, operator).default, arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_every_operator_is_called():
    registered = {
        name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "pmaf::" in name
    }
    assert registered == {operator for operator, _ in CALLS.values()}


def test_a_large_operator_by_products_is_refused_in_a_graph():
    class Layer(torch.nn.Module):
        def forward(self, d):
            return pmaf.ied(pmaf.MatVec(lambda d, V: d[:, None] * V, 300, d), 1).eigenvalues

    with pytest.raises(TypeError, match="MatVec cannot be traced"):
        torch.export.export(Layer(), (torch.linspace(0, 1, 300),))


def test_a_solver_of_the_users_own_is_refused_in_a_graph():
    class Mine:
        def solve(self, *arguments):
            return pmaf.solvers.Eigh().solve(*arguments)

    with pytest.raises(TypeError, match="Mine cannot be traced"):
        encode(EigenForward(Dense(X).structure(), 1, True, Mine(), None, None, 0.0, False))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_inductor_gives_the_values_and_gradients_of_eager_mode():
    torch._dynamo.reset()

    def loss(A, b, X):
        u = pmaf.less(A, b)
        values, vectors = pmaf.ied(X, 2)
        return (u**3).sum() + (vectors[..., 0] ** 3).sum() + values.sum()

    leaves = [t.clone().requires_grad_() for t in (A, b, X)]
    eager = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*leaves), leaves)
    torch.testing.assert_close(compiled, eager)


PACKAGE = """
import sys, torch, pmaf

class Layer(torch.nn.Module):
    def forward(self, A, b):
        F = A.mT @ A
        return pmaf.less(A, b), pmaf.ied(F, 2).eigenvalues

A, b = torch.randn(3, 6, 4), torch.randn(3, 6)
batch = torch.export.Dim("batch", min=2, max=64)
program = torch.export.export(Layer(), (A, b), dynamic_shapes=({0: batch}, {0: batch}))
path = torch._inductor.aoti_compile_and_package(program, package_path=sys.argv[1])
"""

LOAD = """
import sys, torch, pmaf
loaded = torch._inductor.aoti_load_package(sys.argv[1])
A, b = torch.randn(5, 6, 4), torch.randn(5, 6)
u, values = loaded(A, b)
torch.testing.assert_close(u, pmaf.less(A, b))
torch.testing.assert_close(values, pmaf.ied(A.mT @ A, 2).eigenvalues)
print("same")
"""


@pytest.mark.slow
def test_an_aot_inductor_package_runs_in_another_process(tmp_path: Path):
    package = str(tmp_path / "layer.pt2")
    made = subprocess.run([sys.executable, "-c", PACKAGE, package], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    ran = subprocess.run([sys.executable, "-c", LOAD, package], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "same", ran.stderr[-3000:]


@pytest.mark.parametrize(
    "function",
    [
        lambda X, F: pmaf.less(F, 3 * F[..., 0] + 1j),
        lambda X, F: pmaf.sphere_quadratic(X, F[..., 0, :]),
        lambda X, F: pmaf.ied(X, 2, metric=F.mH @ F).eigenvectors.abs(),
        lambda X, F: pmaf.ied(X, 2, near=0.1).eigenvectors.abs(),
        lambda X, F: pmaf.svd(F, 2).U.abs(),
        lambda X, F: pmaf.spectral_function(X, "exp"),
    ],
    ids=["less", "sphere_quadratic", "metric", "near", "svd", "spectral_function"],
)
def test_complex_matrices_in_a_graph(function):
    """Compiled graphs call operators without what makes conjugated views read right."""
    X, F = sym(randn(2, 4, 4, dtype=torch.complex128)), randn(2, 6, 4, seed=1, dtype=torch.complex128)
    inputs = X.requires_grad_(), F.requires_grad_()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    plain, graph = function(*inputs), compiled(*inputs)
    torch.testing.assert_close(graph, plain)
    ours, theirs = (
        torch.autograd.grad(y.abs().square().square().sum(), inputs, allow_unused=True) for y in (graph, plain)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
