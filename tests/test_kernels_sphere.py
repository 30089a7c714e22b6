"""Compiled kernels on the sphere by themselves: against sixty digits, and gradients against dense float64 systems."""

import math

import mpmath
import pytest
import torch

import pmaf
from pmaf.kernels import loader, sphere
from pmaf.kernels.sphere import INACCURATE, INSIDE, NOT_FINITE, NOT_UNIQUE, SINGULAR, sphere_minimum
from pmaf.kernels.sphere_gradient import sphere_gradient

mpmath.mp.dps = 60
DTYPES = [torch.float32, torch.float64]
WIDE = torch.float64
# In lanes, rows in double precision, rows in the type of the data.
SHAPES = [(5, 1), (3, 2), (8, 3), (3, 5), (12, 9), (40, 24), (70, 41), (130, 97)]


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request, monkeypatch):
    monkeypatch.setenv("PMAF_KERNELS", request.param)
    loader.load.cache_clear()
    if not loader.available():
        loader.load.cache_clear()
        pytest.skip(loader.reason())
    yield request.param
    monkeypatch.undo()
    loader.load.cache_clear()


@pytest.fixture(autouse=True)
def built():
    if not loader.available():
        pytest.skip(loader.reason())


def rounding(dtype):
    return torch.finfo(dtype).eps


def rtol(dtype, n):
    return 10 * rounding(dtype) * n**0.5


def problem(batch, m, n, dtype, seed=0):
    random = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, m, n, dtype=dtype, generator=random)
    b = 2 * torch.randn(batch, m, dtype=dtype, generator=random)
    radius = 0.5 + torch.rand(batch, dtype=dtype, generator=random)
    weights = torch.rand(batch, m, dtype=dtype, generator=random)
    return A, b, radius, weights


def rotation(n, seed=0):
    return torch.linalg.qr(torch.randn(n, n, dtype=WIDE, generator=torch.Generator().manual_seed(seed)))[0]


def quadratic(H, g, radius=1.0, **keywords):
    """One quadratic, H made symmetric."""
    H = (H + H.mT) / 2
    r = torch.tensor([radius], dtype=H.dtype)
    return sphere_minimum(H[None], g[None], r, quadratic=True, rtol=rtol(H.dtype, H.shape[-1]), **keywords)


def least_squares(A, b, radius=1.0, **keywords):
    """One least-squares problem."""
    r = torch.tensor([radius], dtype=A.dtype)
    return sphere_minimum(A[None], b[None], r, rtol=rtol(A.dtype, A.shape[-1]), **keywords)


def exact(*tensors):
    return [mpmath.matrix(x.double().tolist()) for x in tensors]


def shortfall(Q, g, radius, found, item=0):
    """What the answer lacks in sixty digits: stationarity, length, the lowest λ allowed, and the gap reported."""
    n = Q.rows
    u, multiplier, gap = (mpmath.mpf(0) + x for x in (0, found.multiplier[item].item(), found.gap[item].item()))
    u = mpmath.matrix(found.u[item].double().tolist())
    spectrum = mpmath.eigsy(Q, eigvals_only=True)
    size = max(abs(spectrum[0]), abs(spectrum[n - 1])) + abs(multiplier)
    size = size if size > 0 else mpmath.mpf(1)
    stationarity = mpmath.norm(Q * u + multiplier * u - g) / (size * radius)
    return tuple(
        float(x)
        for x in (
            stationarity,
            abs(mpmath.norm(u) / radius - 1),
            max(-(multiplier + spectrum[0]) / size, 0),
            abs(multiplier + spectrum[0] - gap) / size,
        )
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_is_the_global_minimiser_to_rounding(isa, m, n, dtype):
    A, b, radius, _ = problem(2, m, n, dtype)
    found = sphere_minimum(A, b, radius, rtol=rtol(dtype, n))
    good = found.code == 0
    assert bool((good | (found.gap <= 1e-11 * found.norm)).all())
    items = range(2) if n < 30 else range(1 if n < 60 else 0)
    for item in items:
        F, y = exact(A[item], b[item])
        lacks = shortfall(F.T * F, F.T * y, radius[item].item(), found, item)
        assert max(lacks) < 8 * rounding(dtype) * n**0.5, lacks
    assert float(found.residual.max()) < 8 * rounding(dtype) * n**0.5


def near_hard(n, digits, part):
    """All but v₁'s share of the solution has length 1 − 10^−digits at λ = −λ₁, and v₁ᵀg = part."""
    s = torch.linspace(-1, 2, n, dtype=WIDE)
    p = torch.randn(n, dtype=WIDE, generator=torch.Generator().manual_seed(n))
    p[0] = 0
    gamma = (s - s[0]) * p / p.norm() * (1 - 10.0**-digits)
    gamma[0] = part
    V = rotation(n, n)
    return (V * s) @ V.mT, V @ gamma


NASTY = {
    f"near hard {n} {digits} {part}": (*near_hard(n, digits, part), 1.0)
    for n in (2, 5, 9)
    for digits in (1, 4, 8, 12, 15, 17)
    for part in (0.0, 1e-17, 1e-12, 1e-6)
}
NASTY["doubly near hard"] = (
    torch.tensor([[0.46412069317545157, 0.885771969621041], [0.885771969621041, -0.46412069317545157]], dtype=WIDE),
    torch.tensor([-1.7112105032259766, -1.0352577522767437], dtype=WIDE),
    1.0,
)
for n in (1, 2, 5, 9):
    V, x = rotation(n, 1), torch.linspace(-1, 1, n, dtype=WIDE) + 0.1
    s = torch.linspace(-1, 2, n, dtype=WIDE)
    repeated = torch.cat((s[:1], s[: n - 1]))
    NASTY |= {
        f"no right-hand side {n}": ((V * s) @ V.mT, 0 * x, 2.0),
        f"repeated {n}": ((V * repeated) @ V.mT, V @ (x * (torch.arange(n) > 1)) / 10, 1.0),
        f"no matrix {n}": (torch.zeros(n, n, dtype=WIDE), x, 2.0),
        f"nothing {n}": (torch.zeros(n, n, dtype=WIDE), 0 * x, 2.0),
        f"identity {n}": (torch.eye(n, dtype=WIDE), x, 2.0),
        f"tiny right-hand side {n}": (-torch.eye(n, dtype=WIDE), 1e-13 * x, 2.0),
        f"graded {n}": (torch.diag(10.0 ** -(2 * torch.arange(n, dtype=WIDE))), 1e-6 * x, 1.0),
        f"rotated grades {n}": ((V * 10.0 ** -torch.arange(n, dtype=WIDE)) @ V.mT, 1e-3 * x, 1.0),
    }
    for scale in (1e150, 1e-150, 1e-300):
        NASTY |= {
            f"scale {scale} {n}": ((V * x) @ V.mT * scale, x * scale, 1.5),
            f"scale of the right-hand side {scale} {n}": ((V * x) @ V.mT, x * scale, 1.5),
            f"scale of the radius {scale} {n}": ((V * x) @ V.mT, x, scale),
        }


@pytest.mark.parametrize("name", NASTY)
def test_nasty_quadratics_are_solved_to_rounding(name):
    H, g, radius = NASTY[name]
    H = (H + H.mT) / 2
    found = quadratic(H, g, radius)
    assert int(found.code[0]) & (NOT_FINITE | INACCURATE) == 0
    Q, y = exact(H, g)
    stationarity, length, _, _ = shortfall(Q, y, radius, found)
    assert max(stationarity, length) < 8 * rounding(WIDE), (stationarity, length)
    assert float(found.residual[0]) < 8 * rounding(WIDE)
    if "near hard" not in name:  # there the gap is the cube root of a rounding error
        lacks = shortfall(Q, y, radius, found)
        assert max(lacks) < 16 * rounding(WIDE), lacks


def test_hard_case_takes_the_side_of_the_ones_vector_and_says_so():
    for sign in (1, -1):
        v = torch.tensor([0.6, sign * 0.8], dtype=WIDE)
        w = torch.tensor([-v[1], v[0]], dtype=WIDE)
        H = -torch.outer(v, v) + torch.outer(w, w)
        found = quadratic(H, 0.5 * w)
        assert int(found.code[0]) == NOT_UNIQUE
        assert float(found.u[0] @ v) * float(v.sum()) > 0
    # The all-ones vector decides nothing here; a generic one does, the same whatever the last digits are.
    L = torch.tensor([[2.0, -1, -1], [-1, 2.5, -1.5], [-1, -1.5, 2.5]], dtype=WIDE)
    sides = [quadratic(-L * (1 + 1e-14 * k), torch.zeros(3, dtype=WIDE)).u for k in range(4)]
    assert all(torch.allclose(side, sides[0], atol=1e-12) for side in sides)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scale_of_least_squares_does_not_matter(dtype):
    A, b, radius, _ = problem(3, 12, 5, dtype)
    found = sphere_minimum(A, b, radius, rtol=rtol(dtype, 5))
    for power in (60, -60) if dtype == torch.float32 else (500, -500):
        scaled = sphere_minimum(A * 2.0**power, b * 2.0**power, radius, rtol=rtol(dtype, 5))
        assert torch.equal(scaled.u, found.u)
        assert torch.equal(scaled.residual, found.residual)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ball_inside_and_outside(isa, dtype):
    A, b, _, _ = problem(1, 20, 5, dtype)
    free = torch.linalg.lstsq(A[0].double(), b[0].double()[:, None]).solution[:, 0]
    inside = least_squares(A[0], b[0], 1e3, ball=True)
    assert int(inside.code[0]) == INSIDE
    assert float(inside.multiplier) == 0
    assert torch.allclose(inside.u[0].double(), free, rtol=0, atol=20 * rounding(dtype))
    outside = least_squares(A[0], b[0], 0.1, ball=True)
    assert torch.equal(outside.u, least_squares(A[0], b[0], 0.1).u)


def test_ball_with_dependent_columns_is_of_least_norm():
    A, b, _, _ = problem(1, 20, 5, torch.float32)
    A = A[0].clone()
    A[:, 1] = A[:, 0]
    least = torch.linalg.lstsq(A.double(), b[0].double()[:, None], driver="gelsd").solution[:, 0]
    for radius in (10.0, 1e6):
        found = least_squares(A, b[0], radius, ball=True)
        assert int(found.code[0]) == NOT_UNIQUE | INSIDE | SINGULAR
        assert torch.allclose(found.u[0].double(), least, atol=1e-6)


def test_ball_is_never_left_whatever_rounding_does_to_the_right_hand_side():
    for seed in range(20):
        A = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        normal = torch.linalg.qr(A.double(), mode="complete")[0][:, 3]
        found = least_squares(A, (1e5 * normal).float(), 0.7, ball=True)
        assert float(found.u.norm()) <= 0.7 * (1 + 1e-6)
        assert float(found.residual) < 1e-6


def test_ball_with_nearly_singular_quadratics():
    H, g = torch.diag(torch.tensor([0.0, 1e-9, 1.0], dtype=WIDE)), torch.tensor([0.0, 5e-10, 1e-3], dtype=WIDE)
    found = quadratic(H, g, ball=True)
    assert torch.allclose(found.u[0], torch.tensor([0.0, 0.5, 1e-3], dtype=WIDE), rtol=1e-14, atol=1e-16)
    found = quadratic(torch.zeros(1, 1, dtype=WIDE), torch.ones(1, dtype=WIDE), ball=True)
    assert found.u.tolist() == [[1.0]]
    assert int(found.code[0]) == 0
    A, b = torch.tensor([[0.3, 0.4]]), torch.tensor([0.1])
    assert torch.allclose(least_squares(A, b, ball=True).u[0], torch.tensor([0.12, 0.16]), atol=1e-7)


def bordered(K, u, radius, vector, multiplier):
    """(w, μ) by a dense solve in float64."""
    n = K.shape[-1]
    M = torch.zeros(*K.shape[:-2], n + 1, n + 1, dtype=WIDE)
    M[..., :n, :n], M[..., :n, n], M[..., n, :n] = K, u, u
    solved = torch.linalg.solve(M, torch.cat((vector, multiplier[..., None]), -1))
    return solved[..., :n], solved[..., n]


def exact_answer(Q, g):
    """λ and u on the unit sphere in sixty digits, where the case is not hard."""
    n = Q.rows
    spectrum, V = mpmath.eigsy(Q)
    gamma = V.T * g

    def length(t):
        return mpmath.sqrt(sum((gamma[j] / (spectrum[j] - spectrum[0] + t)) ** 2 for j in range(n)))

    low, high = mpmath.mpf(10) ** -50, mpmath.norm(gamma)
    assert length(low) > 1
    for _ in range(250):
        middle = mpmath.sqrt(low * high)
        low, high = (middle, high) if length(middle) > 1 else (low, middle)
    p = mpmath.matrix([gamma[j] / (spectrum[j] - spectrum[0] + low) for j in range(n)])
    return low - spectrum[0], V * p


def exact_bordered(Q, multiplier, u, vector):
    """The solution w of the bordered system in sixty digits."""
    n = Q.rows
    M = mpmath.zeros(n + 1)
    for i in range(n):
        for j in range(n):
            M[i, j] = Q[i, j] + (multiplier if i == j else 0)
        M[i, n] = M[n, i] = u[i]
    return mpmath.lu_solve(M, mpmath.matrix([*vector.tolist(), 0]))


@pytest.mark.parametrize("excess", [1e-4, 1e-9, 1e-13])
def test_gaps_that_squaring_would_lose(isa, excess):
    """Fewer rows than columns, and A⁺b only just too long: a gap of about the excess."""
    A, b, _, _ = problem(1, 3, 5, WIDE, seed=4)
    b = b / (torch.linalg.pinv(A) @ b[..., None]).norm() * (1 + excess)
    F, y = exact(A[0], b[0])
    multiplier, u = exact_answer(F.T * F, F.T * y)
    found = least_squares(A[0], b[0])
    # With an error of ε in b the gap is known to about that.
    assert float(found.multiplier) == pytest.approx(float(multiplier), rel=1e-2 if excess < 1e-12 else 1e-5)
    assert torch.allclose(found.u[0], torch.tensor([float(x) for x in u], dtype=WIDE), atol=1e-14)
    vector, _ = cotangents(1, 5, WIDE)
    right = exact_bordered(F.T * F, multiplier, u, vector[0])
    gradients = sphere_gradient(
        A, b, torch.ones(1, dtype=WIDE), None, found.u, found.factor, found.code,
        vector=vector, multiplier=None, solution=True,
    )  # fmt: skip
    w = torch.tensor([float(right[i]) for i in range(5)], dtype=WIDE)
    assert float((gradients.w[0] - w).norm() / w.norm()) < (1e-2 if excess < 1e-12 else 1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_inside_the_ball_is_of_least_norm_where_columns_are_dependent(isa, dtype):
    A, b, _, _ = problem(3, 20, 5, dtype)
    A[..., 1] = A[..., 0]
    A[..., 3] = 2 * A[..., 2]
    radius = torch.full((3,), 1e3, dtype=dtype)
    vector, _ = cotangents(3, 5, dtype)
    found = sphere_minimum(A, b, radius, ball=True, rtol=rtol(dtype, 5))
    assert [int(c) & ~SINGULAR for c in found.code] == [NOT_UNIQUE | INSIDE] * 3
    gradients = sphere_gradient(
        A, b, radius, None, found.u, found.factor, found.code, vector=vector, multiplier=None, solution=True
    )
    F = A.double()
    inverse = torch.linalg.pinv(F.mT @ F, hermitian=True, rtol=1e-6 if dtype == torch.float32 else 1e-12)
    free = (inverse @ F.mT @ b.double()[..., None])[..., 0]
    assert error(found.u, free) < 100 * rounding(dtype)
    assert error(gradients.w, (inverse @ vector.double()[..., None])[..., 0]) < 100 * rounding(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_right_hand_side_and_dependent_columns(isa, dtype):
    """Every null vector is a minimiser; the one along the all-ones vector's part is taken."""
    A, b, radius, _ = problem(12, 4, 7, dtype)
    found = sphere_minimum(A, 0 * b, radius, rtol=rtol(dtype, 7))
    assert [int(c) & ~SINGULAR for c in found.code] == [NOT_UNIQUE] * 12
    null = torch.eye(7, dtype=WIDE) - torch.linalg.pinv(A.double()) @ A.double()
    right = null.sum(-1)
    right = radius.double()[:, None] * right / right.norm(dim=-1, keepdim=True)
    assert error(found.u, right) < 100 * rounding(dtype)
    assert float(found.multiplier.abs().max()) < 1e-6


def cotangents(batch, n, dtype, seed=1):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, dtype=dtype, generator=random), torch.randn(batch, dtype=dtype, generator=random)


def error(value, right):
    value, right = value.double().flatten(1), right.flatten(1)
    return float(((value - right).norm(dim=1) / right.norm(dim=1)).median())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("m", "n"), [(5, 1), (8, 3), (40, 24), (80, 50), (200, 101)])
def test_gradients_of_least_squares(isa, m, n, weighted, dtype):
    A, b, radius, weights = problem(5, m, n, dtype)
    W = weights if weighted else torch.ones_like(weights)
    vector, multiplier = cotangents(5, n, dtype)
    found = sphere_minimum(A, b, radius, weights if weighted else None, rtol=rtol(dtype, n))
    gradients = sphere_gradient(
        A, b, radius, weights if weighted else None, found.u, found.factor, found.code,
        vector=vector, multiplier=multiplier, needs=(True, True, weighted, True), solution=True,
    )  # fmt: skip
    A, b, W, r, vector, multiplier = (x.double() for x in (A, b, W, radius, vector, multiplier))
    reference = sphere_minimum(A, b, r, W, rtol=rtol(WIDE, n))
    u = reference.u
    K = A.mT @ (W[..., None] * A) + reference.multiplier[:, None, None] * torch.eye(n, dtype=WIDE)
    w, mu = bordered(K, u, r, vector, multiplier)
    rho, v = b - (A @ u[..., None])[..., 0], (A @ w[..., None])[..., 0]
    right = (W * rho)[..., None] * w[:, None] - (W * v)[..., None] * u[:, None]
    bound = 100 * rounding(dtype)
    assert error(gradients.w, w) < bound
    assert error(gradients.mu[:, None], mu[:, None]) < bound
    assert error(gradients.matrix, right) < bound
    assert error(gradients.right, W * v) < bound
    assert error(gradients.radius[:, None], (mu * r)[:, None]) < bound
    if weighted:
        assert error(gradients.weights, v * rho) < bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 9, 45, 101])
def test_gradients_of_quadratics(isa, n, dtype):
    random = torch.Generator().manual_seed(n)
    H = torch.randn(5, n, n, dtype=dtype, generator=random)
    H = (H + H.mT) / 2
    g = 3 * torch.randn(5, n, dtype=dtype, generator=random)
    radius = 0.5 + torch.rand(5, dtype=dtype, generator=random)
    vector, multiplier = cotangents(5, n, dtype)
    found = sphere_minimum(H, g, radius, quadratic=True, rtol=rtol(dtype, n))
    gradients = sphere_gradient(
        H, g, radius, None, found.u, found.factor, found.code, quadratic=True,
        vector=vector, multiplier=multiplier, needs=(True, True, False, True),
    )  # fmt: skip
    H, g, r, vector, multiplier = (x.double() for x in (H, g, radius, vector, multiplier))
    reference = sphere_minimum(H, g, r, quadratic=True, rtol=rtol(WIDE, n))
    K = H + reference.multiplier[:, None, None] * torch.eye(n, dtype=WIDE)
    w, mu = bordered(K, reference.u, r, vector, multiplier)
    right = -(w[..., :, None] * reference.u[..., None, :] + reference.u[..., :, None] * w[..., None, :]) / 2
    bound = 200 * rounding(dtype)
    assert error(gradients.matrix, right) < bound
    assert error(gradients.right, w) < bound
    assert error(gradients.radius[:, None], (mu * r)[:, None]) < bound


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize(("m", "n"), [(5, 1), (12, 4), (4, 6), (40, 24), (60, 41)])
def test_complex_least_squares(m, n, dtype):
    random = torch.Generator().manual_seed(m)
    A = torch.randn(3, m, n, dtype=dtype, generator=random)
    b = 4 * torch.randn(3, m, dtype=dtype, generator=random)
    vector = torch.randn(3, n, dtype=dtype, generator=random)
    radius = 0.5 + torch.rand(3, dtype=A.real.dtype, generator=random)
    eps = torch.finfo(dtype).eps
    found = sphere_minimum(A, b, radius, rtol=10 * eps * n**0.5)
    assert found.seen & ~SINGULAR == 0
    gradients = sphere_gradient(
        A, b, radius, None, found.u, found.factor, found.code,
        vector=vector, multiplier=None, needs=(True, True, False, True), solution=True,
    )  # fmt: skip
    A, b, vector, u, r = (x.to(torch.complex128) for x in (A, b, vector, found.u, radius))
    K = A.mH @ A + found.multiplier[:, None, None] * torch.eye(n)
    assert float((K @ u[..., None] - A.mH @ b[..., None]).norm()) < 100 * eps * float(K.norm()) * float(r.real.max())
    assert torch.allclose(u.norm(dim=-1), r.real, rtol=10 * eps)
    assert float((torch.linalg.eigvalsh(K)[:, 0] - found.gap).abs().max()) < 10 * eps * float(found.norm.max())
    x, y = (torch.linalg.solve(K, z[..., None])[..., 0] for z in (vector, u))
    mu = (u.conj() * x).sum(-1).real / (u.conj() * y).sum(-1).real
    w = x - mu[:, None] * y
    rho, v = b - (A @ u[..., None])[..., 0], (A @ w[..., None])[..., 0]
    right = rho[..., None] * w.conj()[:, None] - v[..., None] * u.conj()[:, None]
    for value, expected in ((gradients.w, w), (gradients.matrix, right), (gradients.right, v)):
        assert float((value - expected).norm() / expected.norm()) < 1000 * eps
    assert float((gradients.radius - mu * r.real).norm() / mu.norm()) < 1000 * eps


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("constraint", ["sphere", "ball"])
def test_complex_layers_are_those_of_the_way_without_kernels(constraint, dtype, monkeypatch):
    random = torch.Generator().manual_seed(5)
    A, b, vector = (torch.randn(*s, dtype=dtype, generator=random) for s in ((11, 12, 5), (11, 12), (11, 5)))
    A[7] = A[7, :, :1]  # of rank one
    b[9] = 0
    weights, radius = (torch.rand(*s, dtype=A.real.dtype, generator=random) + 0.1 for s in ((11, 12), (11,)))
    radius[2] = 100 if constraint == "ball" else 1
    given = [x.requires_grad_() for x in (A, b, weights, radius)]
    unique = torch.tensor([i for i in range(11) if i not in (7, 9)])

    def answers():
        found = pmaf.less_ex(A, b, radius=radius, weights=weights, constraint=constraint)
        loss = ((found.u * vector.conj()).real.sum(-1) + found.multiplier)[unique].sum()
        numbers = found.u[unique], found.multiplier[unique], found.gap[unique]
        return found.status, [x.detach() for x in (*numbers, *torch.autograd.grad(loss, given))]

    status, numbers = answers()
    assert bool((status[unique] == 0).all())
    some = pmaf.less_ex(A[3:6], b[3:6], radius=radius[3:6], weights=weights[3:6], constraint=constraint)
    assert torch.equal(some.u, numbers[0][3:6])
    monkeypatch.setattr("pmaf.layers.direct_sphere.available", lambda: False)
    status_without, numbers_without = answers()
    assert torch.equal(status, status_without)
    for got, expected in zip(numbers, numbers_without, strict=True):
        assert float((got - expected).norm() / expected.norm()) < 1000 * rounding(dtype)


def test_complex_quadratic():
    random = torch.Generator().manual_seed(0)
    H = torch.randn(4, 6, 6, dtype=torch.complex128, generator=random)
    H = (H + H.mH) / 2
    g = torch.randn(4, 6, dtype=torch.complex128, generator=random)
    vector = torch.randn(4, 6, dtype=torch.complex128, generator=random)
    radius = torch.ones(4, dtype=WIDE)
    found = sphere_minimum(H, g, radius, quadratic=True, rtol=1e-14)
    gradients = sphere_gradient(
        H, g, radius, None, found.u, found.factor, found.code, quadratic=True, vector=vector, multiplier=None
    )
    K = H + found.multiplier[:, None, None] * torch.eye(6)
    assert float((K @ found.u[..., None] - g[..., None]).norm()) < 1e-13
    x, y = (torch.linalg.solve(K, z[..., None])[..., 0] for z in (vector, found.u))
    mu = (found.u.conj() * x).sum(-1).real / (found.u.conj() * y).sum(-1).real
    w = x - mu[:, None] * y
    outer = w[..., :, None] * found.u.conj()[..., None, :]
    assert torch.allclose(gradients.right, w, rtol=1e-11, atol=1e-12)
    assert torch.allclose(gradients.matrix, -(outer + outer.mH) / 2, rtol=1e-11, atol=1e-12)


def test_gradient_inside_the_ball_is_that_of_the_free_problem():
    A, b, _, _ = problem(3, 20, 5, WIDE)
    radius = torch.full((3,), 1e3, dtype=WIDE)
    vector, _ = cotangents(3, 5, WIDE)
    found = sphere_minimum(A, b, radius, ball=True, rtol=rtol(WIDE, 5))
    gradients = sphere_gradient(
        A, b, radius, None, found.u, found.factor, found.code,
        vector=vector, multiplier=None, needs=(True, True, False, True),
    )  # fmt: skip
    F, y = A.clone().requires_grad_(), b.clone().requires_grad_()
    free = torch.linalg.solve(F.mT @ F, (F.mT @ y[..., None])[..., 0])
    right = torch.autograd.grad((free * vector).sum(), (F, y))
    assert error(gradients.matrix, right[0]) < 1e-12
    assert error(gradients.right, right[1]) < 1e-12
    assert gradients.radius.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("m", "n"), [(8, 3), (40, 24), (70, 41), (130, 97)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_item_does_not_see_its_neighbours(isa, m, n, dtype):
    A, b, radius, _ = problem(19, m, n, dtype)
    poisoned = A.clone()
    poisoned[4, 1, 0], poisoned[7, 0, -1], poisoned[11] = math.nan, math.inf, 0
    vector, multiplier = cotangents(19, n, dtype)

    def run(A, items):
        held = A[items].contiguous(), b[items].contiguous(), radius[items].contiguous()
        found = sphere_minimum(*held, rtol=rtol(dtype, n))
        return found, sphere_gradient(
            *held, None, found.u, found.factor, found.code, vector=vector[items].contiguous(),
            multiplier=multiplier[items].contiguous(),
        )  # fmt: skip

    whole, gradients = run(poisoned, slice(0, 19))
    assert [int(c) & NOT_FINITE for c in whole.code[[4, 7]]] == [NOT_FINITE] * 2
    assert bool(whole.u[[4, 7]].isnan().all())
    assert bool((gradients.matrix[[4, 7]] == 0).all())
    for items in (slice(0, 1), slice(5, 7), slice(12, 19), slice(3, 6), slice(18, 19)):
        found, some = run(A, items)
        for item in range(19)[items]:
            if item in (4, 7, 11):
                continue
            here = item - items.start
            for name in ("u", "multiplier", "gap", "norm", "residual", "steps", "code", "factor"):
                assert torch.equal(getattr(found, name)[here], getattr(whole, name)[item]), name
            assert torch.equal(some.matrix[here], gradients.matrix[item])
            assert torch.equal(some.right[here], gradients.right[item])


def test_threads_do_not_change_a_digit():
    A, b, radius, _ = problem(200, 12, 6, torch.float32)
    before = torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            answers.append(sphere_minimum(A, b, radius, rtol=rtol(A.dtype, 6)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0].u, answers[1].u)
    assert torch.equal(answers[0].factor, answers[1].factor)


def test_one_matrix_serves_a_batch():
    A, b, radius, _ = problem(6, 12, 5, WIDE)
    shared = sphere_minimum(A[:1], b, radius[:1], rtol=rtol(WIDE, 5))
    copied = sphere_minimum(
        A[:1].expand(6, -1, -1).contiguous(), b, radius[:1].expand(6).contiguous(), rtol=rtol(WIDE, 5)
    )
    assert torch.equal(shared.u, copied.u)


def test_empty_batches():
    found = sphere_minimum(torch.empty(0, 4, 3), torch.empty(0, 4), torch.empty(0), rtol=1e-6)
    assert found.u.shape == (0, 3)
    assert found.seen == 0


def test_no_rows_leave_every_point_a_minimiser():
    found = sphere_minimum(torch.empty(2, 0, 3), torch.empty(2, 0), torch.ones(2), rtol=1e-6)
    assert [int(c) & NOT_UNIQUE for c in found.code] == [NOT_UNIQUE] * 2
    assert torch.allclose(found.u.norm(dim=-1), torch.ones(2))


def test_factor_size_is_that_of_the_library():
    assert sphere.factor_size(4) == 4 * 5 // 2 + 4 + 4 + sphere.EXTRAS
    assert sphere.factor_size(4, 2) == 2 * (4 * 5 // 2 + 4 + 4) + sphere.EXTRAS
