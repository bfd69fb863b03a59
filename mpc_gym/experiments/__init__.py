"""Experiments that compare policies head to head, with their tables, plots and videos."""

from mpc_gym.experiments.demo import FILES, run_demo
from mpc_gym.experiments.report import learning_curve, metrics, table
from mpc_gym.experiments.result import Demo, DemoOptions

__all__ = ["FILES", "Demo", "DemoOptions", "learning_curve", "metrics", "run_demo", "table"]
