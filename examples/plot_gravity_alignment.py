"""
Gravity alignment: a direction of known length
==============================================

A visual-inertial odometry system has to find gravity before it can use its accelerometer. Relative poses and
preintegrated accelerations give linear equations in gravity g and in the initial velocity v, and the length of g is
known: 9.81 m/s².

.. math:: \\min_{g, v} \\sum_i w_i\\, \\|A_i g + C_i v - b_i\\|^2 \\quad\\text{subject to}\\quad \\|g\\| = 9.81

That is least squares on the sphere with a free block, :func:`pmaf.less` with ``radius=9.81`` and ``free=C``. Here a
part of the measurements is wrong, and the weights learn which one by gradient descent through the layer.
"""

import matplotlib.pyplot as plt
import torch

import pmaf

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %%
# Positions under gravity: p(t) = v t + ½ g t² + ∫∫a. The accelerometer's double integral is known, up to noise.
times = torch.linspace(0.1, 2.0, 20)
gravity = torch.tensor([1.2, -0.7, -9.709])
gravity = 9.81 * gravity / torch.linalg.vector_norm(gravity)
velocity = torch.tensor([0.4, -0.1, 0.2])
eye = torch.eye(3)

A = (0.5 * times**2)[:, None, None] * eye  # (20, 3, 3)
C = times[:, None, None] * eye
noise = 0.02 * torch.randn(64, 20, 3)
b = (A @ gravity + C @ velocity) + noise  # 64 starts of the system
wrong = torch.zeros(20, dtype=torch.bool)
wrong[[3, 11, 17]] = True
b[:, wrong] += torch.tensor([0.5, 1.0, 0.3])  # three views with a wrong pose

rows = {"A": A.reshape(60, 3), "b": b.reshape(64, 60), "free": C.reshape(60, 3)}

# %%
# Plain least squares does not know the length. Knowing it helps, but the wrong views still bend the answer.
plain = torch.linalg.lstsq(torch.cat((rows["A"], rows["free"]), 1), rows["b"].mT).solution[:3].mT
equal = pmaf.less(**rows, radius=9.81)
for name, g in {"plain least squares": plain, "known length": equal}.items():
    print(f"{name:20} error {torch.linalg.vector_norm(g - gravity, dim=-1).mean():.3f} m/s²")

# %%
# Learn one weight for each view from the first 32 starts, with gravity known there, and test on the others.
logits = torch.zeros(20, requires_grad=True)
optimiser = torch.optim.Adam([logits], lr=0.3)
history = []
train = {**rows, "b": rows["b"][:32]}
for _ in range(60):
    weights = torch.sigmoid(logits).repeat_interleave(3)
    g = pmaf.less(**train, radius=9.81, weights=weights)
    loss = (g - gravity).square().sum(-1).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    history.append(float(loss.detach()))

weights = torch.sigmoid(logits.detach())
test = pmaf.less_ex(rows["A"], rows["b"][32:], free=rows["free"], radius=9.81, weights=weights.repeat_interleave(3))
error = torch.linalg.vector_norm(test.u - gravity, dim=-1).mean()
print(f"{'learned weights':20} error {error:.3f} m/s², smallest gap {test.gap.min():.3f}")
assert (test.status == pmaf.Status.CONVERGED).all()
assert weights[wrong].max() < weights[~wrong].median()

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.semilogy(history)
left.set(xlabel="step", ylabel="squared error of gravity")
for views, color, label in ((~wrong, "C0", "good views"), (wrong, "C3", "wrong views")):
    right.bar(times[views].numpy(), weights[views].numpy(), width=0.07, color=color, label=label)
right.set(xlabel="time of view in s", ylabel="learned weight")
right.legend()
figure.tight_layout()
