"""Solvers for leading eigenpairs, one algorithm a file, one row a solver."""

from pmaf.solvers.eigen.block_lanczos import BlockLanczos as BlockLanczos
from pmaf.solvers.eigen.cholesky_inverse_iteration import CholeskyInverseIteration as CholeskyInverseIteration
from pmaf.solvers.eigen.closed_form import ClosedForm as ClosedForm
from pmaf.solvers.eigen.davidson import Davidson as Davidson
from pmaf.solvers.eigen.eigh import Eigh as Eigh
from pmaf.solvers.eigen.eigvals_inverse_iteration import EigvalsInverseIteration as EigvalsInverseIteration
from pmaf.solvers.eigen.lanczos_eigh import LanczosEigh as LanczosEigh
from pmaf.solvers.eigen.power_iteration import PowerIteration as PowerIteration
from pmaf.solvers.eigen.shift_invert import ShiftInvert as ShiftInvert
from pmaf.solvers.eigen.simultaneous_iteration import SimultaneousIteration as SimultaneousIteration
from pmaf.solvers.eigen.tridiagonal import Tridiagonal as Tridiagonal
