"""Vectors to begin with: of no particular direction, and the same every time."""

import torch
from torch import Tensor

from pmaf.linalg.dtypes import double

__all__ = ["first_vector", "perturbed", "random_block"]

SEED = 2306_14759  # far from the small seeds of experiments: data drawn with the start's own seed may be blind to it


def first_vector(n: int, dtype: torch.dtype, device: torch.device, which: int) -> Tensor:
    """A unit vector of no particular direction, made on the device; the fractional parts of j²φ are equidistributed."""
    j = torch.arange(1, n + 1, dtype=torch.float64, device=device)
    angle = 2 * torch.pi * torch.frac(j.square() * (5**0.5 - 1) / 2 + j * (which + 1) * 2**0.5)
    v = (angle.cos() + 0.1).to(double(dtype))
    v = v * torch.polar(torch.ones_like(angle), angle * 2**0.5) if dtype.is_complex else v
    unit: Tensor = v / torch.linalg.vector_norm(v)
    return unit.to(dtype)


def random_block(n: int, p: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    """A reproducible Gaussian block, ``(n, p)``, that leaves the global random state alone."""
    generator = torch.Generator().manual_seed(SEED + seed)
    return torch.randn(n, p, dtype=double(dtype), generator=generator).to(device=device, dtype=dtype)


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
