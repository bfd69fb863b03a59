"""From actions to controls, in native code."""

import numpy as np

from mpc_gym.compiled.cpu.native import native


@native
def actuate(actions, low, high, gain, controls, applied):  # type: ignore[no-untyped-def]
    """Clip actions to their limits; False if one of them is NaN.

    `applied` is what reaches the dynamics. With a gain other than zero, a control that float32
    holds is rounded as its product with the gain is in float32.

    Args, all float64 arrays but the gain: actions [batch, n_ctrl], low [n_ctrl], high [n_ctrl],
    gain, controls [batch, n_ctrl] and applied [batch, n_ctrl], which are written.
    """
    for i in range(actions.shape[0]):
        for k in range(actions.shape[1]):
            control = actions[i, k]
            if np.isnan(control):
                return False
            control = min(max(control, low[k]), high[k])
            controls[i, k] = applied[i, k] = control
            single = np.float32(control)
            if gain != 0.0 and np.float64(single) == control:
                applied[i, k] = np.float64(single * np.float32(gain)) / gain
    return True
