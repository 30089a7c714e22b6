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


def perturbed(given: Tensor, noise: Tensor, share: float = 0.1) -> Tensor:
    """First guesses with a share of noise, so that a guess that is an unwanted eigenvector does not stay one.

    Of an eigenvector whose eigenvalue lies δ from the wanted one the residual is share·δ at once. A solver that stops
    at a residual of ε‖X‖ thus tells the two apart if δ > ε‖X‖/share, which is hardly more than it can promise anyway.

    Args:
        given: columns of any length, ``(*, n, p)``; where they are not finite they cost steps, not the answer.
        noise: columns of length about √n, or units, ``(*, n, p)``.
        share: how much of the result is noise.

    Returns:
        Columns of about unit length, ``(*, n, p)``.
    """
    tiny = torch.finfo(noise.dtype).tiny
    given = given.to(noise)
    given = given / given.abs().amax(-2, keepdim=True).clamp_min(tiny)
    given = torch.where(given.isfinite().all(-2, keepdim=True), given, 0)
    given = given / torch.linalg.vector_norm(given, dim=-2, keepdim=True).clamp_min(tiny)
    mixed: Tensor = given + share * noise / torch.linalg.vector_norm(noise, dim=-2, keepdim=True)
    return mixed


def completed(U: Tensor) -> Tensor:
    """Orthonormal columns with the directions of those of U, which are nearly orthonormal or zero, ``(*, n, k)``.

    A zero column becomes a vector orthogonal to all others, as Householder's method leaves it.
    """
    Q, R = torch.linalg.qr(U)
    phase = torch.sgn(R.diagonal(dim1=-2, dim2=-1))[..., None, :]
    whole: Tensor = Q * torch.where(phase == 0, 1, phase)
    return whole
