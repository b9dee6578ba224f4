import pytest

from src.search import Dimension, baseline, dimensions, ends, parameters_of, with_parameters

CURRENT = {
    "train.learning_rate": 2e-3,
    "train.model.depth": 4,
    "train.loss.name": "dice",
    "train.model.residual": False,
    "train.augmentation.scale": 0.1,
    "train.augmentation.noise": 0.05,
}


def scaled(low: float, high: float, scale: str = "linear", **more: object) -> dict[str, object]:
    return {"low": low, "high": high, "scale": scale, **more}


STRENGTH = scaled(0, 2, multiplies=("train.augmentation.scale", "train.augmentation.noise"))


def test_a_whole_number_stays_one_and_the_scale_is_kept() -> None:
    space = dimensions(
        {"train.model.depth": scaled(2, 5), "train.learning_rate": scaled(1e-4, 1, "log")}, CURRENT
    )
    assert [str(one.distribution()) for one in space] == [
        "IntDistribution(high=5, log=False, low=2, step=1)",
        "FloatDistribution(high=1.0, log=True, low=0.0001, step=None)",
    ]


def test_the_baseline_is_the_present_parameters() -> None:
    entries = {
        "train.model.depth": scaled(2, 5),
        "train.loss.name": {"choices": ["focal", "dice"]},
        "strength": STRENGTH,
    }
    point = baseline(dimensions(entries, CURRENT))
    assert point == {"train.model.depth": 4, "train.loss.name": "dice", "strength": 1.0}


def test_every_parameter_outside_of_its_range_is_named() -> None:
    entries = {
        "train.model.depth": scaled(2, 3),
        "train.loss.name": {"choices": ["focal", "tversky"]},
        "strength": scaled(1.5, 2, multiplies=("train.augmentation.scale",)),
    }
    with pytest.raises(ValueError, match="Widen it, or change the parameter") as error:
        baseline(dimensions(entries, CURRENT))
    assert str(error.value).splitlines()[1:] == [
        "  train.model.depth: 4 is not within 2 to 3",
        "  train.loss.name: 'dice' is not among ['focal', 'tversky']",
        "  strength: 1.0 is not within 1.5 to 2.0",
    ]


def test_a_factor_multiplies_what_it_names() -> None:
    space = dimensions({"strength": STRENGTH}, CURRENT)
    assert parameters_of(space, {"strength": 1.5}) == {
        "train.augmentation.scale": 0.15,  # 1.5 * 0.1
        "train.augmentation.noise": 0.075,  # 1.5 * 0.05
    }
    assert ends(space[0]) == (0.0, 2.0)


def test_searched_numbers_have_four_digits_and_present_ones_all_of_theirs() -> None:
    space = (Dimension("rate", 0.00123456, 1e-4, 1e-2, log=True),)
    assert parameters_of(space, {"rate": 0.00234567}) == {"rate": 0.002346}
    assert parameters_of(space, {"rate": 0.00123456}) == {"rate": 0.00123456}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"train.loss.name": scaled(0, 1)}, "train.loss.name is 'dice', no number"),
        ({"train.model.residual": scaled(0, 1)}, "train.model.residual is False, no number"),
        ({"train.model.depth": scaled(2, 4.5)}, "is a whole number (4), got 2 to 4.5"),
        ({"s": scaled(0, 2, multiplies=("train.model.depth",))}, "it takes no factor"),
        ({}, "names no parameter"),
    ],
)
def test_a_range_that_does_not_suit_its_parameter_is_refused(
    entries: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ValueError, match=r"tune\.space in params\.yaml") as error:
        dimensions(entries, CURRENT)
    assert message in str(error.value)


def test_nested_parameters_are_changed_in_a_copy() -> None:
    before = {"train": {"model": {"depth": 4, "filters": 16}}}
    after = with_parameters(before, {"train.model.depth": 2})
    assert after == {"train": {"model": {"depth": 2, "filters": 16}}}
    assert before["train"]["model"]["depth"] == 4
