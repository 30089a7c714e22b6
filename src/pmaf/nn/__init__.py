"""The layers as modules: they hold configuration, call the functions, and return what these return."""

from pmaf.nn.graphs import LaplacianEncoding
from pmaf.nn.leading import IED, SVD
from pmaf.nn.pooling import PrincipalPool2d
from pmaf.nn.spectral_function import SpectralFunction
from pmaf.nn.sphere import LESS

__all__ = ["IED", "LESS", "SVD", "LaplacianEncoding", "PrincipalPool2d", "SpectralFunction"]
