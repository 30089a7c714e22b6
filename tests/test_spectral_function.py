"""Functions of Hermitian matrices: values, and derivatives where eigenvalues are apart, nearly meet, and coincide."""

from __future__ import annotations

import warnings

import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import pmaf
from cases import randn, sym, with_spectrum
from pmaf import Status
from pmaf.linalg.divided_differences import NAMED, Elementwise, Power

FUNCTIONS = {
    **{name: name for name in NAMED},
    "power 0.3": 0.3,
    "power 2": 2,
    "power 3": 3.0,
    "power -2": -2,
    "tanh": torch.tanh,
    "softplus": torch.nn.functional.softplus,
    "square": lambda x: x * x,
}
SPECTRA = {
    "apart": (5.0, 3.0, 2.0, 1.0, 0.5),
    "nearly repeated": (3.0, 3 + 1e-7, 3 - 2e-9, 1.0, 1 + 1e-5),
    "repeated": (3.0, 3.0, 3.0, 1.0, 1.0),
    "identity": (2.0, 2.0, 2.0, 2.0, 2.0),
}
EXACT = {
    "sqrt": mpmath.sqrt,
    "inverse_sqrt": lambda x: 1 / mpmath.sqrt(x),
    "log": mpmath.log,
    "exp": mpmath.exp,
    "inverse": lambda x: 1 / x,
    "abs": abs,
    "sign": mpmath.sign,
    "power 0.3": lambda x: x ** mpmath.mpf(0.3),
    "power 2": lambda x: x**2,
    "power 3": lambda x: x**3,
    "power -2": lambda x: x**-2,
    "tanh": mpmath.tanh,
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
    "square": lambda x: x * x,
}


def as_scalar(name):
    fn = FUNCTIONS[name]
    return NAMED[fn] if isinstance(fn, str) else Elementwise(fn) if callable(fn) else Power(float(fn))


def exact_difference(f, points):
    """A divided difference in a hundred digits, of points that are moved apart by 1e-30."""
    with mpmath.workdps(120):
        points = [mpmath.mpf(p) * (1 + i * mpmath.mpf("1e-30")) for i, p in enumerate(points)]
        table = [f(p) for p in points]
        for step in range(1, len(points)):
            table = [(table[i + 1] - table[i]) / (points[i + step] - points[i]) for i in range(len(table) - 1)]
        return float(table[0])


POINTS = (0.7, 0.7 + 1e-15, 0.7 + 1e-9, 0.7 + 1e-4, 0.9, 3.0, 40.0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_divided_differences_keep_their_digits(name):
    scalar, given = as_scalar(name), FUNCTIONS[name]
    allowed = 1e-9 if callable(given) else 1e-13
    for a in POINTS:
        for b in POINTS:
            x, y = (torch.tensor(p, dtype=torch.float64) for p in (a, b))
            truth = exact_difference(EXACT[name], (a, b))
            assert float(scalar.first(x, y)) == pytest.approx(truth, rel=allowed, abs=1e-16)
            for c in POINTS[::2]:
                truth = exact_difference(EXACT[name], (a, b, c))
                ours = scalar.second(x, y, torch.tensor(c, dtype=torch.float64))
                assert float(ours) == pytest.approx(truth, rel=100 * allowed, abs=1e-11)


@pytest.mark.parametrize("name", ["exp", "inverse", "abs", "sign", "power 2", "power 3", "power -2", "tanh", "square"])
def test_divided_differences_across_zero(name):
    scalar = as_scalar(name)
    points = (-2.0, -0.5, -0.5, 1e-3, 0.25, 1.5)
    for a in points:
        for b in points:
            for c in points:
                x, y, z = (torch.tensor(p, dtype=torch.float64) for p in (a, b, c))
                first, second = (exact_difference(EXACT[name], p) for p in ((a, b), (a, b, c)))
                assert float(scalar.first(x, y)) == pytest.approx(first, rel=1e-11, abs=1e-12)
                assert float(scalar.second(x, y, z)) == pytest.approx(second, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_value(name, spectrum, dtype):
    X, s, Q = with_spectrum(SPECTRA[spectrum], 3, dtype)
    Y = pmaf.spectral_function(X, FUNCTIONS[name])
    f = torch.tensor([float(EXACT[name](x)) for x in s.tolist()], dtype=torch.float64)
    truth = (Q * f) @ Q.mH
    assert Y.dtype == dtype
    error = float(torch.linalg.matrix_norm(Y.to(truth.dtype) - truth) / torch.linalg.matrix_norm(truth))
    assert error < 200 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_derivatives_by_finite_differences(name, spectrum, dtype):
    X = with_spectrum(SPECTRA[spectrum], 3, dtype)[0].requires_grad_()

    def function(X):
        return pmaf.spectral_function(sym(X), FUNCTIONS[name])

    assert gradcheck(function, (X,), check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(function, (X,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("name", ["sqrt", "log", "power 3", "tanh"])
def test_derivatives_of_a_block(name, largest, dtype):
    """Three of five, two of which coincide; and the same by a solver that iterates."""
    spectrum = (3.0, 3.0, 4.0, 1.0, 0.5) if largest else (1.0, 1.0, 0.5, 3.0, 4.0)
    X = with_spectrum(spectrum, 4, dtype)[0].requires_grad_()

    def function(X):
        return pmaf.spectral_function(sym(X), FUNCTIONS[name], 3, largest=largest)

    assert gradcheck(function, (X,), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(function, (X,), fast_mode=True)
    other = pmaf.spectral_function(X, FUNCTIONS[name], 3, largest=largest, solver="block_lanczos")
    torch.testing.assert_close(other, function(X), rtol=1e-9, atol=1e-9)


def cascade(function, X, W):
    """Value, gradient, and the gradient of a function of the gradient."""
    X = X.clone().requires_grad_()
    Y = function(sym(X))
    (first,) = torch.autograd.grad((Y * W).sum().real, X, create_graph=True)
    (second,) = torch.autograd.grad(first.abs().square().sum(), X)
    return Y.detach(), first.detach(), second


ORACLES = {
    "exp": torch.linalg.matrix_exp,
    "inverse": torch.linalg.inv,
    3: lambda X: X @ X @ X,
    -2: lambda X: torch.linalg.inv(X @ X),
    0: lambda X: torch.eye(5, dtype=X.dtype) + 0 * (X @ X),
    1: lambda X: X + 0 * (X @ X),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("fn", ORACLES)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_derivatives_against_other_algorithms(spectrum, fn, dtype):
    X, W = with_spectrum(SPECTRA[spectrum], 5, dtype)[0], randn(5, 5, seed=6, dtype=dtype)
    ours = cascade(lambda X: pmaf.spectral_function(X, fn), X, W)
    for found, truth in zip(ours, cascade(ORACLES[fn], X, W), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-11)


def denman_beavers(X):
    """X^{1/2} and X^{−1/2} by Newton's iteration, differentiable by plain autograd."""
    Y, Z = X, torch.eye(X.shape[-1], dtype=X.dtype).expand_as(X)
    for _ in range(12):
        Y, Z = (Y + torch.linalg.inv(Z)) / 2, (Z + torch.linalg.inv(Y)) / 2
    return Y, Z


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_roots_against_newtons_iteration(spectrum):
    X, W = with_spectrum(SPECTRA[spectrum], 7)[0], randn(5, 5, seed=8)
    for i, fn in enumerate(("sqrt", "inverse_sqrt")):
        ours = cascade(lambda X, fn=fn: pmaf.spectral_function(X, fn), X, W)
        for found, truth in zip(ours, cascade(lambda X, i=i: denman_beavers(X)[i], X, W), strict=True):
            torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-8)


def test_gradient_of_the_root_of_a_multiple_of_the_identity():
    X = (2 * torch.eye(2, dtype=torch.float64)).requires_grad_()
    (gradient,) = torch.autograd.grad(pmaf.spectral_function(X, "sqrt").sum(), X)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 8**-0.5))


WAYS = {
    "hessian": torch.func.hessian,
    "grad of grad": lambda f: torch.func.grad(torch.func.grad(f)),
    "reverse over forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "forward over forward": lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
}


@pytest.mark.parametrize("k", [None, 3, 2])
@pytest.mark.parametrize("way", WAYS)
def test_second_derivative_along_a_shear(way, k):
    """Of tr C² at 2·I₃, where eigenvalues alone cannot tell; and of 2·I₂ beside another eigenvalue."""
    shear = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64)
    C = torch.diag(torch.tensor([2.0, 2, 1 if k == 2 else 2], dtype=torch.float64))

    def function(t):
        return pmaf.spectral_function(C + t * shear, lambda x: x**2, k).diagonal(dim1=-2, dim2=-1).sum(-1)

    assert float(WAYS[way](function)(torch.zeros((), dtype=torch.float64))) == pytest.approx(4.0, rel=1e-11)


def test_the_third_derivative_is_refused():
    X = with_spectrum(SPECTRA["apart"], 9)[0].requires_grad_()
    (first,) = torch.autograd.grad(pmaf.spectral_function(X, "exp").sum(), X, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), X, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives are not available"):
        second.sum().backward()
    t = torch.zeros((), dtype=torch.float64)
    function = lambda t: pmaf.spectral_function(X.detach() * (1 + t), "exp").sum()  # noqa: E731
    with pytest.raises(RuntimeError, match="third derivatives are not available"):
        torch.func.jacfwd(torch.func.jacfwd(torch.func.jacfwd(function)))(t)
    with pytest.raises(RuntimeError, match="third derivatives are not available"):
        torch.func.grad(torch.func.grad(torch.func.grad(function)))(t)


def test_the_constant_is_the_projector():
    X = with_spectrum(SPECTRA["apart"], 9)[0].requires_grad_()
    W = randn(5, 5, seed=1)
    ours, truth = pmaf.spectral_function(X, torch.ones_like, 2), pmaf.principal_projector(X, 2)
    torch.testing.assert_close(ours, truth)
    (a,), (b,) = (torch.autograd.grad((W * P).sum(), X) for P in (ours, truth))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("k", [None, 2])
def test_every_kind_of_matrix(k):
    """A factor, a sparse matrix and a function give what the dense matrix gives, with gradients."""
    F = randn(6, 4, seed=2).requires_grad_()
    W = randn(4, 4, seed=3)
    truth = pmaf.spectral_function(F.mT @ F, "sqrt", k)
    (gradient,) = torch.autograd.grad((W * truth).sum(), F)
    for X in (pmaf.Gram(F), pmaf.MatVec(lambda F, V: F.mT @ (F @ V), 4, (F,))):
        ours = pmaf.spectral_function(X, "sqrt", k)
        torch.testing.assert_close(ours, truth)
        torch.testing.assert_close(torch.autograd.grad((W * ours).sum(), F)[0], gradient, rtol=1e-8, atol=1e-8)
    dense = (F.mT @ F).detach().requires_grad_()
    (at_entries,) = torch.autograd.grad((W * pmaf.spectral_function(dense, "sqrt", k)).sum(), dense)
    sparse = dense.detach().to_sparse_coo().requires_grad_()
    ours = pmaf.spectral_function(sparse, "sqrt", k)
    torch.testing.assert_close(ours, truth)
    (W * ours).sum().backward()
    torch.testing.assert_close(sparse.grad.to_dense(), at_entries, rtol=1e-8, atol=1e-8)


def test_batches_and_transforms():
    X = torch.stack([with_spectrum(s, i)[0] for i, s in enumerate(SPECTRA.values())])
    function = lambda X: pmaf.spectral_function(X, "log")  # noqa: E731
    Y = function(X)
    torch.testing.assert_close(Y, torch.stack([function(x) for x in X]))
    torch.testing.assert_close(torch.func.vmap(function)(X), Y)
    torch.testing.assert_close(function(X.reshape(2, 2, 5, 5)), Y.reshape(2, 2, 5, 5))
    J = torch.func.vmap(torch.func.jacrev(function))(X)
    torch.testing.assert_close(J, torch.func.vmap(torch.func.jacfwd(function))(X), rtol=1e-10, atol=1e-10)
    for dtype in (torch.float16, torch.bfloat16):
        assert pmaf.spectral_function(X.to(dtype), "exp").dtype == dtype


def test_compiled_as_one_graph():
    X = with_spectrum((3.0, 3.0, 2.0, 1.0, 1.0), 2)[0].requires_grad_()
    W = randn(5, 5, seed=1)
    for fn, k, solver in (("sqrt", None, None), ("log", 2, "eigh"), (torch.tanh, None, None)):
        given = {"fn": fn, "k": k, "solver": solver}
        function = lambda X, given=given: (W * pmaf.spectral_function_ex(sym(X), **given).matrix).sum()  # noqa: E731
        value = torch.compile(function, backend="aot_eager", fullgraph=True)(X)
        (ours,), (truth,) = torch.autograd.grad(value, X), torch.autograd.grad(function(X), X)
        torch.testing.assert_close(ours, truth)


class TestDomain:
    @pytest.mark.parametrize("fn", ["log", "inverse", "inverse_sqrt", -2, -0.3])
    def test_zero_is_outside(self, fn):
        good, bad = (with_spectrum(s, 2)[0] for s in ((3.0, 2.0, 1.0), (3.0, 2.0, 0.0)))
        X = torch.stack((good, bad)).requires_grad_()
        found = pmaf.spectral_function_ex(X, fn)
        assert found.status.tolist() == [Status.CONVERGED, Status.NON_FINITE]
        assert bool(found.matrix[1].isnan().all())
        torch.testing.assert_close(found.matrix[0], pmaf.spectral_function(good, fn))
        (gradient,) = torch.autograd.grad(found.matrix[0].sum(), X)
        assert bool(gradient.isfinite().all())
        assert not bool(gradient[1].any())
        with pytest.raises(pmaf.ConvergenceError, match=r"item \(1,\) ended with NON_FINITE .* outside the domain"):
            pmaf.spectral_function(X, fn)

    @pytest.mark.parametrize("fn", ["sqrt", "log", "inverse_sqrt", 0.3])
    def test_negative_is_outside(self, fn):
        X = torch.diag(torch.tensor([1.0, -1e-3]))
        assert int(pmaf.spectral_function_ex(X, fn).status) == Status.NON_FINITE
        assert int(pmaf.spectral_function_ex(X, fn, 1).status) == Status.CONVERGED

    def test_not_a_number_and_overflow(self):
        X = torch.eye(3).repeat(3, 1, 1)
        X[1, 0, 0], X[2] = torch.nan, 1000 * torch.eye(3)
        for k in (None, 2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pmaf.DegeneracyWarning)
                status = pmaf.spectral_function_ex(X, "exp", k).status
            assert status[1:].tolist()[0] == Status.NON_FINITE
        assert pmaf.spectral_function_ex(X, "exp").status.tolist() == [0, 2, 2]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_root_of_a_singular_matrix(self, dtype):
        """The root is there; what happens in the null space has no derivative."""
        F = randn(3, 8, seed=5, dtype=dtype)
        X = (F.mT @ F).requires_grad_()
        Y = pmaf.spectral_function(X, "sqrt")
        scale = float(torch.linalg.matrix_norm(X.detach()))
        assert float(torch.linalg.matrix_norm((Y @ Y - X).detach())) < 1e3 * torch.finfo(dtype).eps * scale
        P = pmaf.principal_projector(pmaf.Gram(F), 3)
        (quiet,) = torch.autograd.grad((P @ Y @ P).square().sum(), X, retain_graph=True)
        assert bool(quiet.isfinite().all())
        with pytest.warns(pmaf.DegeneracyWarning, match="no derivative at an eigenvalue"):
            (dropped,) = torch.autograd.grad(Y.sum(), X, retain_graph=True)
        assert bool(dropped.isfinite().all())
        (unknown,) = torch.autograd.grad(pmaf.spectral_function(X, "sqrt", degenerate="nan").sum(), X)
        assert bool(unknown.isnan().all())
        with pytest.raises(pmaf.DegeneracyError):
            pmaf.spectral_function(X, "sqrt", degenerate="raise").sum().backward()

    def test_sign_of_a_singular_matrix(self):
        X = torch.diag(torch.tensor([2.0, 0.0, -1.0]))
        found = pmaf.spectral_function_ex(X, "sign")
        assert int(found.status) == Status.NOT_UNIQUE
        torch.testing.assert_close(found.matrix, torch.diag(torch.tensor([1.0, 0.0, -1.0])))


TWICE = {
    "reverse twice": lambda f: torch.func.grad(torch.func.grad(f)),
    "hessian": torch.func.hessian,
    "reverse over forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "forward over forward": lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
}
HALF_SMOOTH = {"power": 1.5, "callable": lambda x: x.abs() ** 1.5}


class TestInfiniteDerivatives:
    """f″(0) of |x|ᵖ, 1 < p < 2, and f′(0) of roots are infinite: left out with a warning, never in silence."""

    SINGULAR = torch.diag(torch.tensor([0.0, 1e-20, 1.0], dtype=torch.float64))  # the second zero by rounding
    INSIDE = torch.tensor([[1.0, 1, 0], [1, 2, 0], [0, 0, 1]], dtype=torch.float64)
    ACROSS = torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.float64)

    @pytest.mark.parametrize("fn", HALF_SMOOTH)
    @pytest.mark.parametrize("way", TWICE)
    def test_second_derivative_of_a_power(self, way, fn):
        fn, zero = HALF_SMOOTH[fn], torch.zeros((), dtype=torch.float64)
        X = self.SINGULAR if fn == 1.5 else torch.diag(torch.tensor([0.0, 0, 1], dtype=torch.float64))

        def loss(t, E, **options):
            Y = pmaf.spectral_function_ex(X + t * E, fn, **options).matrix
            return (Y * torch.ones_like(Y)).sum()

        with pytest.warns(pmaf.DegeneracyWarning, match="no second derivative"):
            assert bool(TWICE[way](lambda t: loss(t, self.INSIDE))(zero).isfinite())
        assert bool(TWICE[way](lambda t: loss(t, self.INSIDE, degenerate="nan"))(zero).isnan())
        with pytest.raises(pmaf.DegeneracyError):
            TWICE[way](lambda t: loss(t, self.INSIDE, degenerate="raise"))(zero)
        # between zero and one: 2 Σ f[i, k, j] E_ik E_kj, f[0, 1, 0] = 1, f[1, 0, 1] = ½, and four and two of them
        value = TWICE[way](lambda t: loss(t, self.ACROSS))(zero)
        assert float(value) == pytest.approx(2 * (4 * 1 + 2 * 0.5), rel=1e-6)

    def test_a_first_derivative_of_a_callable(self):
        X = torch.diag(torch.tensor([0.0, 0, 1], dtype=torch.float64)).requires_grad_()
        with pytest.warns(pmaf.DegeneracyWarning, match="no derivative"):
            (dropped,) = torch.autograd.grad(pmaf.spectral_function(X, lambda x: x.abs().sqrt()).sum(), X)
        assert bool(dropped.isfinite().all())
        Y = pmaf.spectral_function(X, lambda x: x.abs().sqrt(), degenerate="nan")
        assert bool(torch.autograd.grad(Y.sum(), X)[0].isnan().all())

    def test_a_second_derivative_of_the_root_across_zero(self):
        """The first derivative sees nothing there, the second is that of an eigenvalue −t²."""
        E = torch.tensor([[0.0, 1], [1, 0]], dtype=torch.float64)
        X = torch.diag(torch.tensor([0.0, 1], dtype=torch.float64))
        f = lambda t: pmaf.spectral_function_ex(X + t * E, "sqrt").matrix[0, 0]  # noqa: E731
        with pytest.warns(pmaf.DegeneracyWarning, match="no second derivative"):
            torch.func.jacfwd(torch.func.jacfwd(f))(torch.zeros((), dtype=torch.float64))


def test_report():
    X = torch.diag(torch.tensor([4.0, 1.0, 9.0, 2.0], dtype=torch.float64))
    found = pmaf.spectral_function_ex(X, "sqrt", 2)
    torch.testing.assert_close(found.matrix, torch.diag(torch.tensor([2.0, 0, 3, 0], dtype=torch.float64)))
    assert float(found.gap) == pytest.approx(2.0)
    assert float(found.residual) < 1e-14
    assert float(pmaf.spectral_function_ex(X, "sqrt").gap) == torch.inf


@pytest.mark.parametrize("size", [(0, 0), (2, 0, 0), (2, 3, 3)])
def test_nothing_selected(size):
    X = torch.zeros(size, dtype=torch.complex64, requires_grad=True)
    n = size[-1]
    values, U = pmaf.ied(X, 0)
    assert values.shape == (*size[:-2], 0)
    assert U.shape == (*size[:-1], 0)
    assert (values.dtype, U.dtype) == (torch.float32, torch.complex64)
    for Y in (pmaf.principal_projector(X, 0), pmaf.spectral_function(X, "exp", 0)):
        assert Y.shape == size
        assert not bool(Y.detach().abs().any())
        (gradient,) = torch.autograd.grad(Y.abs().sum(), X)
        assert gradient.shape == size
    found = pmaf.ied_ex(X, 0)
    assert found.status.shape == found.gap.shape == size[:-2]
    assert not bool(found.status.any())
    if n == 0:
        assert pmaf.spectral_function(X, "log").shape == size
        with pytest.raises(ValueError, match=r"X must be square, .* with n ≥ 1"):
            pmaf.ied(X)
    mapped = torch.func.vmap(lambda X: pmaf.ied_ex(X, 0).eigenvectors)(X.detach().expand(4, *size))
    assert mapped.shape == (4, *size[:-1], 0)


@pytest.mark.parametrize("k", [None, 0, 1, 2])
def test_empty_batches(k):
    X = torch.zeros(3, 0, 4, 4, requires_grad=True)
    Y = pmaf.spectral_function(X, "sqrt", k)
    assert Y.shape == X.shape
    assert torch.autograd.grad(Y.sum(), X)[0].shape == X.shape
    if k is not None:
        for P in (pmaf.principal_projector(X, k), pmaf.ied(X, k).eigenvectors, pmaf.ied(pmaf.Gram(X), k).eigenvectors):
            assert P.shape[:-1] == X.shape[:-1]
            assert torch.autograd.grad(P.sum(), X)[0].shape == X.shape


class TestRefusals:
    X = torch.eye(3)

    @pytest.mark.parametrize(
        ("fn", "error", "message"),
        [
            ("root", ValueError, "fn must be one of 'sqrt', 'inverse_sqrt'"),
            (None, TypeError, "fn must be a name, a number for a power, or a function"),
            (True, TypeError, "fn must be a name"),
            (float("nan"), ValueError, "fn as a power must be finite"),
            (lambda x: x.sum(), ValueError, "fn must act on each eigenvalue by itself"),
            (
                lambda x: x * torch.ones((), requires_grad=True),
                ValueError,
                "fn must not depend on tensors that require",
            ),
        ],
    )
    def test_function(self, fn, error, message):
        with pytest.raises(error, match=r"pmaf\.spectral_function: " + message):
            pmaf.spectral_function(self.X, fn)

    def test_other_arguments(self):
        with pytest.raises(ValueError, match="k must lie between 0 and n = 3, got 4"):
            pmaf.spectral_function(self.X, "exp", 4)
        with pytest.raises(ValueError, match="X must be symmetric"):
            pmaf.spectral_function(torch.triu(torch.ones(3, 3)), "exp")
        with pytest.raises(ValueError, match="degenerate must be one of"):
            pmaf.spectral_function(self.X, "exp", degenerate="ignore")
        with pytest.raises(TypeError, match="takes X, fn, k by position"):
            pmaf.spectral_function(self.X, "exp", 2, True)
        with pytest.raises(TypeError, match="a real tensor"):
            pmaf.spectral_function(self.X, lambda x: x.to(torch.complex64))
