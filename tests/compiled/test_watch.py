"""Everything that forward reaches is seen to change, and nothing else makes it compile again."""

import collections
import dataclasses
import functools
import sys
import types
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from mpc_gym.compiled import UnsupportedOperation, compile_module
from mpc_gym.compiled.watch import Watch, watched

GOAL = 0.5
SETTINGS = {"goal": 0.5, "nested": {"goal": [0.5]}}
UNRELATED = 0


@dataclasses.dataclass
class Config:
    goal: float = 0.5


class Slotted:
    __slots__ = ("goal",)

    def __init__(self) -> None:
        self.goal = 0.5


class Own:
    def __init__(self) -> None:
        self.inner = Config()
        self.me = self  # a cycle

    def distance(self, x: Tensor) -> Tensor:
        return x - self.inner.goal


class Namespace:
    goal = 0.5


class Base(nn.Module):
    """x - goal + u, with a goal that is kept in one of the usual ways."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)  # not used

    def goal_now(self) -> object:
        raise NotImplementedError

    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state - self.goal_now() + control


Change = Callable[[nn.Module], object]
WAYS: dict[str, tuple[type[nn.Module], Change]] = {}


def way(change: Change) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """A model whose goal is 0.5, and what makes it 0.8."""

    def register(kind: type[nn.Module]) -> type[nn.Module]:
        WAYS[kind.__name__] = kind, change
        kind.__name__ = "Goal"  # code is built once for a name and what it computes
        return kind

    return register


def keeping(name: str, make: Callable[[], object]) -> type[Base]:
    class Keeps(Base):
        def __init__(self) -> None:
            super().__init__()
            self.kept = make()

    Keeps.__name__ = name
    return Keeps


@way(lambda m: setattr(m, "kept", 0.8))
class Number(keeping("", lambda: 0.5)):
    def goal_now(self) -> object:
        return self.kept


@way(lambda m: m.kept.__setitem__(0, 0.8))
class List(keeping("", lambda: [0.5])):
    def goal_now(self) -> object:
        return self.kept[0]


@way(lambda m: m.kept["a"].__setitem__("b", 0.8))
class Dictionary(keeping("", lambda: {"a": {"b": 0.5}})):
    def goal_now(self) -> object:
        return self.kept["a"]["b"]


@way(lambda m: setattr(m, "kept", (0.8,)))
class Tuple(keeping("", lambda: (0.5,))):
    def goal_now(self) -> object:
        return self.kept[0]


@way(lambda m: setattr(m, "kept", torch.tensor(0.8)))
class TensorReplaced(keeping("", lambda: torch.tensor(0.5))):
    def goal_now(self) -> object:
        return self.kept


@way(lambda m: m.kept.fill_(0.8))
class TensorInPlace(TensorReplaced):
    pass


@way(lambda m: m.kept.data.fill_(0.8))
class TensorData(TensorReplaced):
    pass


@way(lambda m: m.kept.numpy().fill(0.8))
class TensorThroughNumpy(TensorReplaced):
    pass


@way(lambda m: m.kept.data.__setitem__(0, 8))
class IntegerBuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor([5]))

    def goal_now(self) -> object:
        return 0.1 * self.kept


@way(lambda m: m.kept.data.fill_(0.8))
class FloatBuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.tensor(0.5))

    def goal_now(self) -> object:
        return self.kept


@way(lambda m: m.kept.data.fill_(0.8))
class Parameter(keeping("", lambda: nn.Parameter(torch.tensor(0.5)))):
    def goal_now(self) -> object:
        return self.kept


@way(lambda m: setattr(m, "kept", np.array([0.8])))
class ArrayReplaced(keeping("", lambda: np.array([0.5]))):
    def goal_now(self) -> object:
        return torch.as_tensor(self.kept)


@way(lambda m: m.kept.fill(0.8))
class ArrayInPlace(ArrayReplaced):
    pass


@way(lambda m: setattr(m.kept, "goal", 0.8))
class Dataclass(keeping("", Config)):
    def goal_now(self) -> object:
        return self.kept.goal


@way(lambda m: setattr(m.kept, "goal", 0.8))
class SimpleNamespace(keeping("", lambda: types.SimpleNamespace(goal=0.5))):
    def goal_now(self) -> object:
        return self.kept.goal


@way(lambda m: setattr(m.kept, "goal", 0.8))
class ObjectWithSlots(keeping("", Slotted)):
    def goal_now(self) -> object:
        return self.kept.goal


@way(lambda m: setattr(m.kept.inner, "goal", 0.8))
class OwnObject(keeping("", Own)):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.kept.distance(state) + control


@way(lambda m: setattr(m.kept[0].inner, "goal", 0.8))
class ObjectInList(keeping("", lambda: [Own()])):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return self.kept[0].distance(state) + control


@way(lambda m: globals().__setitem__("GOAL", 0.8))
class Global(Base):
    def goal_now(self) -> object:
        return GOAL


def read_global() -> float:
    return GOAL


def read_settings() -> float:
    return sum(SETTINGS["nested"]["goal"][i] for i in range(1))


@way(lambda m: globals().__setitem__("GOAL", 0.8))
class GlobalOfHelper(Base):
    def goal_now(self) -> object:
        return read_global()


@way(lambda m: SETTINGS["nested"]["goal"].__setitem__(0, 0.8))
class ModuleLevelDictionary(Base):
    def goal_now(self) -> object:
        return read_settings()


def closure() -> tuple[Callable[[], float], Callable[[float], None]]:
    goal = 0.5

    def read() -> float:
        return goal

    def write(value: float) -> None:
        nonlocal goal
        goal = value

    return read, write


@way(lambda m: m.write(0.8))
class Closure(Base):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = closure()

    def goal_now(self) -> object:
        return self.read()


@way(lambda m: setattr(type(m), "kept", 0.8))
class ClassAttribute(Base):
    kept = 0.5

    def goal_now(self) -> object:
        return self.kept


@way(lambda m: setattr(Namespace, "goal", 0.8))
class AttributeOfOtherClass(Base):
    def goal_now(self) -> object:
        return Namespace.goal


@way(lambda m: setattr(m, "kept", functools.partial(float, 0.8)))
class Partial(keeping("", lambda: functools.partial(float, 0.5))):
    def goal_now(self) -> object:
        return self.kept()


@way(lambda m: SETTINGS.__setitem__("goal", 0.8))
class Property(Base):
    @property
    def goal(self) -> float:
        return SETTINGS["goal"]

    def goal_now(self) -> object:
        return self.goal


def forward_of_later(self: nn.Module, state: Tensor, control: Tensor) -> Tensor:
    return state - 0.8 + control


@way(lambda m: setattr(type(m), "forward", forward_of_later))
class ForwardOfClass(Base):
    def forward(self, state: Tensor, control: Tensor) -> Tensor:
        return state - 0.5 + control


@way(lambda m: setattr(m, "forward", functools.partial(forward_of_later, m)))
class ForwardOfInstance(Base):
    def goal_now(self) -> object:
        return 0.5


@way(lambda m: m.register_forward_hook(lambda module, given, out: out - 0.3))
class Hook(ForwardOfInstance):
    pass


@way(lambda m: m.kept[0].weight.data.fill_(0.8))
class UnregisteredModule(keeping("", lambda: [nn.Linear(1, 1, bias=False)])):
    def __init__(self) -> None:
        super().__init__()
        self.kept[0].weight.data.fill_(0.5)

    def goal_now(self) -> object:
        return self.kept[0].weight[0, 0]


@way(lambda m: setattr(m, "layer", nn.Linear(1, 1, bias=False).requires_grad_(False)))
class Submodule(Base):
    def goal_now(self) -> object:
        return 0.5 if self.layer.bias is not None else 0.8


@way(lambda m: m.eval())
class TrainingFlag(Base):
    def goal_now(self) -> object:
        return 0.5 if self.training else 0.8


@way(lambda m: setattr(m, "untied", nn.Parameter(torch.tensor(0.3))))
class TiedParameters(Base):
    def __init__(self) -> None:
        super().__init__()
        self.tied = self.untied = nn.Parameter(torch.tensor(0.0))

    def goal_now(self) -> object:
        return self.tied + self.untied + 0.5


@way(lambda m: m.kept.append(m.kept.pop() + 0.3))
class ListOfALibrary(keeping("", lambda: collections.UserList([0.5]))):
    def goal_now(self) -> object:
        return self.kept[0]


@way(lambda m: m.kept.__setitem__(0, 8))
class Bytes(keeping("", lambda: bytearray([5]))):
    def goal_now(self) -> object:
        return self.kept[0] / 10


SHARED = Own()


@way(lambda m: setattr(SHARED.inner, "goal", 0.8))
class WeakReference(keeping("", lambda: weakref.ref(SHARED))):
    def goal_now(self) -> object:
        return self.kept().inner.goal


def goal_of_function() -> object:
    return goal_of_function.goal


goal_of_function.goal = 0.5


@way(lambda m: setattr(goal_of_function, "goal", 0.8))
class FunctionAttribute(Base):
    def goal_now(self) -> object:
        return goal_of_function()


@functools.lru_cache
def goal_remembered() -> object:
    return SETTINGS["goal"]


@way(lambda m: (SETTINGS.update(goal=0.8), goal_remembered.cache_clear()))
class Remembered(Base):
    def goal_now(self) -> object:
        return goal_remembered()


imported = types.ModuleType("imported_by_a_model")
imported.goal = 0.5
sys.modules[imported.__name__] = imported


@way(lambda m: setattr(imported, "goal", 0.8))
class ImportedInside(Base):
    def goal_now(self) -> object:
        from imported_by_a_model import goal

        return goal


class Meta(type):
    goal = 0.5


class WithMeta(metaclass=Meta):
    pass


@way(lambda m: setattr(Meta, "goal", 0.8))
class MetaclassAttribute(Base):
    def goal_now(self) -> object:
        return WithMeta.goal


@way(lambda m: GLOBAL_HOOKS.append(register_module_forward_hook(lower_by_a_hook)))
class HookOfAllModules(ForwardOfInstance):
    pass


GLOBAL_HOOKS: list[torch.utils.hooks.RemovableHandle] = []


def lower_by_a_hook(module: nn.Module, given: object, out: Tensor) -> Tensor:
    return out - 0.3 if isinstance(module, HookOfAllModules) else out


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(SETTINGS, "goal", 0.5)
    monkeypatch.setitem(SETTINGS, "nested", {"goal": [0.5]})
    monkeypatch.setattr(ClassAttribute, "kept", 0.5)
    monkeypatch.setattr(Namespace, "goal", 0.5)
    monkeypatch.setattr(ForwardOfClass, "forward", ForwardOfClass.forward)
    monkeypatch.setitem(globals(), "GOAL", 0.5)
    goal_remembered.cache_clear()
    monkeypatch.setattr(SHARED.inner, "goal", 0.5)
    monkeypatch.setattr(goal_of_function, "goal", 0.5)
    monkeypatch.setattr(imported, "goal", 0.5)
    monkeypatch.setattr(Meta, "goal", 0.5)
    yield
    while GLOBAL_HOOKS:
        GLOBAL_HOOKS.pop().remove()


@pytest.mark.parametrize("name", WAYS)
def test_a_goal_that_was_changed_in_any_usual_way_is_used_at_once(name: str) -> None:
    kind, change = WAYS[name]
    module = kind()
    compiled = compile_module(module, 1, 1)
    state, control = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    np.testing.assert_allclose(compiled.value(state, control), [2.5], atol=1e-6)
    change(module)
    expected = module(state, control).detach().numpy()
    np.testing.assert_allclose(expected, [2.2], atol=1e-6)
    np.testing.assert_allclose(compiled.value(state, control), expected, rtol=1e-12)


class WithHistory(Base):
    """Keeps things that its forward does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Own()

    def report(self) -> float:
        return UNRELATED + self.log.inner.goal

    def goal_now(self) -> object:
        return self.layer.weight.shape[0] * 0.5


def test_learning_and_what_forward_cannot_read_compile_nothing_again(monkeypatch) -> None:
    module = WithHistory()
    watch = Watch(module)
    module.layer.weight.data.add_(1.0)
    module.log.inner.goal = 7.0
    monkeypatch.setitem(globals(), "UNRELATED", 1)
    module.layer.weight.grad = torch.ones(1, 1)
    assert watch.unchanged()


def test_the_same_values_in_other_objects_give_the_same_key() -> None:
    for kind in (Dictionary, ArrayInPlace, Dataclass, TensorReplaced, ModuleLevelDictionary):
        assert Watch(kind()).key == Watch(kind()).key
    module = Number()
    watch = Watch(module)
    module.kept = float("0.5")
    assert watch.unchanged()
    module.layer.weight = nn.Parameter(torch.ones(1, 1))
    assert Watch(module).key == watch.key


def test_a_change_of_shape_or_default_dtype_is_seen() -> None:
    module = Parameter()
    watch = Watch(module)
    module.kept.data = torch.ones(3)
    assert not watch.unchanged()
    assert Watch(module).key != watch.key
    watch = Watch(module)
    torch.set_default_dtype(torch.float64)
    try:
        assert not watch.unchanged()
    finally:
        torch.set_default_dtype(torch.float32)


class Counting(Base):
    def __init__(self) -> None:
        super().__init__()
        self.record = Config(0.0)

    def goal_now(self) -> object:
        self.record.goal += 1.0
        return 0.5


class Caching(Base):
    kept: Tensor | None = None

    def goal_now(self) -> object:
        if self.kept is None:
            self.kept = torch.tensor(0.5)
        return self.kept


def test_what_changes_at_each_call_is_refused_and_what_the_first_call_keeps_is_not() -> None:
    with pytest.raises(UnsupportedOperation, match="each call of Counting changes"):
        compile_module(Counting(), 1, 1)
    compiled = compile_module(Caching(), 1, 1)
    np.testing.assert_allclose(compiled.value([2.0], [1.0]), [2.5], atol=1e-6)


def test_too_much_to_compare_at_each_call_is_refused_with_the_remedy() -> None:
    module = Base()
    module.table = list(map(str, range(5)))
    Watch(module)
    module.table = np.zeros(3_000_000)
    with pytest.raises(UnsupportedOperation, match=r"16 MB.*register_buffer"):
        watched(lambda: None, [module])
