import pytest

from src.models import ARCHITECTURES, build_model
from tests.models.networks import SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"filters": 0}, "filters must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1. Count the background"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"normalisation": "layer"}, "normalisation must be one of"),
        ({"upsampling": "cubic"}, "upsampling must be one of"),
        (
            {"depth": 1, "deep_supervision": True},
            r"deep_supervision needs a depth of at least 2, got 1.*model.deep_supervision: false",
        ),
        (
            {"depth": 3, "deep_supervision": (1.0, 0.5)},
            r"one weight for each of the 3 outputs.*got 2: \[1.0, 0.5\]",
        ),
        ({"depth": 2, "deep_supervision": (0.0, 0.5)}, "that of the main output, the first, above"),
        ({"depth": 2, "deep_supervision": (1.0, -0.5)}, "must be at least 0"),
    ],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_wrong_parameter_is_refused(architecture, change, message):
    with pytest.raises(ValueError, match=message):
        build_model(architecture, **{**SMALL, **change})


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"architecture must be one of \['attention_unet', 'unet', 'unetpp'\], got 'vnet'",
    ):
        build_model("vnet")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_network_is_called_by_its_name(architecture):
    assert build_model(architecture, **SMALL).name == architecture


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_encoder_alone_is_residual(architecture):
    model = build_model(architecture, **SMALL, residual=True)
    names = [layer.name for layer in model.layers if layer.name.endswith("_conv_shortcut")]
    assert names == [f"{name}_conv_shortcut" for name in ("encoder0", "encoder1", "bottleneck")]
