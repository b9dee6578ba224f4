from pathlib import Path
from typing import Any

import pytest

from src.config import Params, load_params
from src.stages.folds import label, recipe, run_name

ROOT = Path(__file__).parents[2]


def changed(group: str, **changes: Any) -> Params:
    params = load_params(ROOT / "params.yaml")
    content = params.model_dump()
    content[group] |= changes
    return Params.model_validate(content)


SEVERAL = changed("split", folds=5, fold=[0, 1, 2, 3, 4])


def test_the_fold_stands_in_the_name_where_there_are_several() -> None:
    assert label(changed("split"), "unet", 0) == "unet"
    assert label(SEVERAL, "unet", 0) == "unet, fold 0"
    assert label(SEVERAL, "unet") == "unet, ensemble of 5 folds"


def test_the_runs_of_all_folds_and_of_their_ensemble_end_alike() -> None:
    names = [run_name(SEVERAL, "unet", fold) for fold in (0, 4, None)]
    assert len({name.rpartition(", ")[2] for name in names}) == 1
    assert names[1].startswith("unet, fold 4, ")
    assert names[2].startswith("unet, ensemble of 5 folds, ")
    one = changed("split", folds=5, fold=[2])
    assert run_name(one, "unet", 2) == run_name(SEVERAL, "unet", 2)


def test_the_recipe_is_the_same_for_all_folds_and_differs_with_what_shapes_a_model() -> None:
    made = recipe(SEVERAL, "unet", "d1")
    assert recipe(changed("split", folds=5, fold=[2]), "unet", "d1") == made
    assert recipe(SEVERAL, "unet", "d2") != made
    assert recipe(SEVERAL, "unetpp", "d1") != made
    assert recipe(changed("split", folds=4), "unet", "d1") != made


@pytest.mark.parametrize(
    ("group", "change", "same"),
    [("train", {"seed": 7}, False), ("evaluate", {"seed": 7}, True)],
)
def test_how_a_model_is_scored_is_no_part_of_its_recipe(
    group: str, change: dict[str, int], same: bool
) -> None:
    found = recipe(changed(group, **change), "unet", "d1") == recipe(changed(group), "unet", "d1")
    assert found is same
