"""Solvers for problems on the sphere, one algorithm a file, one row a solver, and their rules for steps."""

from pmaf.solvers.sphere.gradient_descent import ProjectedGradient as ProjectedGradient
from pmaf.solvers.sphere.gradient_descent import RiemannianGradient as RiemannianGradient
from pmaf.solvers.sphere.krylov_trust_region import KrylovTrustRegion as KrylovTrustRegion
from pmaf.solvers.sphere.more_sorensen import MoreSorensen as MoreSorensen
from pmaf.solvers.sphere.secular import Secular as Secular
from pmaf.solvers.sphere.slsqp import SLSQP as SLSQP
from pmaf.solvers.sphere.step_sizes import Backtracking as Backtracking
from pmaf.solvers.sphere.step_sizes import ExactStep as ExactStep
from pmaf.solvers.sphere.step_sizes import TangentDecay as TangentDecay
