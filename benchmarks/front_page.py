"""The three pictures of the documentation's front page.

    python -m benchmarks.front_page [--measure] [--seeds 3] [--folder docs/images]

- `demonstrations.png`: what a policy that plans and an MLP earn, over the demonstrations that they
  learned from, eight seeds each, of the reproduction's table (`make reproduce`).
- `constraint.png`: how many episodes have left the track while PPO learns; of
  `examples/safe_exploration.py`, which `--measure` runs first (for half an hour), to write
  `constraint.json`.
- `plan.png`: what a policy that plans is about to do, drawn by the environment.
"""

import argparse
import csv
import json
import runpy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

import mpc_gym
from mpc_gym.experiments.plots import save_figure, style_axes
from mpc_gym.files import replacing, write
from mpc_gym.rendering.palette import BACKGROUND, LINES

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "safe_exploration.py"
CLOSED_LOOP = ROOT / "docs" / "reproduction" / "tables" / "closed-loop-pendulum.csv"
FOLDER = Path("docs/images")

MPC, MLP, EXPERT = LINES[0], LINES[1], "#777777"
METHODS = {"mpc.dx": ("plans, from wrong physics", MPC, "o"), "mlp": ("MLP", MLP, "s")}
FLIGHT_SEED, FRAMES, SIZE = 3, (0, 7, 15), 360  # of the quadrotor's picture; steps, pixels


def demonstrations(folder: Path) -> None:
    """Return over demonstrations: mean, and from the lowest to the highest seed."""
    with CLOSED_LOOP.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    figure, axes = _figure()
    expert = next(_mean(row[2]) for row in rows if row[0] == "expert")
    axes.axhline(expert, color=EXPERT, linestyle="--", linewidth=1.5, label="expert")
    for method, (name, colour, marker) in METHODS.items():
        shown = [row for row in rows if row[0] == method]
        xs = [int(row[1]) for row in shown]
        low, high = np.array([_range(row[3]) for row in shown]).T
        axes.fill_between(xs, low, high, color=colour, alpha=0.25, linewidth=0)
        means = [_mean(row[2]) for row in shown]
        axes.plot(xs, means, color=colour, marker=marker, linewidth=2, label=name)
    axes.set(xscale="log", xlabel="demonstrations", title="Pendulum: return of clones")
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    _finish(axes, figure, folder / "demonstrations.png")


def constraint(folder: Path) -> None:
    """Episodes that have left the track, over the steps of the training."""
    trainings = json.loads((folder / "constraint.json").read_text(encoding="utf-8"))
    figure, axes = _figure()
    names = {"MPC": ("plans, and knows the track", MPC), "MLP": ("MLP", MLP)}
    for name, (label, colour) in names.items():
        for training in trainings:
            left = training[name]["left"]
            steps = [0, *left, training[name]["steps"]]
            counts = [*range(len(left) + 1), len(left)]
            shown = label if training is trainings[0] else None
            axes.step(steps, counts, where="post", color=colour, linewidth=2, label=shown)
    axes.set(xlabel="steps of PPO", title="Cart-pole: episodes that left the track")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    _finish(axes, figure, folder / "constraint.png")


def plan(folder: Path) -> None:
    """A quadrotor that flies round an obstacle, and its plan, at three times."""
    env = gym.make("DiffPlanarQuadrotor-v0", obstacle=0.7, render_mode="rgb_array")
    system: Any = env.unwrapped
    system.width = system.height = SIZE
    mpc = mpc_gym.make_mpc(env, horizon=30, starts=8)
    state, _ = env.reset(seed=FLIGHT_SEED)
    pictures = []
    for step in range(max(FRAMES) + 1):
        with torch.no_grad():
            ahead = mpc(torch.from_numpy(state)[None])
        if step in FRAMES:
            system.show_plan(ahead)
            pictures.append(np.asarray(env.render(), dtype=np.uint8))
        state, *_ = env.step(ahead.controls[0, 0].numpy())
    env.close()
    with replacing(folder / "plan.png") as unfinished:
        Image.fromarray(_strip(pictures)).save(unfinished, format="PNG", optimize=True)


def measure(folder: Path, seeds: int) -> None:
    """Run the example, and keep when which episodes left the track."""
    example = runpy.run_path(str(EXAMPLE))
    trainings = []
    for seed in range(seeds):
        options = example["Options"](seed=seed)
        steps = {"MPC": options.steps, "MLP": options.mlp_steps}
        trainings.append(
            {
                name: {
                    "steps": steps[name],
                    "episodes": len(episodes),
                    "left": [each.end for each in episodes if each.left],
                }
                for name, episodes in example["main"](options).items()
            }
        )
    write(folder / "constraint.json", json.dumps(trainings, indent=1) + "\n")


def _figure() -> tuple[Figure, Axes]:
    """On the background of the drawn environments, which is legible on a dark page, too."""
    background = "#" + bytes(BACKGROUND).hex()
    figure = Figure(figsize=(6.0, 3.0), layout="constrained", facecolor=background)
    axes = figure.subplots()
    axes.set_facecolor(background)
    return figure, axes


def _finish(axes: Axes, figure: Figure, path: Path) -> None:
    style_axes(axes)
    axes.legend(frameon=False, fontsize=11)
    save_figure(figure, path)


def _strip(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Side by side, without what is empty above and below."""
    joined = np.concatenate(pictures, axis=1)
    return joined[SIZE // 5 : SIZE - SIZE // 5]


def _mean(cell: str) -> float:
    return float(cell.partition(" ± ")[0].replace(",", ""))


def _range(cell: str) -> tuple[float, float]:
    low, _, high = cell.replace(",", "").partition(" to ")
    return float(low), float(high)


def _plain(value: float, _: int) -> str:
    return f"{value:,.0f}"


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description="The pictures of the front page.")
    parser.add_argument("--measure", action="store_true", help="run safe_exploration.py first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        measure(options.folder, options.seeds)
    for draw in (demonstrations, constraint, plan):
        draw(options.folder)


if __name__ == "__main__":
    main()
