"""How an answer is found: solvers, their short names, and which one is chosen when none is named."""

from pmaf.solvers.eigen.block_lanczos import BlockLanczos
from pmaf.solvers.eigen.cholesky_inverse_iteration import CholeskyInverseIteration
from pmaf.solvers.eigen.closed_form import ClosedForm
from pmaf.solvers.eigen.eigh import Eigh
from pmaf.solvers.eigen.eigvals_inverse_iteration import EigvalsInverseIteration
from pmaf.solvers.eigen.lanczos_eigh import LanczosEigh
from pmaf.solvers.eigen.power_iteration import PowerIteration
from pmaf.solvers.eigen.simultaneous_iteration import SimultaneousIteration
from pmaf.solvers.registry import DENSE_LIMIT, EIGEN, SPHERE, named, select
from pmaf.solvers.sphere.gradient_descent import ProjectedGradient, RiemannianGradient
from pmaf.solvers.sphere.krylov_trust_region import KrylovTrustRegion
from pmaf.solvers.sphere.more_sorensen import MoreSorensen
from pmaf.solvers.sphere.secular import Secular
from pmaf.solvers.sphere.slsqp import SLSQP
from pmaf.solvers.sphere.step_sizes import Backtracking, ExactStep, TangentDecay

__all__ = [
    "DENSE_LIMIT",
    "EIGEN",
    "SLSQP",
    "SPHERE",
    "Backtracking",
    "BlockLanczos",
    "CholeskyInverseIteration",
    "ClosedForm",
    "Eigh",
    "EigvalsInverseIteration",
    "ExactStep",
    "KrylovTrustRegion",
    "LanczosEigh",
    "MoreSorensen",
    "PowerIteration",
    "ProjectedGradient",
    "RiemannianGradient",
    "Secular",
    "SimultaneousIteration",
    "TangentDecay",
    "named",
    "select",
]
