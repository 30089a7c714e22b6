"""Solvers for problems on the sphere, one algorithm a file."""
