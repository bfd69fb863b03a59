"""What a test of malformed calls is made of: bad values of each kind, and what must happen to them.

A table names, for each public callable, a call that is right, and of what kind each argument is. Of
every argument in turn each bad value of its kind is tried in the place of the right one.
"""

import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mpc_gym
import reproduction

OURS = (Path(mpc_gym.__file__).parent, Path(reproduction.__file__).parent)
NAN, INF = float("nan"), float("inf")


class Surprise:
    """An object that nobody expects."""


# Of no kind: whatever an argument is, it is not one of these.
NOTHING = [b"1", 1j, Surprise(), Surprise, lambda: 1, {"a": 1}, {1, 2}, 10**400, 10**5000]
WORDS = ["", "1", "1.5", "nan", "../../no/such/folder", "señor 🙂", "\0"]
PAIR = (1, 2)
EMPTY: list[Any] = []
ONE = [1]
LISTED = ["exact"]
SEQUENCES = [EMPTY, ONE, PAIR, [None], np.zeros(3), np.zeros((0, 2)), np.array(["1"])]
TENSORS = [
    torch.zeros(3),
    torch.zeros(0, 2),
    torch.zeros(2, 3, 4, 5),
    torch.tensor([1j]),
    torch.eye(2).to_sparse(),
    torch.zeros(2, device="meta"),
]
NOT_A_NUMBER = [*NOTHING, *WORDS, *SEQUENCES, *TENSORS, None, True, False, np.True_, NAN, INF, -INF]

BAD: dict[str, list[Any]] = {
    "count": [*NOT_A_NUMBER, 0, -1, 1.5, 2.0, np.float32(2), 10**18, -(10**18), np.int64(-1)],
    "count or zero": [*NOT_A_NUMBER, -1, 1.5, 2.0, 10**18, np.int64(-1)],
    "seed": [*NOT_A_NUMBER, -1, 1.5, 2.0, 2**64, np.int64(-1)],
    "large seed": [*NOT_A_NUMBER, -1, 1.5, 2.0, 2**128, np.int64(-1)],
    "number": NOT_A_NUMBER,
    "positive": [*NOT_A_NUMBER, 0, -1, -1e-9, np.float64(-1)],
    "not negative": [*NOT_A_NUMBER, -1, -1e-9],
    "share": [*NOT_A_NUMBER, -0.1, 1.1, 2],
    "flag": [*NOTHING, *WORDS, *SEQUENCES, *TENSORS, 0, 1, 0.0, "True"],
    "word": [*NOTHING, *WORDS, *SEQUENCES, *TENSORS, True, 0, 1.5, LISTED],
    "module": [*NOTHING, *WORDS, *SEQUENCES, *TENSORS, None, True, 1.5, nn.Linear, print],
    "floats": [
        *[*NOTHING, *WORDS, *SEQUENCES, True, 0, 1.5, nn.Linear(2, 2)],
        *[torch.zeros(2, 2, 2, 2), torch.tensor(1.0), torch.tensor([1j]), torch.zeros(0)],
        *[torch.eye(2).to_sparse(), torch.zeros(2, 3, device="meta"), torch.tensor([[True]])],
        *[torch.zeros(2, 3).long(), torch.zeros(1, 3, dtype=torch.complex128)],
    ],
    "numbers": [
        *[*NOTHING, *WORDS, {}, ["a"], [None], [[1], [1, 2]], np.array(["1"]), True, [True]],
        *[torch.tensor([1j]), torch.eye(2).to_sparse(), torch.zeros(2, device="meta")],
        *[torch.zeros(2, 2, 2, 2), np.zeros((2, 2, 2, 2)), torch.zeros(0), np.zeros((0, 2))],
    ],
    "prices": [
        *[*NOTHING, *WORDS, ["a"], [None], [[1], [1, 2]], np.array(["1"]), True, [True], [[1.0]]],
        *[torch.tensor([1j]), torch.eye(2).to_sparse(), torch.zeros(2, device="meta"), 0.0, -1.0],
        *[torch.zeros(2), torch.ones(2, 2), NAN, INF, [1.0, NAN], torch.zeros(0), EMPTY],
    ],
    "widths": [*NOTHING, *WORDS, [0], [None], [1.5], ["8"], [10**18], *TENSORS, None, 8, 1.5, True],
    "activation": [*NOTHING, *WORDS, *SEQUENCES, *TENSORS, None, True, 1.5, nn.Tanh()],
    "text": [*NOTHING, *SEQUENCES, *TENSORS, True, 0, 1.5],
    "not text": [*NOTHING, *SEQUENCES, *TENSORS, True, 0, 1.5, None],
    "path": [*NOTHING, *SEQUENCES, *TENSORS, "", "\0", True, 0, 1.5],
    "mapping": [*NOTHING[:5], *WORDS, *SEQUENCES[1:], *TENSORS, True, 1, 1.5],
}


@dataclass
class Case:
    """A callable, a call that is right, and the kinds of its arguments."""

    call: Callable[..., object]
    right: Mapping[str, Callable[[], Any]]
    kinds: Mapping[str, str]
    none: Sequence[str] = ()
    """Arguments for which None is right, too."""
    accepted: Mapping[str, Sequence[object]] = field(default_factory=dict)
    """Values in `BAD`, by identity, that are right for an argument of this callable."""


def failures(case: Case, argument: str) -> list[str]:
    """What is wrong with the answers to bad values of an argument."""
    wrong = []
    for value in BAD[case.kinds[argument]]:
        if value is None and argument in case.none:
            continue
        if any(value is each for each in case.accepted.get(argument, ())):
            continue
        shown = mpc_gym.checks.found(value)
        try:
            case.call(**{**{k: make() for k, make in case.right.items()}, argument: value})
        except (TypeError, ValueError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            if not re.search(rf"\b{re.escape(argument)}\b", str(error)):
                wrong.append(f"{shown}: unnamed: {type(error).__name__}: {error}"[:300])
            elif not any(map(Path(last.filename).is_relative_to, OURS)):
                wrong.append(f"{shown}: deep: {last.filename}:{last.lineno}: {error}"[:300])
        except Exception as error:
            wrong.append(f"{shown}: {type(error).__name__}: {error}"[:300])
        else:
            wrong.append(f"{shown}: accepted")
    return wrong


def rows(cases: Mapping[str, Case]) -> Any:
    """The table as parameters of a test: one for each argument of each callable."""
    return pytest.mark.parametrize(
        ("case", "argument"),
        [
            pytest.param(case, argument, id=f"{name}({argument})")
            for name, case in cases.items()
            for argument in case.kinds
        ],
    )
