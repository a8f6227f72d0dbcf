"""How much of alpha each look at a step may spend: all looks together err as often as is promised, and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from analysis.stats.spending import SPENT, Spending

LOOKS = st.lists(st.integers(2, 32), min_size=1, max_size=8, unique=True).map(sorted)
few = settings(max_examples=15, deadline=None)


def shares_at(seeds: list[int], alpha: float, most_seeds: float = 32) -> list[float]:
    spending, shares = Spending(1, alpha, most_seeds), []
    for n in seeds:
        spending.test(np.array([float(n)]), np.ones(1, dtype=bool))
        shares.append(float(spending.share[0]))
    return shares


def error_of(seeds: list[int], levels: list[float], draws: int = 20_000) -> float:
    """Return how often the mean of standard normal values is beyond its limit at any of these looks."""
    rng = np.random.default_rng(0)
    total, before, beyond = np.zeros(draws), 0, np.zeros(draws, dtype=bool)
    for n, level in zip(seeds, levels, strict=True):
        total += np.sqrt(n - before) * rng.normal(size=draws)
        beyond |= np.abs(total) / np.sqrt(n) > -ndtri(level / 2)
        before = n
    return float(beyond.mean())


@few
@given(LOOKS, st.sampled_from([0.05, 0.2]))
def test_all_looks_together_err_as_often_as_was_spent(seeds, alpha):
    levels = [alpha * share for share in shares_at(seeds, alpha)]
    promised = float(Spending(1, alpha, 32).spent(np.array(seeds[-1])) * alpha)
    assert error_of(seeds, levels) == pytest.approx(promised, abs=4 * np.sqrt(promised / 20_000))


@few
@given(LOOKS)
def test_looks_that_have_seeds_in_common_cost_less_than_their_parts_of_alpha_added_up(seeds):
    seeds = [n for n in seeds if n < 32] + [32]
    shares, parts = shares_at(seeds, 0.003), np.diff([0, *(SPENT * n / 32 for n in seeds)])
    assert shares[0] == pytest.approx(parts[0])
    assert all(share >= part * (1 - 1e-9) for share, part in zip(shares, parts, strict=True))
    assert max(shares) <= SPENT * (1 + 1e-9)


def test_nothing_is_left_once_all_seeds_were_looked_at():
    spending = Spending(2, 0.01, 32)
    spending.test(np.array([31.0, 40.0]), np.ones(2, dtype=bool))
    assert list(spending.left) == [True, False]
    assert spending.share[1] == pytest.approx(SPENT)


def test_one_look_at_all_seeds_has_all_that_is_to_be_spent():
    assert shares_at([32], 0.01) == pytest.approx([SPENT])


def test_a_smaller_level_has_the_smaller_shares_so_that_they_hold_for_larger_ones_too():
    small, large = (shares_at([3, 6, 12, 24, 32], alpha) for alpha in (0.003, 0.05))
    assert all(less <= more * (1 + 1e-9) for less, more in zip(small, large, strict=True))


def test_steps_spend_apart_and_a_step_that_is_not_tested_spends_nothing():
    spending = Spending(2, 0.003, 32)
    both, second = np.ones(2, dtype=bool), np.array([False, True])
    spending.test(np.array([3.0, 3.0]), both)
    before = spending.share[0]
    spending.test(np.array([9.0, 9.0]), second)
    assert (spending.share[0], spending.seeds[0]) == (before, 3)
    assert list(spending.share) == pytest.approx([shares_at([3], 0.003)[-1], shares_at([3, 9], 0.003)[-1]])
