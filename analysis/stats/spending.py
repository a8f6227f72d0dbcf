"""How much of its alpha a step may spend at each look at its seeds, so that all looks together spend no more than it.

A step that is looked at with 3, 6 and 12 seeds is not three independent questions: the later means hold the earlier
seeds. Given that nothing was answered before, an error at the next look is less likely than it would be alone. So the
parts of alpha need not be added up. The distribution of a normal mean that crossed no earlier limit is carried from
look to look, and each limit is set so that crossing it for the first time has just the probability that is to be spent.

Source: Armitage, McPherson and Rowe 1969, "Repeated significance tests on accumulating data", for the integral from
look to look; Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", for limits at looks that were
not planned; Kim and DeMets 1987, "Design and analysis of group sequential tests based on the type I error spending rate
function", for spending in proportion to a power of the data; Jennison and Turnbull 2000, "Group Sequential Methods with
Applications to Clinical Trials", chapter 19.3, for Gauss's nodes and for limits as p-values, which serve tests with
unknown variance too.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from analysis.stats._noise import Floats

NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)  # between the two limits of a look
HALVINGS = 40  # of the interval that holds a limit
POWER = 1.0  # of the seeds, to which what is spent is proportional
SPENT = 0.85  # of alpha in all: the rest is kept for the looks at few seeds, where the noise is known worst


class Spending:
    """What each of several steps has spent of its alpha, look by look.

    Attributes:
        seeds: At the last test of each step, 0 before the first, shape (steps,).
        share: The level of that test as a share of the step's alpha, shape (steps,); before the first, what one seed
            would have.
    """

    def __init__(self, steps: int, alpha: float, most_seeds: float) -> None:
        """Begin with nothing spent.

        Args:
            steps: How many.
            alpha: The probability of an error that each step may make at all looks together. Where it turns out to be
                larger, because other steps are answered, the shares are a little smaller than they need to be.
            most_seeds: With which all is spent.
        """
        self.alpha, self.most_seeds = alpha, most_seeds
        self.seeds, self.share = np.zeros(steps), self.spent(np.ones(steps))
        # of the normal mean that has crossed no limit so far: where it may be, and how likely that is
        self._place, self._mass = np.zeros((steps, len(NODES))), np.full((steps, len(NODES)), 1 / len(NODES))

    def spent(self, seeds: Floats) -> Floats:
        """Return the share of its alpha that a step has spent once it was tested with so many seeds."""
        return SPENT * np.minimum(seeds / self.most_seeds, 1.0) ** POWER

    @property
    def left(self) -> NDArray[np.bool_]:
        """Which steps have something left to spend, shape (steps,)."""
        some: NDArray[np.bool_] = self.seeds < self.most_seeds
        return some

    def test(self, seeds: Floats, tested: NDArray[np.bool_]) -> None:
        """Spend what a test may, where there is one: a step must have some left, and more seeds than at the last.

        Args:
            seeds: Of each step, shape (steps,).
            tested: Which steps are tested, shape (steps,).
        """
        which = np.flatnonzero(tested)
        if not len(which):
            return
        bit = self.alpha * (self.spent(seeds[which]) - self.spent(self.seeds[which]))
        common = self.seeds[which] / seeds[which]  # of the information, with the last test
        new = np.sqrt(1 - common)[:, None]
        place, mass = np.sqrt(common)[:, None] * self._place[which], self._mass[which]
        low, high = np.zeros(len(which)), -ndtri(bit / 2)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            crossing = 2 * (mass * ndtr((-middle[:, None] - place) / new)).sum(axis=1)  # it is symmetric
            low, high = np.where(crossing > bit, middle, low), np.where(crossing > bit, high, middle)
        at = high[:, None] * NODES
        gap = (at[:, None, :] - place[:, :, None]) / new[:, :, None]
        density = (mass[:, :, None] * np.exp(-(gap**2) / 2)).sum(axis=1) / new / np.sqrt(2 * np.pi)
        self._place[which], self._mass[which] = at, density * high[:, None] * WEIGHTS
        self.share[which], self.seeds[which] = 2 * ndtr(-high) / self.alpha, seeds[which]
