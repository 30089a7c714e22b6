"""Is what an example prints what its page shows? Numbers as far as they are shown, everything else to the letter.

The last digit of a result differs from processor to processor, and how torch prints a tensor depends on it: 3 is shown
as ``3.`` and 3 + ε as ``3.0000``; beside a zero that is 4e-9 every entry gets an exponent.
"""

from __future__ import annotations

import doctest
import re

import pytest

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?(?![\w.])")
SHOWN = 1e-4  # torch shows four decimals


def same(expected: str, printed: str) -> bool:
    """Whether two texts agree but for spaces and for the digits of numbers that are not shown."""
    words = ["".join(NUMBER.sub("#", text).split()) for text in (expected, printed)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (expected, printed)]
    return words[0] == words[1] and numbers[1] == pytest.approx(numbers[0], rel=SHOWN, abs=SHOWN)


class Checker(doctest.OutputChecker):
    """The rule of doctest that accepts what is the ``same``."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or same(want, got)
