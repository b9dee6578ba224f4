from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from src.models import build_loss, build_model
from src.training import (
    Checkpoint,
    Optimisation,
    Progress,
    compile_for_training,
    fit,
    learning_rate,
)

PLAN = Optimisation(
    optimizer="adamw",
    learning_rate=0.01,
    weight_decay=1e-4,
    epochs=4,
    warmup_epochs=1,
    patience=4,
    monitor="loss",
    max_minutes=None,
)


class KilledError(Exception):
    """Stands for kill -9: nothing of the run goes on after it."""


def slices(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = (random.random((6, 16, 16)) > 0.6).astype(np.uint8)
    image = truth[..., None] * 2.0 + random.normal(size=(6, 16, 16, 1))
    return image.astype(np.float32), truth


def run(
    folder: Path,
    *,
    on_epoch: Callable[[Progress], None] = lambda _: None,
    on_end: Callable[[Progress, keras.Model], None] = lambda *_: None,
    plan: Optimisation = PLAN,
    fingerprint: str = "same",
) -> tuple[keras.Model, Progress]:
    keras.utils.set_random_seed(7)
    model = build_model(
        "unet",
        in_channels=1,
        num_classes=2,
        depth=1,
        filters=2,
        dropout=0.3,
        normalisation="batch",
        upsampling="transpose",
    )
    loss = build_loss("dice_cross_entropy", num_classes=2)
    matrix = compile_for_training(model, plan, loss, num_classes=2, jit_compile=False)
    checkpoint = Checkpoint(folder, fingerprint)
    progress = fit(
        model,
        plan,
        seed=7,
        steps_per_epoch=3,
        training_batches=lambda epoch: tf.data.Dataset.from_tensor_slices(slices(epoch)).batch(2),
        validation_batches=lambda: tf.data.Dataset.from_tensor_slices(slices(99)).batch(2),
        class_names=("background", "lesion"),
        matrix=matrix,
        checkpoint=checkpoint,
        progress=checkpoint.load(model) or Progress(),
        on_epoch=on_epoch,
        on_end=lambda progress: on_end(progress, model),
    )
    return model, progress


def kill_in_epoch(number: int) -> Callable[[Progress], None]:
    def on_epoch(progress: Progress) -> None:
        if progress.epoch == number:
            raise KilledError

    return on_epoch


def same_weights(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    assert same_weights(run(tmp_path / "a")[0], run(tmp_path / "b")[0])


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_run_resumes_to_the_same_weights_and_history(tmp_path: Path, epoch: int) -> None:
    whole, expected = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", on_epoch=kill_in_epoch(epoch))
    resumed, progress = run(tmp_path / "killed")
    assert same_weights(whole, resumed)
    losses = [[row["train/loss"] for row in p.history] for p in (expected, progress)]
    assert losses[0] == losses[1]
    assert progress.best_epoch == expected.best_epoch


def test_a_checkpoint_of_other_data_or_parameters_is_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, on_epoch=kill_in_epoch(2))
    seen: list[int] = []
    run(tmp_path, fingerprint="other", on_epoch=lambda progress: seen.append(progress.epoch))
    assert seen == [1, 2, 3, 4]


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    model, progress = run(tmp_path)
    losses = [row["validation/loss"] for row in progress.history]
    assert progress.best_epoch == int(np.argmin(losses)) + 1
    images, truth = slices(99)
    found = model.evaluate(
        tf.data.Dataset.from_tensor_slices((images, truth)).batch(2), verbose=0, return_dict=True
    )
    assert found["loss"] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize(
    "change", [{"patience": 2}, {"max_minutes": 0.02, "patience": 60}, {"epochs": 2}]
)
def test_the_end_is_told_with_the_weights_of_the_last_epoch(
    tmp_path: Path, change: dict[str, float]
) -> None:
    # So high a rate makes the first epochs the best, so that patience ends the training.
    plan = Optimisation(**{**vars(PLAN), "epochs": 60, "learning_rate": 0.5} | change)
    losses: list[float] = []

    def on_end(progress: Progress, model: keras.Model) -> None:
        batches = tf.data.Dataset.from_tensor_slices(slices(99)).batch(2)
        losses.append(model.evaluate(batches, verbose=0, return_dict=True)["loss"])

    _, progress = run(tmp_path, plan=plan, on_end=on_end)
    assert progress.epoch < 60
    assert losses == [pytest.approx(progress.history[-1]["validation/loss"], rel=1e-5)]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the loss is not finite after epoch"):
        run(tmp_path, plan=Optimisation(**{**vars(PLAN), "learning_rate": float("nan")}))


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_zero() -> None:
    shares = [0.125, 0.25, 0.625, 1.0]
    rates = [learning_rate(PLAN, share) for share in shares]
    assert rates == pytest.approx([0.005, 0.01, 0.005, 0.0])


def test_training_stops_where_the_minutes_are_used_up(tmp_path: Path) -> None:
    plan = Optimisation(
        **{**vars(PLAN), "epochs": 100_000, "patience": 100_000, "max_minutes": 0.05}
    )
    _, progress = run(tmp_path, plan=plan)
    assert 1 <= progress.epoch < 100_000
    assert progress.history[-1]["train/learning_rate"] < 0.01


def test_the_best_epoch_is_that_of_the_monitored_value(tmp_path: Path) -> None:
    _, progress = run(tmp_path, plan=Optimisation(**{**vars(PLAN), "monitor": "mean_iou"}))
    values = [row["validation/mean_iou"] for row in progress.history]
    assert progress.best_epoch == int(np.argmax(values)) + 1


def test_kept_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model, _ = run(tmp_path)
    checkpoint = Checkpoint(tmp_path, "same")
    checkpoint.save_best(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="the kept weights do not fit the network unet"):
        checkpoint.load_best(model)
