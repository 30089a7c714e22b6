"""What a solve returns: a status for each item of the batch and the measured answer."""

from enum import IntEnum
from typing import NamedTuple

import torch

__all__ = [
    "DominantSolution",
    "IEDSolution",
    "LESSSolution",
    "ProjectorSolution",
    "SVDSolution",
    "SpectralFunctionSolution",
    "Status",
]

SEVERAL = "Several answers are equally good, so this is one of them: "
SEPARATE = {
    "less": "give A more rows, or b a part along its smallest singular vector; drop columns of free that depend on "
    "others; or use a loss that does not depend on the choice.",
    "sphere_quadratic": "give g a part along the smallest eigenvector of H, or use a loss that does not depend on the "
    "choice.",
    "ied": "separate the wanted eigenvalues from the others and from each other, or use a loss that does not depend on "
    "the choice, such as one of principal_projector.",
    "svd": "separate the wanted singular values from the others, from each other and from zero, or use a loss that "
    "does not depend on the choice, such as one of A @ pmaf.principal_projector(pmaf.Gram(A), k).",
    "principal_projector": "choose a k at which the eigenvalues have a gap between the k-th and the next.",
    "spectral_function": "choose a k at which the eigenvalues have a gap between the k-th and the next; add a multiple "
    "of the identity to a singular matrix whose sign is wanted.",
}
LARGE = (
    " The smallest pairs of a large sparse matrix want a factorisation (pip install 'pmaf[sparse]') or multigrid "
    "('pmaf[multigrid]'), those of a function what nearly inverts it (pmaf.MatVec(..., solve=)); pairs that crowd want "
    "more of them at once, a larger k."
)
DOMAIN = (
    "The input is NaN or infinite, or an eigenvalue lies outside the domain of fn (zero or negative, as far as "
    "rounding tells): add a small multiple of the identity, or choose another fn."
)


class Status(IntEnum):
    """How the solve of one batch item ended.

    Statuses are kept in an ``int64`` tensor of the batch's shape; compare with the members,
    ``solution.status == pmaf.Status.CONVERGED``. ``Status(code).remedy`` says what to try, ``remedy_for`` what to try
    with a particular layer.
    """

    remedy: str

    CONVERGED = 0, "Nothing to do: the solver's tolerance was met and the residual was measured."
    MAX_STEPS = 1, "The step limit came first: raise max_steps, loosen the tolerance, or use the default solver."
    NON_FINITE = 2, "The input, or the answer, is NaN or infinite: look for overflow or a division by zero upstream."
    NOT_UNIQUE = 3, SEVERAL + "change the data so that the gap is positive, or use a loss that all of them share."
    NOT_GLOBAL = 4, "A local solver stopped where the objective is not globally minimal: use the default solver."
    NOT_DEFINITE = (
        5,
        "The metric is not positive definite to working precision, so there are no such pairs: look for redundant or "
        "too few data behind it, or add a multiple of the identity to it if that is meant.",
    )
    OUT_OF_RANGE = (
        6,
        "The vectors are right, but a value is beyond the range of its type, infinite or zero: use a wider type, or "
        "divide the data by a number.",
    )

    def __new__(cls, code: int, remedy: str = "") -> "Status":
        """Store the remedy beside the integer code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.remedy = remedy
        return member

    def remedy_for(self, layer: str) -> str:
        """What to try, in the words of a layer.

        Args:
            layer: such as ``"less"`` or ``"ied"``.

        Returns:
            A sentence.
        """
        layer = layer.removesuffix("_ex")
        if self is Status.NON_FINITE and layer == "spectral_function":
            return DOMAIN
        if self is Status.MAX_STEPS and layer in ("ied", "svd", "principal_projector"):
            return self.remedy + LARGE
        return SEVERAL + SEPARATE[layer] if self is Status.NOT_UNIQUE and layer in SEPARATE else self.remedy


class LESSSolution(NamedTuple):
    r"""Least squares on the sphere, solved, with its own certificate, of half-precision data in float32.

    Attributes:
        u: the minimiser, ``(*, n)``.
        multiplier: :math:`\lambda` in :math:`(Q + \lambda I) u = g`, ``(*,)``.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\|(Q + \lambda I) u - g\| / ((\|Q\| + |\lambda|)\,\|u\|)`, measured from the data,
            ``(*,)``; inside the ball, where u may be tiny, relative to :math:`\|Q\|\,\|u\| + \|A\|\,\|b\|`.
        gap: :math:`\lambda + \lambda_{\min}(Q)`, non-negative at a global minimiser, ``(*,)``.
        z: the free unknowns, ``(*, p)``; ``None`` if there are none.
    """

    u: torch.Tensor
    multiplier: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor
    z: torch.Tensor | None = None


class IEDSolution(NamedTuple):
    r"""Leading eigenpairs, with what was measured of them.

    Attributes:
        eigenvalues: ``(*, k)``, descending for the largest, ascending for the smallest.
        eigenvectors: ``(*, n, k)``, orthonormal columns, in the metric if there is one.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\max_i \|X u_i - \lambda_i u_i\| / \|X\|`, measured, ``(*,)``; with a metric
            :math:`\max_i \|X u_i - \lambda_i B u_i\| / ((\|X\| + |\lambda_i| \|B\|) \|u_i\|)`.
        gap: distance from the selected eigenvalues to the nearest one left out, ``(*,)``;
            infinite where all are selected.
    """

    eigenvalues: torch.Tensor
    eigenvectors: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor


class SVDSolution(NamedTuple):
    r"""Singular triplets, with what was measured of them.

    Attributes:
        U: left singular vectors, ``(*, m, k)``, orthonormal columns.
        S: singular values, ``(*, k)``, descending for the largest, ascending for the smallest.
        Vh: right singular vectors, ``(*, k, n)``, orthonormal rows.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: the largest of :math:`\|A v_i - \sigma_i u_i\|` and :math:`\|A^H u_i - \sigma_i v_i\|`, relative to
            :math:`\|A\|`, measured, ``(*,)``.
        gap: distance from the selected singular values to the nearest one left out, ``(*,)``; infinite where all are
            selected.
    """

    U: torch.Tensor
    S: torch.Tensor
    Vh: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor


class ProjectorSolution(NamedTuple):
    r"""The projector onto a leading subspace, with what was measured of it.

    Attributes:
        projector: ``(*, n, n)``.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\max_i \|X u_i - \lambda_i u_i\| / \|X\|` of the vectors that span it, ``(*,)``.
        gap: distance from the selected eigenvalues to the nearest one left out, ``(*,)``.
    """

    projector: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor


class SpectralFunctionSolution(NamedTuple):
    r"""A function of a Hermitian matrix, with what was measured of its eigenpairs.

    Attributes:
        matrix: :math:`U f(\Lambda) U^H`, ``(*, n, n)``.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\max_i \|X u_i - \lambda_i u_i\| / \|X\|`, measured, ``(*,)``.
        gap: distance from the selected eigenvalues to the nearest one left out, ``(*,)``;
            infinite where all are selected.
    """

    matrix: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor


class DominantSolution(NamedTuple):
    r"""The dominant pair of a general matrix, with what was measured of it.

    Attributes:
        eigenvalue: ``(*,)``.
        eigenvector: ``(*, n)``, of unit length.
        status: a :class:`Status` code for each item, ``(*,)``.
        steps: iterations of the solver, ``(*,)``.
        residual: :math:`\|X u - \lambda u\| / |\lambda|`, measured, ``(*,)``.
        gap: :math:`|\lambda|` less the next magnitude, which a second vector of the iteration estimates, to about a
            fifth; NaN where it is not known, ``(*,)``.
    """

    eigenvalue: torch.Tensor
    eigenvector: torch.Tensor
    status: torch.Tensor
    steps: torch.Tensor
    residual: torch.Tensor
    gap: torch.Tensor
