import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from src.models.metrics import ConfusionMatrix, class_iou, scores

CLASSES = ["background", "organ", "lesion"]


def one_hot(classes):
    return np.eye(3, dtype=np.float32)[np.asarray(classes)]


def counted(*batches):
    metric = ConfusionMatrix(3)
    for truth, prediction in batches:
        metric.update_state(np.asarray(truth), one_hot(prediction))
    return np.asarray(metric.result())


def test_rows_are_truth_and_columns_prediction():
    matrix = counted(([[[0, 0, 1, 2]]], [[[0, 1, 1, 1]]]))
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_batches_of_different_size_add_up():
    matrix = counted(([[[0, 0]]], [[[0, 0]]]), ([[[1], [2]], [[0], [1]]], [[[1], [2]], [[2], [1]]]))
    np.testing.assert_array_equal(matrix, [[2, 0, 1], [0, 2, 0], [0, 0, 1], [0, 0, 0]])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_counts_agree_with_scikit_learn(seed):
    truth, prediction = np.random.default_rng(seed).integers(0, 3, (2, 2, 5, 7))
    expected = confusion_matrix(truth.ravel(), prediction.ravel(), labels=[0, 1, 2])
    np.testing.assert_array_equal(counted((truth, prediction))[:3], expected)


def test_counts_stay_exact_where_float32_would_stop():
    metric = ConfusionMatrix(3)
    metric.matrix.assign(np.array([[2**40, 0, 0], [0] * 3, [0] * 3, [0] * 3]))
    metric.update_state(np.zeros((1, 1, 1)), one_hot([[[0]]]))
    assert int(metric.result()[0, 0]) == 2**40 + 1


def test_a_batch_of_more_than_2_to_the_24_pixels_is_counted_exactly():
    # 2 x (2 ** 12 x 2 ** 11 + 2 ** 11) pixels.
    shape = (2, 2**12 + 1, 2**11)
    metric = ConfusionMatrix(2)
    metric.update_state(np.zeros(shape, np.uint8), np.broadcast_to(np.float32([1, 0]), (*shape, 2)))
    assert int(metric.result()[0, 0]) == 2**24 + 2**12


def test_reset_starts_again_from_nothing():
    metric = ConfusionMatrix(3)
    metric.update_state(np.zeros((1, 2, 2)), one_hot(np.zeros((1, 2, 2), int)))
    metric.reset_state()
    assert int(np.sum(metric.result())) == 0


@pytest.mark.parametrize("label", [3, -1, 255])
def test_a_label_that_is_no_class_is_counted_and_then_refused(label):
    matrix = counted(([[[0, label]]], [[[0, 1]]]))
    assert matrix[3].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"indices 0 to 2 for .* got 1 pixels with another value"):
        scores(matrix, CLASSES)


def test_keras_training_hands_the_whole_matrix_to_its_history():
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1)])
    model.compile(
        "sgd", loss=lambda truth, prediction: 0 * prediction, metrics=[ConfusionMatrix(3)]
    )
    history = model.fit(
        np.zeros((5, 2, 2, 1)), np.ones((5, 2, 2), np.uint8), batch_size=2, verbose=0
    )
    assert np.asarray(history.history["confusion_matrix"][0]).sum() == 5 * 2 * 2


def test_metric_survives_its_configuration():
    assert ConfusionMatrix.from_config(ConfusionMatrix(4).get_config()).num_classes == 4


def test_a_weight_is_refused():
    with pytest.raises(ValueError, match="sample_weight must be None"):
        ConfusionMatrix(3).update_state(np.zeros((1, 1, 1)), one_hot([[[0]]]), sample_weight=1.0)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match=r"num_classes must be at least 2.*got 1"):
        ConfusionMatrix(1)


def test_iou_is_overlap_over_union():
    # Class 0: 4 / (4 + 1 + 0); class 1: 2 / (2 + 0 + 1); class 2 nowhere.
    iou = class_iou(np.array([[4, 1, 0], [0, 2, 0], [0, 0, 0]]))
    np.testing.assert_allclose(iou, [4 / 5, 2 / 3, np.nan])


def test_scores_are_named_and_average_the_foreground_alone():
    matrix = [[5, 1, 0], [0, 2, 0], [1, 0, 1], [0, 0, 0]]
    # Background 5 / (6 + 6 - 5), organ 2 / (2 + 3 - 2), lesion 1 / (2 + 1 - 1).
    assert scores(matrix, CLASSES) == pytest.approx(
        {
            "accuracy": 8 / 10,
            "iou/background": 5 / 7,
            "iou/organ": 2 / 3,
            "iou/lesion": 1 / 2,
            "mean_iou": (2 / 3 + 1 / 2) / 2,
        }
    )
    assert all(type(value) is float for value in scores(matrix, CLASSES).values())


def test_a_class_found_nowhere_is_nan_and_not_in_the_mean():
    values = scores([[5, 1, 0], [0, 2, 0], [0, 0, 0], [0, 0, 0]], CLASSES)
    assert np.isnan(values["iou/lesion"])
    assert values["mean_iou"] == pytest.approx(2 / 3)


def test_an_epoch_without_pixels_is_nan_throughout():
    assert all(np.isnan(value) for value in scores(np.zeros((4, 3), int), CLASSES).values())


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must be \(classes \+ 1, classes\) = \(4, 3\).*\(3, 3\)"):
        scores(np.zeros((3, 3), int), CLASSES)
