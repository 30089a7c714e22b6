"""The modules of the family: they return what the functions return, and print their configuration."""

from __future__ import annotations

import pickle

import pytest
import torch

import pmaf
from cases import randn, symmetric


def test_spectral_function():
    X = symmetric(3, n=4)
    torch.testing.assert_close(pmaf.nn.SpectralFunction("exp")(X), pmaf.spectral_function(X, "exp"))
    layer = pmaf.nn.SpectralFunction(2, k=2, largest=False)
    torch.testing.assert_close(layer(X), pmaf.spectral_function(X, 2, 2, largest=False))
    assert repr(layer) == "SpectralFunction(fn=2, k=2, largest=False)"
    assert repr(pickle.loads(pickle.dumps(layer))) == repr(layer)
    with pytest.raises(ValueError, match=r"pmaf\.nn\.SpectralFunction: fn must be one of"):
        pmaf.nn.SpectralFunction("root")
    with pytest.raises(ValueError, match="k must be at least 0"):
        pmaf.nn.SpectralFunction("exp", -1)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_pooling_to_a_projector(center, scale, dtype):
    features = randn(3, 5, 4, 6, dtype=dtype)
    pool = pmaf.nn.PrincipalPool2d(2, "projector", center=center, scale=scale)
    pooled = pool(features)
    assert pooled.shape == (3, 25)
    assert pooled.dtype == dtype
    F = features.double().flatten(-2).mT
    F = F - F.mean(-2, keepdim=True) if center else F
    _, S, Vh = torch.linalg.svd(F, full_matrices=False)
    middle = S[:, :2, None] / F.shape[-2] ** 0.5 if scale else 1
    truth = Vh[:, :2].mT @ (middle * Vh[:, :2])
    limit = 1e3 * torch.finfo(dtype).eps
    torch.testing.assert_close(pooled.double(), truth.flatten(-2), rtol=limit, atol=limit)
    torch.testing.assert_close(pool(features[0]), pooled[0])


def test_the_projector_does_not_see_the_order_of_the_directions():
    """Where two singular values cross, the vectors change places and the projector stays."""
    directions = torch.eye(3, dtype=torch.float64)[:2]

    def features(t):
        rows = torch.cat((directions * torch.tensor([[1 + t], [1 - t]]), 0.1 * torch.eye(3, dtype=torch.float64)))
        return rows.mT[..., None]

    before, after = (pmaf.nn.PrincipalPool2d(2, "projector")(features(t)) for t in (-0.01, 0.01))
    torch.testing.assert_close(before, after)
    x = features(0.0).requires_grad_()
    assert torch.autograd.gradcheck(pmaf.nn.PrincipalPool2d(2, kind="projector"), (x,), fast_mode=True)
    assert torch.autograd.gradcheck(pmaf.nn.PrincipalPool2d(2, kind="projector", scale=True), (x,), fast_mode=True)


def test_configuration_of_the_pool():
    pool = pmaf.nn.PrincipalPool2d(3, kind="projector", center=True)
    assert repr(pool) == "PrincipalPool2d(k=3, kind='projector', center=True)"
    with pytest.raises(ValueError, match="kind must be one of 'vectors', 'projector', got 'matrix'"):
        pmaf.nn.PrincipalPool2d(3, "matrix")
