"""Designs beyond the ladder: the same steps in other sets, to tell what each does by itself, at the end, or on average.

A ladder tells what a step does after those before it, and in no other company. A design here is a list of ordinary
rungs, each with some of the adopted steps. What network a set of steps makes does not depend on the order in which
they joined it: they are applied in the ladder's order (ResNet-200's first stage is as wide as its step "width up" says,
also where the stage ratio, which sets a width of its own, joins later). Sets that meet in one network share its runs,
with each other and with the ladder.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from roadmap.common.errors import UserError, unknown
from roadmap.ladder.fractions import Fraction, plan_fraction
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.references import SECTION, ReferenceNet, check_references
from roadmap.ladder.rung import Rung
from roadmap.ladder.schema import Published
from roadmap.ladder.subsets import Steps, content
from roadmap.ladder.table1 import read_table1

# Every design, and what it is.
DESIGNS = {
    "ladder": "one step after the other",
    "leave-one-out": "all steps, and all but each",
    "add-one": "the base, and each step alone on it",
    "orders": "the steps one after the other, in random orders",
    "pairs": "two steps: neither, each, both",
    "fractional": "some steps in planned combinations",
}
SAMPLED = ("orders", "fractional")  # those of which one can have more or less
SAMPLES, MOST_SAMPLES = 8, 10_000
ORDERS_SEED = 0  # of the stream that orders are drawn from: the same for all, so that more orders begin with the fewer


@dataclass(frozen=True)
class Design:
    """A design as it is asked for.

    Attributes:
        name: One of `DESIGNS`.
        steps: "pairs": the rungs of its two steps; "fractional": those of its steps.
        samples: "orders": how many to draw, "fractional": how many combinations; None takes the usual number.
    """

    name: str = "ladder"
    steps: tuple[str, ...] = ()
    samples: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no design, saying what it takes."""
        if self.name not in DESIGNS:
            raise unknown("design", self.name, DESIGNS)
        given = " ".join(self.steps)
        if self.name == "pairs" and (len(self.steps) != 2 or len(set(self.steps)) == 1):
            found = f"was given '{given}'" if given else "was given none"
            raise UserError(
                f"--design pairs: takes two steps, but {found}. Name two, such as --design pairs gelu layer_norm."
            )
        if self.name == "fractional":
            plan_fraction(self.steps, self.samples)
            return
        if self.name != "pairs" and given:
            raise UserError(f"--design {self.name}: takes no steps, but was given '{given}'. Leave that out.")
        if not 1 <= self.orders <= MOST_SAMPLES:
            raise UserError(f"--samples: is {self.orders}, but must be from 1 to {MOST_SAMPLES:,}.")

    @property
    def orders(self) -> int:
        """How many orders are drawn."""
        return SAMPLES if self.samples is None else self.samples

    @property
    def slug(self) -> str:
        """Its name in that of a folder."""
        return "-".join((self.name, *self.steps))

    def describe(self) -> str:
        """Say in words what it is."""
        if self.name == "fractional":
            return f"{len(self.steps)} steps in {len(plan_fraction(self.steps, self.samples).taken)} combinations"
        words = f"design {' '.join((self.name, *self.steps))}"
        return f"{words} ({self.orders} drawn)" if self.name == "orders" else words


@dataclass(frozen=True)
class Order:
    """The steps in one order: `steps[i]` leads from `rungs[i]` to `rungs[i + 1]`, the same rung if it changes nothing.

    Attributes:
        steps: The steps, by the ids of their rungs on the ladder.
        rungs: Ids of the design's rungs, one more than steps, from the base to all steps.
    """

    steps: tuple[str, ...]
    rungs: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A design's rungs, and what they are to each other.

    Attributes:
        design: What was asked for.
        rungs: In order; a rung's `parent` is the one that it is judged against, None for the one all else rests on.
        notes: What a user should know about steps that have no rung, a sentence each.
        orders: "orders": in the order in which they were drawn.
        square: "pairs": the ids of the rungs with neither, the first, the second and both steps.
        fraction: "fractional": which steps each rung has.
    """

    design: Design
    rungs: tuple[Rung, ...]
    notes: tuple[str, ...] = ()
    orders: tuple[Order, ...] = ()
    square: tuple[str, ...] = ()
    fraction: Fraction | None = None


def lay_out(ladder: Ladder, base: str, design: Design, references: Sequence[str] | None = None) -> Layout:
    """Return the rungs of a design, from a base, before any scaling, and the references behind them.

    Args:
        ladder: The ladder.
        base: Where it starts.
        design: The design.
        references: Their names; None takes those that the ladder names.

    Raises:
        UserError: If the base, a step of the design or a reference is unknown, or the ladder cannot be taken apart that
            way.
    """
    layout = _lay_out(ladder, base, design)
    names = ladder.reference_names if references is None else references
    known = ladder.reference_nets()
    check_references(names, "--references", known)
    return replace(layout, rungs=(*layout.rungs, *_references(layout, {name: known[name] for name in names})))


def _references(layout: Layout, nets: Mapping[str, ReferenceNet]) -> list[Rung]:
    """Return references as rungs under the study's recipe, judged against the network with all the design's steps."""
    ids = [rung.id for rung in layout.rungs]
    if same := [name for name in nets if name in ids]:
        raise UserError(f"--references: '{same[0]}' is a rung of this ladder too. Rename the rung.")
    whole = [rung.id for rung in layout.rungs if rung.id in ("all_steps", *layout.square[-1:])]
    last = whole or [rung.id for rung in layout.rungs if rung.adopted]
    return [
        Rung(
            id=name,
            label=net.label,
            section=SECTION,
            adopted=False,
            parent=last[-1],
            step=None,
            net=net.net,
            plain_start=False,
            recipe_steps=(),
            paper=_published(net.label),
            is_reference=True,
        )
        for name, net in nets.items()
    ]


def _published(label: str) -> Published:
    """Return what the paper's Table 1 prints of a network trained as the ladder's are; nothing if it has it not."""
    printed = [model for model in read_table1() if (model.label, model.training) == (label, "imagenet1k")]
    return Published(top1=printed[0].top1, gmacs=printed[0].gmacs) if printed else Published()


def _lay_out(ladder: Ladder, base: str, design: Design) -> Layout:
    climbed = ladder.climb(base)
    if design.name == "ladder":
        left = [entry.id for entry in ladder.rungs if entry.id not in {rung.id for rung in climbed}]
        return Layout(design, tuple(climbed), tuple(f"{ladder.why_not(name)}, so it has no rung." for name in left))
    steps = Steps(ladder, base, climbed)
    if not steps.single:
        raise UserError(f"--design {design.name}: this ladder adopts no step but the whole recipe from {base}.")
    layouts = {
        "leave-one-out": _leave_one_out,
        "add-one": _add_one,
        "orders": _orders,
        "pairs": _pairs,
        "fractional": _fractional,
    }
    layout = layouts[design.name](steps, design)
    ids = [rung.id for rung in layout.rungs]
    if twice := [name for name in ids if ids.count(name) > 1]:
        raise UserError(f"--design {design.name}: two rungs would be called '{twice[0]}'. Rename that of the ladder.")
    return layout


def _leave_one_out(steps: Steps, design: Design) -> Layout:
    """All steps; all but each, and but those that need it."""
    whole = steps.all_steps(None)
    rungs, notes = [whole], []
    for name in steps.path:
        left = [other for other in steps.path if other != name]
        along = steps.build(left).lacking  # and so not built
        label = f"without {steps.climbed[name].label}" + (f" (nor {steps.labels(along)})" if along else "")
        section = steps.climbed[name].section
        rung = steps.rung(left, id=f"without_{name}", label=label, section=section, parent=whole.id, of=name)
        if content(rung) == content(whole):
            notes.append(f"Leaving '{name}' out changes nothing here, so it has no rung.")
        else:
            rungs.append(rung)
    return Layout(design, tuple(rungs), tuple(notes))


def _add_one(steps: Steps, design: Design) -> Layout:
    """The start, the base under the full recipe where that is a step, each other step on it with what it needs."""
    recipe = frozenset(steps.recipe)
    leading = steps.path[: steps.path.index(steps.single[0])]
    rungs, notes = [steps.start, *(steps.climbed[name] for name in leading)], []
    base = steps.named(recipe, parent=steps.start.id)
    if base.id not in (rung.id for rung in rungs):  # the recipe is taken between other steps
        rungs.append(base)
    for name in steps.single:
        needed = steps.needed(name)
        against = steps.named(recipe | needed, parent=base.id)
        rung = steps.named(recipe | needed | {name}, parent=against.id, about=name)
        if content(rung) == content(against):
            notes.append(f"Alone, '{name}' changes nothing here, so it has no rung.")
            continue
        if against.id not in (rung.id for rung in rungs):
            rungs.append(against)
        rungs.append(rung)
    return Layout(design, tuple(rungs), tuple(notes))


def _orders(steps: Steps, design: Design) -> Layout:
    """The base, then what each order comes by that no order before it came by, then all steps."""
    recipe = frozenset(steps.recipe)
    base = steps.named(recipe)
    whole = steps.all_steps(base.id)
    ids = {content(whole): whole.id, content(base): base.id}
    needed = {name: steps.needed(name) for name in steps.single}
    rungs, orders, stream = [base], [], Random(ORDERS_SEED)
    for number in range(1, design.orders + 1):
        order, chain = _draw(needed, stream), [base.id]
        for index, name in enumerate(order):
            chosen, before = recipe.union(order[: index + 1]), chain[-1]
            made = content(steps.build(chosen))
            if made not in ids:
                ids[made] = f"order{number}_{name}"
                label = f"+ {steps.climbed[name].label}"
                if before not in (base.id, rungs[-1].id):
                    label += f" (after {before})"
                section = f"Order {number}"
                rungs.append(steps.rung(chosen, id=ids[made], label=label, section=section, parent=before, of=name))
            chain.append(ids[made])
        orders.append(Order(order, tuple(chain)))
    return Layout(design, (*rungs, whole), orders=tuple(orders))


def _draw(needed: Mapping[str, Collection[str]], stream: Random) -> tuple[str, ...]:
    """Draw one of the orders in which every step comes after what it needs, all of them equally likely.

    Orders of all kinds are drawn, equally likely, until one is legal. Sorting by `Random.random`, unlike
    `Random.shuffle`, gives the same order in every version of Python.
    """
    while True:
        place = {name: stream.random() for name in needed}
        if all(place[other] < place[name] for name, others in needed.items() for other in others):
            return tuple(sorted(place, key=place.__getitem__))


def _pairs(steps: Steps, design: Design) -> Layout:
    """Neither of two steps, each, both, on the base with what the two need."""
    around, (x, y) = _around(steps, design), design.steps
    base = steps.named(around)
    rungs = [base] + [steps.named(around | {name}, parent=base.id, about=name) for name in (x, y)]
    rungs.append(replace(steps.named(around | {x, y}, parent=base.id), section="Both"))
    _check_differ(rungs, design)
    return Layout(design, tuple(rungs), square=tuple(rung.id for rung in rungs))


def _fractional(steps: Steps, design: Design) -> Layout:
    """Planned combinations of some steps, on the base with what they need."""
    around, plan = _around(steps, design), plan_fraction(design.steps, design.samples)
    rungs = []
    for number, row in enumerate(plan.taken, 1):
        taken = [name for name, has in zip(plan.steps, row, strict=True) if has]
        left = [name for name in plan.steps if name not in taken]
        label = steps.labels(taken) if len(taken) <= len(left) else f"all but {steps.labels(left)}"
        label = label if taken and left else "all" if taken else "none"
        id, section = f"mix_{number:02d}", f"{len(taken)} of {len(plan.steps)} steps"
        rungs.append(steps.rung(around | set(taken), id=id, label=label, section=section, parent=None, of=None))
    _check_differ(rungs, design)
    fraction = replace(plan, rungs=tuple(rung.id for rung in rungs))
    return Layout(design, tuple(rungs), tuple(plan.describe()), fraction=fraction)


def _around(steps: Steps, design: Design) -> frozenset[str]:
    """Return what steps are combined on: the recipe, and what they need, having seen that none needs another."""
    place, chosen = f"--design {design.name}", design.steps
    known = [rung.id for rung in steps.climbed.values() if rung.parent is not None]
    for name in chosen:
        if name not in known:
            raise unknown("step", name, known, place=place)
    for one in chosen:
        if needed := steps.needed(one).intersection(chosen):
            raise UserError(
                f"{place}: '{one}' needs '{min(needed)}', so there is nothing with '{one}' alone to compare. "
                "Take steps that do without each other."
            )
    return frozenset(steps.recipe).union(*(steps.needed(name) for name in chosen)).difference(chosen)


def _check_differ(rungs: Sequence[Rung], design: Design) -> None:
    """Refuse combinations of steps that make the same network."""
    for i, rung in enumerate(rungs):
        for earlier in rungs[:i]:
            if content(rung) == content(earlier):
                steps = ", ".join(f"'{name}'" for name in design.steps)
                raise UserError(
                    f"--design {design.name}: '{rung.id}' and '{earlier.id}' are the same network under the same "
                    f"recipe, so {steps} cannot be told apart. Take steps that change different things."
                )
