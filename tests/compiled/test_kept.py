"""A graph on disk stands for one module and no other: what a trace depends on is in its name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mpc_gym.compiled import kept
from mpc_gym.compiled.cpu import cache
from mpc_gym.compiled.fingerprint import fingerprint
from mpc_gym.compiled.trace import trace

SIZES = (2, 1, 0)
ROOT = Path(__file__).parents[2]
SOURCE = """
import functools
import math

import torch
from torch import nn

GAIN = 2.0
TABLE = torch.tensor([1.0, 2.0])
NAMES = {"left", "right", "middle"}


def scaled(x, scale=3.0, *, shift=0.0):
    return x * scale + shift


def added(c):
    def inner(x):
        return x + c

    return inner


class Part:
    def __init__(self):
        self.length = 0.7

    def sine(self, x):
        return self.length * torch.sin(x)


class Base(nn.Module):
    factor = 1.25

    def damped(self, x):
        return 0.9 * x

    def forward(self, x, u):
        y = scaled(self.inner(x)) * GAIN * self.mass + TABLE + 4.0 * u * self.count
        y = y + self.layers(x) * self.factor + self.part.sine(x) + self.bent(x)
        y = y + len(NAMES) * self.weights["a"][1] + math.pi * self.gain
        return self.damped(y) if self.training else y


class Model(Base):
    def __init__(self):
        super().__init__()
        self.mass = 1.5
        self.inner = added(0.5)
        self.part = Part()
        self.bent = functools.partial(torch.pow, exponent=2)
        self.weights = {"a": [1.0, 2.0]}
        self.register_buffer("count", torch.tensor(3))
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
"""


def made(source: str = SOURCE) -> nn.Module:
    """An instance of the module in a source, as another process would have it."""
    namespace: dict[str, Any] = {"__name__": "their_model"}
    exec(compile(source, "their_model.py", "exec"), namespace)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = namespace["Model"]()
    return module


CHANGES = {
    "a constant in forward": ("4.0 * u", "5.0 * u"),
    "a constant in a helper's closure": ("added(0.5)", "added(0.6)"),
    "the code of a closure": ("return x + c", "return x - c"),
    "a global number": ("GAIN = 2.0", "GAIN = 3.0"),
    "the type of a global number": ("GAIN = 2.0", "GAIN = 2"),
    "the numbers of a global tensor": ("[1.0, 2.0])", "[1.0, 2.5])"),
    "the dtype of a global tensor": ("[1.0, 2.0])", "[1.0, 2.0]).double()"),
    "a helper function": ("x * scale + shift", "x * scale - shift"),
    "a default argument": ("scale=3.0", "scale=3.5"),
    "a default by keyword": ("shift=0.0", "shift=0.1"),
    "an attribute": ("self.mass = 1.5", "self.mass = 1.6"),
    "an attribute of a part": ("self.length = 0.7", "self.length = 0.8"),
    "a method of a part": ("self.length * torch.sin", "self.length * torch.cos"),
    "a class attribute": ("factor = 1.25", "factor = 1.5"),
    "an inherited method": ("return 0.9 * x", "return 0.8 * x"),
    "an argument of a partial function": ("exponent=2", "exponent=3"),
    "a function of a partial function": ("partial(torch.pow", "partial(torch.float_power"),
    "a number in a container": ('"a": [1.0, 2.0]', '"a": [1.0, 2.1]'),
    "an item of a set": ('"middle"}', '"middle", "top"}'),
    "an integer buffer": ("torch.tensor(3)", "torch.tensor(4)"),
    "the kind of a buffer": ("torch.tensor(3)", "torch.tensor(3.0)"),
    "the dtype of a parameter": ("torch.tensor(2.0)", "torch.tensor(2.0).double()"),
    "the shape of a parameter": ("torch.tensor(2.0)", "torch.tensor([2.0])"),
    "a layer": ("nn.Tanh()", "nn.Sigmoid()"),
    "one layer more": ("nn.Tanh()", "nn.Tanh(), nn.Tanh()"),
    "an option of a layer": ("nn.Linear(2, 2)", "nn.Linear(2, 2, bias=False)"),
    "a method that overrides": (
        "class Model(Base):",
        "class Model(Base):\n    def damped(self, x):\n        return x\n",
    ),
    "a property": ("factor = 1.25", "factor = property(lambda self: 1.25)"),
    "a line": ("GAIN = 2.0", "\nGAIN = 2.0"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_a_trace_depends_on_is_in_the_name(change) -> None:
    assert SOURCE.count(change[0]) == 1
    name = fingerprint(made(), SIZES)
    assert name is not None
    assert name == fingerprint(made(), SIZES)
    assert fingerprint(made(SOURCE.replace(*change)), SIZES) not in (None, name)


def test_checks_of_shapes_take_no_name_away_and_hide_nothing() -> None:
    """As the functions of the models are checked in these tests, and a user's may be."""
    head = "from beartype import beartype\nfrom jaxtyping import Float, jaxtyped\n"
    source = head + SOURCE.replace(
        "    def forward(self, x, u):",
        "    @jaxtyped(typechecker=beartype)\n"
        '    def forward(self, x: Float[torch.Tensor, "*batch 2"], u):',
    )
    name = fingerprint(made(source), SIZES)
    assert name is not None
    assert fingerprint(made(source.replace("4.0 * u", "5.0 * u")), SIZES) not in (None, name)


def with_hook(module: nn.Module) -> None:
    module.layers.register_forward_hook(lambda _module, _given, result: 2.0 * result)


def evaluated(module: nn.Module) -> None:
    module.eval()


def evaluated_in_part(module: nn.Module) -> None:
    module.layers.eval()


def frozen(module: nn.Module) -> None:
    module.gain.requires_grad_(False)


def tied(module: nn.Module) -> None:
    module.register_parameter("again", module.gain)


def given_a_method(module: nn.Module) -> None:
    module.damped = lambda x: 0.5 * x


@pytest.mark.parametrize(
    "change", [with_hook, evaluated, evaluated_in_part, frozen, tied, given_a_method]
)
def test_what_is_done_to_a_module_is_in_its_name(change: Callable[[nn.Module], None]) -> None:
    module = made()
    before = fingerprint(module, SIZES)
    change(module)
    assert fingerprint(module, SIZES) not in (None, before)


def test_sizes_and_the_default_dtype_are_in_the_name() -> None:
    module = made()
    names = [fingerprint(module, SIZES), fingerprint(module, (2, 2, 0))]
    torch.set_default_dtype(torch.float64)
    try:
        names.append(fingerprint(module, SIZES))
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(set(names)) == 3


DOUBTS = {
    "a file": ("4.0 * u", "float(open('gain').read()) * u"),
    "the environment": ("4.0 * u", "float(os.environ['GAIN']) * u"),
    "a random number": ("4.0 * u", "random.random() * u"),
    "an array from a file": ("4.0 * u", "float(np.load('gain.npy')) * u"),
    "an installed package": ("4.0 * u", "scipy.special.expit(4.0) * u"),
    "an object of an extension type": ("self.length = 0.7", "self.length = threading.Lock()"),
    "an array of objects": ("self.length = 0.7", "self.length = np.array([Part], object)"),
    "an enumeration": ("math.pi", "Gear.FIRST.value"),
}


@pytest.mark.parametrize("change", DOUBTS.values(), ids=DOUBTS)
def test_where_something_may_differ_in_another_process_there_is_no_name(change) -> None:
    head = "import enum, os, random, threading\nimport numpy as np\nimport scipy.special\n"
    gear = "class Gear(enum.Enum):\n    FIRST = 3.0\n\n\n"
    source = head + gear + SOURCE
    assert fingerprint(made(source), SIZES) is not None
    assert fingerprint(made(source.replace(*change)), SIZES) is None


def operations(module: nn.Module) -> Any:
    return trace(module, 2, 1).operations


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "cache_directory", lambda: tmp_path)
    return tmp_path


def test_what_is_kept_is_what_was_traced(own_cache: Path) -> None:
    module = made()
    found = operations(module)
    name = fingerprint(module, SIZES)
    assert name is not None
    assert [path.suffix for path in own_cache.iterdir()] == [".bin"]
    loaded = kept.load(name)
    assert loaded is not None
    assert repr(loaded) == repr(found)
    point = [torch.randn(2).double(), torch.randn(1).double()]
    point += [p.detach().double() for p in module.parameters()]
    graph = trace(module, 2, 1)
    again = replace(graph, operations=loaded)
    torch.testing.assert_close(graph.replay(point), again.replay(point), rtol=0, atol=0)


def test_a_damaged_file_and_one_under_another_name_count_as_missing(own_cache: Path) -> None:
    module = made()
    operations(module)
    name = fingerprint(module, SIZES)
    (path,) = own_cache.iterdir()
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[:40], content[:50] + b"x" + content[51:]):
        path.write_bytes(damaged)
        assert kept.load(name) is None
    other = "0" * 64
    path.with_name(f"graph_{other[:32]}.bin").write_bytes(content)
    assert kept.load(other) is None
    path.write_bytes(content)
    assert kept.load(name) is not None


@pytest.mark.parametrize(
    "change",
    [
        ("4.0 * u", "5.0 * u"),
        ("4.0 * u", "(4.0 * u + u * u * 1e-3)"),
        ("4.0 * u", "(8.0 * u - 4.0 * u.detach())"),
    ],
    ids=["a factor", "a little", "its derivative"],
)
def test_a_graph_that_is_not_the_modules_is_not_used(own_cache: Path, change) -> None:
    module, name = made(), fingerprint(made(), SIZES)
    assert name is not None
    expected, wrong = operations(module), operations(made(SOURCE.replace(*change)))
    (own_cache / kept._name(name)).unlink()
    kept.save(name, wrong)
    assert repr(kept.load(name)) == repr(wrong) != repr(expected)
    assert repr(operations(module)) == repr(expected)


@pytest.mark.parametrize("content", [b"not JSON", b"[]", b'{"nodes": [], "result": 0}'])
def test_a_file_that_cannot_be_read_is_traced_anew(own_cache: Path, content: bytes) -> None:
    module = made()
    name = fingerprint(module, SIZES)
    expected = operations(module)
    (path,) = own_cache.iterdir()
    cache.write_kept(path, (name,), content)
    assert repr(operations(module)) == repr(expected)


def test_a_text_is_made_once_for_what_it_follows_from(own_cache: Path) -> None:
    graphs = [trace(made(), 2, 1), trace(made(SOURCE.replace("4.0 * u", "5.0 * u")), 2, 1)]
    contents = [(graph.content, fact) for graph in graphs for fact in (True, 1, 2)]
    for content in contents:
        written = f"what follows from {content!r}"
        assert kept.text("source", content, written.__str__) == written
        assert kept.text("source", content, "not asked for".__str__) == written
        assert kept.text("another", content, "another".__str__) == "another"
    for path in own_cache.glob("source_*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert kept.text("source", contents[0], "made anew".__str__) == "made anew"


def test_what_follows_from_objects_is_made_each_time(own_cache: Path) -> None:
    for made_now in ("first", "second"):
        assert kept.text("source", (object(), 1), made_now.__str__) == made_now
    assert list(own_cache.iterdir()) == []


SCRIPT = """
import json, sys
import torch
torch.manual_seed(0)
from their_model import Model
from mpc_gym.compiled.fingerprint import fingerprint
from mpc_gym.compiled.trace import trace
from mpc_gym import PendulumDynamics, NeuralDynamics

module = Model()
point = [torch.tensor([0.3, -0.2]).double(), torch.tensor([0.7]).double()]
point += [p.detach().double() for p in module.parameters()]
value = trace(module, 2, 1).replay(point).tolist()
others = [fingerprint(each, (3, 1, 0)) for each in (PendulumDynamics(), NeuralDynamics(3, 1))]
print(json.dumps([value, "torch._dynamo" in sys.modules, fingerprint(module, (2, 1, 0)), others]))
"""


def test_another_process_finds_the_graph_until_the_module_changes(tmp_path: Path) -> None:
    (tmp_path / "their_model.py").write_text(SOURCE)

    def run(seed: int) -> list[Any]:
        environment = {
            **os.environ,
            "MPC_GYM_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
            "PYTHONHASHSEED": str(seed),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-c", SCRIPT]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return list(json.loads(found.stdout))

    with ThreadPoolExecutor() as pool:  # two at once
        first, second = pool.map(run, (1, 2))
    again = run(3)
    assert (first[1], again[1]) == (True, False)
    assert first[0] == second[0] == again[0]
    assert first[2:] == second[2:] == again[2:]
    assert None not in (first[2], *first[3])
    (tmp_path / "their_model.py").write_text(SOURCE.replace("GAIN = 2.0", "GAIN = 3.0"))
    changed = run(4)
    assert changed[1]
    assert changed[0] != first[0]
