"""All experiments, in the order in which they run and stand in the report."""

from __future__ import annotations

from pmaf.paper.experiments.base import Experiment
from pmaf.paper.experiments.learning import DIGITS
from pmaf.paper.experiments.less import CASES, OPTIMALITY
from pmaf.paper.experiments.precision import PRECISION
from pmaf.paper.experiments.scenes import WEIGHTS
from pmaf.paper.experiments.speed import SPEED
from pmaf.paper.experiments.stress import STRESS
from pmaf.paper.experiments.timing import TIMING

__all__ = ["BY_KEY", "EXPERIMENTS", "SECTIONS"]

EXPERIMENTS: tuple[Experiment, ...] = (OPTIMALITY, CASES, SPEED, TIMING, PRECISION, DIGITS, STRESS, WEIGHTS)
BY_KEY = {experiment.key: experiment for experiment in EXPERIMENTS}
SECTIONS = tuple(dict.fromkeys(experiment.section for experiment in EXPERIMENTS))
