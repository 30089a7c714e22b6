"""Numerics that solvers, forward passes and derivatives share."""
