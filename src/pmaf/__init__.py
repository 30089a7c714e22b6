"""Deep declarative layers: least squares on the sphere and implicit eigen decomposition."""

from pmaf import nn as nn
from pmaf import solvers as solvers
from pmaf.certificate import Certificate as Certificate
from pmaf.certificate import certify as certify
from pmaf.eigen_decomposition import ied as ied
from pmaf.eigen_decomposition import ied_ex as ied_ex
from pmaf.eigen_decomposition import principal_projector as principal_projector
from pmaf.errors import ConvergenceError as ConvergenceError
from pmaf.errors import DegeneracyError as DegeneracyError
from pmaf.errors import DegeneracyWarning as DegeneracyWarning
from pmaf.errors import GaugeWarning as GaugeWarning
from pmaf.errors import LocalSolutionWarning as LocalSolutionWarning
from pmaf.implicit.dense_jacobian import DenseJacobian as DenseJacobian
from pmaf.implicit.fixed_point import FixedPoint as FixedPoint
from pmaf.implicit.modes import Implicit as Implicit
from pmaf.implicit.modes import Unrolled as Unrolled
from pmaf.least_squares_on_sphere import less as less
from pmaf.least_squares_on_sphere import less_ex as less_ex
from pmaf.least_squares_on_sphere import sphere_quadratic as sphere_quadratic
from pmaf.least_squares_on_sphere import sphere_quadratic_ex as sphere_quadratic_ex
from pmaf.operators import Gram as Gram
from pmaf.operators import MatVec as MatVec
from pmaf.operators import Operator as Operator
from pmaf.solution import FreeLESSSolution as FreeLESSSolution
from pmaf.solution import IEDSolution as IEDSolution
from pmaf.solution import LESSSolution as LESSSolution
from pmaf.solution import Status as Status

__all__ = [
    "Certificate",
    "ConvergenceError",
    "DegeneracyError",
    "DegeneracyWarning",
    "DenseJacobian",
    "FixedPoint",
    "FreeLESSSolution",
    "GaugeWarning",
    "Gram",
    "IEDSolution",
    "Implicit",
    "LESSSolution",
    "LocalSolutionWarning",
    "MatVec",
    "Operator",
    "Status",
    "Unrolled",
    "certify",
    "ied",
    "ied_ex",
    "less",
    "less_ex",
    "nn",
    "principal_projector",
    "solvers",
    "sphere_quadratic",
    "sphere_quadratic_ex",
]

__version__ = "0.1.0"
