"""The recipes do what the calls do in whose place they stand: beside the library where it is installed, else its
formula."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pmaf

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="an installed copy has no documentation")


@pytest.fixture(scope="module")
def recipes():
    """The functions of the page."""
    namespace: dict = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S):
        exec(compile(code, str(PAGE), "exec"), namespace)
    return SimpleNamespace(**namespace)


@pytest.fixture
def kornia():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("kornia.geometry")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def random(*shape, **options):
    return torch.randn(*shape, dtype=torch.float64, **options)


def two_views(batch=3, points=20):
    """Noisy points in two cameras, and the cameras."""
    X = random(batch, points, 3) + torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64)
    turn = torch.matrix_exp(0.1 * (K := random(batch, 3, 3)) - 0.1 * K.mT)
    P1 = torch.eye(3, 4, dtype=torch.float64).expand(batch, 3, 4)
    P2 = torch.cat((turn, random(batch, 3, 1)), -1)
    views = []
    for P in (P1, P2):
        seen = torch.cat((X, torch.ones_like(X[..., :1])), -1) @ P.mT
        views.append(seen[..., :2] / seen[..., 2:] + 1e-3 * random(batch, points, 2))
    return P1, P2, *views


def same_with_gradients(ours, theirs, *inputs):
    """Values, and gradients of a fixed linear function of them."""
    gradients = []
    for function in (ours, theirs):
        own = [x.clone().requires_grad_() for x in inputs]
        out = function(*own)
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
        gradients.append((out.detach(), *torch.autograd.grad((out * weight).sum(), own)))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7 * float(other.abs().max()))


def test_homography(recipes, kornia):
    x, w = random(3, 12, 2), torch.rand(3, 12, dtype=torch.float64) + 0.1
    H = torch.eye(3, dtype=torch.float64) + 0.1 * random(3, 3, 3)
    y = torch.cat((x, torch.ones_like(x[..., :1])), -1) @ H.mT
    y = y[..., :2] / y[..., 2:] + 1e-3 * random(3, 12, 2)
    theirs = lambda x, y, w: kornia.find_homography_dlt(x, y, w, solver="svd")  # noqa: E731
    same_with_gradients(recipes.homography, theirs, x, y, w)


def test_fundamental(recipes, kornia):
    _, _, x, y = two_views()
    w = torch.rand(3, 20, dtype=torch.float64) + 0.1
    torch.testing.assert_close(recipes.fundamental(x, y), kornia.epipolar.find_fundamental(x, y), rtol=1e-5, atol=1e-6)
    same_with_gradients(recipes.fundamental, kornia.epipolar.find_fundamental, x, y, w)


def test_triangulation(recipes, kornia):
    same_with_gradients(recipes.triangulate, kornia.epipolar.triangulate_points, *two_views())


class TestRotations:
    def rotations(self, count=200):
        q = torch.nn.functional.normalize(random(count, 4), dim=-1)
        q = q * torch.where(q[:, :1] < 0, -1.0, 1.0)
        return q, pytest.importorskip("roma").unitquat_to_rotmat(q[:, [1, 2, 3, 0]])

    def test_roma_quaternions(self, recipes):
        roma = pytest.importorskip("roma")
        q, R = self.rotations()
        torch.testing.assert_close(recipes.rot_to_quat(R), q)
        theirs = roma.rotmat_to_unitquat(R)[:, [3, 0, 1, 2]]
        torch.testing.assert_close(theirs * torch.where(theirs[:, :1] < 0, -1.0, 1.0), q)

    def test_roma_nearest_rotation(self, recipes):
        roma = pytest.importorskip("roma")
        M = random(50, 3, 3) + 2 * self.rotations(50)[1]
        M = M[torch.linalg.det(M) > 0.5]
        same_with_gradients(recipes.nearest_rotation, roma.special_procrustes, M)

    def test_openfold(self, recipes):
        """Its formula, the last vector of ``torch.linalg.eigh``, for matrices that are nearly rotations."""
        roma = pytest.importorskip("roma")
        R = roma.random_rotmat(40, dtype=torch.float64) + 0.1 * random(40, 3, 3)

        def openfold(R):
            [[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]] = [[R[..., i, j] for j in range(3)] for i in range(3)]
            k = [
                [xx + yy + zz, zy - yz, xz - zx, yx - xy],
                [zy - yz, xx - yy - zz, xy + yx, xz + zx],
                [xz - zx, xy + yx, yy - xx - zz, yz + zy],
                [yx - xy, xz + zx, yz + zy, zz - xx - yy],
            ]
            k = (1.0 / 3.0) * torch.stack([torch.stack(t, dim=-1) for t in k], dim=-2)
            q = torch.linalg.eigh(k)[1][..., -1]
            return q * torch.where(q[..., :1] < 0, -1.0, 1.0)

        same_with_gradients(recipes.rot_to_quat, openfold, R)
        exact = roma.random_rotmat(1000)
        inputs = exact.clone().requires_grad_()
        recipes.rot_to_quat(inputs).sum().backward()
        assert inputs.grad.isfinite().all()


def test_pytorch3d(recipes):
    """Its formula: the smallest eigenvector of the covariance, turned to where most neighbours lie."""
    points = random(2, 80, 3) * torch.tensor([1.0, 1.0, 0.05], dtype=torch.float64)
    order = (points[:, :, None] - points[:, None]).square().sum(-1).argsort(-1)[..., :20]
    near = torch.stack([cloud[rows] for cloud, rows in zip(points, order, strict=True)])
    centred = near - near.mean(-2, keepdim=True)
    n = torch.linalg.eigh((centred[..., :, None] * centred[..., None, :]).mean(-3))[1][..., 0]
    positive = ((n[..., None, :] * (near - points[..., None, :])).sum(-1) > 0).sum(-1, keepdim=True)
    n = (1.0 - 2.0 * (positive < 0.5 * 20)) * n
    found = recipes.pointcloud_normals(points, 20)
    decided = positive[..., 0] != 10
    torch.testing.assert_close(found[decided], n[decided])


def test_laplacian_encoding(recipes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        geometric = pytest.importorskip("torch_geometric")
    half = torch.cat((torch.stack((torch.arange(59), torch.arange(1, 60))), torch.randint(60, (2, 100))), 1)
    half = half[:, half[0] < half[1]].unique(dim=1)
    edge_index, w = torch.cat((half, half.flip(0)), 1), torch.rand(half.shape[1], dtype=torch.float64) + 0.5
    transform = geometric.transforms.AddLaplacianEigenvectorPE(4, attr_name="pe", is_undirected=True)
    theirs = transform(geometric.data.Data(edge_index=edge_index, edge_weight=torch.cat((w, w)), num_nodes=60)).pe
    w.requires_grad_()
    ours = recipes.laplacian_encoding(edge_index, torch.cat((w, w)), 60, 4)
    torch.testing.assert_close(ours.abs(), theirs.double().abs(), rtol=1e-6, atol=1e-8)
    ours.square()[:5].sum().backward()
    assert w.grad.isfinite().all()


class TestSpheres:
    """What the others descend to lies no lower than the answer of ``less``, and near it if they start near it."""

    def problem(self):
        A, b = random(30, 4), random(30)
        return pmaf.less(A, b), lambda u: 0.5 * (A @ u - b).square().sum()

    def test_geoopt(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            geoopt = pytest.importorskip("geoopt")
        best, misfit = self.problem()
        start = torch.nn.functional.normalize(best + 0.2 * random(4), dim=-1)
        u = geoopt.ManifoldParameter(start, manifold=geoopt.Sphere())
        optimiser = geoopt.optim.RiemannianSGD([u], lr=0.02)
        for _ in range(300):
            optimiser.zero_grad()
            misfit(u).backward()
            optimiser.step()
        assert misfit(u) >= misfit(best) - 1e-9
        torch.testing.assert_close(u.detach(), best, rtol=0, atol=1e-4)

    def test_geotorch(self):
        geotorch = pytest.importorskip("geotorch")
        best, misfit = self.problem()
        layer = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
        geotorch.sphere(layer, "weight")
        layer.weight = torch.nn.functional.normalize(best + 0.2 * random(4), dim=-1)[None]
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.02)
        for _ in range(400):
            optimiser.zero_grad()
            misfit(layer.weight[0]).backward()
            optimiser.step()
        assert misfit(layer.weight[0]) >= misfit(best) - 1e-9
        torch.testing.assert_close(layer.weight[0].detach(), best, rtol=0, atol=1e-3)
