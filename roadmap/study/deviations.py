"""What the paper's recipes do not repeat of the paper's training, and what of it nobody knows: the one list of it.

`diff --recipe imagenet` prints it and docs/guarantees.md shows it. What a recipe of another's changes in settings is
`Recipe.differences`.
"""

from typing import NamedTuple

TRAINING = ("imagenet", "imagenet22k")
TUNING = ("finetune_224", "finetune_384", "finetune_384_1k")
PLAIN = ("imagenet_original",)


class Deviation(NamedTuple):
    """One thing that differs, or may differ.

    Attributes:
        subject: What it is about.
        authors: What the authors did, as far as it is known.
        here: What is done here.
        recipes: The recipes that it is true of, by their names in recipes/.
    """

    subject: str
    authors: str
    here: str
    recipes: tuple[str, ...]


DEVIATIONS = (
    Deviation(
        "precision",
        "The submission trained in float16 with a scaled loss; the released code takes float32 unless asked.",
        "bfloat16; amp: float16 is the submission's.",
        (*TRAINING, *TUNING),
    ),
    Deviation(
        "precision",
        "torchvision trained in float32.",
        "bfloat16; amp: none is torchvision's.",
        PLAIN,
    ),
    Deviation(
        "first weights",
        "Not known of the printed ladder. The submission's commands leave PyTorch's own, with 0.02 for the head; the "
        "released ConvNeXt has a truncated normal with standard deviation 0.02 everywhere; Table 5 prints 0.2.",
        "The released one's, init: trunc_normal; init: pytorch is the submission's.",
        TRAINING,
    ),
    Deviation(
        "first weights of the head",
        "torchvision draws those of VGG and MobileNetV2 with standard deviation 0.01.",
        "PyTorch's own, which are ResNet's in torchvision.",
        PLAIN,
    ),
    Deviation(
        "moving average of the weights",
        "Table 5 lists it (0.9999) for the final models; appendix A.1 says that it hurts networks with BatchNorm.",
        "None; ema: 0.9999 tests the average beside the network itself.",
        ("imagenet",),
    ),
    Deviation(
        "layer scale",
        "Table 5 lists it (1e-6) for the final models; the ladder had none.",
        "None: it is a property of the network, and the ladder's have none.",
        TRAINING,
    ),
    Deviation(
        "layer scale",
        "Table 1's models were trained with it and go on training it.",
        "Trained on where the weights have it; the ladder's own weights have none.",
        TUNING,
    ),
    Deviation(
        "stochastic depth of ResNet-200's ladder",
        "Not known; Table 5 has 0.5 for ConvNeXt-B at its end.",
        "0.5 for every rung.",
        ("imagenet",),
    ),
    Deviation(
        "stochastic depth of ConvNeXt-T",
        "Not printed; 0.8 for B and 0.95 for L.",
        "B's.",
        ("finetune_384_1k",),
    ),
    Deviation(
        "groups of layers for the learning rate",
        "The classification code has them for depths 3, 3, 27, 3 alone (12), the downstream code for 3, 3, 9, 3 (6).",
        "The same for both; in all other networks three blocks of a stage are a group.",
        TUNING,
    ),
    Deviation(
        "the epoch that counts",
        "The code notes the best epoch's accuracy on the validation images beside the last one's.",
        "The last epoch, tested once.",
        ("imagenet", *TUNING),
    ),
    Deviation(
        "test images",
        "32 processes share 50,000 images, so that 16 of them count twice.",
        "Each counts once.",
        ("imagenet", "finetune_384"),
    ),
    Deviation(
        "random numbers",
        "Each GPU and each decoding worker has a seed of its own.",
        "Each draw depends on the seed, the step and the image or ghost batch: the same distributions, other draws.",
        (*TRAINING, *TUNING, *PLAIN),
    ),
    Deviation(
        "decoded images",
        "PIL decodes and resizes.",
        "simplejpeg decodes and torch resizes bytes: at most two levels of 255 apart before RandAugment.",
        (*TRAINING, *TUNING, *PLAIN),
    ),
    Deviation(
        "rounding",
        "A GPU for each ghost batch; 1x1 convolutions as convolutions.",
        "Ghost batches one after the other, their gradients summed; 1x1 convolutions as matrix products.",
        (*TRAINING, *TUNING, *PLAIN),
    ),
)


def deviations_of(recipe: str) -> list[Deviation]:
    """Return what one of the paper's recipes does not repeat, by its name; nothing for any other recipe."""
    return [deviation for deviation in DEVIATIONS if recipe in deviation.recipes]
