"""Vectors to begin with: of no particular direction, and the same every time."""

import torch
from torch import Tensor

from pmaf.linalg.dtypes import SINGLE_ONLY, double
from pmaf.linalg.signs import generic

__all__ = ["completed", "first_vector", "perturbed", "random_block"]

SEED = 2306_14759  # far from the small seeds of experiments: data drawn with the start's own seed may be blind to it


def first_vector(n: int, dtype: torch.dtype, device: torch.device, which: int) -> Tensor:
    """A unit vector of no particular direction, made on the device; the fractional parts of j²φ are equidistributed."""
    wide = double(torch.empty(0, dtype=dtype, device=device))
    j = torch.arange(1, n + 1, dtype=wide.to_real(), device=device)
    fraction = torch.frac(j.square() * (5**0.5 - 1) / 2 + j * (which + 1) * 2**0.5)
    if device.type in SINGLE_ONLY:  # fractions of such numbers have no digits there
        fraction = generic(n * (which + 2), j)[-n:]
    angle = 2 * torch.pi * fraction
    v = (angle.cos() + 0.1).to(wide)
    v = v * torch.polar(torch.ones_like(angle), angle * 2**0.5) if dtype.is_complex else v
    unit: Tensor = v / torch.linalg.vector_norm(v)
    return unit.to(dtype)


def random_block(n: int, p: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """A reproducible Gaussian block, ``(n, p)``, that leaves the global random state alone."""
    generator = torch.Generator().manual_seed(SEED + seed)
    wide = double(torch.empty(0, dtype=dtype, device=generator.device))
    return torch.randn(n, p, dtype=wide, generator=generator).to(device=device, dtype=dtype)


def perturbed(given: Tensor, noise: Tensor) -> Tensor:
    """Guesses of vectors, off by √ε of their size: a guess that is an unwanted eigenvector must not stay one.

    Args:
        given: vectors in either of the last two dimensions, in units of their own.
        noise: of no particular direction, with entries of order one, broadcastable with ``given``.

    Returns:
        The vectors with the largest entry of order one; the noise alone where nothing is given that is finite.
    """
    finite = torch.where(given.isfinite(), given, 0)  # a bad guess costs steps, not the answer
    peak = finite.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(given.dtype).tiny)
    off: Tensor = finite / peak + torch.finfo(given.dtype).eps ** 0.5 * noise
    return off


def completed(U: Tensor) -> Tensor:
    """Orthonormal columns with the directions of those of U, which are nearly orthonormal or zero, ``(*, n, k)``.

    A zero column becomes a vector orthogonal to all others, as Householder's method leaves it.
    """
    Q, R = torch.linalg.qr(U)
    phase = torch.sgn(R.diagonal(dim1=-2, dim2=-1))[..., None, :]
    whole: Tensor = Q * torch.where(phase == 0, 1, phase)
    return whole
