"""What a layer runs without autograd: prepare, solve, measure, and give every item its status."""

from pmaf.forward.compiled import register
from pmaf.solvers import Eigh, Secular

register(Eigh, Secular)
