"""Deep declarative layers: least squares on the sphere and implicit eigen decomposition."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from pmaf.version import __version__ as __version__

if TYPE_CHECKING:
    from pmaf import nn as nn
    from pmaf import solvers as solvers
    from pmaf.config import show_config as show_config
    from pmaf.errors import ConvergenceError as ConvergenceError
    from pmaf.errors import DegeneracyError as DegeneracyError
    from pmaf.errors import DegeneracyWarning as DegeneracyWarning
    from pmaf.errors import GaugeWarning as GaugeWarning
    from pmaf.errors import GradientWarning as GradientWarning
    from pmaf.errors import LocalSolutionWarning as LocalSolutionWarning
    from pmaf.errors import MissingExtraError as MissingExtraError
    from pmaf.errors import RangeWarning as RangeWarning
    from pmaf.implicit.dense_jacobian import DenseJacobian as DenseJacobian
    from pmaf.implicit.fixed_point import FixedPoint as FixedPoint
    from pmaf.implicit.modes import Implicit as Implicit
    from pmaf.implicit.modes import Unrolled as Unrolled
    from pmaf.layers.certificate import Certificate as Certificate
    from pmaf.layers.certificate import certify as certify
    from pmaf.layers.certificate import certify_quadratic as certify_quadratic
    from pmaf.layers.dominant import DominantPair as DominantPair
    from pmaf.layers.dominant import dominant_pair as dominant_pair
    from pmaf.layers.dominant import dominant_pair_ex as dominant_pair_ex
    from pmaf.layers.eigen import Eigenpairs as Eigenpairs
    from pmaf.layers.eigen import ied as ied
    from pmaf.layers.eigen import ied_ex as ied_ex
    from pmaf.layers.projector import principal_projector as principal_projector
    from pmaf.layers.projector import principal_projector_ex as principal_projector_ex
    from pmaf.layers.spectral_function import spectral_function as spectral_function
    from pmaf.layers.spectral_function import spectral_function_ex as spectral_function_ex
    from pmaf.layers.sphere import less as less
    from pmaf.layers.sphere import less_ex as less_ex
    from pmaf.layers.sphere_quadratic import sphere_quadratic as sphere_quadratic
    from pmaf.layers.sphere_quadratic import sphere_quadratic_ex as sphere_quadratic_ex
    from pmaf.layers.svd import Triplets as Triplets
    from pmaf.layers.svd import svd as svd
    from pmaf.layers.svd import svd_ex as svd_ex
    from pmaf.operators.base import Operator as Operator
    from pmaf.operators.function import MatVec as MatVec
    from pmaf.operators.gram import Gram as Gram
    from pmaf.solution import DominantSolution as DominantSolution
    from pmaf.solution import IEDSolution as IEDSolution
    from pmaf.solution import LESSSolution as LESSSolution
    from pmaf.solution import ProjectorSolution as ProjectorSolution
    from pmaf.solution import SpectralFunctionSolution as SpectralFunctionSolution
    from pmaf.solution import Status as Status
    from pmaf.solution import SVDSolution as SVDSolution

_HOMES = {
    "Certificate": "pmaf.layers.certificate",
    "ConvergenceError": "pmaf.errors",
    "DegeneracyError": "pmaf.errors",
    "DegeneracyWarning": "pmaf.errors",
    "DenseJacobian": "pmaf.implicit.dense_jacobian",
    "DominantPair": "pmaf.layers.dominant",
    "DominantSolution": "pmaf.solution",
    "Eigenpairs": "pmaf.layers.eigen",
    "FixedPoint": "pmaf.implicit.fixed_point",
    "GaugeWarning": "pmaf.errors",
    "GradientWarning": "pmaf.errors",
    "Gram": "pmaf.operators.gram",
    "IEDSolution": "pmaf.solution",
    "Implicit": "pmaf.implicit.modes",
    "LESSSolution": "pmaf.solution",
    "LocalSolutionWarning": "pmaf.errors",
    "MatVec": "pmaf.operators.function",
    "MissingExtraError": "pmaf.errors",
    "Operator": "pmaf.operators.base",
    "ProjectorSolution": "pmaf.solution",
    "RangeWarning": "pmaf.errors",
    "SpectralFunctionSolution": "pmaf.solution",
    "SVDSolution": "pmaf.solution",
    "Status": "pmaf.solution",
    "Triplets": "pmaf.layers.svd",
    "Unrolled": "pmaf.implicit.modes",
    "certify": "pmaf.layers.certificate",
    "certify_quadratic": "pmaf.layers.certificate",
    "dominant_pair": "pmaf.layers.dominant",
    "dominant_pair_ex": "pmaf.layers.dominant",
    "ied": "pmaf.layers.eigen",
    "ied_ex": "pmaf.layers.eigen",
    "less": "pmaf.layers.sphere",
    "less_ex": "pmaf.layers.sphere",
    "nn": "pmaf.nn",
    "principal_projector": "pmaf.layers.projector",
    "principal_projector_ex": "pmaf.layers.projector",
    "show_config": "pmaf.config",
    "solvers": "pmaf.solvers",
    "spectral_function": "pmaf.layers.spectral_function",
    "spectral_function_ex": "pmaf.layers.spectral_function",
    "sphere_quadratic": "pmaf.layers.sphere_quadratic",
    "sphere_quadratic_ex": "pmaf.layers.sphere_quadratic",
    "svd": "pmaf.layers.svd",
    "svd_ex": "pmaf.layers.svd",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: ``pmaf --help`` need not wait for torch.

    Raises:
        AttributeError: if there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'pmaf' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value = home if _HOMES[name] == f"pmaf.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *_HOMES})


if "torch" in sys.modules:  # nothing to wait for; and exported programs find the operators registered
    for _name in __all__:
        __getattr__(_name)
