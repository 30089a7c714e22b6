r"""One eigenpair of small symmetric matrices, without a decomposition."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.checks.values import set_reals
from pmaf.linalg.entrywise import Matrix, Vector, axpy, chunked, complement_solve, dot, entries, normalised, product
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.solvers.base import EigenAnswer, Solver
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.subspace import default_rtol

__all__ = ["ClosedForm"]

LAGUERRE_STEPS = {torch.float32: 3, torch.float64: 4}  # convergence is cubic and from above
SEPARATION = {torch.float32: 1e-3, torch.float64: 1e-6}  # Π (λ − λⱼ)/Σ (λ − λⱼ) below which Eigh is asked
GENERIC = (1.0, 0.6180, -0.7321, 0.4142)


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Solver):
    r"""The largest or smallest eigenpair of real symmetric matrices of order up to 4, by arithmetic on their entries.

    For the largest eigenvalue of X, shifted to trace zero and scaled:

    1. the characteristic polynomial :math:`p(x) = \det(xI - X)`, all of whose roots are real;
    2. its largest root by Laguerre's iteration from the right, which never overshoots and is exact in one step where
       the other roots coincide, for instance {1, −⅓, −⅓, −⅓};
    3. the adjugate :math:`\mathrm{adj}(\lambda I - X) = p'(\lambda)\,uu^\top` times a fixed vector;
    4. Rayleigh quotient and one step of Newton's method on :math:`Xu = \theta u, \|u\| = 1`, by stable elimination.

    An item counts as done by its measured residual, and by the pivots of step 4, which prove that no eigenvalue lies
    above and bound the distance of the next. Items that miss either, because the polynomial in working precision cannot
    tell the two leading eigenvalues apart or the fixed vector is nearly orthogonal to u, are handed to :class:`Eigh`.

    Real dtypes; batched elementwise, so that the time hardly depends on how many small matrices there are. One device
    synchronisation.

    Args:
        rtol: residual ‖Xu − λu‖ / ‖X‖ to reach; by default 16 roundings, 8 in single precision.

    Raises:
        ValueError: if ``rtol`` is not positive.

    References:
        Parlett: Laguerre's method applied to the matrix eigenvalue problem, Math. Comp. 18 (1964).

    Example:
        >>> import torch
        >>> from pmaf.operators.dense import Dense
        >>> X = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> ClosedForm().solve(Dense(X), 1, largest=True).eigenvalues
        tensor([3.])
    """

    use = "tiny matrices; the default for them"
    largest_k = 1
    largest_n = 4
    dtypes = "real"

    rtol: float | None = None

    def __post_init__(self) -> None:
        set_reals(self, "positive", "rtol")

    def solve(self, X: Operator, k: int, largest: bool, start: Tensor | None = None) -> EigenAnswer:
        """Find the leading pair of every item.

        Args:
            X: the matrices, ``(*, n, n)``, real, n ≤ 4.
            k: must be 1.
            largest: the largest eigenvalue, else the smallest.
            start: refused, since a direct method has no use for it.

        Returns:
            The pairs; ``next`` is the second root.

        Raises:
            ValueError: for k > 1, n > 4, complex matrices, or a given ``start``.
        """
        self.accept(X, k, start)
        whole = X.tensors[0] if isinstance(X, Dense) else X.dense()
        flat = whole.reshape(-1, X.n, X.n)
        rtol = self.rtol or min(default_rtol(X.dtype), 16 * torch.finfo(X.dtype).eps)  # so much arithmetic is exact to
        exact = isinstance(X, Dense) and X.exact
        value, u, following, done, norm, residual = chunked(lambda x: end_pair(x, largest, rtol, exact), flat)
        if not bool(done.all()):
            at = (~done).nonzero()[:, 0]
            rescued = Eigh().solve(Dense(flat[at]), 1, largest)
            value.index_copy_(0, at, rescued.eigenvalues[:, 0])
            u.index_copy_(0, at, rescued.eigenvectors[..., 0])
            done.index_copy_(0, at, rescued.finished)
            misfit = product(entries(flat[at]), list(rescued.eigenvectors[..., 0].T))
            misfit = axpy(misfit, rescued.eigenvalues[:, 0], list(rescued.eigenvectors[..., 0].T), -1)
            misfit = [a / norm[at] for a in misfit]  # of a size that can be squared
            residual.index_copy_(0, at, dot(misfit, misfit).sqrt())
            if rescued.next is not None:
                following.index_copy_(0, at, rescued.next)
        batch = X.batch_shape
        return EigenAnswer(
            value.reshape(*batch, 1),
            u.reshape(*batch, X.n, 1),
            done.reshape(batch),
            torch.ones_like(done, dtype=torch.int64).reshape(batch),
            following.reshape(batch),
            norm=norm.reshape(batch),
            residual=residual.reshape(batch),
        )


def end_pair(X: Tensor, largest: bool, rtol: float, exact: bool) -> tuple[Tensor, ...]:
    """Eigenvalue ``(b,)``, vector ``(n, b)``, second eigenvalue, mask of the proven, ‖X‖ to a factor, and residual."""
    n, tiny = X.shape[-1], torch.finfo(X.dtype).tiny
    A = entries(X, exact)
    if n == 1:
        value = A[0][0]
        far = torch.full_like(value, -torch.inf if largest else torch.inf)
        return value, torch.ones_like(X[:, 0].T), far, value.isfinite(), value.abs(), torch.zeros_like(value)
    mean = sum((A[i][i] for i in range(1, n)), A[0][0]) / n
    scale = mean.abs()
    for i in range(n):
        for j in range(i + 1):
            torch.maximum(scale, A[i][j].abs(), out=scale)
    signed = (scale if largest else -scale) + tiny
    unit = signed.reciprocal()
    for i in range(n):
        A[i][i].sub_(mean)
    # The sum of close numbers is rounded to their size, not to that of their differences.
    rest = sum((A[i][i] for i in range(1, n)), A[0][0]) / n
    for i in range(n):
        A[i][i].sub_(rest)
        for j in range(i + 1):
            A[i][j].mul_(unit)
    K = A

    coefficients, square = characteristic_polynomial(K)
    root = largest_root(coefficients)
    u = normalised(adjugate_product(K, square, coefficients, root))
    image = product(K, u)
    theta = dot(u, image)
    correction, separation = complement_solve(K, theta, n * theta, u, axpy(image, theta, u, -1))
    u = normalised([a.add_(b) for a, b in zip(u, correction, strict=True)])
    image = product(K, u)
    before, theta = theta, dot(u, image)
    misfit = axpy(image, theta, u, -1)
    # No root of K exceeds √((n − 1)/n tr K²), and tr K² = −2c_{n−2}.
    norm = torch.addcmul(mean.abs(), scale, (coefficients[-1] * (-2 * (n - 1) / n)).clamp_min(0).sqrt())
    norm = norm.clamp_min(tiny)
    residual = dot(misfit, misfit).sqrt() * scale / norm
    # The pivots belong to the θ before the last step, and prove nothing unless it is positive, as the largest
    # eigenvalue of a matrix of trace zero is; a step down to the next one would be longer than the separation.
    enough = SEPARATION[X.dtype]
    proven = (separation > enough) & (before > 0) & (theta > before * (1 - enough))
    done = (residual <= rtol) & proven & scale.isfinite()
    second = theta - smallest_gap(coefficients, theta, separation)
    value, following = (torch.addcmul(rest, root, signed).add_(mean) for root in (theta, second))
    return value, torch.stack(u), following, done, norm, residual


def characteristic_polynomial(K: Matrix) -> tuple[list[Tensor], Matrix]:
    """K² and the coefficients c₀ … c_{n−2} of det(xI − K) = xⁿ + c_{n−2} xⁿ⁻² + … + c₀, from traces, for trace zero."""
    n = len(K)
    square = [[K[0][0]] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            square[i][j] = square[j][i] = dot(K[i], K[j])
    second = sum((square[i][i] for i in range(1, n)), square[0][0])  # tr K²
    coefficients = [second * -0.5]
    if n > 2:
        coefficients.append(inner(square, K) * (-1 / 3))
    if n > 3:
        coefficients.append(torch.addcmul(inner(square, square) * -0.25, second, second, value=0.125))
    return coefficients[::-1], square


def inner(A: Matrix, B: Matrix) -> Tensor:
    """tr(A B) of symmetric matrices."""
    n = len(A)
    total = A[0][0] * B[0][0]
    for i in range(1, n):
        total.addcmul_(A[i][i], B[i][i])
        for j in range(i):
            total.addcmul_(A[i][j], B[i][j], value=2)
    return total


def largest_root(coefficients: list[Tensor]) -> Tensor:
    r"""Laguerre's iteration :math:`x - np/(p' + \sqrt{(n-1)((n-1)p'^2 - npp'')})` from its step from infinity."""
    n = len(coefficients) + 1
    second = coefficients[-1]
    x = (-2 * (n - 1) / n * second).clamp_min(0).sqrt()
    if n == 2:
        return x
    for _ in range(LAGUERRE_STEPS[x.dtype]):
        square = x * x
        if n == 3:
            value = torch.addcmul(coefficients[0], square + second, x)
            slope = torch.add(second, square, alpha=3)
            half = 3 * x
        else:
            inner = square + second
            value = torch.addcmul(coefficients[0], coefficients[1], x).addcmul_(inner, square)
            slope = torch.addcmul(coefficients[1], inner.add_(square), x, value=2)
            half = torch.add(second, square, alpha=6)
        # (n − 1)((n − 1)p'² − npp''), divided by (n − 1)²
        under = (slope * slope).addcmul_(value, half, value=-2 * n / (n - 1)).clamp_min_(0)
        denominator = slope.add_(under.sqrt_(), alpha=n - 1).clamp_min_(torch.finfo(x.dtype).tiny)
        x.addcdiv_(value, denominator, value=-n)
    return x


def adjugate_product(K: Matrix, square: Matrix, coefficients: list[Tensor], root: Tensor) -> Vector:
    """adj(λI − K) v for a v with no symmetry, where adj = Kⁿ⁻¹ + λKⁿ⁻² + … by the Cayley–Hamilton theorem."""
    n = len(K)
    Kv = [weighted(row) for row in K]
    factor = root
    if n == 2:
        return [a + factor * v for a, v in zip(Kv, GENERIC, strict=False)]
    y = axpy([weighted(row) for row in square], root, Kv)
    factor = torch.addcmul(coefficients[-1], root, root)
    if n == 3:
        return [torch.add(a, factor, alpha=v) for a, v in zip(y, GENERIC, strict=False)]
    y = product(K, [torch.add(a, factor, alpha=v) for a, v in zip(y, GENERIC, strict=True)])
    factor = torch.addcmul(coefficients[-2], factor, root)
    return [torch.add(a, factor, alpha=v) for a, v in zip(y, GENERIC, strict=True)]


def weighted(row: Vector) -> Tensor:
    """⟨row, v⟩."""
    total = torch.add(row[0], row[1], alpha=GENERIC[1])
    for a, v in zip(row[2:], GENERIC[2:], strict=False):
        total.add_(a, alpha=v)
    return total


def smallest_gap(coefficients: list[Tensor], theta: Tensor, separation: Tensor) -> Tensor:
    """θ less the second eigenvalue: the smallest root of the polynomial whose roots are the n − 1 gaps.

    Their sum is nθ and their product is known from the pivots, to full relative precision.
    """
    n = len(coefficients) + 1
    total = n * theta
    determinant = separation.clamp_min(0) * total ** (n - 1)
    if n == 2:
        return total
    if n == 3:
        return 2 * determinant / (total + (total * total - 4 * determinant).clamp_min(0).sqrt())
    pairs = 6 * theta * theta + coefficients[2]  # the second symmetric function of the gaps, p''(θ)/2
    # Laguerre's iteration from the left, where −p and its derivatives change sign; the first step is from zero
    under = (pairs * pairs).sub_(total * determinant, alpha=3).clamp_min_(0)
    denominator = torch.add(pairs, under.sqrt_(), alpha=2).clamp_min_(torch.finfo(theta.dtype).tiny)
    limit = total / 3
    x = torch.minimum((3 * determinant).div_(denominator), limit)
    for _ in range(LAGUERRE_STEPS[x.dtype] - 1):
        rest = total - x
        value = torch.addcmul(determinant, x, torch.addcmul(pairs, x, rest, value=-1), value=-1)
        half = torch.sub(total, x, alpha=3)
        slope = torch.addcmul(pairs, x, rest.add_(total).sub_(x, alpha=2), value=-1)
        under = (slope * slope).sub_(half.mul_(value), alpha=3).mul_(4).clamp_min_(0)
        denominator = slope.add_(under.sqrt_()).clamp_min_(torch.finfo(x.dtype).tiny)
        x = torch.minimum(torch.addcdiv(x, value.clamp_min_(0), denominator, value=3), limit)
    return x
