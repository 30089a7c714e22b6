"""The version, for the package itself and whoever names it."""

__version__ = "0.2.0"
