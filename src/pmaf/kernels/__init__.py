"""Compiled kernels for batches of small matrices; everything works without them, through torch."""

from pmaf.kernels.loader import available, reason

__all__ = ["available", "reason"]
