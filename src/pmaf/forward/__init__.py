"""What a layer runs without autograd: prepare, solve, measure, and give every item its status."""

from pmaf import solvers
from pmaf.forward.compiled import register

register(*(getattr(solvers, name) for name in solvers.__all__ if isinstance(getattr(solvers, name), type)))
