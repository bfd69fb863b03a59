"""A window on the screen, with pygame."""

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from jaxtyping import UInt8

from mpc_gym.messages import warn

if TYPE_CHECKING:
    import pygame


class Window:
    """Shows frames at the speed at which they happen.

    Where there is no display it warns, and shows nothing.

    Args:
        title: of the window.
        fps: frames per second; `show` waits as long as that takes.

    Raises:
        DependencyNotInstalled: pygame is missing; the message says how to install it.
    """

    def __init__(self, title: str, fps: float) -> None:
        if importlib.util.find_spec("pygame") is None:
            raise DependencyNotInstalled(
                'a window needs pygame, which is not installed: pip install "mpc-gym[human]"'
            )
        self._title = title
        self._fps = fps
        self._surface: pygame.Surface | None = None
        self._clock: Any = None

    def show(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Put a frame on the screen, and wait until it is time for the next."""
        import pygame

        height, width = frame.shape[:2]
        if self._surface is None or self._surface.get_size() != (width, height):
            self._surface = _open(self._title, (width, height))
            self._clock = pygame.time.Clock()
        self._surface.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()  # or the window manager takes the window for dead
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window, if it is open."""
        if self._surface is not None:
            import pygame

            pygame.display.quit()
            self._surface = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy opens a window of its own.
        return {**self.__dict__, "_surface": None, "_clock": None}


def _open(title: str, size: tuple[int, int]) -> "pygame.Surface":
    import pygame

    try:
        pygame.display.init()
        surface = pygame.display.set_mode(size)
    except pygame.error as error:
        warn(f"no window can be shown here ({error})")
        pygame.display.quit()
        os.environ["SDL_VIDEODRIVER"] = "dummy"
        pygame.display.init()
        surface = pygame.display.set_mode(size)
    pygame.display.set_caption(title)
    return surface
