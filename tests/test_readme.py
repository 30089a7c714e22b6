"""What the documents say is true: examples run, examples in docstrings print what they show, claims hold."""

from __future__ import annotations

import csv
import doctest
import importlib
import math
import pkgutil
import re
import warnings
from pathlib import Path

import pytest
import torch

import pmaf
import printed
from cases import symmetric

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```(?:\n\n((?:    [^\n]*\n)+))?", re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, capsys):
    """The python blocks of a page run one after the other; an indented block that follows is what is printed."""
    namespace: dict = {}
    for code, shown in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(code, str(page), "exec"), namespace)
        expected = "".join(line[4:] for line in shown.splitlines(keepends=True))
        out = capsys.readouterr().out
        assert out == expected or printed.same(expected, out), out


def test_the_reference_lists_every_public_name():
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")]
    listed = set(re.findall(r":: pmaf\.([\w.]+)", "".join(pages)))
    modules = {"nn", "solvers"}
    assert set(pmaf.__all__) - modules <= listed
    assert {f"nn.{name}" for name in pmaf.nn.__all__} <= listed


def test_the_examples_that_are_named_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"\[Examples\]\(examples\): (.*)", text)
    files = " ".join(path.stem for path in (ROOT / "examples").glob("plot_*.py"))
    for name in named.split(", "):
        assert name.lower().replace(" ", "_").removesuffix("ies").removesuffix("s") in files, name


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_doors_lead_somewhere():
    for page in PAGES[1:]:
        text = page.read_text(encoding="utf-8")
        doors = re.findall(r"^:link: ([\w/]+)$", text, re.M)
        doors += re.findall(r"\{doc\}`(?:[^`<]*<)?/([\w/]+)>?`", text)
        for door in doors:
            script = ROOT / "examples" / f"{door.rpartition('/')[2]}.py"
            assert (ROOT / "docs" / f"{door}.md").exists() or script.exists(), f"{page.name} leads to {door}"


def public_modules():
    for info in pkgutil.walk_packages(pmaf.__path__, "pmaf."):
        if not info.name.startswith(("pmaf.paper", "pmaf.cli", "pmaf.kernels.lib")):
            yield info.name


@pytest.mark.parametrize("name", ["pmaf", *public_modules()])
def test_docstring_examples(name):
    module = importlib.import_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        runner = doctest.DocTestRunner(printed.Checker(), optionflags=flags)
        for example in doctest.DocTestFinder().find(module):
            runner.run(example)
    assert runner.failures == 0


def test_numbers_are_compared_as_far_as_they_are_shown():
    assert printed.same("(tensor(1.), tensor([0.8660, 0.0000]))", "(tensor(1.0000), tensor([8.6603e-01, 3.6e-09]))")
    assert not printed.same("tensor([0.8660, 0.0000])", "tensor([0.8660, 0.0010])")
    assert not printed.same("tensor([3.])", "tensor([3.], dtype=torch.float64)")
    assert not printed.same("tensor([3.])", "tensor([3., 3.])")


def test_every_public_function_has_an_example():
    missing = []
    for name in pmaf.__all__:
        thing = getattr(pmaf, name)
        if callable(thing) and not isinstance(thing, type) and ">>>" not in (thing.__doc__ or ""):
            missing.append(name)
    assert not missing


def test_the_front_door_is_complete():
    assert sorted(pmaf.__all__) == list(pmaf.__all__)
    for name in pmaf.__all__:
        assert getattr(pmaf, name).__doc__


class TestClaims:
    """What the README says of others."""

    def test_eigh_gives_nan_where_any_eigenvalue_repeats(self):
        for spectrum in ([1.0, -1.0, -1.0], [1.0, 1.0, -1.0]):
            X = torch.diag(torch.tensor(spectrum)).requires_grad_()
            torch.linalg.eigh(X)[1][:, -1].sum().backward()
            assert X.grad.isnan().any()

    def test_eigh_and_lobpcg_raise_for_the_whole_batch(self):
        X = symmetric(3, n=4)
        X[1] = math.nan
        with pytest.raises(RuntimeError):  # the message is LAPACK's
            torch.linalg.eigh(X)
        big = symmetric(2, n=9)
        big[1] = math.nan
        with pytest.raises(RuntimeError):
            torch.lobpcg(big, 1)

    def test_lobpcg_needs_three_times_as_many_rows(self):
        with pytest.raises(ValueError, match="3"):
            torch.lobpcg(symmetric(n=5), 2)

    def test_lobpcg_has_no_gradient_of_a_sparse_matrix_and_takes_no_complex_one(self):
        diagonal = torch.arange(20)
        X = torch.sparse_coo_tensor(
            torch.stack((diagonal, diagonal)), torch.rand(20) + diagonal, (20, 20), check_invariants=False
        )
        values, _ = torch.lobpcg(X.requires_grad_(), 1)
        with pytest.raises(ValueError, match="sparse"):
            values.sum().backward()
        with pytest.raises(RuntimeError):
            torch.lobpcg(torch.eye(9, dtype=torch.complex64), 1)

    def test_lobpcg_is_wrong_where_a_wanted_eigenvalue_repeats(self):
        Q = torch.linalg.qr(symmetric(n=9))[0]
        X = (Q * torch.tensor([5.0, 5, 1, 0.5, 0.2, 0, -1, -2, -3], dtype=Q.dtype)) @ Q.mT
        X, weight = (X + X.mT) / 2, symmetric(n=9, seed=1)
        theirs, ours = X.clone().requires_grad_(), X.clone().requires_grad_()
        _, U = torch.lobpcg(theirs, 2, niter=-1, tol=1e-12)
        ((U @ U.mT) * weight).sum().backward()
        (pmaf.principal_projector(ours, 2) * weight).sum().backward()
        assert (theirs.grad - ours.grad).norm() > 1e-4 * ours.grad.norm()

    def test_lobpcg_has_no_vmap(self):
        with pytest.raises(RuntimeError):  # whichever operation it meets first
            torch.func.vmap(lambda X: torch.lobpcg(X, 1)[0])(symmetric(2, n=9))


def test_the_times_are_those_of_the_benchmark():
    """Every row of the README's table of times stands in the recorded results."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| ([\d,]+) × (\d+)×\d+ \| (\d+) \| (\w+) \| ([\d.e+]+) ms \| ([\d.]+) \| ([\d.]+) \|$", re.M)
    shown = row.findall(text)
    assert shown
    recorded = {}
    for isa in ("avx512", "avx2"):
        with (ROOT / "benchmarks" / "results" / f"kernels_{isa}.csv").open(encoding="utf-8") as file:
            for entry in csv.DictReader(file):
                recorded[isa, entry["case"], entry["dtype"], entry["spectrum"]] = entry
    for batch, n, k, dtype, milliseconds, *ratios in shown:
        case = f"{batch.replace(',', '')}x{n}x{k}"
        entry = recorded["avx512", case, dtype, "gaussian"]
        total = float(entry["pmaf_forward_us"]) + float(entry["pmaf_backward_us"])
        assert milliseconds == f"{total / 1000:.2g}"
        speedups = [recorded[isa, case, dtype, "gaussian"]["speedup"] for isa in ("avx512", "avx2")]
        assert ratios == [f"{float(x):.1f}" for x in speedups]
