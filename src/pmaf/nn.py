"""The layers as modules: they hold configuration, call the functions, and return what these return."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pmaf.checks.values import (
    CONSTRAINTS,
    POLICIES,
    check_choice,
    check_flags,
    check_integer,
    check_real,
    describe,
)
from pmaf.implicit.modes import Backward
from pmaf.layers.eigen import Eigenpairs, ied
from pmaf.layers.graphs import LaplacianEncodings, laplacian_encoding
from pmaf.layers.pooling import principal_pool
from pmaf.layers.spectral_function import Function, scalar_function, spectral_function
from pmaf.layers.sphere import less
from pmaf.layers.svd import Triplets, svd
from pmaf.operators.base import Operator
from pmaf.solvers import EIGEN, SPHERE, named

__all__ = ["IED", "LESS", "SVD", "LaplacianEncoding", "PrincipalPool2d", "SpectralFunction"]

KINDS = ("vectors", "projector")


def non_default(**settings: tuple[Any, Any]) -> str:
    """The settings that differ from their defaults, as keyword arguments."""
    return ", ".join(f"{name}={value!r}" for name, (value, default) in settings.items() if value != default)


def check_configuration(
    name: str, solver: Any, table: dict[str, type], degenerate: Any, backward: Any = None, **flags: Any
) -> None:
    """What can be said of a configuration before there are data; the rest is said when there are.

    Args:
        name: of the module, for the message.
        solver: an object or a short name, or ``None``.
        table: the short names.
        degenerate: a policy.
        backward: how to differentiate, or ``None``.
        flags: what must be True or False.

    Raises:
        TypeError: if a mode of differentiation is none.
    """
    if solver is not None:
        named(name, solver, table)
    check_choice(name, "degenerate", degenerate, POLICIES)
    check_flags(name, **flags)
    if backward is not None and not isinstance(backward, Backward):
        raise TypeError(f"pmaf.{name}: backward must be a mode such as pmaf.Implicit(), got {describe(backward)}")


class LESS(nn.Module):
    r"""Least squares on the sphere as a module; see :func:`pmaf.less`.

    Args:
        radius: r > 0, a number or a tensor, such as a parameter to be learned.
        constraint: ``"sphere"`` or ``"ball"``.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.LESS(radius=9.81)
        >>> layer(torch.eye(3), torch.tensor([0.0, 0.0, 2.0]))
        tensor([0.0000, 0.0000, 9.8100])
        >>> layer
        LESS(radius=9.81)
    """

    def __init__(
        self,
        radius: float | Tensor = 1.0,
        *,
        constraint: str = "sphere",
        solver: Any = None,
        backward: Any = None,
        degenerate: str = "drop",
    ) -> None:
        super().__init__()
        if not isinstance(radius, Tensor):
            radius = check_real("nn.LESS", "radius", radius, "positive and finite")
        check_choice("nn.LESS", "constraint", constraint, CONSTRAINTS)
        check_configuration("nn.LESS", solver, SPHERE, degenerate, backward)
        self.radius, self.constraint = radius, constraint
        self.solver, self.backward_mode, self.degenerate = solver, backward, degenerate

    def forward(self, A: Tensor, b: Tensor, weights: Tensor | None = None, free: Tensor | None = None) -> Tensor:
        """The minimiser u, ``(*, n)``, for A ``(*, m, n)`` and b ``(*, m)``."""
        return less(
            A,
            b,
            radius=self.radius,
            weights=weights,
            free=free,
            constraint=self.constraint,
            solver=self.solver,
            backward=self.backward_mode,
            degenerate=self.degenerate,
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            radius=(self.radius, None),
            constraint=(self.constraint, "sphere"),
            solver=(self.solver, None),
            backward=(self.backward_mode, None),
            degenerate=(self.degenerate, "drop"),
        )


class Leading(nn.Module):
    """What the modules have in common that select k leading pairs or triplets."""

    def __init__(
        self, k: int = 1, *, largest: bool = True, solver: Any = None, backward: Any = None, degenerate: str = "drop"
    ) -> None:
        super().__init__()
        name = f"nn.{type(self).__name__}"
        check_configuration(name, solver, EIGEN, degenerate, backward, largest=largest)
        self.k, self.largest = check_integer(name, "k", k), largest
        self.solver, self.backward_mode, self.degenerate = solver, backward, degenerate

    @property
    def options(self) -> dict[str, Any]:
        """The configuration but for k, as keyword arguments of the function."""
        return {
            "largest": self.largest,
            "solver": self.solver,
            "backward": self.backward_mode,
            "degenerate": self.degenerate,
        }

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            k=(self.k, None),
            largest=(self.largest, True),
            solver=(self.solver, None),
            backward=(self.backward_mode, None),
            degenerate=(self.degenerate, "drop"),
        )


class IED(Leading):
    r"""Implicit eigen decomposition as a module; see :func:`pmaf.ied`.

    Args:
        k: how many eigenpairs.
        largest: the algebraically largest, else the smallest.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.IED(k=2)
        >>> layer(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).eigenvalues
        tensor([3., 2.])
        >>> layer
        IED(k=2)
    """

    def forward(self, X: Tensor | Operator, reference: Tensor | None = None) -> Eigenpairs:
        """The named pair of eigenvalues ``(*, k)`` and eigenvectors ``(*, n, k)`` of X ``(*, n, n)``."""
        return ied(X, self.k, reference=reference, **self.options)


class SpectralFunction(nn.Module):
    r"""A function of a symmetric matrix as a module; see :func:`pmaf.spectral_function`.

    Args:
        fn: a name such as ``"sqrt"``, a number for a power, or a function of a tensor, element by element.
        k: of how many leading eigenpairs; all if not given.
        largest: of the algebraically largest eigenvalues, else of the smallest.
        solver: an object or a short name; chosen if not given.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.SpectralFunction("sqrt")
        >>> layer(torch.diag(torch.tensor([4.0, 9.0])))
        tensor([[2., 0.],
                [0., 3.]])
        >>> layer
        SpectralFunction(fn='sqrt')
    """

    def __init__(
        self,
        fn: Function,
        k: int | None = None,
        *,
        largest: bool = True,
        solver: Any = None,
        degenerate: str = "drop",
    ) -> None:
        super().__init__()
        check_configuration("nn.SpectralFunction", solver, EIGEN, degenerate, largest=largest)
        scalar_function("nn.SpectralFunction", fn)
        self.fn = fn
        self.k = None if k is None else check_integer("nn.SpectralFunction", "k", k, least=0)
        self.largest, self.solver, self.degenerate = largest, solver, degenerate

    def forward(self, X: Tensor | Operator) -> Tensor:
        """U f(Λ) Uᴴ, ``(*, n, n)``, of X ``(*, n, n)``."""
        return spectral_function(
            X, self.fn, self.k, largest=self.largest, solver=self.solver, degenerate=self.degenerate
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            fn=(self.fn, None),
            k=(self.k, None),
            largest=(self.largest, True),
            solver=(self.solver, None),
            degenerate=(self.degenerate, "drop"),
        )


class SVD(Leading):
    r"""Leading singular triplets as a module; see :func:`pmaf.svd`.

    Args:
        k: how many triplets.
        largest: the largest, else the smallest.
        solver: an object or a short name; chosen if not given.
        backward: how to differentiate.
        degenerate: ``"drop"``, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> layer = pmaf.nn.SVD(k=2)
        >>> layer(torch.diag(torch.tensor([1.0, 3.0, 2.0]))).S
        tensor([3., 2.])
        >>> layer
        SVD(k=2)
    """

    def forward(self, A: Tensor, reference: Tensor | None = None) -> Triplets:
        """The named triple of U ``(*, m, k)``, S ``(*, k)`` and Vh ``(*, k, n)`` of A ``(*, m, n)``."""
        return svd(A, self.k, reference=reference, **self.options)


class PrincipalPool2d(nn.Module):
    r"""Pool a feature map to the principal directions of its pixels.

    The pixels of one map are the rows of a matrix F, (H·W)×C. The layer returns its k principal right singular
    vectors,

    .. math:: U^\star = \operatorname{argmax}\ \|F U\|_F^2 \quad\text{subject to}\quad U^T U = I,

    one after the other: where average pooling keeps the mean feature, this keeps the directions that explain the most
    energy. F is never multiplied out on its larger side. The sign of each vector is that of its inner product with the
    mean feature, or, where that vanishes to rounding, with a fixed vector of no particular direction. Where a map has
    no unique principal direction, such as an all-zero map, a unit vector comes back and no gradient for what is
    undetermined.

    Several vectors are a poor feature for whatever is learned after them: where two singular values cross from one map
    to the next, the vectors change places, and each sign is a choice, which k = 1 with the mean as reference makes well
    and k > 1 cannot. The projector onto the same directions, ``kind="projector"``, depends on neither; prefer it for
    k > 1.

    Args:
        k: how many directions.
        kind: ``"vectors"``, one after the other; or ``"projector"``, the matrix :math:`U U^T`.
        center: subtract the mean feature first, as principal component analysis does.
        scale: multiply each direction by its singular value divided by √(H·W), the root mean square along it; as a
            projector, the square root of the second moments, cut to rank k.
        solver: for :func:`pmaf.ied`; chosen if not given.
        degenerate: as in :func:`pmaf.ied`.

    Example:
        >>> import torch, pmaf
        >>> pool = pmaf.nn.PrincipalPool2d(2, center=True)
        >>> pool(torch.randn(8, 16, 7, 7)).shape
        torch.Size([8, 32])
        >>> pool
        PrincipalPool2d(k=2, center=True)
        >>> pmaf.nn.PrincipalPool2d(2, "projector")(torch.randn(8, 16, 7, 7)).shape
        torch.Size([8, 256])
    """

    def __init__(
        self,
        k: int = 1,
        kind: str = "vectors",
        *,
        center: bool = False,
        scale: bool = False,
        solver: Any = None,
        degenerate: str = "drop",
    ) -> None:
        super().__init__()
        check_configuration("nn.PrincipalPool2d", solver, EIGEN, degenerate, center=center, scale=scale)
        check_choice("nn.PrincipalPool2d", "kind", kind, KINDS)
        self.kind = kind
        self.k, self.center, self.scale = check_integer("nn.PrincipalPool2d", "k", k), center, scale
        self.solver, self.degenerate = solver, degenerate

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)``, or ``(C, H, W)``, to ``(B, k·C)``, or, as a projector, to ``(B, C·C)``.

        Args:
            features: the feature maps.

        Returns:
            The k directions of each map, one after the other, or the rows of the projector.

        Raises:
            ValueError: if there are no channels or pixels.
        """
        return principal_pool(
            features,
            self.k,
            self.kind,
            center=self.center,
            scale=self.scale,
            solver=self.solver,
            degenerate=self.degenerate,
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(
            k=(self.k, None),
            kind=(self.kind, "vectors"),
            center=(self.center, False),
            scale=(self.scale, False),
            solver=(self.solver, None),
            degenerate=(self.degenerate, "drop"),
        )


class LaplacianEncoding(nn.Module):
    r"""Positional encodings of the nodes of many graphs: the smallest eigenvectors of each graph's Laplacian.

    .. math:: L = D - W \quad\text{or}\quad L = I - D^{-1/2} W D^{-1/2}

    The graphs come as one, nodes in a row and the number of the graph of each, as PyTorch Geometric batches them.
    Graphs of the same order are solved together; those of more than 256 nodes as sparse matrices. The first vector,
    which is constant on a connected graph (in proportion to the roots of the degrees where L is normalised), is left
    out.
    Gradients reach the weights. Signs are decided as in :func:`pmaf.ied`, the same for the same graph every time.

    Where eigenvalues of a graph repeat, as those of symmetric molecules do, its ``status`` is NOT_UNIQUE: the encodings
    are then one of several bases of the same spaces.

    Args:
        k: how many vectors.
        normalised: whether by degrees.
        degenerate: what becomes of a gradient that is not determined: ``"drop"`` it and warn, ``"nan"`` or ``"raise"``.

    Example:
        >>> import torch, pmaf
        >>> edges = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])  # a path of three nodes, and one of two
        >>> found = pmaf.nn.LaplacianEncoding(1)(edges, torch.tensor([0, 0, 0, 1, 1]))
        >>> found.eigenvalues.round(decimals=4)
        tensor([[1.],
                [2.]])
        >>> found.encodings.shape
        torch.Size([5, 1])
    """

    def __init__(self, k: int, *, normalised: bool = True, degenerate: str = "drop") -> None:
        super().__init__()
        self.k = check_integer("nn.LaplacianEncoding", "k", k)
        check_flags("nn.LaplacianEncoding", normalised=normalised)
        check_choice("nn.LaplacianEncoding", "degenerate", degenerate, POLICIES)
        self.normalised, self.degenerate = normalised, degenerate

    def forward(
        self, edge_index: Tensor, batch: Tensor | None = None, weights: Tensor | None = None, nodes: int | None = None
    ) -> LaplacianEncodings:
        """Encodings ``(N, k)``, eigenvalues ``(G, k)`` and a status for each graph.

        Args:
            edge_index: the ends of the edges, each edge in both directions, ``(2, E)``.
            batch: the number of the graph of each node, ascending, ``(N,)``; a single graph if not given.
            weights: of the edges, the same in both directions, ``(E,)``; one if not given.
            nodes: how many nodes there are, where ``batch`` is not given and the last ones have no edge.

        Returns:
            The named triple. Of a graph of n ≤ k nodes only n − 1 vectors are there; the others are zero, their
            eigenvalues NaN.
        """
        return laplacian_encoding(
            "nn.LaplacianEncoding", edge_index, batch, weights, nodes, self.k, self.normalised, self.degenerate
        )

    def extra_repr(self) -> str:
        """The configuration."""
        return non_default(k=(self.k, None), normalised=(self.normalised, True), degenerate=(self.degenerate, "drop"))
