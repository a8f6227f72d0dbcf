"""Count the steps that each candidate answers at the number of seeds that its budget has room for.

`python records/default-choice/judge.py` reads trials.csv and costs.csv and writes answers.csv; with `--final` it judges
by the program's own rule too (analysis/stats/answers.py), on 500 draws. It does what point 4 of README.md says.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

HERE = Path(__file__).parent
PARENTS = {
    "stage_ratio": "baseline",
    "patchify_stem": "stage_ratio",
    "depthwise_conv": "patchify_stem",
    "increase_width": "depthwise_conv",
    "inverted_bottleneck": "increase_width",
    "move_up_depthwise": "inverted_bottleneck",
    "kernel_5": "move_up_depthwise",
    "kernel_7": "move_up_depthwise",
    "kernel_9": "move_up_depthwise",
    "kernel_11": "move_up_depthwise",
    "gelu": "kernel_7",
    "fewer_activations": "gelu",
    "fewer_norms": "fewer_activations",
    "layer_norm": "fewer_norms",
    "separate_downsampling": "layer_norm",
}
RUNGS = ["baseline", *PARENTS]
# Effects of all steps (rows) from the means of all rungs (columns), and back: a rung is the sum of its path's steps.
STEPS = np.array([[(r == s) * 1.0 - (r == PARENTS[s]) for r in RUNGS] for s in PARENTS])
PATHS = np.linalg.inv(np.vstack([np.eye(len(RUNGS))[0], STEPS]))
DRAWS, FINAL_DRAWS, LEVEL = 2000, 500, 0.05
SEEDS_OF_BUDGET = 6.4
ROUNDING = 0.02**2 / 12  # variance of percentages of 5,000 images, which are rounded to whole images


def squeeze(variances: np.ndarray, df: int) -> tuple[np.ndarray, float, float]:
    """Draw each rung's variance towards the common one.

    Source: Smyth 2004, "Linear models and empirical Bayes methods", section 6.2.

    Returns:
        The moderated variances, the prior's variance, its degrees of freedom.
    """
    z = np.log(np.maximum(variances, ROUNDING))
    e = z - special.digamma(df / 2) + np.log(df / 2)
    left = e.var(ddof=1) - special.polygamma(1, df / 2)
    if left <= 0:
        return np.full_like(variances, variances.mean()), float(variances.mean()), np.inf
    low, high = 1e-3, 1e6  # trigamma falls: bisect for its value `left`
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if special.polygamma(1, middle) > left else (low, middle)
    prior_df = 2 * low
    prior = float(np.exp(e.mean() + special.digamma(prior_df / 2) - np.log(prior_df / 2)))
    return (prior_df * prior + df * variances) / (prior_df + df), prior, prior_df


def answered(values: np.ndarray) -> np.ndarray:
    """Return which of the 15 steps have an answer, of values (rungs, seeds)."""
    seeds = values.shape[1]
    shared, _, prior_df = squeeze(values.var(1, ddof=1), seeds - 1)
    df = min(prior_df + 2 * (seeds - 1), len(RUNGS) * (seeds - 1))
    t = STEPS @ values.mean(1) / np.sqrt(np.abs(STEPS) @ shared / seeds)
    p = 2 * stats.t.sf(np.abs(t), df)
    order, result = np.argsort(p), np.zeros(len(p), bool)
    for rank, step in enumerate(order):  # the 16th, the recipe's own step, has been rejected before these
        if p[step] * (len(p) - rank) > LEVEL:
            break
        result[step] = True
    return result


def answered_by_the_program(values: np.ndarray) -> int:
    """Return how many of the 15 steps help or hurt by the rule of analysis/stats."""
    from analysis.stats.answers import judge

    verdicts = judge(dict(zip(RUNGS, values, strict=True)), list(PARENTS.items()), margin=0.2).verdict
    return int(verdicts.isin(["helps", "hurts"]).sum())


def expect(values: np.ndarray, seeds: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the expected number of answers at so many seeds, and what it comes from."""
    k = values.shape[1]
    shared, _, _ = squeeze(values.var(1, ddof=1), k - 1)
    effects = STEPS @ values.mean(1)
    noise = np.abs(STEPS) @ shared / k
    spread = max(0.01, (1.4826 * np.median(np.abs(effects))) ** 2 - noise.mean())
    prior = np.diag([1e-6, *[1 / spread] * len(PARENTS)])  # of the first rung and the effects
    precision = PATHS.T @ np.diag(k / shared) @ PATHS + prior
    cov = np.linalg.inv(precision)
    mean = cov @ PATHS.T @ (values.mean(1) * k / shared)
    counts, final = [], []
    for draw in range(DRAWS):
        truth = PATHS @ rng.multivariate_normal(mean, cov)
        study = truth[:, None] + rng.normal(size=(len(RUNGS), seeds)) * np.sqrt(shared)[:, None]
        counts.append(answered(study).sum())
        if "--final" in sys.argv and draw < FINAL_DRAWS:
            final.append(answered_by_the_program(study))
    return {
        "noise": np.sqrt(shared.mean()),
        "median_effect": np.median(np.abs(effects)),
        "effect_spread": np.sqrt(spread),
        "mean_top1": values.mean(),
        "answers_in_trials": answered(values).sum(),
        "expected_answers": np.mean(counts),
    } | ({"expected_answers_final_rule": np.mean(final)} if final else {})


def main() -> None:
    """Judge all candidates and write the table."""
    trials = pd.read_csv(HERE / "trials.csv")
    costs = pd.read_csv(HERE / "costs.csv", index_col="candidate").ratio
    rows = []
    for name, runs in trials[trials.kind == "modern"].groupby("candidate", sort=False):
        if len(runs) < 2 * len(RUNGS):  # stopped before its end
            continue
        values = runs.pivot(index="rung", columns="seed", values="top1").loc[RUNGS].dropna(axis=1).to_numpy()
        seeds = int(SEEDS_OF_BUDGET / costs[name])
        found = expect(values, seeds, np.random.default_rng(0))
        rows.append({"candidate": name, "trial_seeds": values.shape[1], "cost": costs[name], "seeds": seeds} | found)
    table = pd.DataFrame(rows).sort_values("expected_answers", ascending=False).round(3)
    table.to_csv(HERE / "answers.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
