"""What several tests start from: a small ladder, a small recipe, and networks drawn by hypothesis."""

from dataclasses import replace
from typing import Any, get_args

from hypothesis import strategies as st

from roadmap.common.errors import UserError
from roadmap.ladder.ladder import known_ladders, read_ladder
from roadmap.ladder.library_steps import kinds_of
from roadmap.ladder.steps import NET_STEPS
from roadmap.networks.block_config import CONV_SLOTS, PLAIN, Activation, BlockConfig, Norm, Shortcut
from roadmap.networks.config import STEM_STRIDES, Downsampling, NetConfig, Stem, scale_down
from roadmap.networks.families import BASES
from roadmap.recipe import Recipe

PAPER = read_ladder()
LADDERS = {name: read_ladder(path) for name, path in known_ladders().items()}
# The steps on a network's fields; the others take any network.
FIELD_STEPS = {name: step for name, step in NET_STEPS.items() if kinds_of(step) == (NetConfig,)}

LADDER = """\
sections: [First, Second]
bases:
  resnet50: {label: ResNet-50, result: End}
  resnet200: {label: ResNet-200, result: Deep end}
rungs:
  - id: start
    label: start
  - id: widen
    label: wider
    section: First
    step: increase_width
    args: {resnet50: {width: 96}, resnet200: {width: 128}}
  - id: big_kernel
    label: bigger kernel
    section: Second
    step: kernel_size
    args: {size: 5}
"""

# All networks but the first have a block in each stage: for tests of what happens to runs and not in them.
SHORT_LADDER = """\
bases: {resnet50: {label: ResNet-50, result: End}}
rungs:
  - {id: start, label: start}
  - {id: short, label: short, step: stage_ratio, args: {blocks: [1, 1, 1, 1]}}
  - {id: patchify_stem, label: patchify stem, step: patchify_stem}
  - {id: gelu, label: GELU, step: gelu}
"""

LAYER_NORM = NetConfig(
    depths=(1, 2, 1), widths=(4, 8, 16), stem="patchify", block=replace(BlockConfig(), norm="layer_norm", act="gelu")
)
ALL_AUGMENTATION: dict[str, Any] = {
    "ema": 0.9,
    "mixup": 0.8,
    "cutmix": 1.0,
    "randaugment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.25,
    "drop_path": 0.2,
    "shift": 2,
    "hflip": 0.5,
}

RECIPE: dict[str, Any] = {
    "name": "small",
    "about": "for tests",
    "plain": "small",
    "dataset": "fashion_mnist",
    "image_size": 32,
    "epochs": 2,
    "batch_size": 8,
    "optimizer": "adamw",
    "lr": 0.001,
    "weight_decay": 0.05,
    "schedule": "cosine",
}


def make_recipe(**settings: Any) -> Recipe:
    return Recipe(**RECIPE | settings)


def arguments_of(step: str, base: str) -> dict[str, Any]:
    """Return the arguments with which a ladder first uses a step, if possible one from that base."""
    ladders = sorted(LADDERS.values(), key=lambda ladder: base not in ladder.bases)
    ladder, entry = next((ladder, entry) for ladder in ladders for entry in ladder.rungs if entry.step == step)
    if not set(entry.args) & set(ladder.bases):
        return dict(entry.args)
    return dict(entry.args.get(base, next(iter(entry.args.values()))))


# Arguments to draw from; a step that is not here is tried with those that a ladder gives it.
KERNEL_SIZES = st.sampled_from([1, 3, 5, 7])
WIDTHS = st.sampled_from([32, 64, 84, 96])
ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "stage_ratio": st.fixed_dictionaries(
        {"blocks": st.lists(st.integers(1, 2), min_size=4, max_size=4)}, optional={"width": WIDTHS}
    ),
    "increase_width": st.fixed_dictionaries({"width": WIDTHS}),
    "kernel_size": st.fixed_dictionaries({"size": KERNEL_SIZES}),
    "separate_downsampling": st.fixed_dictionaries({}, optional={"norms": st.booleans()}),
}


@st.composite
def climbed_nets(draw: st.DrawFn) -> NetConfig:
    """Draw some of the steps in some order, put them on a base where they are legal, and scale the result down."""
    base = draw(st.sampled_from(sorted(BASES)))
    net = BASES[base]
    names = draw(st.permutations(sorted(FIELD_STEPS)))[: draw(st.integers(0, len(FIELD_STEPS)))]
    for name in names:
        arguments = draw(ARGUMENTS.get(name, st.just(arguments_of(name, base))))
        try:
            net = FIELD_STEPS[name](net, **arguments)
        except UserError:
            continue  # out of order: tests/test_steps.py sees that this is said in words
    net = replace(net, depths=tuple(min(depth, 2) for depth in net.depths))
    return scale_down(net, width_divisor=4, stem_stride=draw(st.sampled_from([2, 4])))


def _slots(slots: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sets(st.sampled_from(slots)).map(lambda chosen: tuple(slot for slot in slots if slot in chosen))


@st.composite
def nets(draw: st.DrawFn) -> NetConfig:
    """Draw any legal network, on a ladder or not."""
    plain = draw(st.booleans())
    convs = PLAIN if plain else CONV_SLOTS
    depthwise = not plain and draw(st.booleans())
    norm = draw(st.sampled_from(get_args(Norm)))
    shortcut = draw(st.sampled_from(get_args(Shortcut)))
    block = BlockConfig(
        convs=convs,
        shortcut=shortcut,
        residual_ratio=draw(st.sampled_from([1, 2, 4])),
        hidden_ratio=1 if plain else draw(st.sampled_from([1, 2, 4])),
        hidden_of="stage" if plain else draw(st.sampled_from(["stage", "input"])),
        spatial_first=depthwise and draw(st.booleans()),
        depthwise=depthwise,
        kernel_size=draw(KERNEL_SIZES),
        act=draw(st.sampled_from(get_args(Activation))),
        act_after=draw(_slots((*convs, "add") if shortcut != "none" else convs)),
        norm=norm,
        norm_after=draw(_slots(convs)) if norm != "none" else (),
        layer_scale=draw(st.sampled_from([None, 1e-6, 1.0])),
    )
    stages = draw(st.integers(1, 4))
    downsample = draw(st.sampled_from(get_args(Downsampling)))
    stem = draw(st.sampled_from(get_args(Stem)))
    return NetConfig(
        depths=tuple(draw(st.integers(1, 2)) for _ in range(stages)),
        widths=tuple(draw(st.sampled_from([4, 6, 10])) for _ in range(stages)),
        strides=draw(st.just(()) | st.tuples(*[st.sampled_from([1, 2])] * stages)),
        stem=stem,
        stem_width=draw(st.sampled_from([0, 3])),
        stem_stride=draw(st.sampled_from([stride for stride in STEM_STRIDES[stem] if stride <= 4])),
        downsample=downsample,
        boundary_norms=norm != "none" and downsample == "separate" and draw(st.booleans()),
        final_norm=norm != "none" and draw(st.booleans()),
        head_width=draw(st.sampled_from([0, 7])),
        block=block,
    )
