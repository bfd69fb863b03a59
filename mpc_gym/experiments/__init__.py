"""Experiments that compare policies head to head, with their tables, plots and videos."""

from mpc_gym.experiments.demo import (
    FILES,
    Demo,
    DemoOptions,
    learning_curve,
    metrics,
    run_demo,
    table,
)

__all__ = ["FILES", "Demo", "DemoOptions", "learning_curve", "metrics", "run_demo", "table"]
