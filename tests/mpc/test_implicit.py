"""The solution as a node of autograd's graph."""

import pytest
import torch

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


def test_second_derivatives_are_refused_rather_than_wrong(pendulum, paper_mpc):
    mpc = paper_mpc(pendulum, HORIZON)
    x_init = pendulum.x_init[:2].requires_grad_()
    loss = mpc(x_init).controls.square().sum()
    (gradient,) = torch.autograd.grad(loss, x_init, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
