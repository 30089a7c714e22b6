"""Devices without double precision, emulated: nothing that returns one may be called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pmaf
from cases import randn
from pmaf.linalg import dtypes


class RefuseDouble(TorchDispatchMode):
    """An operation that returns double precision raises, as on Apple's devices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"no {x.dtype} on this device: {func}")
        return out


def symmetric(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    X = randn(*shape, shape[-1], dtype=dtype)
    return (X + X.mH) / 2


SINGLE = torch.float32
CALLS = {
    "ied 3×3": (lambda X: pmaf.ied(X, 1), symmetric(5, 3)),
    "ied 12×12": (lambda X: pmaf.ied(X, 1), symmetric(5, 12)),
    "ied k=3": (lambda X: pmaf.ied(X, 3, largest=False), symmetric(5, 12)),
    "ied 40×40": (lambda X: pmaf.ied(X, 1), symmetric(40)),
    "ied 150×150": (lambda X: pmaf.ied(X, 1), symmetric(150)),
    "ied leading": (lambda X: pmaf.ied(X, 2), symmetric(120) + 5),
    "ied complex": (lambda X: pmaf.ied(X, 2), symmetric(9, dtype=torch.complex64)),
    "ied Gram": (lambda F: pmaf.ied(pmaf.Gram(F), 2), randn(30, 7, dtype=SINGLE)),
    "ied wide Gram": (lambda F: pmaf.ied(pmaf.Gram(F), 2), randn(4, 9, dtype=SINGLE)),
    "ied null vector": (lambda F: pmaf.ied(pmaf.Gram(F), 1, largest=False), randn(30, 7, dtype=SINGLE)),
    "ied cholesky": (lambda X: pmaf.ied(X, 2, solver="cholesky_inverse_iteration"), symmetric(5, 12)),
    "ied block_lanczos": (lambda X: pmaf.ied(X, 2, solver="block_lanczos"), symmetric(60)),
    "principal_projector": (lambda X: (pmaf.principal_projector(X, 2),), symmetric(9)),
    "dominant_pair": (lambda X: pmaf.dominant_pair(X.abs() + 1), randn(9, 9, dtype=SINGLE)),
    "pool": (lambda x: (pmaf.nn.PrincipalPool2d(2)(x),), randn(2, 5, 4, 4, dtype=SINGLE)),
    "less": (lambda A: (pmaf.less(A, A[..., 0] + 1),), randn(5, 20, 4, dtype=SINGLE)),
    "less wide": (lambda A: (pmaf.less(A, 9 * A[..., 0] + 9),), randn(5, 3, 6, dtype=SINGLE)),
    "less free": (lambda A: (pmaf.less(A, A[..., 0] + 1, free=A[..., :1] * A[..., 1:2]),), randn(20, 4, dtype=SINGLE)),
    "less ball": (lambda A: (pmaf.less(A, A[..., 0] + 1, constraint="ball"),), randn(20, 4, dtype=SINGLE)),
    "less more_sorensen": (
        lambda A: (pmaf.less(A, A[..., 0] + 1, solver="more_sorensen"),),
        randn(20, 4, dtype=SINGLE),
    ),
    "sphere_quadratic": (lambda H: (pmaf.sphere_quadratic((H + H.mT) / 2, H[..., 0]),), randn(5, 8, 8, dtype=SINGLE)),
}


@pytest.mark.parametrize("name", CALLS)
def test_default_paths_do_without_double_precision(name, monkeypatch):
    call, x = CALLS[name]

    def run(x):
        x = x.clone().requires_grad_()
        outputs = call(x)
        weighted = [
            (o * torch.linspace(0.5, 1.5, o.numel()).to(o).reshape(o.shape)).abs().square().sum() for o in outputs
        ]
        sum(weighted).backward()
        return [o.detach() for o in outputs], x.grad

    wide_outputs, wide_gradient = run(x)
    monkeypatch.setattr(dtypes, "SINGLE_ONLY", {"cpu"})
    monkeypatch.setattr("pmaf.linalg.vectors.SINGLE_ONLY", {"cpu"})
    with RefuseDouble():
        outputs, gradient = run(x)
    for ours, theirs in zip(outputs, wide_outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(gradient, wide_gradient, rtol=1e-2, atol=1e-2 * float(wide_gradient.abs().max()))
