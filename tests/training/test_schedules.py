"""Learning rates step by step, against torch's own schedulers where it has them."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from xbench.errors import XbenchError
from xbench.training.schedules import (
    compute_rate,
    count_warmup_steps,
    explain_long_warmup,
    make_schedule,
    read_rates,
)
from xbench.training.settings import TrainingSettings

STEPS, BASE, MINIMUM = 20, 0.4, 0.1


def rates(schedule: str, steps: int = STEPS, **changes) -> list[float]:
    return [compute_rate(s, steps=steps, base=BASE, schedule=schedule, **changes) for s in range(steps)]


def rates_of(make_scheduler) -> list[float]:
    """The rates of a scheduler of torch that moves once a step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE)
    scheduler = make_scheduler(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def after_warmup(make_scheduler, warmup: int):
    def make(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [rise, make_scheduler(optimizer)], [warmup])

    return make


def decay_linearly(steps: int):
    return lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, MINIMUM / BASE, steps)


class TestAgainstTorch:
    def test_cosine(self):
        expected = rates_of(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, MINIMUM))
        assert rates("cosine", minimum=MINIMUM) == pytest.approx(expected)

    def test_cosine_after_a_warmup(self):
        expected = rates_of(after_warmup(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS - 4, MINIMUM), 4))
        assert rates("cosine", minimum=MINIMUM, warmup=4) == pytest.approx(expected)

    def test_linear(self):
        assert rates("linear", minimum=MINIMUM) == pytest.approx(rates_of(decay_linearly(STEPS)))

    def test_linear_after_a_warmup(self):
        expected = rates_of(after_warmup(decay_linearly(STEPS - 4), 4))
        assert rates("linear", minimum=MINIMUM, warmup=4) == pytest.approx(expected)

    def test_step(self):
        expected = rates_of(lambda o: lr_scheduler.MultiStepLR(o, [STEPS // 2, STEPS * 3 // 4]))
        assert rates("step") == pytest.approx(expected)

    def test_constant_after_a_warmup(self):
        expected = rates_of(lambda o: lr_scheduler.LinearLR(o, start_factor=1 / 6, total_iters=5))
        assert rates("constant", warmup=5) == pytest.approx(expected)

    def test_decay_after_a_stable_part(self):
        def make(optimizer):
            stable = lr_scheduler.ConstantLR(optimizer, factor=1.0)
            return lr_scheduler.SequentialLR(optimizer, [stable, decay_linearly(4)(optimizer)], [16])

        assert rates("wsd", minimum=MINIMUM) == pytest.approx(rates_of(make))


def test_a_constant_rate_is_exact():
    assert rates("constant") == [BASE] * STEPS


def test_a_warmup_rises_and_reaches_the_full_rate_after_its_last_step():
    assert rates("constant", warmup=3)[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "step"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_runs_begin_with_the_full_rate_and_stay_above_the_minimum(schedule, steps):
    found = rates(schedule, steps, minimum=0.001)
    assert found[0] == BASE
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0.001


def test_the_rate_of_milestones_does_not_fall_below_the_minimum():
    assert rates("step", minimum=0.02)[-1] == 0.02


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [(0, 10, 0), (0.0, 10, 0), (7, 10, 7), (1, 10, 1), (0.1, 30, 3), (0.001, 30, 1), (0.5, 5, 2)],
)
def test_warmups_as_numbers_and_as_shares(warmup, steps, expected):
    assert count_warmup_steps(warmup, steps) == expected


class TestLongWarmups:
    @pytest.mark.parametrize(
        ("schedule", "warmup", "steps"),
        [("constant", 9, 10), ("cosine", 9, 10), ("wsd", 8, 10), ("step", 5, 10), ("step", 0.5, 10)],
    )
    def test_the_longest(self, schedule, warmup, steps):
        assert explain_long_warmup(TrainingSettings(schedule=schedule, warmup=warmup), steps) is None
        longer = TrainingSettings(schedule=schedule, warmup=count_warmup_steps(warmup, steps) + 1)
        assert "too long for a run of 10 steps" in explain_long_warmup(longer, steps)

    def test_longer_than_the_run(self):
        assert explain_long_warmup(TrainingSettings(warmup=1000), 1) == (
            "a warm-up of 1,000 steps is too long for a run of 1 step: no step would have the full learning "
            "rate"
        )

    def test_into_the_decay(self):
        assert explain_long_warmup(TrainingSettings(schedule="wsd", warmup=90), 100) == (
            "a warm-up of 90 steps is too long for a run of 100 steps: schedule = 'wsd' begins to decay "
            "after 80 steps"
        )

    def test_no_schedule_is_made(self):
        with pytest.raises(XbenchError, match="too long"):
            make_schedule(TrainingSettings(warmup=10), (0.1,), 10)


class TestGroups:
    def optimizer(self, rate=0.5):
        groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.1}]
        return torch.optim.Adam(groups, lr=rate)

    def test_each_rate_is_scaled_on_its_own(self):
        training, optimizer = TrainingSettings(schedule="linear"), self.optimizer()
        schedule = make_schedule(training, read_rates(training, optimizer, "it"), 4)
        for step, share in enumerate((1.0, 0.75, 0.5, 0.25)):
            schedule.set_rates(optimizer, step)
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
                [0.5 * share, 0.1 * share]
            )

    def test_rates_that_are_tensors_are_filled(self):
        training, rate = TrainingSettings(schedule="linear"), torch.tensor(0.5)
        optimizer = self.optimizer(rate)
        schedule = make_schedule(training, read_rates(training, optimizer, "it"), 4)
        schedule.set_rates(optimizer, 2)
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == 0.25

    def test_full_rates_are_not_read_from_a_state_dict(self):
        training, optimizer = TrainingSettings(schedule="linear"), self.optimizer()
        schedule = make_schedule(training, read_rates(training, optimizer, "it"), 4)
        schedule.set_rates(optimizer, 3)
        resumed = self.optimizer()
        again = make_schedule(training, read_rates(training, resumed, "it"), 4)
        resumed.load_state_dict(optimizer.state_dict())
        again.set_rates(resumed, 1)
        assert [group["lr"] for group in resumed.param_groups] == pytest.approx([0.375, 0.075])

    def test_without_a_schedule_no_rates_are_read(self):
        assert read_rates(TrainingSettings(clip_norm=1.0), object(), "it") is None
        assert make_schedule(TrainingSettings(), None, 4) is None

    def test_an_optimizer_without_groups(self):
        with pytest.raises(XbenchError, match="no param_groups"):
            read_rates(TrainingSettings(schedule="cosine"), object(), "it")

    @pytest.mark.parametrize("group", [{"params": []}, {"params": [], "lr": None}])
    def test_a_group_without_a_rate(self, group):
        optimizer = self.optimizer()
        optimizer.param_groups.append(group)
        with pytest.raises(XbenchError, match="no 'lr'"):
            read_rates(TrainingSettings(warmup=1), optimizer, "it")

    def test_a_minimum_above_the_rate_of_a_group(self):
        with pytest.raises(XbenchError, match=r"^min_lr = 0\.2 is above the lr of 'it', 0\.1"):
            read_rates(TrainingSettings(schedule="cosine", min_lr=0.2), self.optimizer(), "it")
