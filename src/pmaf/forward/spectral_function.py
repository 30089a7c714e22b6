"""f(X) of whole Hermitian matrices without autograd: decompose, measure, and give every item its status."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pmaf.forward.custom_ops import run_eigh
from pmaf.handover import ForwardResult, Report, SpectralAux
from pmaf.linalg.divided_differences import ScalarFunction
from pmaf.linalg.robust_eigh import hermitian_eigh
from pmaf.linalg.scaling import divisor
from pmaf.solution import Status
from pmaf.transforms import compiling

__all__ = ["SpectralForward"]


def zero_tolerance(spectrum: Tensor) -> Tensor:
    """Eigenvalues of this size are zero as far as rounding tells: 4ε√n‖X‖, ``(*, 1)``."""
    size: Tensor = spectrum.abs().amax(-1, keepdim=True)
    return size * (4 * torch.finfo(spectrum.dtype).eps * math.sqrt(spectrum.shape[-1]))


@dataclass(frozen=True)
class SpectralForward:
    """The forward pass as a function of X alone."""

    fn: ScalarFunction

    def __call__(self, X: Tensor) -> ForwardResult:
        """f(X), what is left for derivatives, and the report.

        Args:
            X: Hermitian, ``(*, n, n)``, n ≥ 1.

        Returns:
            The result.
        """
        fn = self.fn
        s, V, done = run_eigh(X) if compiling() else hermitian_eigh(X)
        outside = torch.zeros_like(s, dtype=torch.bool)
        zero = s.abs() <= zero_tolerance(s) if fn.minds_zero else outside
        if fn.negative_is_outside:
            outside = outside | ((s < 0) & ~zero)
            s = torch.where(zero, s.clamp(min=0), s)  # below zero by rounding
        if fn.zero_is_outside:
            outside = outside | zero
        exact = (
            torch.where(zero, 0, s) if fn.zero_is_sharp or fn.zero_is_bent else s
        )  # to divided differences, zero is exactly zero
        values = fn.value(exact if fn.zero_is_jump else s)
        Y = (V * values[..., None, :]) @ V.mH
        Y = Y / 2 + Y.mH / 2
        fits = values.isfinite().all(-1) & Y.isfinite().flatten(-2).all(-1)
        failed = ~(done & ~outside.any(-1) & fits)
        Y = torch.where(failed[..., None, None], torch.nan, Y)
        misfit = (X @ V - V * s[..., None, :]) / divisor(s.abs().amax(-1))[..., None, None]
        residual = torch.linalg.vector_norm(misfit, dim=-2).amax(-1)

        sharp = (zero.any(-1) if fn.zero_is_sharp else torch.zeros_like(failed)) & ~failed
        status = torch.where(failed, Status.NON_FINITE, torch.zeros_like(failed, dtype=torch.int64))
        if fn.zero_is_jump:
            status = torch.where(sharp, Status.NOT_UNIQUE, status)
        steps = torch.ones_like(status)
        gap = torch.where(failed, torch.nan, torch.full_like(residual, torch.inf))
        exact = torch.where(failed[..., None], 1, exact)
        return ForwardResult((Y,), SpectralAux(failed, sharp, exact, V), Report(status, steps, residual, gap))
