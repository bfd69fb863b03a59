"""Constraints from a formula."""

from torch import nn


class Rows(nn.Module):
    """Rows of state and control from a formula."""

    def __init__(self, formula) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, state, control):
        return self.formula(state, control)


class LastRows(Rows):
    def forward(self, state):
        return self.formula(state)
