"""Solvers for leading eigenpairs, one algorithm a file."""
