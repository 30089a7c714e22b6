r"""Divided differences of a scalar function, first and second, without cancellation where arguments nearly meet.

.. math:: f[a, b] = \frac{f(a) - f(b)}{a - b}, \qquad f[a, b, c] = \frac{f[a, b] - f[b, c]}{a - c},

with the limits f′(a) and f″(a)/2 where arguments coincide: what the derivatives of :math:`U f(\Lambda) U^H` are made
of. Each function has them in a form that keeps its digits: in closed form, by quadrature where arguments nearly meet,
or, of a function that is given as such, by whichever of the two is better.

Zero is special to most of these functions. An argument that is zero is exactly zero here: who calls decides what counts
as zero. Differences that do not exist there, 0/0 or infinite, are zero, the value of least size.
"""

from pmaf.linalg.divided_differences.base import ScalarFunction
from pmaf.linalg.divided_differences.closed import Abs, Inverse, InverseSqrt, Sign, Sqrt
from pmaf.linalg.divided_differences.given import Elementwise
from pmaf.linalg.divided_differences.smooth import Exp, Log, Power

__all__ = ["NAMED", "Elementwise", "Power", "ScalarFunction"]

NAMED: dict[str, ScalarFunction] = {
    "sqrt": Sqrt(),
    "inverse_sqrt": InverseSqrt(),
    "log": Log(),
    "exp": Exp(),
    "inverse": Inverse(),
    "abs": Abs(),
    "sign": Sign(),
}
