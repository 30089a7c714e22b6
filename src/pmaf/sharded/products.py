r"""Eigenpairs of a matrix known by its products with vectors that are themselves divided among ranks.

A :class:`pmaf.MatVec` with a DTensor among its parameters multiplies blocks of vectors that are DTensors, their rows
divided: the function that serves one process, ``lambda L, V: L @ V``, serves many, torch sends what it needs, and no
rank ever holds the matrix or a whole vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from pmaf.checks.symmetry import asymmetry_allowed
from pmaf.checks.tensors import check_counts, check_sizes
from pmaf.checks.values import POLICIES, check_choice, check_flags, check_tensor, describe
from pmaf.errors import DegeneracyError, GradientWarning
from pmaf.linalg.dtypes import working_dtype
from pmaf.linalg.signs import generic
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.linalg.vectors import SEED
from pmaf.operators.function import MatVec
from pmaf.sharded.collectives import Groups, reduce
from pmaf.sharded.krylov import Pairs, complement, inner, leading
from pmaf.sharded.placements import pieces
from pmaf.solution import IEDSolution, Status
from pmaf.solvers.eigen.subspace import default_rtol

__all__ = ["Vectors", "eigenpairs", "signs"]


class Vectors:
    """How vectors of n entries are divided, and the products with them."""

    def __init__(self, function: str, X: MatVec) -> None:
        meshes = [t.device_mesh for t in X.tensors if isinstance(t, DTensor)]
        self.function, self.X, self.n, self.mesh = function, X, X.n, meshes[0]
        if any(mesh != self.mesh for mesh in meshes) or self.mesh.ndim != 1:
            raise ValueError(
                f"pmaf.{function}: the DTensors of pmaf.MatVec must share one mesh of one dimension, got {meshes}"
            )
        sizes, at = pieces(self.n, self.mesh.size()), self.mesh.get_local_rank()
        self.before, self.own = sum(sizes[:at]), sizes[at]
        self.groups: Groups = (self.mesh.get_group(0),)
        self.generator = torch.Generator().manual_seed(SEED + 1 + at)

    def whole(self, V: Tensor) -> DTensor:
        """This rank's rows as a part of all."""
        shape = torch.Size((self.n, V.shape[-1]))
        found: DTensor = DTensor.from_local(
            V.contiguous(), self.mesh, [Shard(0)], run_check=False, shape=shape, stride=(max(V.shape[-1], 1), 1)
        )
        return found

    def replicated(self, x: Tensor) -> DTensor:
        """The same on every rank."""
        found: DTensor = DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)
        return found

    def image(self, params: tuple[Tensor, ...], V: Tensor) -> DTensor:
        """X V, of which this rank has its rows.

        Raises:
            TypeError: if the function's value is not such a DTensor.
        """
        Y: Any = self.X.fn(*params, self.whole(V))
        if not isinstance(Y, DTensor) or Y.dtype != V.dtype or Y.shape != (self.n, V.shape[-1]):
            raise TypeError(
                f"pmaf.MatVec: with DTensors among its parameters fn(*params, V) must return a DTensor like V, of "
                f"shape {(self.n, V.shape[-1])} and {V.dtype}, got {describe(Y)}"
            )
        placed: DTensor = Y.redistribute(self.mesh, [Shard(0)])
        return placed

    def adjoint(self, params: tuple[Tensor, ...], Y: Tensor) -> Tensor:
        """This rank's rows of XᴴY, by one vector–Jacobian product of the function."""
        with torch.enable_grad():
            V = torch.zeros_like(Y).requires_grad_()
            image = self.image(tuple(p.detach() for p in params), V)
            product: Tensor = torch.autograd.grad(image, V, self.whole(Y))[0]
        return product

    def params(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The parameters, all of them DTensors."""
        return tuple((t if isinstance(t, DTensor) else self.replicated(t)).to(dtype) for t in self.X.tensors)

    def gradients(self, params: Any, U: Tensor, W: Tensor, needs: Any) -> list[Tensor | None]:
        """∂ Re⟨W, X(θ)U⟩/∂θ, placed as the parameters are."""
        with torch.enable_grad():
            moving: list[Any] = [p.detach().requires_grad_(need) for p, need in zip(params, needs, strict=True)]
            wanted = [p for p in moving if p.requires_grad]
            found: Any = iter(torch.autograd.grad(self.image(tuple(moving), U), wanted, self.whole(W.resolve_conj())))
        return [next(found).redistribute(p.device_mesh, p.placements) if p.requires_grad else None for p in moving]

    def noise(self, like: Tensor) -> Tensor:
        """Gaussian columns, others each time, the same in each call of the public function."""
        drawn = torch.randn(self.own, like.shape[-1], dtype=like.dtype, generator=self.generator)
        columns: Tensor = drawn.to(like.device) / self.n**0.5
        return columns


def eigenpairs(function: str, arguments: Mapping[str, Any]) -> IEDSolution:
    """The solution of :func:`pmaf.ied_ex` for such a function.

    Args:
        function: the public function, for messages.
        arguments: of the call, by name.

    Returns:
        The solution, made of DTensors: eigenvectors divided by rows, all else replicated.

    Raises:
        ValueError: if k is out of range, or the matrix is not symmetric.
    """
    X: MatVec = arguments["X"]
    largest, policy = arguments.get("largest", True), arguments.get("degenerate", "drop")
    check_flags(function, largest=largest)
    check_choice(function, "degenerate", policy, POLICIES)
    rows, dtype = Vectors(function, X), X.dtype
    k = check_counts(function, arguments.get("k", 1), rows.n)
    if k == 0 or rows.n == 0:
        raise ValueError(f"pmaf.{function}: k must be at least 1 where X is made of DTensors, got {k} of {rows.n}")
    U, values, gap, told = SharedPairs.apply(  # type: ignore[no-untyped-call]
        rows, k, largest, policy, *rows.params(working_dtype(dtype))
    )
    status, steps, residual = told[0].long(), told[1].long(), told[2]
    U = U * signs(rows, U, values, gap, residual * told[3], told[3], arguments.get("reference"))
    real = dtype.to_real() if not dtype.is_complex else values.dtype
    fields = (values.to(real), status, steps, residual.to(values.dtype), gap)
    eigenvalues, status, steps, residual, gap = map(rows.replicated, fields)
    return IEDSolution(eigenvalues, rows.whole(U.to(dtype)), status, steps, residual, gap)


def signs(
    rows: Vectors, U: Tensor, values: Tensor, gap: Tensor, misfit: Tensor, norm: Tensor, reference: Any
) -> Tensor:
    """The unit numbers that turn columns as :func:`pmaf.ied` turns them, ``(k,)``; constants for the gradient.

    Args:
        rows: how vectors are divided.
        U: this rank's rows of the columns.
        values: their eigenvalues.
        gap: the distance to the next one, NaN where it is not known.
        misfit: ‖XU − UΛ‖.
        norm: ‖X‖.
        reference: what the user gave.

    Returns:
        The numbers.
    """
    with torch.no_grad():
        eps, part = torch.finfo(U.dtype).eps, slice(rows.before, rows.before + rows.own)
        if reference is None:
            looked = torch.ones_like(U[:, :1])
        else:
            check_tensor(rows.function, "reference", reference, 1, "(n,) or (n, k)")
            check_sizes(rows.function, reference=("the order of X", rows.n, reference.shape[0]))
            given = reference
            if isinstance(reference, DTensor):
                given = reference.redistribute(rows.mesh, [Shard(0)]).to_local()
            looked = (given if isinstance(reference, DTensor) else given[part]).reshape(rows.own, -1).to(U.dtype)
        second = generic(rows.own, U, rows.before)[:, None].to(U.dtype)
        length = reduce(looked.abs().square().sum(0), rows.groups).sqrt()
        seen = reduce(torch.stack(((looked.conj() * U).sum(0), (second * U).sum(0))), rows.groups)
        apart = torch.cat((values.diff().abs(), gap.nan_to_num(torch.inf)[None])).amin()
        off = ((8 * eps * norm + misfit) / apart + 32 * eps).nan_to_num(1).clamp_max(eps**0.25)
        decided = torch.where(seen[0].abs() > off * length, seen[0], seen[1])
        return torch.sgn(torch.where(decided == 0, 1, decided)).conj()


class SharedPairs(torch.autograd.Function):
    """This rank's rows of the eigenvectors, the eigenvalues, and what is told of them, as functions of parameters."""

    @staticmethod
    def forward(ctx: Any, rows: Vectors, k: int, largest: bool, policy: str, *params: Tensor) -> Any:
        """Solve, and give a status.

        Raises:
            ValueError: if the matrix is not symmetric.
        """
        n, like = rows.n, params[0].to_local()  # type: ignore[attr-defined]
        dtype = like.dtype
        first = rows.noise(like.new_empty(0, min(n, k + 1)))

        def product(V: Tensor) -> Tensor:
            return rows.image(params, V).to_local()

        rtol = default_rtol(dtype)
        found: Pairs = leading(product, rows.noise, first, n, k, largest, rtol, rows.groups)
        if bool(found.skew > asymmetry_allowed(dtype)):
            raise ValueError(
                f"pmaf.{rows.function}: X must be symmetric (Hermitian), but this MatVec of order {n} tells ⟨x, X y⟩ "
                "from ⟨X x, y⟩; pass its symmetric part if that is meant"
            )
        values = found.eigenvalues
        gap = (values[-1] - found.following).abs()
        between = torch.cat((values.diff().abs(), gap[None]))
        level = relative_tolerance(None, dtype, n) * found.norm
        status = torch.zeros((), dtype=torch.int64, device=like.device)
        status = torch.where((between <= level).any(), Status.NOT_UNIQUE, status)
        status = status if found.finished else torch.full_like(status, Status.MAX_STEPS)
        failed = ~found.residual.isfinite()
        status = torch.where(failed, Status.NON_FINITE, status)
        U, values, gap = (torch.where(failed, torch.nan, x) for x in (found.U, values, gap))
        told = torch.stack([status.to(values.dtype), torch.full_like(gap, found.steps), found.residual, found.norm])
        ctx.settings = (rows, largest, policy, bool(failed), bool(status == Status.NOT_UNIQUE), level)
        ctx.save_for_backward(*params, U, values, gap)
        ctx.mark_non_differentiable(gap, told)
        return U, values, gap, told

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_U: Tensor, of_values: Tensor, *_: Any) -> Any:
        r"""∂⟨W + U diag(λ̄), X(θ)U⟩/∂θ, with W = the part outside span(U) + U (1/(λⱼ − λᵢ) ∘ UᴴŪ).

        Raises:
            DegeneracyError: if a gradient is not determined, and the caller wants to hear of it.
        """
        rows, largest, policy, failed, open_, level = ctx.settings
        *params, U, values, gap = ctx.saved_tensors
        if failed:
            return None, None, None, None, *(torch.zeros_like(p) for p in params)
        if open_ and policy == "raise":
            raise DegeneracyError(
                f"pmaf.{rows.function}: an eigenvalue repeats, so that the gradient is not determined"
            )
        sign = 1.0 if largest else -1.0
        wanted = of_U - U @ inner(U, of_U, rows.groups)
        W = torch.zeros_like(U)
        if bool(gap > level) or policy == "nan":
            W, done = complement(
                lambda V: sign * rows.image(tuple(params), V).to_local(), sign * values, U, wanted, rows.groups
            )
            W = sign * W
            if not bool(done.all()):
                warnings.warn(
                    f"pmaf.{rows.function}: conjugate gradients left a part of the gradient of eigenvectors out",
                    GradientWarning,
                    stacklevel=2,
                )
        apart = values[None, :] - values[:, None]
        inside = inner(U, of_U, rows.groups) * torch.where(apart.abs() > level, 1 / apart, 0)
        W = W + U @ inside + U * of_values
        if open_ and policy == "nan":
            W = torch.full_like(W, torch.nan)
        return None, None, None, None, *rows.gradients(params, U, W, ctx.needs_input_grad[4:])
