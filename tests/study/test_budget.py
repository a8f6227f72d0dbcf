import pytest

from roadmap.common.errors import UserError
from roadmap.study.budget import Budget


@pytest.mark.parametrize(
    ("text", "limit", "unit", "an_hour"),
    [
        ("60runs", 60, "runs", 1),
        ("10m", 1 / 6, "hours", 0.25),
        ("8h", 8, "hours", 0.25),
        ("3d", 72, "hours", 0.25),
        ("200gpuh", 200, "device-hours", 1),
        ("2.5CoreH", 2.5, "device-hours", 1),
        ("500eur", 500, "eur", 1.5),
    ],
)
def test_a_budget_counts_runs_time_or_money(text: str, limit: float, unit: str, an_hour: float) -> None:
    budget = Budget.parse(text, jobs=4, price=1.5)
    assert (budget.limit, budget.unit) == (pytest.approx(limit), unit)
    assert budget.cost(3600) == pytest.approx(an_hour)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("60", "'60' is no budget. Say a number and its unit, such as 60runs, 10m"),
        ("runs", "'runs' is no budget"),
        ("0h", "'0h' is no budget"),
        ("-5h", "'-5h' is no budget"),
        ("60 runs", "'60 runs' is no budget"),
        ("60seeds", "'60seeds' is no budget"),
        ("1.5runs", "no whole number of runs"),
        ("8h", "says nothing without the number of jobs at once. Say it with --jobs"),
        ("500eur", "is money. Say with --price"),
    ],
)
def test_what_is_no_budget_or_cannot_be_counted_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^--budget: .*{message}"):
        Budget.parse(text)
