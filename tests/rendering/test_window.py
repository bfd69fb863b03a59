import importlib.util
import pickle

import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled

from mpc_gym.rendering import Window


def frame(shade: int, height: int = 20, width: int = 30) -> np.ndarray:
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[0, :, 0] = shade
    return picture


@pytest.fixture
def pygame(monkeypatch: pytest.MonkeyPatch):
    module = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield module
    module.display.quit()


def shown(pygame) -> np.ndarray:
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)


def test_frames_appear_upright_in_a_window_of_their_size(pygame) -> None:
    window = Window("DiffPendulum-v0", fps=1000)
    for shade in (100, 200):
        window.show(frame(shade))
        np.testing.assert_array_equal(shown(pygame), frame(shade))
    assert pygame.display.get_caption()[0] == "DiffPendulum-v0"
    window.show(frame(50, 40, 50))
    assert shown(pygame).shape == (40, 50, 3)


def test_a_closed_window_is_gone_and_may_be_closed_twice(pygame) -> None:
    window = Window("", fps=1000)
    window.close()
    window.show(frame(1))
    window.close()
    window.close()
    assert not pygame.display.get_init()


def test_a_copy_opens_a_window_of_its_own(pygame) -> None:
    window = Window("", fps=1000)
    window.show(frame(1))
    pickle.loads(pickle.dumps(window)).show(frame(2))
    np.testing.assert_array_equal(shown(pygame), frame(2))


def test_without_a_display_it_warns_and_goes_on(pygame, monkeypatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    window = Window("", fps=1000)
    with pytest.warns(UserWarning, match="no window can be shown here"):
        window.show(frame(1))
    window.show(frame(2))


def test_without_pygame_the_error_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "mpc-gym\[human\]"'):
        Window("", fps=20)
