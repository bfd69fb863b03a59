"""The MPC module as a user meets it."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from mpc_gym.models import (
    Dynamics,
    LinearDynamics,
    NeuralDynamics,
    PendulumCost,
    PendulumDynamics,
    QuadraticCost,
)
from mpc_gym.mpc import MPC

HORIZON = 8


@pytest.fixture
def mpc(pendulum, paper_mpc):
    return paper_mpc(pendulum, HORIZON)


@pytest.fixture
def x_init(pendulum):
    return pendulum.x_init[:4]


def double_integrator(horizon=HORIZON, **options):
    A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
    cost = QuadraticCost(torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64))
    return MPC(LinearDynamics(A, B), cost, horizon, **options)


def solve(mpc, *args, **kwargs):
    with torch.no_grad():
        plan = mpc(*args, **kwargs)
    assert plan.converged.all()
    return plan


class TestPlan:
    def test_shapes_types_and_the_first_state(self, mpc, x_init):
        plan = solve(mpc, x_init)
        assert plan.states.shape == (4, HORIZON, 3)
        assert plan.controls.shape == (4, HORIZON, 1)
        assert plan.cost.shape == plan.converged.shape == plan.iterations.shape == (4,)
        assert plan.converged.dtype == torch.bool
        assert plan.iterations.dtype == torch.long
        assert torch.equal(plan.states[:, 0], x_init)
        for t in range(HORIZON - 1):
            torch.testing.assert_close(
                plan.states[:, t + 1], mpc.dynamics(plan.states[:, t], plan.controls[:, t])
            )

    def test_a_batch_of_one_and_a_horizon_of_one(self, pendulum, paper_mpc, x_init):
        """With one stage only the control's own penalty is left, and zero is best."""
        plan = solve(paper_mpc(pendulum, 1), x_init[:1])
        assert plan.controls.tolist() == [[[0.0]]]
        torch.testing.assert_close(plan.states[:, 0], x_init[:1])

    def test_a_horizon_of_one_has_gradients(self):
        mpc = double_integrator(1, control_low=None, control_high=None)
        with torch.no_grad():
            mpc.cost.c[-1] = 0.5
        mpc(torch.ones(1, 2).double()).controls.sum().backward()
        assert mpc.cost.c.grad[-1].item() == pytest.approx(-1 / 0.01)
        assert mpc.cost.C.grad[-1].item() == pytest.approx(0.5 / 0.01**2)
        assert (mpc.dynamics.A.grad == 0).all()

    def test_float32_in_float32_out_and_solved_in_float64(self, mpc, x_init):
        expected = solve(mpc, x_init.float().double())
        plan = solve(mpc, x_init.float())
        assert {plan.states.dtype, plan.controls.dtype, plan.cost.dtype} == {torch.float32}
        torch.testing.assert_close(plan.controls, expected.controls.float(), rtol=1e-5, atol=1e-6)

    def test_gradients_come_in_the_dtype_of_what_they_belong_to(self, x_init):
        mpc = MPC(NeuralDynamics(3, 1, (4,)), PendulumCost(), HORIZON).float()
        x_init = x_init.float().requires_grad_()
        plan = mpc(x_init)
        plan.controls.sum().backward()
        assert plan.converged.all()
        assert x_init.grad.dtype == torch.float32
        assert {p.grad.dtype for p in mpc.parameters()} == {torch.float32}

    def test_under_no_grad_nothing_is_kept(self, mpc, x_init):
        plan = solve(mpc, x_init)
        assert not plan.controls.requires_grad
        assert not plan.states.requires_grad
        assert not plan.cost.requires_grad

    def test_inference_mode_gives_the_same_plan(self, mpc, x_init):
        with torch.inference_mode():
            plan = mpc(x_init)
        assert torch.equal(plan.controls, solve(mpc, x_init).controls)

    def test_frozen_parameters_get_no_gradient_and_the_others_theirs(self, mpc, x_init):
        mpc(x_init).controls.square().sum().backward()
        expected = mpc.dynamics.gravity.grad
        mpc.zero_grad()
        mpc.cost.requires_grad_(False)
        mpc(x_init).controls.square().sum().backward()
        assert mpc.cost.C.grad is None
        assert torch.equal(mpc.dynamics.gravity.grad, expected)
        assert expected != 0

    def test_with_everything_frozen_the_plan_needs_no_gradient(self, mpc, x_init):
        assert not mpc.requires_grad_(False)(x_init).controls.requires_grad


class TestBounds:
    def test_no_bounds_give_the_riccati_solution(self):
        mpc = double_integrator(control_low=None, control_high=None)
        x_init = torch.tensor([[30.0, -20.0]], dtype=torch.float64)
        plan = solve(mpc, x_init)
        A, B = mpc.dynamics.A.detach(), mpc.dynamics.B.detach()
        Q, R = torch.diag(mpc.cost.C.detach()[:2]), mpc.cost.C.detach()[2:]
        P, gains = Q, []
        for _ in range(HORIZON - 1):
            K = (B.T @ P @ A) / (R + B.T @ P @ B)
            P = Q + A.T @ P @ (A - B @ K)
            gains.append(K)
        x = x_init[0]
        for t, K in enumerate(reversed(gains)):
            torch.testing.assert_close(plan.controls[0, t], -K @ x)
            x = A @ x + B @ (-K @ x)
        assert plan.controls[0, -1].item() == 0.0

    @pytest.mark.parametrize(("low", "high"), [(-3.0, None), (None, 3.0)])
    def test_a_bound_on_one_side_binds_there_alone(self, low, high):
        x_init = torch.tensor([[30.0, 0.0], [-30.0, 0.0]], dtype=torch.float64)
        controls = solve(double_integrator(control_low=low, control_high=high), x_init).controls
        assert controls.min() == (low or controls.min())
        assert controls.max() == (high or controls.max())
        assert controls.abs().max() > 3

    def test_bounds_of_each_stage_hold_for_that_stage(self):
        high = torch.linspace(0.1, 5, HORIZON).double()[:, None]
        mpc = double_integrator(control_low=-high, control_high=high)
        controls = solve(mpc, torch.tensor([[-40.0, 0.0]]).double()).controls[0]
        torch.testing.assert_close(controls[:3], high[:3], rtol=0, atol=0)
        assert (controls.abs() <= high).all()

    def test_equal_bounds_leave_no_choice(self):
        given = torch.linspace(-1, 1, HORIZON).double()[:, None]
        mpc = double_integrator(control_low=given, control_high=given)
        plan = solve(mpc, torch.ones(2, 2).double())
        assert torch.equal(plan.controls, given.expand(2, -1, -1))

    def test_a_number_bounds_every_control(self):
        dynamics = LinearDynamics(torch.eye(2).double(), torch.eye(2).double())
        mpc = MPC(dynamics, QuadraticCost(torch.ones(4).double()), 3, -0.5, 0.5)
        plan = solve(mpc, torch.tensor([[9.0, -9.0]]).double())
        assert plan.controls[0, 0].tolist() == [-0.5, 0.5]

    def test_integer_bounds_are_numbers_too(self):
        assert double_integrator(control_low=-2, control_high=2).control_high.item() == 2.0

    def test_a_tensor_is_copied_unless_it_is_to_be_learned(self):
        fixed, learned = torch.tensor([-1.0]), nn.Parameter(torch.tensor([1.0]))
        mpc = double_integrator(control_low=fixed, control_high=learned)
        fixed.fill_(5.0)
        assert mpc.control_low.item() == -1.0
        assert mpc.control_high is learned
        assert "control_high" in dict(mpc.named_parameters())

    def test_a_bound_that_is_computed_passes_its_gradient_on(self):
        x_init = torch.tensor([[-40.0, 0.0]]).double()
        raw = torch.tensor([0.3], requires_grad=True)
        computed = double_integrator(control_high=raw.exp())
        learned = double_integrator(control_high=nn.Parameter(raw.detach().exp()))
        for mpc in (computed, learned):
            mpc(x_init).controls.sum().backward()
        assert learned.control_high.grad != 0
        torch.testing.assert_close(raw.grad, learned.control_high.grad * raw.detach().exp())


class TestNotFinite:
    def batch(self, x_init, bad):
        spoiled = torch.cat((x_init[:1], bad[None], x_init[1:]))
        return spoiled, torch.tensor([0, 2, 3, 4])

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("starts", [1, 3])
    def test_a_start_state_that_is_not_finite_spoils_its_own_instance_only(
        self, mpc, x_init, value, starts
    ):
        mpc.starts = starts
        x_clean = x_init.clone().requires_grad_()
        clean = mpc(x_clean)
        (clean.controls.square().sum() + clean.cost.sum()).backward()
        expected = {name: p.grad.clone() for name, p in mpc.named_parameters()}
        mpc.zero_grad()

        x_all, good = self.batch(x_init, torch.tensor([1.0, value, 0.0]).double())
        x_all.requires_grad_()
        with pytest.warns(UserWarning, match="1 of 5 control problems did not converge"):
            plan = mpc(x_all)
        (plan.controls.square().sum() + plan.cost[good].sum()).backward()

        assert plan.converged.tolist() == [True, False, True, True, True]
        assert plan.cost[1].isnan()
        assert (plan.controls[1] == 0).all()
        assert (x_all.grad[1] == 0).all()
        for name in ("states", "controls", "cost", "iterations"):
            assert torch.equal(getattr(plan, name)[good], getattr(clean, name)), name
        assert torch.equal(x_all.grad[good], x_clean.grad)
        for name, p in mpc.named_parameters():
            assert torch.equal(p.grad, expected[name]), name

    def test_so_does_a_warm_start(self, mpc, x_init):
        warm_start = torch.zeros(4, HORIZON, 1).double()
        warm_start[2, 3] = float("nan")
        with torch.no_grad():
            plan = mpc(x_init, warm_start=warm_start)
        assert plan.converged.tolist() == [True, True, False, True]
        good = torch.tensor([0, 1, 3])
        assert torch.equal(plan.controls[good], solve(mpc, x_init[good]).controls)

    def test_its_controls_are_as_near_zero_as_the_bounds_allow(self):
        mpc = double_integrator(control_low=0.5, control_high=2.0)
        with torch.no_grad():
            plan = mpc(torch.full((1, 2), float("nan")))
        assert (plan.controls == 0.5).all()

    @pytest.mark.parametrize("starts", [1, 2])
    def test_an_empty_batch_gives_an_empty_plan_and_zero_gradients(self, mpc, x_init, starts):
        mpc.starts = starts
        plan = mpc(x_init[:0])
        assert plan.controls.shape == (0, HORIZON, 1)
        assert plan.states.shape == (0, HORIZON, 3)
        assert plan.cost.shape == plan.converged.shape == (0,)
        plan.controls.sum().backward()
        assert all((p.grad == 0).all() for p in mpc.parameters())


class TestWarmStart:
    def test_from_the_solution_one_iteration_is_enough(self, mpc, x_init):
        cold = solve(mpc, x_init)
        warm = solve(mpc, x_init, warm_start=cold.controls)
        assert (warm.iterations == 1).all()
        torch.testing.assert_close(warm.controls, cold.controls, rtol=0, atol=1e-9)

    def test_it_is_clipped_to_the_bounds_and_may_be_float32(self, mpc, x_init):
        plan = solve(mpc, x_init, warm_start=torch.full((4, HORIZON, 1), 50.0))
        assert (plan.controls.abs() <= 2).all()
        torch.testing.assert_close(plan.controls, solve(mpc, x_init).controls)

    def test_it_has_no_gradient(self, mpc, x_init):
        warm_start = torch.zeros(4, HORIZON, 1, requires_grad=True)
        mpc(x_init, warm_start=warm_start).controls.sum().backward()
        assert warm_start.grad is None


class TestStarts:
    def test_more_starts_are_never_worse(self, cartpole, paper_mpc):
        x_init = cartpole.x_init[:6]
        one = solve(paper_mpc(cartpole), x_init)
        three = solve(paper_mpc(cartpole, starts=3), x_init)
        assert (three.cost <= one.cost + 1e-9).all()
        assert (three.cost < one.cost - 1.0).any(), "these states have several minima"

    def test_the_winner_does_not_depend_on_the_rest_of_the_batch(self, cartpole, paper_mpc):
        mpc = paper_mpc(cartpole, starts=3)
        together = solve(mpc, cartpole.x_init[:3])
        alone = solve(mpc, cartpole.x_init[1:2])
        assert torch.equal(together.controls[1:2], alone.controls)


class TestContext:
    class Track(nn.Module):
        def forward(self, state, control, context):
            return (state[..., 0] - context[..., 0]) ** 2 + 0.01 * control.square().sum(-1)

    def tracker(self):
        dynamics = double_integrator().dynamics
        return MPC(dynamics, self.Track(), HORIZON, -50, 50)

    def test_each_instance_follows_its_own(self):
        x_init = torch.zeros(3, 2).double()
        goals = torch.tensor([[1.0], [-1.0], [0.0]]).double()
        plan = solve(self.tracker(), x_init, context=goals)
        torch.testing.assert_close(plan.controls[0], -plan.controls[1])
        assert plan.states[0, -1, 0] > 0.5
        assert (plan.controls[2] == 0).all()

    def test_one_for_all_stages_is_the_same_as_one_for_each(self):
        x_init, goals = torch.zeros(2, 2).double(), torch.tensor([[1.0], [2.0]])
        stages = goals[:, None].expand(2, HORIZON, 1)
        plan = solve(self.tracker(), x_init, context=goals)
        assert torch.equal(plan.controls, solve(self.tracker(), x_init, context=stages).controls)

    def test_one_that_is_not_finite_spoils_its_own_instance_only(self):
        x_init = torch.zeros(2, 2).double()
        goals = torch.tensor([[float("nan")], [1.0]]).requires_grad_()
        with pytest.warns(UserWarning, match="1 of 2"):
            plan = self.tracker()(x_init, context=goals)
        assert plan.converged.tolist() == [False, True]
        plan.controls.sum().backward()
        assert goals.grad[0] == 0
        assert goals.grad[1] != 0


class TestModule:
    def test_a_deep_copy_and_a_pickle_plan_alike_and_on_their_own(self, mpc, x_init):
        expected = solve(mpc, x_init).controls
        twins = [copy.deepcopy(mpc), pickle.loads(pickle.dumps(mpc))]
        with torch.no_grad():
            mpc.dynamics.gravity.fill_(1.0)
        for twin in twins:
            assert torch.equal(solve(twin, x_init).controls, expected)

    def test_the_state_dict_holds_model_and_bounds(self, mpc, x_init):
        other = MPC(
            PendulumDynamics(gravity=3.0, max_speed=None),
            QuadraticCost(torch.ones(4).double()),
            HORIZON,
            -1.0,
            1.0,
            backend=mpc.backend,
        )
        stored = io.BytesIO()
        torch.save(mpc.state_dict(), stored)
        stored.seek(0)
        other.load_state_dict(torch.load(stored, weights_only=True))
        assert torch.equal(solve(other, x_init).controls, solve(mpc, x_init).controls)

    def test_its_settings_show_in_its_representation(self, mpc):
        assert f"horizon={HORIZON}, hessian='exact'" in repr(mpc)

    @pytest.mark.parametrize(
        ("dynamics", "cost", "low", "expected"),
        [
            (PendulumDynamics(), PendulumCost(), None, (3, 1)),
            (nn.Identity(), PendulumCost(), None, (None, 1)),
            (nn.Identity(), PendulumCost(), torch.zeros(2), (None, 2)),
            (nn.Identity(), QuadraticCost(torch.ones(5)), torch.zeros(2), (3, 2)),
        ],
    )
    def test_sizes_come_from_whatever_tells_them(self, dynamics, cost, low, expected):
        mpc = MPC(dynamics, cost, 3, control_low=low, control_high=None)
        assert (mpc.n_state, mpc.n_ctrl) == expected

    def test_a_training_loop_recovers_a_parameter(self, mpc, x_init):
        """The gradient of an imitation loss leads from wrong physics to the expert's."""
        target = solve(mpc, x_init).controls
        learner = copy.deepcopy(mpc).requires_grad_(False)
        gravity = learner.dynamics.gravity.fill_(13.0).requires_grad_()
        optimiser = torch.optim.Adam([gravity], lr=0.5)
        losses = []
        for _ in range(8):
            loss = (learner(x_init).controls - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.05 * losses[0]
        assert abs(gravity.item() - 10.0) < 1.0

    def test_it_is_a_layer_behind_a_network(self, x_init):
        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Linear(3, 2).double()
                self.mpc = double_integrator(control_low=-20.0, control_high=20.0)

            def forward(self, observation):
                return self.mpc(self.net(observation)).controls[:, 0]

        policy = Encoder()
        policy(x_init).sum().backward()
        assert policy.net.weight.grad.abs().min() > 0

    def test_a_parameter_that_dynamics_and_cost_share_gets_both_gradients(self):
        class SharedDynamics(Dynamics):
            n_state = n_ctrl = 1

            def __init__(self, gain):
                super().__init__()
                self.gain = gain

            def forward(self, state, control):
                return state + self.gain * control

        class SharedCost(nn.Module):
            def __init__(self, gain):
                super().__init__()
                self.gain = gain

            def forward(self, state, control):
                return (self.gain * state.square() + control.square()).sum(-1)

        gain = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        mpc = MPC(SharedDynamics(gain), SharedCost(gain), 2, None, None)
        mpc(torch.ones(1, 1).double()).controls[0, 0, 0].backward()
        # u_0 minimises u^2 + g (1 + g u)^2, so u_0 = -g^2 / (1 + g^3)
        g = 0.5
        expected = -(2 * g * (1 + g**3) - g**2 * 3 * g**2) / (1 + g**3) ** 2
        assert gain.grad.item() == pytest.approx(expected, rel=1e-10)
