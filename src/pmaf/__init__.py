"""Deep declarative layers for principal matrix features: least squares on the sphere and implicit eigen decomposition."""

from pmaf import nn, solvers
from pmaf.eigen_decomposition import ied, ied_ex, principal_projector
from pmaf.errors import ConvergenceError, DegeneracyError, DegeneracyWarning, LocalSolutionWarning
from pmaf.implicit.modes import Implicit
from pmaf.least_squares_on_sphere import less, less_ex, sphere_quadratic, sphere_quadratic_ex
from pmaf.operators import Gram, MatVec, Operator
from pmaf.solution import FreeLESSSolution, IEDSolution, LESSSolution, Status

__version__ = "0.1.0"
