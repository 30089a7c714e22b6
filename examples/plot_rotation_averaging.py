"""
Averaging rotations, and ``rot_to_quat``
========================================

A rotation matrix becomes a quaternion by the largest eigenpair of a symmetric 4×4 matrix (Bar-Itzhack, 2000), as in
OpenFold's ``rot_to_quat``; a weighted average of rotations is the largest eigenpair of :math:`\\sum_i w_i\\, q_i
q_i^\\top` (Markley et al., 2007), where q and −q count alike. Both matrices have a property that hurts: for an exact
rotation the other three eigenvalues are *equal*, and the gradient of ``torch.linalg.eigh`` divides by their
differences. :func:`pmaf.ied` divides by those between the wanted eigenvalue and the others only.

Twelve sensors tell how a body is turned, and three of them are bad, each in its way; the weights are learned. The
data are synthetic.
"""

import matplotlib.pyplot as plt
import torch

import pmaf

torch.manual_seed(0)


def bar_itzhack(R: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix whose largest eigenpair is (1, quaternion), ``(*, 4, 4)``."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz = R.flatten(-2).unbind(-1)
    rows = (
        (xx + yy + zz, zy - yz, xz - zx, yx - xy),
        (zy - yz, xx - yy - zz, xy + yx, xz + zx),
        (xz - zx, xy + yx, yy - xx - zz, yz + zy),
        (yx - xy, xz + zx, yz + zy, zz - xx - yy),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2) / 3


def rotation(q: torch.Tensor) -> torch.Tensor:
    """The matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = q.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def random_quaternions(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, 4), dim=-1)


# %%
# A thousand rotations: how many have a gradient?
R = rotation(random_quaternions(1000))
R[:100] = torch.eye(3)  # as where a network begins
finite = {}
for name, quaternion in {
    "eigh + autograd": lambda R: torch.linalg.eigh(bar_itzhack(R))[1][..., -1],
    "pmaf": lambda R: pmaf.ied(bar_itzhack(R), 1).eigenvectors[..., 0],
}.items():
    inputs = R.clone().requires_grad_()
    q = quaternion(inputs)
    torch.testing.assert_close(rotation(q), R, rtol=0, atol=1e-5)
    (q * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    finite[name] = inputs.grad.isfinite().all(-1).all(-1)
    print(f"{name:16} finite gradients: {int(finite[name].sum())} of {len(R)}")
assert finite["pmaf"].all()


# %%
# Sensors: good ones are off by about two degrees, one by forty, one is mounted askew, and one tells nothing.
def multiply(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Hamilton's product."""
    w = p[..., :1] * q[..., :1] - (p[..., 1:] * q[..., 1:]).sum(-1, keepdim=True)
    v = p[..., :1] * q[..., 1:] + q[..., :1] * p[..., 1:] + torch.linalg.cross(p[..., 1:], q[..., 1:])
    return torch.cat((w, v), -1)


SENSORS, BAD = 12, [2, 5, 9]


def readings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The true rotations, and what the sensors tell."""
    true = random_quaternions(count)
    size = torch.full((SENSORS, 1), 0.017)
    size[BAD[0]] = 0.35
    off = torch.cat((torch.ones(count, SENSORS, 1), size * torch.randn(count, SENSORS, 3)), -1)
    off[:, BAD[1]] += torch.tensor([0.0, 0.5, 0.0, 0.0])
    told = multiply(true[:, None].expand(-1, SENSORS, -1), torch.nn.functional.normalize(off, dim=-1))
    told[:, BAD[2]] = random_quaternions(count)
    return true, told * torch.randn(count, SENSORS, 1).sign()  # q and −q are one rotation


def average(told: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return pmaf.ied(pmaf.Gram(told, weights=w.expand(told.shape[:-1])), 1).eigenvectors[..., 0]


def degrees(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return 2 * torch.rad2deg(torch.arccos((p * q).sum(-1).abs().clamp(max=1)))


logits = torch.zeros(SENSORS, requires_grad=True)
optimiser = torch.optim.Adam([logits], lr=0.2)
history = []
for _ in range(100):
    true, told = readings(64)
    found = average(told, torch.sigmoid(logits))
    loss = (1 - (found * true).sum(-1).square()).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    history.append(float(degrees(found.detach(), true).mean()))
true, told = readings(2000)
w = torch.sigmoid(logits.detach())
errors = {"all alike": degrees(average(told, torch.ones(SENSORS)), true), "learned": degrees(average(told, w), true)}
for name, angle in errors.items():
    print(f"{name:10} mean error {angle.mean():.2f}°")
good = [s for s in range(SENSORS) if s not in BAD]
assert w[BAD].max() < w[good].min()

# %%
figure = plt.figure(figsize=(12, 3.8), layout="constrained")
space = figure.add_subplot(1, 3, 1, projection="3d")
for s in range(SENSORS):
    body = rotation(multiply(true[:1] * torch.tensor([1.0, -1, -1, -1]), told[:1, s]))[0]  # as seen from the truth
    for column, color in zip(body.mT, ("C3", "C2", "C0"), strict=True):
        alpha, width = (0.3, 1.0) if s in BAD else (0.9, 2.0)
        space.plot(*zip([0, 0, 0], column.tolist(), strict=True), color=color, alpha=alpha, linewidth=width)
space.set(xticks=[], yticks=[], zticks=[], title="one body, twelve opinions")
bars = figure.add_subplot(1, 3, 2)
bars.bar(range(SENSORS), w.numpy(), color=["C3" if s in BAD else "C0" for s in range(SENSORS)])
bars.set(xlabel="sensor", ylabel="learned weight", title="red: the bad ones")
spread = figure.add_subplot(1, 3, 3)
for name, angle in errors.items():
    spread.hist(angle.numpy(), bins=torch.linspace(0, 15, 61).numpy(), alpha=0.7, label=name)
spread.set(xlabel="error of the average, degrees", ylabel="of 2,000")
spread.legend()
