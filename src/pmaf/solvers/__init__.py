"""How an answer is found: solvers, their short names, and which one is chosen when none is named."""

from pmaf.solvers.eigen import *  # noqa: F403
from pmaf.solvers.registry import DENSE_LIMIT as DENSE_LIMIT
from pmaf.solvers.registry import EIGEN as EIGEN
from pmaf.solvers.registry import SPHERE as SPHERE
from pmaf.solvers.registry import named as named
from pmaf.solvers.registry import select as select
from pmaf.solvers.sphere import *  # noqa: F403
