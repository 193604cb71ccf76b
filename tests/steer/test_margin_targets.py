"""What parameters reach a margin ratio: where there is none to reach."""

import pytest

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.steer.margin_targets import gamma_for, tau_for


@pytest.mark.parametrize("call", [lambda: gamma_for([7, 7, 7], 2.0), lambda: gamma_for({1: 7, 0: 7}, 2.0, ridge=0.1),
                                  lambda: tau_for([7, 7, 7], 2.0, ridge=0.1)])
def test_equal_counts_have_nothing_to_steer(call):
    with pytest.raises(OutsideTheory) as error:
        call()
    assert str(error.value) == ("equal counts have no minority whose margins could be steered: VSLoss.ce(counts) leads "
                                "to equal ones")


def test_the_counts_may_be_a_counter_in_any_order():
    assert gamma_for({2: 1, 3: 1, 0: 100, 1: 100}, 10**0.5, remedy="ldt") == pytest.approx(0.25)


def test_a_remedy_without_a_gamma_is_refused():
    with pytest.raises(InvalidInput) as error:
        gamma_for([5, 1], 1.0, remedy="ldam")
    assert str(error.value) == "remedy must be one of vs, cdt, ldt, got 'ldam'"
