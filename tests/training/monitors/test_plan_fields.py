"""What a plan says of the monitors: clips held out, and findings that end the run."""

import json

import pytest
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.plans.changes import edited_plan
from tandem_wan.training.plans.compare import compare_plans
from tandem_wan.training.plans.limits import plan_findings, require_allowed
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.reading import plan_json, read_plan
from tandem_wan.training.plans.reasons import reason_for
from tandem_wan.wan.errors import UserError


def test_both_are_off_by_default_and_in_plans_from_before_they_were_there():
    values = json.loads(plan_json(TrainingPlan()))
    del values["held_out"], values["stop_on"]
    plan = read_plan(json.dumps(values))
    assert (plan.held_out, plan.stop_on) == (0, ())


def test_both_can_be_changed_by_name_and_come_back_from_json():
    plan = edited_plan(TrainingPlan(), {"held_out": 2, "stop_on": ["overtraining"]})
    assert (plan.held_out, plan.stop_on) == (2, ("overtraining",))
    assert read_plan(plan_json(plan)) == plan
    assert "held_out: 0 in a, 2 in b" in compare_plans(TrainingPlan(), plan)
    assert "one in ten" in reason_for("held_out", TrainingPlan()).why


def test_fewer_than_none_cannot_be_held_out():
    with pytest.raises(UserError, match="held_out is -1"):
        TrainingPlan(held_out=-1)


@pytest.mark.parametrize(("clips", "held_out", "refused"), [(20, 10, False), (20, 11, True)])
def test_more_than_half_of_the_clips_is_refused_before_anything_loads(clips, held_out, refused):
    plan = TrainingPlan(preset="character", held_out=held_out)
    counts = Counts(clips, float(clips), 0.0)
    found = [f for f in plan_findings(plan, counts) if "held_out" in f.fix]
    assert [f.level for f in found] == ["refusal"] * refused
    if refused:
        with pytest.raises(UserError, match=r"holds out 11 of 20 clips.*Set held_out to 2"):
            require_allowed(plan, counts)
