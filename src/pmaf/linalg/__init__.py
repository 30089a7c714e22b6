"""Numerics that solvers and derivatives share."""
