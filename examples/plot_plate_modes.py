r"""
Vibration modes of a plate, and where to stiffen it
====================================================

A thin plate that is held along its edge vibrates in the modes of

.. math:: K u = \omega^2 M u,

K the stiffness and M the mass, both sparse. Where should a given amount of material go so that the lowest frequency is
as high as possible? The thickness h of each cell enters both, :math:`K \propto h^3` and :math:`M \propto h`:
:func:`pmaf.ied` with ``metric=M`` factorises :math:`K - \sigma M` once for the modes, and uses the factors for the
gradient with respect to the values of both matrices, and through them to h. (Bendsøe and Sigmund, *Topology
Optimization*, 2003, section 2.1, treat such problems.)
"""

import matplotlib.pyplot as plt
import torch

import pmaf

torch.set_num_threads(1)

# %%
# Bending energy is the integral of :math:`h^3 (\Delta w)^2`: with the Laplacian D of the grid, whose values beyond the
# edge are zero, :math:`K = D^\top \mathrm{diag}(h^3) D`. Its pattern is that of a stencil of 13 points and does not
# change, so the values of K are a fixed linear map of h³: one entry for each pair of neighbours that share a cell.

side = 48
n = side * side
index = torch.arange(n).reshape(side, side)
down = (index[:-1].reshape(-1), index[1:].reshape(-1))
across = (index[:, :-1].reshape(-1), index[:, 1:].reshape(-1))
a, b = torch.cat((down[0], across[0])), torch.cat((down[1], across[1]))
cell = torch.cat((index.reshape(-1), a, b))  # rows of D
node = torch.cat((index.reshape(-1), b, a))  # its columns
value = torch.cat((torch.full((n,), 4.0), -torch.ones(2 * len(a)))).double()

# %%
# Of each cell the entries of D that are not zero, at most five, and all their pairs.

order = torch.argsort(cell, stable=True)
cell, node, value = cell[order], node[order], value[order]
count = torch.bincount(cell)
start = count.cumsum(0) - count
slots = start[:, None] + torch.arange(5)
there = torch.arange(5) < count[:, None]
slots = torch.where(there, slots, 0)
both = there[:, :, None] & there[:, None, :]
row = node[slots][:, :, None].expand(-1, 5, 5)[both]
column = node[slots][:, None, :].expand(-1, 5, 5)[both]
weight = (value[slots][:, :, None] * value[slots][:, None, :])[both]
owner = torch.arange(n)[:, None, None].expand(-1, 5, 5)[both]
diagonal = torch.arange(n)


def matrices(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Stiffness and mass of a plate of this thickness."""
    stiff = weight * h[owner] ** 3
    K = torch.sparse_coo_tensor(torch.stack((row, column)), stiff, (n, n), check_invariants=False)
    M = torch.sparse_coo_tensor(torch.stack((diagonal, diagonal)), h, (n, n), check_invariants=False)
    return K.coalesce(), M.coalesce()


even = torch.ones(n, dtype=torch.float64, requires_grad=True)
K, M = matrices(even)
found = pmaf.ied_ex(K, 4, metric=M, largest=False)
modes = found.eigenvectors.detach()
print(
    f"{n} nodes, {K.values().numel()} entries, ω² {found.eigenvalues.detach().numpy()}, residual {found.residual:.0e}"
)
(gradient,) = torch.autograd.grad(found.eigenvalues[0], even)

# %%
# The gradient of the lowest frequency by the formula for a single mode of mass one: bending adds, inertia takes away.

bending = torch.zeros(n, dtype=torch.float64).index_add(0, cell, value * modes[node, 0])
formula = 3 * bending**2 - found.eigenvalues[0].detach() * modes[:, 0] ** 2
torch.testing.assert_close(gradient, formula, rtol=1e-6, atol=1e-9)

# %%
# Ascent with a thickness between a half and two whose mean stays one. The second and the third mode of a square are a
# pair, which does not disturb the first.

logits = torch.zeros(n, dtype=torch.float64, requires_grad=True)


def thickness() -> torch.Tensor:
    """Between 1/2 and 2 before it is scaled to a mean of one."""
    h = 0.5 * 4 ** torch.sigmoid(logits)
    return h / h.mean()


optimiser = torch.optim.Adam([logits], lr=0.3)
history = []
for _ in range(25):
    K, M = matrices(thickness())
    lowest = pmaf.ied(K, 1, metric=M, largest=False).eigenvalues[0]
    optimiser.zero_grad()
    (-lowest.log()).backward()
    optimiser.step()
    history.append(lowest.item())
gain = (history[-1] / history[0]) ** 0.5
print(f"the lowest frequency is {gain:.2f} times that of an even plate of the same mass")
assert gain > 1.1

# %%
# The first modes of the even plate, how each cell's thickness moves the lowest frequency, and the plate after ascent.

figure, axes = plt.subplots(1, 5, figsize=(14, 2.9), layout="constrained")
for i in (0, 1, 3):
    shape = modes[:, i].reshape(side, side)
    axes[min(i, 2)].imshow(shape, cmap="RdBu", vmin=-shape.abs().max(), vmax=shape.abs().max())
    axes[min(i, 2)].set_title(f"mode {i + 1}")
image = axes[3].imshow(gradient.reshape(side, side), cmap="PuOr", vmin=-gradient.abs().max(), vmax=gradient.abs().max())
axes[3].set_title("∂ω²/∂h")
image = axes[4].imshow(thickness().detach().reshape(side, side), cmap="viridis")
axes[4].set_title(f"thickness, ω × {gain:.2f}")
figure.colorbar(image, ax=axes[4])
for axis in axes:
    axis.axis("off")
plt.show()
