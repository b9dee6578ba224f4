"""Context, patches, flips, postprocessing and ensembles of segmenters."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data.arrays import Arrays
from src.data.preprocessing import Preprocessing
from src.inference import (
    Ensemble,
    Segmenter,
    load_segmenter,
    predicted_scans,
)
from src.model_files import ModelCard, load_card, save_model
from src.postprocessing import Postprocessing, choose, plain_dice
from src.tiling import Tiling

# x = HU / 200: -100 HU is -0.5 and 100 HU is 0.5, all of it exact in 16 bits.
SETTINGS = Preprocessing(-100.0, 100.0, 0.5, 1.0, "native", (16, 16), 1)
CARD = ModelCard(
    architecture="unet",
    classes=("background", "lesion"),
    depth=0,
    spacing_mm=(1.0, 0.5),
    parameters=4,
    precision="float32",
)


def segmenter(kernel, settings=SETTINGS, **options):
    """Lesion has the logit sum(kernel * x) and background 0; kernel (height, width, channels)."""
    import keras

    kernel = np.array(kernel, np.float32)
    inputs = keras.Input((None, None, kernel.shape[2]))
    layer = keras.layers.Conv2D(2, kernel.shape[:2], padding="same", activation="softmax")
    model = keras.Model(inputs, layer(inputs), name="unet")
    layer.set_weights([np.stack([0 * kernel, kernel], axis=-1), np.zeros(2, np.float32)])
    return Segmenter(model, settings, replace(CARD, **options))


POINTWISE = [[[8.0]]]


def slices(*sizes):
    random = np.random.default_rng(3)
    return [random.choice([-80.0, -20.0, 20.0, 80.0], size) for size in sizes]


def test_a_network_with_context_sees_the_slices_before_and_after():
    images = slices(*[(5, 6)] * 4)
    before = segmenter([[[8.0, 0.0, 0.0]]], context=1).masks(images)
    after = segmenter([[[0.0, 0.0, 8.0]]], context=1).masks(images)
    for number in range(4):
        np.testing.assert_array_equal(before[number], images[max(number - 1, 0)] > 0)
        np.testing.assert_array_equal(after[number], images[min(number + 1, 3)] > 0)


def test_a_neighbour_of_another_size_is_not_seen():
    images = slices((5, 6), (7, 6), (5, 6))
    found = segmenter([[[8.0, 0.0, 0.0]]], context=1).masks(images)
    for mask, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(mask, image > 0)


@pytest.mark.parametrize("context", [0, 1])
def test_patches_give_what_whole_slices_give_where_a_pixel_is_all_that_counts(context):
    kernel = [[[0.0] * context + [8.0] + [0.0] * context]]
    images = slices((5, 6), (20, 33), (20, 33))
    whole = segmenter(kernel, context=context)
    tiled = segmenter(kernel, context=context, tiling=Tiling((8, 8), 0.5))
    for expected, found in zip(
        whole.probabilities(images), tiled.probabilities(images, batch_size=3), strict=True
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_with_flips_a_mirrored_picture_gives_the_mirrored_probabilities():
    looks_left = [[[8.0], [0.0], [0.0]]]
    [image] = slices((6, 7))

    def mirrored_difference(model):
        [straight, mirrored] = model.probabilities([image, image[:, ::-1]])
        return np.abs(straight - mirrored[:, ::-1]).max()

    assert mirrored_difference(segmenter(looks_left)) > 0.5
    assert mirrored_difference(segmenter(looks_left, flips=True)) < 1e-6


def test_the_temperature_changes_probabilities_and_no_mask():
    images = slices((5, 6))
    plain, hot = segmenter(POINTWISE), segmenter(POINTWISE, temperature=2.0)
    roots = np.sqrt(plain.probabilities(images)[0])  # half of the logits
    np.testing.assert_allclose(
        hot.probabilities(images)[0], roots / roots.sum(axis=-1, keepdims=True), atol=1e-6
    )
    np.testing.assert_array_equal(plain.masks(images), hot.masks(images))
    untouched = hot.changed(temperature=1.0).probabilities(images)[0]
    np.testing.assert_array_equal(untouched, plain.probabilities(images)[0])


def test_a_mask_is_of_what_the_network_says_even_where_the_temperature_makes_a_tie():
    # x = 2 ** -11 and the logit is 4.9e-7: at a temperature of 20 its exponential rounds to 1.
    model = segmenter([[[1e-3]]], temperature=20.0)
    images = [np.full((2, 3), 0.0977)]
    [(_, mask, probability)] = model.each_with_mask(images)
    np.testing.assert_array_equal(mask, model.masks(images)[0])
    assert (mask == 1).all()
    assert (probability[..., 0] == probability[..., 1]).all()
    np.testing.assert_array_equal(probability, model.probabilities(images)[0])


def test_runs_with_dropout_differ_from_the_model_and_can_be_repeated():
    import keras

    inputs = keras.Input((None, None, 1))
    features = keras.layers.SpatialDropout2D(0.5)(keras.layers.Conv2D(8, 1)(inputs))
    outputs = keras.layers.Conv2D(2, 1, activation="softmax")(features)
    model = Segmenter(keras.Model(inputs, outputs), SETTINGS, replace(CARD, flips=True))
    images = slices((5, 6))
    sampled, again = (model.with_dropout(seed=4) for _ in range(2))
    looks = [sampled.probabilities(images)[0] for _ in range(2)]
    assert np.abs(looks[0] - looks[1]).max() > 1e-3
    for look in looks:
        np.testing.assert_array_equal(look, again.probabilities(images)[0])
    other = model.with_dropout(seed=5).probabilities(images)[0]
    assert np.abs(looks[0] - other).max() > 1e-3


def test_a_model_without_dropout_has_no_runs_with_it():
    assert segmenter(POINTWISE).with_dropout(seed=1) is None


def test_slices_of_one_size_are_cleaned_as_a_scan():
    # The part of 2 pixels is the largest of its slice, the part of 3 that of the scan.
    scan = np.full((3, 4, 4), -80.0)
    scan[0, 0, 0] = scan[1, 1, 1] = scan[2, 2, 2] = 80
    scan[0, 3, 2:] = 80
    steps = Postprocessing(largest_component=(1,))
    found = segmenter(POINTWISE, postprocessing=steps).masks(scan)
    assert np.argwhere(found).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_slices_of_different_size_are_cleaned_one_by_one():
    one = np.array([[80.0, -80.0, 80.0, 80.0]])
    other = np.array([[80.0, -80.0, -80.0, 80.0, 80.0]])
    steps = Postprocessing(largest_component=(1,))
    found = segmenter(POINTWISE, postprocessing=steps).masks([one, other])
    assert [mask.tolist() for mask in found] == [[[0, 0, 1, 1]], [[0, 0, 0, 1, 1]]]


def test_prepared_slices_are_taken_as_they_are():
    images = slices((5, 6), (3, 4), (5, 6))
    model = segmenter(POINTWISE)
    prepared = [np.float16(image / 200) for image in images]
    found = dict(model.prepared_probabilities(prepared, batch_size=2))
    assert sorted(found) == [0, 1, 2]
    for number, expected in enumerate(model.probabilities(images)):
        np.testing.assert_allclose(found[number], expected, atol=1e-3)


def test_postprocessing_is_chosen_on_the_scans_of_the_validation_side():
    # Lesion where x > 0; the second scan has slices of two sizes, which are cleaned one by one.
    lesion = [np.zeros((4, 6), bool), np.zeros((4, 6), bool), np.zeros((4, 9), bool)]
    for mask in lesion:
        mask[1, 1:3] = True
    images = [np.where(mask, 0.4, -0.4).astype(np.float16) for mask in lesion]
    for image in images:
        image[3, 5] = 0.4  # a speck that is no lesion
    sizes = np.array([mask.shape for mask in lesion])
    ends = np.cumsum(sizes.prod(axis=1))
    index = pd.DataFrame(
        {
            "pseudonym": ["a", "b", "b"],
            "volume": [0, 1, 1],
            "position": [0, 0, 1],
            "offset": ends - sizes.prod(axis=1),
            "height": sizes[:, 0],
            "width": sizes[:, 1],
        }
    )
    arrays = Arrays(
        np.concatenate([image.ravel() for image in images]),
        np.concatenate([mask.ravel() for mask in lesion]).astype(np.uint8),
        index,
        SETTINGS,
        CARD.classes,
    )
    found = choose(predicted_scans(segmenter([[[20.0]]]), arrays, np.arange(3)), 2)
    assert found.postprocessing == Postprocessing(largest_component=(1,))
    assert found.dice[True, False][1] == 1
    assert found.dice[False, False][1] == pytest.approx(2 * 2 / (2 + 3))
    plain = plain_dice(predicted_scans(segmenter([[[20.0]]]), arrays, np.arange(3)), 2)
    assert plain.tolist() == found.dice[False, False].tolist()


def test_it_is_known_whether_a_model_needs_whole_scans():
    assert not segmenter(POINTWISE).needs_whole_scans
    assert segmenter([[[0.0, 8.0, 0.0]]], context=1).needs_whole_scans
    assert segmenter(POINTWISE, postprocessing=Postprocessing((1,))).needs_whole_scans


def test_an_ensemble_gives_the_mean_of_its_models_each_with_its_own_preprocessing():
    images = slices((5, 6), (7, 8), (5, 6))
    narrow = replace(SETTINGS, window_low=-50.0, window_high=50.0)
    members = [segmenter(POINTWISE), segmenter(POINTWISE, narrow), segmenter([[[-2.0]]])]
    ensemble = Ensemble(members, Postprocessing())
    assert (ensemble.class_names, ensemble.num_classes) == (CARD.classes, 2)
    expected = np.mean([member.probabilities(images)[1] for member in members], axis=0)
    found = ensemble.probabilities(images)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    np.testing.assert_allclose(found[2].sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(ensemble.masks(images)[1], expected.argmax(axis=-1))


def test_an_ensemble_cleans_its_masks():
    ensemble = Ensemble([segmenter(POINTWISE)], Postprocessing(largest_component=(1,)))
    assert ensemble.needs_whole_scans
    [found] = ensemble.masks([np.array([[80.0, -80.0, 80.0, 80.0]])])
    assert found.tolist() == [[0, 0, 1, 1]]


def test_an_ensemble_gives_slices_one_by_one_even_where_its_models_take_them_in_other_orders():
    images = slices((5, 6), (7, 8), (5, 6), (9, 8))
    padded = replace(SETTINGS, size_mode="pad", multiple=16)  # all of one size: in the order given
    members = [segmenter(POINTWISE), segmenter(POINTWISE, padded)]
    orders = [[number for number, _ in member.each(images)] for member in members]
    assert orders == [[0, 2, 1, 3], [0, 1, 2, 3]]
    found = list(Ensemble(members, Postprocessing()).each(images))
    assert sorted(number for number, _ in found) == [0, 1, 2, 3]
    for number, probability in found:
        expected = members[0].probabilities(images)[number]
        np.testing.assert_allclose(probability, expected, atol=1e-6)


def test_an_ensemble_says_what_it_is_made_of():
    members = [
        segmenter(POINTWISE, replace(SETTINGS, window_high=high), architecture=name, spacing_mm=mm)
        for high, name, mm in ((1.0, "unetpp", (1.0, 0.5)), (2.0, "unet", (3.0, 0.7)))
    ]
    ensemble = Ensemble(members, Postprocessing())
    assert ensemble.name == "unet, unetpp, ensemble of 2"
    assert ensemble.spacing_mm == pytest.approx((2.0, 0.6))
    assert ensemble.settings.window_high == 1.0
    assert members[0].name == "unetpp"


def test_an_ensemble_of_no_model_or_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"needs one or more models .* got 0 models"):
        Ensemble([], Postprocessing())
    other = segmenter(POINTWISE, classes=("background", "organ"))
    with pytest.raises(ValueError, match=r"the same classes .* got 2 models .*organ"):
        Ensemble([segmenter(POINTWISE), other], Postprocessing())


def test_a_model_folder_keeps_how_the_model_is_used(tmp_path: Path) -> None:
    options = {
        "context": 1,
        "tiling": Tiling((8, 16), 0.25),
        "flips": True,
        "postprocessing": Postprocessing(largest_component=(1,), filled_holes=(1,)),
    }
    made = segmenter([[[0.0, 8.0, 0.0]]], **options)
    save_model(tmp_path, made.model, made.card, made.settings)
    assert load_card(tmp_path) == made.card
    images = slices(*[(9, 20)] * 3)
    np.testing.assert_array_equal(load_segmenter(tmp_path).masks(images), made.masks(images))


@pytest.mark.parametrize(("temperature", "state"), [(1.0, "unknown"), (1.4, "fitted")])
def test_an_older_card_says_of_its_temperature_what_can_be_known(
    tmp_path: Path, temperature: float, state: str
) -> None:
    made = segmenter(POINTWISE, temperature=temperature)
    save_model(tmp_path, made.model, made.card, made.settings)
    content = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    del content["calibration"]
    (tmp_path / "model.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_card(tmp_path) == replace(made.card, calibration=state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("flips"), r"missing are \['flips'\], unknown \[\]"),
        (lambda content: content.update(patch=8), r"missing are \[\], unknown \['patch'\]"),
    ],
)
def test_a_card_of_another_version_is_refused(tmp_path: Path, change, message) -> None:
    made = segmenter(POINTWISE)
    save_model(tmp_path, made.model, made.card, made.settings)
    content = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "model.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"model.json: must hold .*{message}.*dvc repro train"):
        load_card(tmp_path)


# MLflow's own use of its type hints, at import.
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")
def test_the_packaged_model_gives_a_model_with_context_all_slices_at_once():
    from src.packaged_model import BATCH_SIZE, SegmentationModel

    packaged = SegmentationModel()
    packaged.segmenter = segmenter([[[8.0, 0.0, 0.0]]], context=1)
    images = np.float32(slices(*[(4, 5)] * (BATCH_SIZE + 2)))
    found = packaged.predict(None, images)
    np.testing.assert_array_equal(found[1:], images[:-1] > 0)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")
def test_the_packaged_model_asks_for_the_spacing_where_it_needs_it():
    from src.packaged_model import SegmentationModel

    packaged = SegmentationModel()
    packaged.segmenter = segmenter(POINTWISE, replace(SETTINGS, spacing_mm=(1.0, 2.0)))
    images = np.float32(slices((8, 6), (8, 6)))
    images[:] = np.where(np.arange(6) < 3, -80, 80)
    with pytest.raises(ValueError, match=r'Pass params=\{"spacing_mm": \[y, x\]\}'):
        packaged.predict(None, images)
    found = packaged.predict(None, images, {"spacing_mm": [0.5, 2.0]})
    np.testing.assert_array_equal(found, images > 0)
