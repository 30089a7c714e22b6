"""What a forward pass hands on: the solution, what the backward pass solves with, and what is reported of each item."""

from typing import Any, NamedTuple

from torch import Tensor

__all__ = [
    "EigenAux",
    "ForwardResult",
    "GeneralisedAux",
    "MatrixFreeAux",
    "PencilAux",
    "Report",
    "SpectralAux",
    "SphereAux",
    "TripletAux",
]

Vectors = tuple[Tensor, ...]


class Report(NamedTuple):
    """What is told of each item; not differentiable."""

    status: Tensor  # (*,) int64
    steps: Tensor  # (*,) int64
    residual: Tensor  # (*,)
    gap: Tensor  # (*,)


class ForwardResult(NamedTuple):
    """The result of a forward pass, with or without derivatives attached to the solution."""

    solution: Vectors
    aux: Any  # one of the named tuples below; its first two fields are the masks ``failed`` and ``degenerate``
    report: Report

    def flat(self) -> Vectors:
        """All tensors, contiguous, as a graph or autograd takes them."""
        return tuple(x.contiguous() for x in (*self.solution, *self.aux, *self.report))

    @classmethod
    def of(cls, tensors: Vectors, solution_size: int, aux_type: Any) -> "ForwardResult":
        """The inverse of :meth:`flat`."""
        reports = len(tensors) - len(Report._fields)
        aux = aux_type(*tensors[solution_size:reports])
        return cls(tuple(tensors[:solution_size]), aux, Report(*tensors[reports:]))


class EigenAux(NamedTuple):
    """What is left for the bordered solve of leading eigenpairs; no gradient flows through it."""

    failed: Tensor  # (*,) bool: no usable answer, its gradient is zero
    degenerate: Tensor  # (*,) bool: the answer is not unique
    eigenvalues: Tensor  # (*, k)
    spectrum: Tensor  # (*, n) all eigenvalues, ascending; or (*, r) those of F Fᴴ; empty where they are not known
    V: Tensor  # (*, n, n) all eigenvectors; or (*, r, r) those of F Fᴴ; empty likewise
    following: Tensor  # (*,) the eigenvalue next to the selected ones, NaN where it is not known or there is none
    norm: Tensor  # (*,) an estimate of ‖X‖
    factor: Tensor  # (*, ⌊n/2⌋ + 2, n) the tridiagonal form X = Q T Qᴴ of a compiled kernel, or empty


class GeneralisedAux(NamedTuple):
    """The same of X u = λ B u: what is left for the reduced problem L⁻¹XL⁻ᴴ, B = L Lᴴ, which is a standard one."""

    failed: Tensor
    degenerate: Tensor
    eigenvalues: Tensor
    spectrum: Tensor
    V: Tensor
    following: Tensor
    norm: Tensor
    factor: Tensor
    L: Tensor  # (*, n, n) lower triangular; the identity for an item that has no such factor
    reduced: Tensor  # (*, n, n) L⁻¹XL⁻ᴴ

    def standard(self) -> EigenAux:
        """What is left for the reduced problem."""
        return EigenAux(*self[: len(EigenAux._fields)])


class PencilAux(NamedTuple):
    """What is left for the bordered solve of X u = λ B u with sparse matrices: where to factorise X − σB again."""

    failed: Tensor  # () bool: no usable answer, its gradient is zero
    degenerate: Tensor  # () bool: the answer is not unique
    eigenvalues: Tensor  # (k,)
    norm: Tensor  # () the largest magnitude among them, and of σ
    shift: Tensor  # () σ, of ±X


class TripletAux(NamedTuple):
    """What is left for the bordered solve of singular triplets, of A or, where it is wide, of Aᴴ, ``(*, m, n)``, m ≥ n.

    Either all singular values and vectors, or what eigenpairs of the Gram matrix leave, in double precision.
    """

    failed: Tensor  # (*,) bool: no usable answer, its gradient is zero
    degenerate: Tensor  # (*,) bool: the answer is not unique
    eigenvalues: Tensor  # (*, k) the selected singular values
    spectrum: Tensor  # (*, n) all singular values, or empty
    left: Tensor  # (*, m, n) all left vectors, or empty
    right: Tensor  # (*, n, n) all right vectors, or empty
    norm: Tensor  # (*,) the largest singular value, or an estimate
    gram: Tensor  # (*, n, n) AᴴA, or empty; and of it
    vectors: Tensor  # (*, n, k) the selected eigenvectors, or empty
    squares: Tensor  # (*, k) the selected eigenvalues
    all_squares: Tensor  # (*, n) all of them, or empty
    V: Tensor  # (*, n, n) all eigenvectors, or empty
    factor: Tensor  # (*, ⌊n/2⌋ + 2, n) the tridiagonal form of a compiled kernel, or empty


class SphereAux(NamedTuple):
    """What is left for the bordered solve on the sphere; no gradient flows through it."""

    failed: Tensor  # (*,) bool: no usable answer, its gradient is zero
    degenerate: Tensor  # (*,) bool: the answer is not unique
    corner: Tensor  # (*,) 1 where the constraint is not active, else 0
    tolerance: Tensor  # (*,) eigenvalues up to here count as zero
    d: Tensor  # (*, n) eigenvalues of the reduced Q + λI, ascending; empty if the solver left no eigenbasis
    V: Tensor  # (*, n, n) their eigenvectors


class SpectralAux(NamedTuple):
    """What is left for the derivatives of f(X); no gradient flows through it."""

    failed: Tensor  # (*,) bool: no usable answer, its gradient is zero
    degenerate: Tensor  # (*,) bool: f has no derivative at some eigenvalue
    spectrum: Tensor  # (*, n) ascending, exactly zero where f has no derivative
    V: Tensor  # (*, n, n) eigenvectors


class MatrixFreeAux(NamedTuple):
    """What is left for the bordered solve with a matrix known by its products."""

    failed: Tensor  # () bool: no usable answer, its gradient is zero
    degenerate: Tensor  # () bool: the answer is not unique
