"""The solution as a node of autograd's graph."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mpc_gym.compiled import ProgramTooLarge
from mpc_gym.models import PendulumCost, PendulumDynamics
from mpc_gym.mpc import MPC
from mpc_gym.mpc.native import backend as native

HORIZON = 8


def test_an_instance_that_did_not_converge_has_zero_gradient_and_the_others_their_own(
    pendulum, paper_mpc
):
    mpc = paper_mpc(pendulum)
    x_init = pendulum.x_init[:8]
    with torch.no_grad():
        needed = mpc(x_init).iterations
    mpc.max_iterations = int(needed.median())
    done = needed <= mpc.max_iterations
    assert done.any()
    assert not done.all()

    x_all = x_init.clone().requires_grad_()
    with pytest.warns(UserWarning, match="did not converge"):
        plan = mpc(x_all)
    assert torch.equal(plan.converged, done)
    plan.controls.square().sum().backward()
    together = {name: p.grad for name, p in mpc.named_parameters()}
    assert (x_all.grad[~done] == 0).all()

    mpc.zero_grad()
    x_done = x_init[done].clone().requires_grad_()
    mpc(x_done).controls.square().sum().backward()
    assert torch.equal(x_all.grad[done], x_done.grad)
    assert all(torch.equal(together[name], p.grad) for name, p in mpc.named_parameters())


@pytest.mark.parametrize("options", [{}, {"differentiate": "unrolled", "backend": "torch"}])
def test_nothing_converged_gives_zero_gradients_and_exactly_one_warning(
    pendulum, paper_mpc, options, recwarn
):
    mpc = paper_mpc(pendulum, max_iterations=1, **options)
    x_init = pendulum.x_init[:2].requires_grad_()
    for _ in range(3):
        plan = mpc(x_init)
        assert not plan.converged.any()
        assert (plan.iterations == 1).all()
        (plan.controls.sum() + plan.states.sum() + plan.cost.sum()).backward()
    assert (x_init.grad == 0).all()
    assert all((p.grad == 0).all() for p in mpc.parameters())
    ours = [w for w in recwarn if "did not converge" in str(w.message)]
    assert len(ours) == 1
    assert "2 of 2" in str(ours[0].message)
    assert ours[0].filename == __file__, "the warning points at the line that called"


def test_as_many_may_lack_a_gradient_without_a_warning_as_are_expected_to(
    pendulum, paper_mpc, recwarn
):
    mpc = paper_mpc(pendulum)
    x_init = pendulum.x_init[:8].requires_grad_()
    needed = mpc(x_init).iterations
    mpc.max_iterations = int(needed.median())
    share = (needed > mpc.max_iterations).double().mean().item()
    mpc.expected_unconverged = share
    assert mpc(x_init).converged.double().mean() == 1 - share < 1
    assert not [w for w in recwarn if "did not converge" in str(w.message)]
    mpc.expected_unconverged = 0.5 * share
    with pytest.warns(UserWarning, match="did not converge"):
        mpc(x_init)


def test_no_warning_where_no_gradient_was_asked_for(pendulum, paper_mpc, recwarn):
    with torch.no_grad():
        paper_mpc(pendulum, max_iterations=1)(pendulum.x_init[:2])
    assert not [w for w in recwarn if "did not converge" in str(w.message)]


def test_the_gradient_of_the_cost_is_that_of_the_cost_at_fixed_controls(paper, paper_mpc):
    """The envelope theorem, with every control inside its bounds or clamped by them."""
    mpc = paper_mpc(paper, HORIZON)
    x_init = paper.x_init[:4].requires_grad_()
    tensors = [x_init, *mpc.parameters()]
    plan = mpc(x_init)
    x, total = x_init, 0.0
    for u in plan.controls.detach().unbind(1):
        total = total + mpc.cost(x, u)
        x = mpc.dynamics(x, u)
    expected = torch.autograd.grad(total.sum(), tensors, allow_unused=True, materialize_grads=True)
    for found, wanted in zip(torch.autograd.grad(plan.cost.sum(), tensors), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


def test_a_parameter_overwritten_before_backward_is_an_error(pendulum, paper_mpc):
    mpc = paper_mpc(pendulum, HORIZON)
    loss = mpc(pendulum.x_init[:2]).controls.sum()
    with torch.no_grad():
        mpc.dynamics.gravity.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_gradient_penalty_is_that_of_the_unrolled_solver(pendulum):
    """The incoming gradient is constant here: all of the second derivative is the plan's own."""
    found = {}
    for name, options in {
        "unrolled": {"differentiate": "unrolled", "backend": "torch"},
        "torch": {"backend": "torch"},
        "native": {"backend": "native"},
    }.items():
        mpc = MPC(pendulum.dynamics(), pendulum.cost(), HORIZON, tolerance=1e-10, **options)
        x_init = pendulum.x_init[:2].requires_grad_()
        plan = mpc(x_init)
        (gradient,) = torch.autograd.grad(plan.controls.sum(), x_init, create_graph=True)
        (plan.controls.sum() + gradient.square().sum()).backward()
        found[name] = [x_init.grad, *(p.grad for p in mpc.parameters())]
    for backend in ("torch", "native"):
        for ours, unrolled in zip(found[backend], found["unrolled"], strict=True):
            torch.testing.assert_close(ours, unrolled, rtol=1e-6, atol=1e-6)


def test_a_learner_that_differentiates_through_its_own_step_learns_the_right_thing(backend):
    """Model-agnostic meta-learning: one gradient step on the model, then the loss of the plan."""
    x_init = torch.tensor([[0.9, 0.4, -0.5]], dtype=torch.float64)
    length = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    mpc = MPC(PendulumDynamics(max_speed=None), PendulumCost(), 6, backend=backend, tolerance=1e-10)

    def controls(length):
        return torch.func.functional_call(mpc, {"dynamics.length": length}, (x_init,)).controls

    def loss_after_a_step(length):
        (slope,) = torch.autograd.grad(controls(length).sum(), length, create_graph=True)
        return controls(length - 0.01 * slope).square().sum()

    loss = loss_after_a_step(length)
    (slope,) = torch.autograd.grad(loss, length)
    step = 1e-5
    ahead, behind = (
        loss_after_a_step((length + sign * step).detach().requires_grad_()) for sign in (1, -1)
    )
    quotient = (ahead - behind).detach() / (2 * step)
    torch.testing.assert_close(slope, quotient, rtol=1e-6, atol=1e-8)


def second_derivative(plan, x_init):
    (gradient,) = torch.autograd.grad(plan.controls.sum(), x_init, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x_init)[0]


def test_instances_that_did_not_converge_spoil_no_second_derivative(pendulum, paper_mpc):
    mpc = paper_mpc(pendulum)
    x_init = pendulum.x_init[:8].clone()
    with torch.no_grad():
        mpc.max_iterations = int(mpc(x_init).iterations.median())
    x_init.requires_grad_()
    with pytest.warns(UserWarning, match="did not converge"):
        plan = mpc(x_init)
    together = second_derivative(plan, x_init)
    done = plan.converged
    assert (together[~done] == 0).all()
    x_done = x_init[done].detach().requires_grad_()
    alone = second_derivative(mpc(x_done), x_done)
    assert alone.any()
    torch.testing.assert_close(together[done], alone)


def test_the_derivative_of_an_unclamped_control_can_be_differentiated(pendulum, backend):
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), HORIZON, backend=backend, tolerance=1e-10)
    x_init = pendulum.x_init[:6].clone().requires_grad_()

    def slope(x_init):
        plan = mpc(x_init, unclamped=True)
        assert (plan.controls[:, 0].abs() == 2).any()
        (found,) = torch.autograd.grad(plan.unclamped.sum(), x_init, create_graph=True)
        return found

    direction = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((slope(x_init) * direction).sum(), x_init)
    step = 1e-6 * direction
    quotient = (slope(x_init + step) - slope(x_init - step)).detach() / 2e-6
    # the Hessian of each is symmetric only where the derivative is that of a function
    pulled = (found * direction).sum(-1)
    torch.testing.assert_close(pulled, (quotient * direction).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "differentiate",
    [
        lambda mpc, x: torch.func.grad(lambda y: mpc(y).cost.sum())(x),
        lambda mpc, x: torch.func.jacrev(lambda y: mpc(y).controls)(x),
        lambda mpc, x: torch.func.vmap(lambda y: mpc(y[None]).controls)(x),
        lambda mpc, x: torch.func.jvp(lambda y: mpc(y).cost, (x,), (x,)),
        lambda mpc, x: torch.func.grad(
            lambda p: torch.func.functional_call(mpc, p, (x,)).cost.sum()
        )({name: p.detach() for name, p in mpc.named_parameters()}),
        lambda mpc, x: torch.autograd.functional.jacobian(lambda y: mpc(y).cost, x, vectorize=True),
        lambda mpc, x: torch.autograd.functional.jacobian(
            lambda y: mpc(y).cost, x, vectorize=True, strategy="forward-mode"
        ),
    ],
    ids=["grad", "jacrev", "vmap", "jvp", "parameters", "vectorize", "forward-mode"],
)
def test_other_ways_to_differentiate_are_refused_with_the_one_to_use(
    differentiate, pendulum, paper_mpc
):
    mpc = paper_mpc(pendulum, HORIZON)
    with pytest.raises(TypeError, match=r"torch\.autograd\.grad.*batch of start states"):
        differentiate(mpc, pendulum.x_init[:2])


def test_a_derivative_too_long_to_compile_is_the_references(pendulum, monkeypatch, recwarn):
    def too_long(_):
        raise ProgramTooLarge("the program has more than 7 scalar operations")

    monkeypatch.setattr(native, "sensitivity_stages", too_long)
    x_init = pendulum.x_init[:4]
    found = {}
    for backend in ("torch", "auto"):
        mpc = MPC(pendulum.dynamics(), pendulum.cost(), HORIZON, backend=backend)
        x = x_init.clone().requires_grad_()
        plan = mpc(x, unclamped=True)
        with torch.no_grad():
            mpc.dynamics.gravity.data += 1.0  # not seen by autograd: the values are the solve's
        (plan.controls.square().sum() + plan.unclamped.sum()).backward()
        found[backend] = [x.grad, *(p.grad for p in mpc.parameters())]
        mpc(x).cost.sum().backward()
    for ours, expected in zip(found["auto"], found["torch"], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-8)
    ours = [
        w for w in recwarn if "differentiating with the slow PyTorch reference" in str(w.message)
    ]
    assert len(ours) == 1
    assert ours[0].filename == __file__
    mpc = MPC(pendulum.dynamics(), pendulum.cost(), HORIZON, backend="native")
    with pytest.raises(ProgramTooLarge):
        mpc(x_init.requires_grad_()).cost.sum().backward()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_first_plan_inside_a_checkpoint_has_the_same_gradient(pendulum, backend):
    """What the checkpoint does with saved tensors must not reach those of checks and tracing."""

    def gradient(wrap):
        mpc = MPC(pendulum.dynamics(), pendulum.cost(), HORIZON, -10, 10, backend=backend)
        x = pendulum.x_init[:3].clone().requires_grad_()
        wrap(lambda y: mpc(y).controls.square(), x).sum().backward()
        return x.grad

    plain = gradient(lambda function, x: function(x))
    assert plain.abs().min() > 1e-3
    for reentrant in (False, True):
        found = gradient(partial(checkpoint, use_reentrant=reentrant))
        torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("first", [True, False])
def test_a_step_of_training_is_the_same_under_torch_compile(pendulum, first):
    """The controller runs as it is, between what is compiled before and after it."""

    def losses(wrap):
        encoder = torch.nn.Linear(3, 3, dtype=torch.float64)
        torch.nn.init.eye_(encoder.weight)
        torch.nn.init.zeros_(encoder.bias)
        mpc = MPC(pendulum.dynamics(), pendulum.cost(), HORIZON, -10, 10)
        if not first:
            mpc(pendulum.x_init[:3])
        loss = wrap(lambda x: mpc(torch.tanh(encoder(x))).controls.square().sum())
        value = loss(pendulum.x_init[:3])
        value.backward()
        return value.detach(), encoder.weight.grad

    found, expected = losses(partial(torch.compile, backend="eager")), losses(lambda step: step)
    torch.testing.assert_close(found, expected)
    assert expected[1].abs().max() > 0.1
