"""What can go wrong, as classes a caller can catch."""


class ConvergenceError(RuntimeError):
    """A plain function found an item it could not solve; the message names the first one."""


class DegeneracyError(RuntimeError):
    """An answer is not unique and the caller asked for ``degenerate="raise"``."""


class DegeneracyWarning(UserWarning):
    """An answer is not unique, so a component of its gradient was left out."""


class RangeWarning(UserWarning):
    """A value is beyond the range of its type, infinite or zero, where what else was asked for is right."""


class LocalSolutionWarning(UserWarning):
    """A local solver stopped at a point that is not the global optimum."""


class GradientWarning(UserWarning):
    """A part of a gradient could not be computed and was left out."""


class GaugeWarning(UserWarning):
    """A loss depends on the arbitrary choice of basis inside a repeated eigenvalue."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
