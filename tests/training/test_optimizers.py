"""Automagic against its published rule in slow float64, and the bumps that 8-bit rates lose."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.optimizers.automagic import Automagic
from tandem_wan.training.optimizers.build import build_optimizer, mean_rate, norm_limit, set_rate
from tandem_wan.training.optimizers.names import AVAILABLE
from tandem_wan.training.plans.settings import ExpertSettings, OptimizerSettings


def parameter(*shape: int, seed: int = 0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def automagic(weight: torch.nn.Parameter, **changes) -> Automagic:
    settings = {"rate": 1e-4, "bump": 1e-6, "minimum": 1e-7, "maximum": 1e-3}
    return Automagic([weight], **(settings | changes))


def step(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, gradient) -> None:
    weight.grad = gradient.clone()
    optimizer.step()


def random_gradients(count: int, shape: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    trend = torch.randn(shape, generator=generator)
    return [trend + torch.randn(shape, generator=generator) for _ in range(count)]


class SlowAutomagic:
    """ai-toolkit's toolkit/optimizers/automagic.py, entry by entry, with rates that keep every bump."""

    def __init__(self, weight, *, rate, bump, minimum, maximum, beta2, weight_decay, clip) -> None:
        self.w = weight.detach().double().tolist()
        self.rows, self.columns = [0.0] * len(self.w), [0.0] * len(self.w[0])
        self.rates = [[rate] * len(self.columns) for _ in self.rows]
        self.positive: list[list[bool]] | None = None
        self.bump, self.minimum, self.maximum = bump, minimum, maximum
        self.beta2, self.decay, self.clip = beta2, weight_decay, clip

    def step(self, g: list[list[float]]) -> None:
        m, n = len(self.rows), len(self.columns)
        square = [[g[i][j] ** 2 + 1e-30 for j in range(n)] for i in range(m)]
        keep, new = self.beta2, 1 - self.beta2
        self.rows = [keep * self.rows[i] + new * sum(square[i]) / n for i in range(m)]
        self.columns = [
            keep * self.columns[j] + new * sum(square[i][j] for i in range(m)) / m for j in range(n)
        ]
        mean = sum(self.rows) / m
        u = [
            [g[i][j] / math.sqrt(self.rows[i] * self.columns[j] / mean) for j in range(n)]
            for i in range(m)
        ]
        rms = math.sqrt(sum(x * x for row in u for x in row) / (m * n))
        u = [[x / max(1.0, rms / self.clip) for x in row] for row in u]
        positive = [[x > 0 for x in row] for row in u]
        for i in range(m):
            for j in range(n):
                if self.positive is not None:
                    agrees = positive[i][j] == self.positive[i][j]
                    self.rates[i][j] += self.bump if agrees else -self.bump
                    self.rates[i][j] = min(max(self.rates[i][j], self.minimum), self.maximum)
                self.w[i][j] -= self.rates[i][j] * (u[i][j] + self.decay * self.w[i][j])
        self.positive = positive


@pytest.mark.parametrize("clip", [1.0, 0.05, 1e9])
def test_automagic_follows_its_rule_step_by_step(clip):
    settings = {
        "rate": 1e-2,
        "bump": 2e-3,
        "minimum": 1e-3,
        "maximum": 2e-2,
        "beta2": 0.99,
        "weight_decay": 0.1,
        "clip": clip,
    }
    weight = parameter(4, 6)
    fast, slow = Automagic([weight], **settings), SlowAutomagic(weight, **settings)
    for gradient in random_gradients(40, (4, 6)):
        step(fast, weight, gradient)
        slow.step(gradient.double().tolist())
        torch.testing.assert_close(
            weight.detach().double(),
            torch.tensor(slow.w, dtype=torch.float64),
            rtol=1e-4,
            atol=1e-5,
        )
    rates = torch.tensor(slow.rates, dtype=torch.float64)
    torch.testing.assert_close(fast.state[weight]["rate"].double(), rates, rtol=1e-4, atol=1e-7)
    assert fast.mean_rate() == pytest.approx(rates.mean().item(), rel=1e-4)


def test_500_unanimous_bumps_of_1e_6_lead_from_1e_4_to_6e_4():
    # Rates kept in 8 bits stay at 1.02e-4 here.
    weight = parameter(8, 4)
    optimizer = automagic(weight)
    for _ in range(500):
        step(optimizer, weight, torch.ones(8, 4))
    assert optimizer.mean_rate() == pytest.approx(6.0e-4, rel=0.01)
    assert optimizer.state[weight]["rate"].min().item() == pytest.approx(6.0e-4, rel=0.01)


def test_each_expert_bumps_by_its_own_settings_within_its_own_bounds():
    settings = OptimizerSettings(name="automagic")
    high = ExpertSettings(rate=1e-4, bump=2e-6, minimum=1e-5, maximum=9e-4)
    low = ExpertSettings(rate=1e-4, bump=1e-6, minimum=8e-5, maximum=1e-3)
    for rates, risen, fallen in ((high, 9e-4, 1e-5), (low, 6e-4, 8e-5)):
        weight = parameter(8, 4)
        optimizer = build_optimizer([weight], settings, rates)
        for _ in range(501):  # the first has no sign to agree with
            step(optimizer, weight, torch.ones(8, 4))
        assert mean_rate(optimizer) == pytest.approx(risen, rel=1e-4)
        for index in range(600):
            step(optimizer, weight, torch.full((8, 4), -1.0 if index % 2 else 1.0))
        expected = max(risen - (600 - 1) * rates.bump, fallen)
        assert mean_rate(optimizer) == pytest.approx(expected, abs=2.1 * rates.bump)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5)], ids=str)
def test_a_vector_has_a_square_of_each_number_and_more_axes_are_matrices_of_their_own(shape):
    weight = torch.nn.Parameter(torch.zeros(shape))
    optimizer = automagic(weight, beta2=0.9, clip=1e9)
    random = torch.Generator().manual_seed(2)
    slow = [
        automagic(torch.nn.Parameter(torch.zeros(4, 5)), beta2=0.9, clip=1e9)
        for _ in range(3 if len(shape) == 3 else 0)
    ]
    exact, squares = torch.zeros(shape), torch.zeros(shape)
    rate, before = torch.full(shape, 1e-4), torch.zeros(shape)
    for index in range(10):
        gradient = torch.randn(shape, generator=random)
        step(optimizer, weight, gradient)
        for part, other in zip(gradient, slow, strict=True) if slow else ():
            step(other, other.param_groups[0]["params"][0], part)
        squares = 0.9 * squares + 0.1 * gradient.square()
        if index:
            rate = rate + torch.where((gradient > 0) == (before > 0), 1e-6, -1e-6)
        exact, before = exact - rate * gradient / squares.sqrt(), gradient
    if slow:
        exact = torch.stack([each.param_groups[0]["params"][0].detach() for each in slow])
    torch.testing.assert_close(weight.detach(), exact, rtol=1e-4, atol=1e-7)


def test_small_rates_beside_large_ones_keep_their_bumps():
    weight = parameter(2, 2)
    optimizer = automagic(weight, rate=3e-6, bump=1e-6, minimum=1e-7, maximum=1e-3)
    sign = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    for index in range(2000):
        # One entry turns all the time, the others never do.
        flip = torch.tensor([[1.0, 1.0], [1.0, -1.0 if index % 2 else 1.0]])
        step(optimizer, weight, sign * flip)
    rates = optimizer.state[weight]["rate"].flatten()
    torch.testing.assert_close(rates, torch.tensor([1e-3, 1e-3, 1e-3, 1e-7]))


def test_a_sign_that_turns_lowers_the_rate_by_one_bump():
    weight = parameter(3, 3)
    optimizer = automagic(weight, bump=1e-5)
    rates = []
    for direction in (1, 1, 1, -1, -1, 1):
        step(optimizer, weight, direction * torch.ones(3, 3))
        rates.append(optimizer.mean_rate())
    steps = [round((b - a) / 1e-5) for a, b in pairwise(rates)]
    assert rates[0] == pytest.approx(1e-4)
    assert steps == [1, 1, -1, 1, -1]


@given(seed=st.integers(0, 1000), minimum=st.floats(1e-6, 1e-4), span=st.floats(1.0, 50.0))
@settings(max_examples=30)
def test_no_rate_ever_leaves_its_bounds(seed, minimum, span):
    maximum = minimum * span
    weight = parameter(3, 4)
    optimizer = automagic(weight, rate=minimum, bump=minimum, minimum=minimum, maximum=maximum)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(30):
        step(optimizer, weight, torch.randn(3, 4, generator=generator).sign())
        rates = optimizer.state[weight]["rate"].double()
        assert rates.min() >= minimum * (1 - 1e-6)
        assert rates.max() <= maximum * (1 + 1e-6)


def test_no_update_is_larger_than_the_clip_allows():
    weight = parameter(6, 6)
    optimizer = automagic(weight, rate=1.0, minimum=1.0, maximum=1.0, clip=0.5)
    for gradient in random_gradients(10, (6, 6)):
        before = weight.detach().clone()
        step(optimizer, weight, gradient * 1e6)
        assert (weight.detach() - before).square().mean().sqrt() <= 0.5 + 1e-4


def test_weight_decay_is_decoupled_from_the_gradient():
    gradients = random_gradients(1, (4, 4))
    for scale in (1.0, 1e6):
        plain, decayed = parameter(4, 4), parameter(4, 4)
        start = plain.detach().clone()
        step(automagic(plain), plain, gradients[0] * scale)
        step(automagic(decayed, weight_decay=0.5), decayed, gradients[0] * scale)
        torch.testing.assert_close(plain - decayed, 1e-4 * 0.5 * start, rtol=1e-3, atol=1e-7)


def test_a_weight_without_gradient_stays_and_one_with_a_zero_gradient_stays_finite():
    weight, other = parameter(3, 3), parameter(3, 3, seed=1)
    optimizer = Automagic([weight, other], rate=1e-3, bump=1e-4, minimum=1e-4, maximum=1e-2)
    before = weight.detach().clone(), other.detach().clone()
    other.grad = torch.zeros(3, 3)
    optimizer.step()
    assert torch.equal(weight, before[0])
    assert torch.equal(other, before[1])
    step(optimizer, other, torch.ones(3, 3))
    assert other.isfinite().all()


@pytest.mark.parametrize("name", ["adamw", "automagic"])
def test_a_run_goes_on_bit_equal_from_its_state_dict(name):
    settings = OptimizerSettings(name=name, weight_decay=0.01)
    rates = ExpertSettings(rate=1e-3, bump=1e-4, minimum=1e-4, maximum=1e-2)
    gradients = random_gradients(40, (5, 3))
    whole = parameter(5, 3)
    optimizer = build_optimizer([whole], settings, rates)
    for gradient in gradients[:20]:
        step(optimizer, whole, gradient)
    resumed = torch.nn.Parameter(whole.detach().clone())
    second = build_optimizer([resumed], settings, rates)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert mean_rate(second) == mean_rate(optimizer)
    for gradient in gradients[20:]:
        step(optimizer, whole, gradient)
        step(second, resumed, gradient)
        assert torch.equal(whole, resumed)
    assert mean_rate(second) == mean_rate(optimizer)


ADAMWS = ("adamw", "adamw 8-bit", "adamw kahan", "adamw 8-bit kahan")


@pytest.mark.parametrize("name", ADAMWS)
def test_every_adamw_follows_the_textbook_on_small_float32_weights(name):
    settings = OptimizerSettings(name=name, beta2=0.99, weight_decay=0.1)
    weight = parameter(3, 4)
    optimizer = build_optimizer([weight], settings, ExpertSettings(rate=1e-2))
    # Loshchilov and Hutter 2019, algorithm 2.
    w = weight.detach().double().clone()
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    for t, gradient in enumerate(random_gradients(20, (3, 4)), 1):
        step(optimizer, weight, gradient)
        g = gradient.double()
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g * g
        update = (first / (1 - 0.9**t)) / ((second / (1 - 0.99**t)).sqrt() + 1e-8)
        w = w - 1e-2 * (update + 0.1 * w)
        torch.testing.assert_close(weight.detach().double(), w, rtol=1e-4, atol=1e-6)
    assert mean_rate(optimizer) == 1e-2


def test_every_available_optimizer_can_be_built():
    for name in AVAILABLE:
        built = build_optimizer([parameter(2, 2)], OptimizerSettings(name=name), ExpertSettings())
        assert isinstance(built, Automagic) == (name == "automagic")


@pytest.mark.parametrize("name", ["adamw", "automagic"])
def test_an_experts_own_beta2_and_clip_go_before_the_optimizers(name):
    settings = OptimizerSettings(name=name, beta2=0.9, clip=0.7)
    built = build_optimizer([parameter(2, 2)], settings, ExpertSettings(beta2=0.5, clip=0.3))
    group = built.param_groups[0]
    assert group.get("beta2", group.get("betas", (0, 0))[1]) == 0.5
    limit = norm_limit(built, settings, ExpertSettings(clip=0.3))
    assert limit == (math.inf if name == "automagic" else 0.3)
    assert group.get("clip", 0.3) == 0.3
    assert norm_limit(built, settings, ExpertSettings()) == (
        math.inf if name == "automagic" else 0.7
    )


def test_a_schedule_sets_the_rate_of_each_step_and_leaves_automagic_alone():
    rates = ExpertSettings(rate=1e-2, schedule="linear", warmup=1)
    weight = parameter(2, 2)
    optimizer = build_optimizer([weight], OptimizerSettings(), rates)
    seen = []
    for index in range(5):
        set_rate(optimizer, rates, index, 5)
        step(optimizer, weight, torch.ones(2, 2))
        seen.append(mean_rate(optimizer))
    assert seen == pytest.approx([0.5e-2, 1e-2, 0.75e-2, 0.5e-2, 0.25e-2])
    own = build_optimizer([weight], OptimizerSettings(name="automagic"), rates)
    set_rate(own, rates, 4, 5)
    assert mean_rate(own) == 1e-2


def test_the_settings_of_a_plan_reach_automagic():
    settings = OptimizerSettings(name="automagic", beta2=0.9, weight_decay=0.2, clip=0.7)
    rates = ExpertSettings(rate=1e-4, bump=2e-5, minimum=3e-5, maximum=4e-4)
    group = build_optimizer([parameter(2, 2)], settings, rates).param_groups[0]
    assert {key: group[key] for key in group if key not in ("params", "factor")} == {
        "rate": 1e-4,
        "bump": 2e-5,
        "minimum": 3e-5,
        "maximum": 4e-4,
        "beta2": 0.9,
        "weight_decay": 0.2,
        "clip": 0.7,
    }


def test_a_zero_is_a_number_and_not_a_missing_setting():
    rates = ExpertSettings(rate=1e-4, bump=0.0, minimum=0.0, maximum=1e-3)
    settings = OptimizerSettings(name="automagic")
    group = build_optimizer([parameter(2, 2)], settings, rates).param_groups[0]
    assert (group["bump"], group["minimum"]) == (0.0, 0.0)
