"""Advantages against cases computed by hand; γ is ½ so that they can be."""
import numpy as np
import pytest

from ltcore.rl.returns import advantages

REWARD, VALUE, FOLLOWING = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0]), np.array([20.0, 30.0, 40.0])
NEVER = np.zeros(3, dtype=bool)


def _at(t):
    return np.arange(3) == t


def test_returns_of_three_steps_end_in_the_value_of_the_state_that_follows():
    # From behind: 3 + ½·40 = 23, 2 + ½·23 = 13.5, 1 + ½·13.5 = 7.75, each less its value.
    assert advantages(REWARD, VALUE, FOLLOWING, NEVER, NEVER, 0.5, 1.0) == pytest.approx([-2.25, -6.5, -7.0])


def test_nothing_follows_a_termination():
    # Step 1 is the last of its episode: its return is 2, step 0's is 1 + ½·2; step 2 belongs to the next episode.
    assert advantages(REWARD, VALUE, FOLLOWING, _at(1), _at(1), 0.5, 1.0) == pytest.approx([-8.0, -18.0, -7.0])


def test_an_episode_that_is_cut_is_worth_what_was_seen_last():
    # Step 1 is cut where the value is 8: 2 + ½·8 = 6, 1 + ½·6 = 4; what comes after in the arrays is another episode.
    following = np.array([20.0, 8.0, 40.0])
    assert advantages(REWARD, VALUE, following, NEVER, _at(1), 0.5, 1.0) == pytest.approx([-6.0, -14.0, -7.0])


def test_generalised_advantages():
    # One-step errors: 1 + 10 − 10 = 1, 2 + 15 − 20 = −3, 3 + 20 − 30 = −7; each later one counts γλ = ¼ as much.
    assert advantages(REWARD, VALUE, FOLLOWING, NEVER, NEVER, 0.5, 0.5) == pytest.approx([1 - 3 / 4 - 7 / 16, -3 - 7 / 4, -7.0])


def test_generalised_advantages_do_not_reach_over_the_end_of_an_episode():
    following = np.array([20.0, 8.0, 40.0])  # cut after step 1: −14 there, and 1 − 14/4 before it
    assert advantages(REWARD, VALUE, following, NEVER, _at(1), 0.5, 0.5) == pytest.approx([1 - 14 / 4, -14.0, -7.0])


def test_the_last_step_of_an_update_can_be_the_last_of_its_episode():
    assert advantages(REWARD, VALUE, FOLLOWING, _at(2), _at(2), 0.5, 1.0) == pytest.approx([1 + 0.5 * (2 + 1.5) - 10, 2 + 1.5 - 20, -27.0])


def test_copies_do_not_touch_each_other():
    stacked = [np.stack([a, 2 * a], axis=1) for a in (REWARD, VALUE, FOLLOWING)]
    ended = np.stack([_at(1), NEVER], axis=1)
    found = advantages(*stacked, ended, ended, 0.5, 1.0)
    assert found[:, 0] == pytest.approx([-8.0, -18.0, -7.0])
    assert found[:, 1] == pytest.approx([-4.5, -13.0, -14.0])
