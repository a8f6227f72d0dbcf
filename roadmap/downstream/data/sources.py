"""From a task's recipe to its data set: scenes that are made, or files in ADE20K's or COCO's format."""

from functools import cache
from pathlib import Path

from roadmap.common.errors import UserError
from roadmap.downstream.data.task_data import SceneData, TaskData
from roadmap.downstream.task_recipe import TaskRecipe


def open_data(recipe: TaskRecipe, in_channels: int, root: Path | None) -> TaskData:
    """Return a task's data set.

    Args:
        recipe: The recipe that names it.
        in_channels: Channels of the images that the backbones see.
        root: Where it lies; None for one that is made.

    Raises:
        UserError: If it is missing or not whole.
    """
    if recipe.dataset == "scenes":
        if root is not None:
            raise UserError(
                f"task '{recipe.name}' makes its images, so --task-data {root} would not be used. Leave it out."
            )
        return SceneData(recipe, in_channels)
    if root is None:
        raise UserError(f"task '{recipe.name}' needs images. Say where they are: --task-data DIR.")
    if in_channels != 3:
        raise UserError(
            f"task '{recipe.name}' has colour images, but the networks of this study see {in_channels} channel. Choose "
            "a study on colour images (--recipe)."
        )
    return _open_files(recipe, root)


@cache
def _open_files(recipe: TaskRecipe, root: Path) -> TaskData:
    if recipe.dataset == "ade20k":
        from roadmap.downstream.data.ade20k import Ade20k

        return Ade20k(recipe, root)
    from roadmap.downstream.data.coco import Coco

    return Coco(recipe, root)
