"""The complement solve of leading eigenpairs in the eigenbasis that the forward pass left."""

import torch
from torch import Tensor

from pmaf.handover import EigenAux
from pmaf.linalg.bordered import safe_inverse
from pmaf.linalg.refinement import is_single, residual_in_double
from pmaf.linalg.tolerances import relative_tolerance
from pmaf.operators.base import Operator
from pmaf.operators.dense import Dense
from pmaf.operators.separation import separation_tolerance

__all__ = ["solve_in_basis"]


def solve_in_basis(
    X: Operator, aux: EigenAux, U: Tensor, H: Tensor, *, block: slice | None, rtol: float | None, atol: float
) -> Tensor:
    """Columns wᵢ = Σ_j v_j (v_jᴴhᵢ)/(λᵢ − s_j) over the eigenvectors that are separated from λᵢ.

    With the basis Q of the small side of a Gram matrix, F Fᴴ = Q S Qᴴ, the eigenvectors are Fᴴq_j/√s_j, and zero
    eigenvalues belong to the rest of the space, so the sum becomes

        wᵢ = hᵢ/λᵢ + Fᴴ Q [eᵢⱼ (Qᴴ F hᵢ)_j],   eᵢⱼ = 1/(λᵢ(λᵢ − s_j)), or −1/(λᵢ s_j) for a vector that is left out.

    Args:
        X: the operator.
        aux: eigenvalues and eigenbasis.
        U: the selected eigenvectors, ``(*, n, k)``.
        H: right-hand sides, ``(*, n, k)``.
        block: eigenvectors to leave out altogether, as a slice of the spectrum.
        rtol: relative tolerance of what coincides, or ``None`` for the default.
        atol: absolute tolerance.

    Returns:
        W, ``(*, n, k)``.
    """
    values, spectrum, V = aux.eigenvalues[..., None, :], aux.spectrum[..., :, None], aux.V
    norm = spectrum.abs().amax(-2, keepdim=True)
    rtol = relative_tolerance(rtol, V.dtype, X.n)
    difference = values - spectrum  # (*, n, k)
    keep = difference.abs() > separation_tolerance(X, values, spectrum, norm, rtol, atol)
    if block is not None:
        index = torch.arange(V.shape[-1], device=V.device)
        keep = keep & ~((index >= block.start) & (index < block.stop))[:, None]
    if V.shape[-1] == X.n:
        inverse = safe_inverse(difference, keep)
        W = V @ (inverse * (V.mH @ H))
        if isinstance(X, Dense) and is_single(W):
            W = W + V @ (inverse * (V.mH @ residual_in_double(X.dense(), U, H, W)))
            # V is not orthogonal to the last digit, and selected vectors are more exact than its columns.
            W = W - (U * (U.conj() * W).sum(-2, keepdim=True) if block is None else U @ (U.mH @ W))
        return W
    (F,) = X.tensors
    inverse = safe_inverse(values, values > separation_tolerance(X, values, torch.zeros_like(values), norm, rtol, atol))
    left_out = -safe_inverse(spectrum, spectrum > 0)
    coefficients = inverse * torch.where(keep, safe_inverse(difference, keep), left_out)
    return inverse * H + F.mH @ (V @ (coefficients * (V.mH @ (F @ H))))
