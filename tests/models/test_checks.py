import re

import pytest

from src.models import build_model, check_image_size, check_weights
from tests.models.networks import SMALL


def test_a_size_that_the_network_cannot_halve_is_refused_with_the_remedy():
    message = (
        "image height and width must be divisible by 16 (depth 4), got (250, 250). "
        "Set prepare.pad_to_multiple: 16."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_image_size(250, 250, 4)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 16), (0, 16)])
def test_either_side_decides(height, width):
    with pytest.raises(ValueError, match="divisible by 16"):
        check_image_size(height, width, 4)


def test_a_size_that_fits_passes():
    check_image_size(16, 48, 4)


def shapes(architecture, **changes):
    model = build_model(architecture, **{**SMALL, **changes})
    return [tuple(weight.shape) for weight in model.weights]


def test_weights_of_the_same_network_pass():
    check_weights(build_model("unet", **SMALL), shapes("unet", dropout=0.5))


def test_wider_weights_are_refused_with_the_first_that_differs():
    with pytest.raises(
        ValueError,
        match=r"fit the network unet: .*encoder0_conv1/kernel is \(3, 3, 1, 4\), "
        r"kept \(3, 3, 1, 8\).*train.model",
    ):
        check_weights(build_model("unet", **SMALL), shapes("unet", filters=8))


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match="it has 56 arrays, 68 are kept"):
        check_weights(build_model("unet", **SMALL), shapes("unetpp"))


def test_weights_that_stop_too_early_are_refused():
    with pytest.raises(ValueError, match=r"it has 56 arrays, 55 are kept\. They"):
        check_weights(build_model("unet", **SMALL), shapes("unet")[:-1])
