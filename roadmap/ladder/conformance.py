"""What every step must keep, held against each rung of a ladder: the command `check`, and the tests of our own ladders.

A step is pure and deterministic and changes something; what it makes can be built, trains, and has a cost.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from roadmap.common.errors import UserError
from roadmap.ladder.faults import arguments_of
from roadmap.ladder.ladder import Ladder
from roadmap.ladder.library_steps import take_step
from roadmap.ladder.own_steps import is_recorded
from roadmap.ladder.recipe_steps import RECIPE_STEPS
from roadmap.ladder.rung import Rung
from roadmap.ladder.steps import ALL_STEPS
from roadmap.networks.block_config import OwnLayer
from roadmap.networks.config import NetConfig
from roadmap.networks.nets import Net
from roadmap.networks.own_layers import errors_of, import_code
from roadmap.recipe import Recipe

TARGET = "imagenet"  # the recipe with every technique: those of a ladder are tried on the way to it
# The first size of images that a network takes; none smaller, so that no norm sees a single value.
TINY_IMAGES = (64, 56, 96, 224)
TINY_CLASSES = 10


@dataclass(frozen=True)
class Trial:
    """A step as a rung of a ladder takes it.

    Attributes:
        rung: The rung.
        base: Where its ladder starts.
        step: What it calls, with the arguments that it has for the base; None for a start, whose network alone is
            checked.
        before: What it calls that on: the network, or the recipe, of the rung before.
        arguments: Those arguments.
    """

    rung: Rung
    base: str
    step: Callable[..., Any] | None
    before: Net | Recipe
    arguments: dict[str, Any]

    @property
    def net(self) -> Net:
        """The network of the rung."""
        return self.rung.net

    @property
    def own_layers(self) -> tuple[OwnLayer, ...]:
        """The layers of a user's own in it."""
        return self.net.own_layers if isinstance(self.net, NetConfig) else ()

    def take(self, before: Any = None, arguments: dict[str, Any] | None = None) -> Any:
        """Take the step, with arguments of its own, or on what is given."""
        assert self.step is not None
        before = self.before if before is None else before
        arguments = copy.deepcopy(self.arguments) if arguments is None else arguments
        return self.step(before, **arguments) if isinstance(before, Recipe) else take_step(self.step, before, arguments)


def trials(ladder: Ladder, base: str, target: Recipe) -> Iterator[Trial]:
    """Yield every step of a ladder from a base, those on the recipe on the way to another.

    Where the start is none of our own networks as they are, it comes first.
    """
    entries = {entry.id: entry for entry in ladder.rungs}
    rungs = {rung.id: rung for rung in ladder.climb(base)}
    for rung in rungs.values():
        if rung.parent is None and (rung.step is not None or ladder.bases[base].model is not None):
            yield Trial(rung, base, None, rung.net, {})
        if rung.step is None or rung.parent is None:
            continue
        arguments, before = arguments_of(entries[rung.id], base, ladder.bases), rungs[rung.parent]
        if rung.step in RECIPE_STEPS:
            yield Trial(rung, base, ALL_STEPS[rung.step], before.recipe(target, base), arguments | {"target": target})
        else:
            yield Trial(rung, base, ALL_STEPS[rung.step], before.net, dict(arguments))


def check_pure(trial: Trial) -> str:
    """A step leaves what it is given as it is, and makes the same of the same."""
    before, arguments = copy.deepcopy(trial.before), copy.deepcopy(trial.arguments)
    given = copy.deepcopy(trial.arguments)
    after = trial.take(trial.before, given)
    if (trial.before, given) != (before, arguments):
        return "the step changes what it is given. Make a new one: dataclasses.replace(net, ...)."
    if isinstance(before, Recipe) and not isinstance(after, Recipe):
        return f"the step returns {after!r}. Return a Recipe."
    again = trial.take()
    same = again == after
    if same and trial.step is not None and is_recorded(trial.step):  # what it makes shows where it is built
        same = _looks(after) == _looks(again)
    return "" if same else "the step makes something else the second time. Draw nothing in it."


def check_changes(trial: Trial) -> str:
    """A step changes something."""
    after = trial.take()
    same = after == trial.before
    before = trial.before
    if not same and not isinstance(before, Recipe) and trial.step is not None and is_recorded(trial.step):
        same = _looks(after) == _looks(before)
    return f"the step changes nothing after '{trial.rung.parent}'." if same else ""


def check_builds(trial: Trial) -> str:
    """What a step makes can be built, and maps images to finite logits, the same each time."""
    import torch

    model, size = _tiny_model(trial.net)
    model.eval()
    with torch.no_grad():
        logits = model(_images(2, size))
        if tuple(logits.shape) != (2, TINY_CLASSES):
            return f"the network maps 2 images to {tuple(logits.shape)}, not to (2, {TINY_CLASSES})."
        if not logits.isfinite().all():
            return "the network maps images to numbers that are not finite."
        return "" if torch.equal(model(_images(2, size)), logits) else "in evaluation the network draws random numbers."


def check_trains(trial: Trial) -> str:
    """One step of training reaches every parameter, by finite gradients, and changes the loss."""
    import torch
    from torch.nn import functional as F

    model, size = _tiny_model(trial.net)
    model.train()
    images, labels = _images(8, size), torch.arange(8) % TINY_CLASSES
    loss = F.cross_entropy(model(images), labels)
    if not loss.isfinite():
        return f"the loss of the first step is {loss.item()}."
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            return f"no gradient reaches '{name}': the output does not depend on it, or something cuts the gradient."
        if not parameter.grad.isfinite().all():
            return f"the gradient of '{name}' is not finite."
    torch.optim.SGD(model.parameters(), 0.1).step()
    with torch.no_grad():
        return "" if F.cross_entropy(model(images), labels) != loss else "a training step leaves the loss as it is."


def check_costs(trial: Trial) -> str:
    """A network's multiply-adds can be counted, and, of one of ours, an independent counter finds none beyond ours."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from roadmap.networks.cost import count_macs

    small, size = _tiny(trial.net)
    ours = count_macs(small, size, num_classes=TINY_CLASSES)
    if not isinstance(trial.net, NetConfig):  # that counter's number is the one that is used
        return ""
    count_macs(trial.net)
    model = _tiny_model(trial.net)[0].eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(_images(1, size))
    torchs = counter.get_total_flops() // 2
    if torchs == ours:
        return ""
    return (
        f"{1 - ours / torchs:.1%} of the multiply-adds are in no convolution or linear layer, so nothing counts them."
    )


# In the order of the table. A network that a step on the recipe leaves as it is has been tried before.
ON_STEPS = {"pure": check_pure, "changes": check_changes}
ON_NETWORKS = {"builds": check_builds, "trains": check_trains, "costs": check_costs}
CHECKS = ON_STEPS | ON_NETWORKS


@dataclass(frozen=True)
class Findings:
    """What the checks find of one step.

    Attributes:
        tried: The checks that were made, in the order of the table.
        problems: What the step itself does not keep: the check's name -> a sentence.
        inherited: The checks that fail as they did before the step: the check's name -> the rung whose step broke it.
    """

    tried: list[str]
    problems: dict[str, str]
    inherited: dict[str, str]

    @property
    def failed(self) -> set[str]:
        """The checks that fail, whichever step is to blame."""
        return self.problems.keys() | self.inherited.keys()

    def mark(self, check: str) -> str:
        """Return what a table says of a check; nothing where it was not made."""
        if check in self.failed:
            return "no" if check in self.problems else "inherited"
        return "yes" if check in self.tried else ""


class Inspector:
    """Checks the steps of a ladder from one base, in order, and reports each problem once: at the step that caused it.

    A network that cannot be built is neither trained nor counted. Where the network before a step fails a check
    already, the step is not blamed for failing it too.
    """

    def __init__(self) -> None:
        # Of each rung: the checks that its network fails, and the rung whose step caused that.
        self._culprits: dict[str, dict[str, str]] = {}

    def inspect(self, trial: Trial) -> Findings:
        """Make every check of a step that applies to it."""
        rung, before = trial.rung.id, self._culprits.get(cast(str, trial.rung.parent), {})
        on_network = not isinstance(trial.before, Recipe)
        checks = CHECKS if trial.step is not None else ON_NETWORKS
        found = Findings([], {}, {} if on_network else before)  # one on the recipe leaves what is wrong as it is
        for name, check in (checks if on_network else ON_STEPS).items():
            if name in ON_NETWORKS and "builds" in found.failed:
                break
            found.tried.append(name)
            text = _problem(check, trial)
            if text and name in ON_NETWORKS and name in before:
                found.inherited[name] = before[name]
            elif text:
                found.problems[name] = text
        self._culprits[rung] = found.inherited | {name: rung for name in found.problems if name in ON_NETWORKS}
        return found


def _problem(check: Callable[[Trial], str], trial: Trial) -> str:
    """Return what a check finds: "", or a sentence."""
    try:
        with errors_of(trial.own_layers):
            return check(trial)
    except Exception as error:  # a user's own code may raise what it likes
        text = str(error).split("\n")[0]
        return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _tiny(net: Net) -> tuple[Net, int]:
    """Return a small version of a network, and the size of the images that it takes, in pixels."""
    from roadmap.networks.cost import check_fits

    for size in TINY_IMAGES:
        small = net.tiny(size)
        try:
            check_fits(small, size, in_channels=3, num_classes=TINY_CLASSES)
        except UserError:
            if size == TINY_IMAGES[-1]:
                raise
        else:
            break
    return small, size


def _tiny_model(net: Net) -> tuple[Any, int]:
    import torch

    from roadmap.networks.model import build_model

    small, size = _tiny(net)
    import_code(small)
    torch.manual_seed(0)
    return build_model(small, num_classes=TINY_CLASSES), size


def _looks(net: Net) -> tuple[str, list[tuple[str, tuple[int, ...]]], list[float]]:
    """Return what tells a network's module from another: its layers, its tensors, and what it makes of an image."""
    import torch

    model, size = _tiny_model(net)
    with torch.no_grad():
        logits = model.eval()(_images(1, size))
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    return str(model), shapes, logits.flatten().tolist()


def _images(count: int, size: int) -> Any:
    import torch

    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
