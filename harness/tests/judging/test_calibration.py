"""The rule on false and on true data: rates that come out again, and that tell a sound rule from one that says yes."""

import numpy as np
import pytest
from circuit_claims.judging.calibration import DRAWS, Calibration, FalseAlarm, calibrate
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.judging.verdicts import apply_rule

CLAIM = Claim.model_validate({
    "id": "TY-01", "paper": "toy", "title": "t", "locus": "s", "quantity": "q", "unit": "u", "trust": "P",
    "margin_reason": "r", "subjects": ("m",), "text": "none", "controls": ("far",), "cost": "seconds",
    "kind": "at_least", "expected": 0.0, "margin": 0.0,
})  # fmt: skip
Z = 1.6448536269514722


def measured(value, sd=1.0):
    return Measurement("q", float(value), Interval(value - Z * sd, value + Z * sd))


def rule(claim, measurement):
    return apply_rule(claim, measurement).outcome


def test_a_sound_rule_on_the_edge_calls_a_twentieth_reproduced():
    """Truth at the edge: the low end is above it in 5 %; 200 draws stay below 11 % but for one time in 3,000."""
    found = calibrate(CLAIM, rule, {"truth at the edge": lambda rng: measured(rng.normal())}, {})
    (alarm,) = found.false_alarms
    assert alarm.draws == DRAWS
    assert 0.0 < alarm.rate < 0.11
    assert alarm.interval[0] <= alarm.rate <= alarm.interval[1]


def test_a_rule_that_always_says_yes_is_seen():
    found = calibrate(CLAIM, rule, {"no signal": lambda rng: measured(5.0), "far": lambda rng: measured(-9.0)}, {})
    assert (found.worst.how, found.worst.rate) == ("no signal", 1.0)


def test_rates_come_out_again_and_each_way_has_its_own_numbers():
    drawn = {"one": [], "two": []}

    def way(name):
        def draw(rng):
            drawn[name].append(value := rng.normal())
            return measured(value)

        return draw

    ways = {name: way(name) for name in drawn}
    assert calibrate(CLAIM, rule, ways, {}) == calibrate(CLAIM, rule, ways, {})
    assert drawn["one"][:DRAWS] == drawn["one"][DRAWS:]
    assert not np.allclose(drawn["one"][:DRAWS], drawn["two"][:DRAWS])


def test_an_oracle_that_is_not_reproduced_is_blind():
    found = calibrate(CLAIM, rule, {}, {"strong": lambda: measured(9.0), "weak": lambda: measured(0.5)})
    assert [oracle.how for oracle in found.blind] == ["weak"]
    assert found.worst is None


def test_a_finding_calibrates_the_claims_own_rule_and_says_what_it_is_without_the_instrument():
    finding = Finding(
        measured(9.0), {"far": lambda: measured(-9.0)}, {"false": lambda rng: measured(-9.0)},
        {"true": lambda: measured(9.0)}, {"n_beta = 0": lambda: measured(9.0)},
    )  # fmt: skip
    assert finding.calibration_for(CLAIM).false_alarms == (FalseAlarm("false", {"contradicted": DRAWS}),)
    assert finding.calibration_for(CLAIM).blind == ()
    assert finding.without_for(CLAIM) == {"n_beta = 0": "reproduced"}
    assert Finding(measured(9.0), {}).calibration_for(CLAIM) == Calibration()


@pytest.mark.parametrize("outcomes", [{"reproduced": 3, "inconclusive": 197}, {"contradicted": 200}])
def test_a_false_alarm_counts_all_outcomes(outcomes):
    alarm = FalseAlarm("x", outcomes)
    assert alarm.rate == outcomes.get("reproduced", 0) / 200
    with pytest.raises(TypeError):
        alarm.outcomes["reproduced"] = 0  # type: ignore[index]
