"""How numbers lie in memory does not matter: steps between them, conjugates and signs that torch has put off."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pmaf

VIEWS = ("every second", "transposed", "permuted", "conjugated later", "negated later", "real part", "expanded")


def view(kind: str, x: torch.Tensor) -> torch.Tensor:
    """The same numbers, laid out in another way."""
    if kind == "every second":
        return torch.stack((x, x), -1).flatten(-2)[..., ::2]
    if kind == "transposed":
        return x.mT.contiguous().mT
    if kind == "permuted":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if kind == "conjugated later":
        return x.conj().resolve_conj().conj() if x.is_complex() else x
    if kind == "negated later":
        return torch._neg_view(-x) if not x.is_complex() else torch._neg_view((-x).resolve_conj())
    if kind == "real part":
        return x if x.is_complex() else torch.complex(x, x).real
    return x[:1].expand(x.shape)


def hermitian(x: torch.Tensor) -> torch.Tensor:
    return x + x.mH


def functions(dtype: torch.dtype) -> Iterator[tuple[str, object, tuple[torch.Tensor, ...]]]:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, dtype=dtype, generator=generator)

    X, A, b, H = hermitian(normal(5, 5)), normal(7, 4), normal(7, 1), hermitian(normal(4, 4))
    B = X @ X.mH + torch.eye(5)
    yield "ied", lambda X: pmaf.ied_ex(X)[:2], (X,)
    yield "ied of two", lambda X: pmaf.ied_ex(X, 2)[:2], (X,)
    yield "metric", lambda X, B: pmaf.ied_ex(X, 2, metric=B)[:2], (X, B)
    yield "near", lambda X: pmaf.ied_ex(X, 2, near=0.1)[:2], (X,)
    yield "Gram", lambda A: pmaf.ied_ex(pmaf.Gram(A), 1)[:2], (A,)
    yield "projector", lambda X: pmaf.principal_projector_ex(X, 2)[:1], (X,)
    yield "svd", lambda A: pmaf.svd_ex(A, 2)[:3], (A,)
    yield "spectral function", lambda X: pmaf.spectral_function_ex(X, "exp")[:1], (X,)
    yield "less", lambda A, b: pmaf.less_ex(A, b[..., 0])[:2], (A, b)
    yield "ball", lambda A, b: pmaf.less_ex(A, b[..., 0], constraint="ball")[:2], (A, b)
    yield "quadratic", lambda H, b: pmaf.sphere_quadratic_ex(H, b[..., :4, 0])[:2], (H, b)


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_views(kind, dtype):
    """Values, and gradients by a conjugated answer, whose cotangent is a conjugate put off as well."""
    for name, function, data in functions(dtype):
        found = []
        plain = tuple(x[:1].repeat(2, 1, 1) if kind == "expanded" else x for x in data)
        for tensors in (plain, tuple(view(kind, x) for x in plain)):
            leaves = [x.detach().requires_grad_() for x in tensors]
            answer = function(*leaves)
            weight = torch.linspace(0.5, 1, 2, dtype=torch.float64)
            loss = sum((y.conj().movedim(0, -1) * weight).real.square().sum() for y in answer)
            found.append((*answer, *torch.autograd.grad(loss, leaves)))
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_kernels_read_what_lies_in_memory():
    """``contiguous`` leaves a conjugation that was put off where it is."""
    for file in (Path(pmaf.__file__).parent / "kernels").glob("*.py"):
        assert file.name == "calls.py" or ".contiguous()" not in file.read_text(encoding="utf-8"), file.name
