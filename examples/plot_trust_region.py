"""
A trust-region step inside an optimiser
=======================================

Newton's method with a trust region minimises a quadratic model in a ball,

.. math:: s = \\operatorname{argmin}_{\\|s\\| \\le \\Delta}\\ g^\\top s + \\tfrac12 s^\\top H s ,

and goes on with a larger or a smaller ball as the model turns out right or wrong. H need not be convex: near a saddle
the step leaves along the negative curvature. :func:`pmaf.sphere_quadratic_ex` solves the model *globally*, and for a
batch at once, so that the optimiser below runs from 10,000 starts together, each with a ball of its own.
"""

import matplotlib.pyplot as plt
import torch

import pmaf

torch.set_default_dtype(torch.float64)


def himmelblau(p: torch.Tensor) -> torch.Tensor:
    """Four minima, all zero, four saddles and a maximum."""
    x, y = p
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


value = torch.vmap(himmelblau)
gradient = torch.vmap(torch.func.grad(himmelblau))
hessian = torch.vmap(torch.func.hessian(himmelblau))


# %%
# The optimiser. A step that gains less than a tenth of what the model promised is not taken, and its ball shrinks.
def minimise(p: torch.Tensor, steps: int = 25, largest: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Minima from the starts ``(B, 2)``, the path of every start, and the radii along it."""
    radius = torch.full(p.shape[:1], 0.5)
    path, radii = [p], [radius]
    for _ in range(steps):
        g, H = gradient(p), hessian(p)
        model = pmaf.sphere_quadratic_ex(H, -g, radius=radius, constraint="ball")
        s = model.u
        promised = -(g * s).sum(-1) - 0.5 * (s * (H @ s[..., None])[..., 0]).sum(-1)
        gained = (value(p) - value(p + s)) / promised.clamp_min(1e-300)
        p = torch.where((gained > 0.1)[:, None], p + s, p)
        at_edge = model.multiplier > 0
        radius = torch.where(gained < 0.25, radius / 4, torch.where((gained > 0.75) & at_edge, 2 * radius, radius))
        radius = radius.clamp(1e-12, largest)
        path.append(p)
        radii.append(radius)
    return p, torch.stack(path), torch.stack(radii)


axis_values = torch.linspace(-6, 6, 100)
starts = torch.cartesian_prod(axis_values, axis_values)
ends, path, radii = minimise(starts)
size = gradient(ends).norm(dim=-1)
print(f"{len(starts):,} starts, {100 * float((size < 1e-8).double().mean()):.1f} % at a stationary point")
smallest = torch.linalg.eigvalsh(hessian(ends)).amin(-1)
print(f"of these {100 * float((smallest[size < 1e-8] > 0).double().mean()):.1f} % at a minimum: none stays at a saddle")
assert (size < 1e-8).double().mean() > 0.99
assert (smallest[size < 1e-8] > 0).all()

# %%
# From the maximum itself, where the gradient vanishes, gradient descent never starts. The model's solution there is
# the hard case of the trust-region problem, two mirror answers, and the layer takes one of them and says so.
peak = torch.tensor([[-0.270845, -0.923039]])
for _ in range(5):
    peak = peak - torch.linalg.solve(hessian(peak), gradient(peak)[..., None])[..., 0]
away = pmaf.sphere_quadratic_ex(hessian(peak), torch.zeros_like(peak), radius=0.5, constraint="ball")
print(pmaf.Status(int(away.status)).name, away.u.tolist())
_, out_of_peak, balls = minimise(peak)

# %%
minima = torch.tensor([[3.0, 2.0], [-2.805118, 3.131312], [-3.779310, -3.283186], [3.584428, -1.848126]])
which = torch.cdist(ends, minima).argmin(-1).reshape(100, 100)
steps = ((path[:-1] - ends).norm(dim=-1) > 1e-6).sum(0).reshape(100, 100)
fine = torch.linspace(-6, 6, 300)
levels = value(torch.cartesian_prod(fine, fine)).reshape(300, 300).log1p()
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
extent = (-6, 6, -6, 6)
axes[0].contour(fine, fine, levels.mT, 14, cmap="viridis", linewidths=0.8)
track = out_of_peak[:, 0]
axes[0].plot(*track.mT, "o-", color="C3", markersize=4)
for p, r in zip(track[:6], balls[:6, 0], strict=True):
    axes[0].add_patch(plt.Circle(p.tolist(), float(r), fill=False, color="C3", alpha=0.4))
axes[0].set_title("from the maximum, with the balls")
axes[1].imshow(which.mT, origin="lower", extent=extent, cmap="Set2")
axes[1].plot(*minima.mT, "k*")
axes[1].set_title("which minimum each start finds")
shown = axes[2].imshow(steps.mT, origin="lower", extent=extent, cmap="magma_r")
figure.colorbar(shown, ax=axes[2])
axes[2].set_title("steps to six digits")
for axis in axes:
    axis.set(aspect="equal", xlim=(-6, 6), ylim=(-6, 6))
# sphinx_gallery_thumbnail_number = 1
