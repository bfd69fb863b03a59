"""Pictures of the environments, and videos."""

from mpc_gym.rendering.canvas import Canvas
from mpc_gym.rendering.layout import side_by_side, tile
from mpc_gym.rendering.scene import Memory, Scene
from mpc_gym.rendering.video import open_video, write_video
from mpc_gym.rendering.window import Window

__all__ = [
    "Canvas",
    "Memory",
    "Scene",
    "Window",
    "open_video",
    "side_by_side",
    "tile",
    "write_video",
]
