r"""Whether a matrix known by its products is symmetric: PᴴXP is Hermitian for any two columns P if X is."""

import torch

from pmaf.linalg.batched import inner_products
from pmaf.linalg.vectors import first_vector
from pmaf.operators.base import Operator
from pmaf.transforms import no_autocast, readable

__all__ = ["check_symmetric_operator"]


def check_symmetric_operator(function: str, name: str, X: Operator, allowed: float) -> None:
    """PᴴXP is Hermitian, as far as rounding goes; what is not finite, or cannot be read, passes.

    Args:
        function: the public function, for the message.
        name: the argument, for the message.
        X: a matrix without batch dimensions.
        allowed: how far from Hermitian it may be, relative to its size.

    Raises:
        ValueError: if it is not.
    """
    if not all(readable(t) for t in X.tensors):
        return
    with torch.no_grad(), no_autocast(X.tensors[0]):
        P = torch.stack([first_vector(X.n, X.dtype, X.device, which) for which in (0, 1)], -1)
        product = X.matmat(P)
        peak = product.abs().amax()
        G = inner_products(P, product / torch.where(peak > 0, peak, 1))
        wrong = torch.linalg.vector_norm(G - G.mH) > allowed * torch.linalg.vector_norm(G)
    if bool(wrong):
        raise ValueError(
            f"pmaf.{function}: {name} must be symmetric (Hermitian), but this {type(X).__name__} of order {X.n} tells "
            f"⟨x, {name} y⟩ from ⟨{name} x, y⟩; pass its symmetric part if that is meant"
        )
