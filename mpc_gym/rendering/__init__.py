"""Pictures of the environments, and videos."""

from mpc_gym.rendering.cartpole import draw_cartpole
from mpc_gym.rendering.layout import side_by_side, tile
from mpc_gym.rendering.pendulum import draw_pendulum
from mpc_gym.rendering.video import open_video, write_video
from mpc_gym.rendering.window import Window

__all__ = [
    "Window",
    "draw_cartpole",
    "draw_pendulum",
    "open_video",
    "side_by_side",
    "tile",
    "write_video",
]
