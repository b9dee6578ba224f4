"""`python -m src.predict INPUT --out FOLDER`: masks of new scans, by a registered model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated, Any

import typer

from src import terminal, tracking
from src.config import load_params
from src.data.findings import count_of, some_of
from src.data.images import Images, each_alone, find_images, one_scan_each
from src.data.patients import Rules
from src.data.pictures import NO_SCALE, PictureScale
from src.data.roles import Roles
from src.files import NOT_FOR_GIT, keep_from_git, whole_file
from src.prediction import Wanted
from src.scan_work import ScanWork
from src.stages.audit import DEMO_HASH

REGISTERED_MODEL = "ct-segmentation"  # where there is no params.yaml to name another
TABLE = "predictions.csv"


class MaskFormat(StrEnum):
    """The formats of a mask."""

    PNG = "png"
    NIFTI = "nifti"
    DICOM_SEG = "dicom-seg"


def picture_scale(known: PictureScale | None, given: dict[str, Any]) -> PictureScale:
    """What the values and pixels of pictures mean: as given, else as params.yaml says.

    Args:
        known: data.pictures of params.yaml; None where there is no such file.
        given: The fields of `PictureScale`, None where an option was not used.

    Raises:
        ValueError: Neither says it, or a value is not positive.
    """
    values: dict[str, Any] = {
        name: getattr(known, name, None) if value is None else value
        for name, value in given.items()
    }
    missing = [f"--{name.replace('_', '-')}" for name, value in values.items() if value is None]
    if missing:
        raise ValueError(
            "there are pictures (PNG, TIFF, JPEG or BMP), which do not say what their values and "
            f"pixels mean. Give {', '.join(missing)}, or run where params.yaml has data.pictures."
        )
    scale = PictureScale(**values)
    if not (scale.slope > 0 and min(scale.spacing_mm) > 0 and scale.thickness_mm > 0):
        raise ValueError(
            "--slope, --spacing-mm and --thickness-mm must be above 0, got "
            f"{scale.slope:g}, {scale.spacing_mm[0]:g} x {scale.spacing_mm[1]:g} and "
            f"{scale.thickness_mm:g}"
        )
    return scale


class EngineName(StrEnum):
    """What can run a network."""

    AUTO = "auto"
    KERAS = "keras"
    OPENVINO = "openvino"


# --- The model ------------------------------------------------------------------------------------


def model_folder(address: str, root: Path) -> Path:
    """The folder of a model: of the champion in the registry, or as it is given.

    Args:
        address: `models:/NAME@champion`, or a folder such as models/unet (the ensemble of its
            folds, where there are several) or models/unet/fold0.
        root: The repository, whose store holds the registry.

    Raises:
        ValueError: There is no store, no champion, or the address is of another form.
        ConnectionError: The store's server cannot be reached.
    """
    if not address.startswith("models:"):
        return Path(address)
    found = re.fullmatch(rf"models:/([^@/]+)@{tracking.CHAMPION}", address)
    if not found:
        raise ValueError(
            f"--model {address}: expected models:/NAME@champion or a model folder such as "
            "models/unet."
        )
    uri = tracking.store_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise ValueError(
            f"{uri}: there is no such store, so no model is registered. Run `dvc repro`, run this "
            "command in the folder of the repository, or name a folder: --model models/unet."
        )
    try:
        return tracking.champion_folder(tracking.open_store(root), found[1])
    except LookupError as error:
        raise ValueError(f"{error.args[0]}, or name a folder: --model models/unet.") from error
    except ConnectionError as error:
        raise ConnectionError(
            f"{error} A model folder needs no store: --model models/unet."
        ) from error


def trained_on_demo(folder: Path) -> bool:
    """Whether a model knows the drawn CT of the demo alone, by the data that its run.json names."""
    from src.model_files import model_folders

    path = model_folders(folder)[0] / "run.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told.get("data_hash") == DEMO_HASH


# --- The predictions ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        written: Images with a mask.
        failed: Images without one; each was named.
        doubtful: Path and reasons of each image with a mask that is unlike the training data.
    """

    written: int
    failed: int
    doubtful: list[tuple[str, str]]


def predict(work: ScanWork, table: Path, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Segments scans, and writes the files of each image and a row for it, in their order.

    While the network is at one scan, others are read and written. An image that cannot be segmented
    is named in a warning, and the others go on.

    Args:
        work: The scans.
        table: The CSV file of the rows; there when all are.
        tick: Called after every image.

    Returns:
        Numbers of images.

    Raises:
        OSError: The output cannot be written.
    """
    written = failed = 0
    doubtful: list[tuple[str, str]] = []
    with whole_file(table) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, work.columns, restval="", lineterminator="\n")
        writer.writeheader()
        with closing(work.rows()) as rows:
            for row in rows:
                written += "mask" in row
                failed += "error" in row
                if row.get("unlike_training"):
                    doubtful.append((row["path"], row["unlike_training"]))
                if "error" in row:
                    _warn(work.root, row["path"], row["error"])
                writer.writerow(row)
                stream.flush()
                tick()
    return Outcome(written, failed, doubtful)


def _warn(root: Path, path: str, problem: str) -> None:
    """Warns of a scan, named with its folder."""
    terminal.warn(f"{root / path}: {problem.removeprefix(f'{path}: ')}")


# --- The command ----------------------------------------------------------------------------------


def main(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="images, or folders of images, nested as you like",
        ),
    ],
    out: Annotated[Path, typer.Option(help="the folder for masks and predictions.csv")],
    model: Annotated[
        str | None,
        typer.Option(
            help="models:/NAME@champion, or a model folder such as models/unet. Default: the "
            "champion of compare.registered_model of params.yaml"
        ),
    ] = None,
    format: Annotated[
        MaskFormat | None,
        typer.Option(
            help="of masks; without it PNG for pictures, NIfTI for volumes, DICOM SEG for DICOM"
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="also pictures with the outlines")
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="also a map of the entropy, 0 to 1 (PNG: 0 to 65535)"),
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="also a map for each class, 0 to 1 (PNG: 0 to 65535)"),
    ] = False,
    slope: Annotated[
        float | None, typer.Option(help="of pictures: HU = slope * value + intercept")
    ] = None,
    intercept: Annotated[float | None, typer.Option(help="of pictures, in HU")] = None,
    spacing_mm: Annotated[
        tuple[float, float] | None, typer.Option(help="of pictures: height and width of a pixel")
    ] = None,
    thickness_mm: Annotated[float | None, typer.Option(help="of pictures: of a slice")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="slices that go through the network together")
    ] = 8,
    engine: Annotated[
        EngineName | None,
        typer.Option(help="what runs the network; without it as inference.engine said in training"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="write into a folder that is not empty, over files of the same names",
        ),
    ] = False,
) -> None:
    """Segments scans: PNG, TIFF, JPEG, BMP, DICOM, NIfTI, NRRD or MHA, files or folders of them.

    Each mask lies where its scan lies. Masks among the images are left out. What pictures mean is
    taken from params.yaml (data.pictures) where an option does not say it. Not for clinical use.

    Files of one slice that lie in one folder and are of one patient (data.patient of params.yaml,
    else the folder) are one scan, as in data/. A model with context or postprocessing looks at
    whole scans: name their folders, and give each patient one.

    Example: python -m src.predict path/to/scans --out predictions --overlay
    """
    root = Path.cwd()
    params = load_params(root / "params.yaml") if (root / "params.yaml").exists() else None
    mask_words = params.data.mask_words if params else ()
    images = find_images(sources, mask_words)
    alone = sources[0] if len(sources) == 1 and sources[0].is_file() else None
    if alone and Roles((), mask_words).is_mask(alone.name):
        terminal.warn(
            f"{alone}: by a word of data.mask_words (params.yaml) in its name this is a mask. It "
            "is segmented as an image, because it was named by itself."
        )
    if params is None and not alone:
        terminal.warn(
            "no params.yaml here, so no data.mask_words: every file but DICOM SEG is an image"
        )
    wanted = Wanted(format.value if format else None, overlay, uncertainty, probabilities,
                    batch_size)  # fmt: skip
    _refuse_impossible(images, sources, out, wanted, overwrite)
    scale = NO_SCALE
    if any(scan.kind == "picture" for scan in images.scans):
        known = PictureScale(**params.data.pictures.model_dump()) if params else None
        scale = picture_scale(
            known,
            {"slope": slope, "intercept": intercept, "spacing_mm": spacing_mm,
             "thickness_mm": thickness_mm},
        )  # fmt: skip
        terminal.console.print(
            f"pictures: HU = {scale.slope:g} * value {scale.intercept:+g}, pixels of "
            f"{scale.spacing_mm[0]:g} x {scale.spacing_mm[1]:g} mm, slices of "
            f"{scale.thickness_mm:g} mm: by --slope, --intercept, --spacing-mm, --thickness-mm, "
            "else by data.pictures of params.yaml, for the files do not say it"
        )
    from src.inference import load_segmenter
    from src.model_files import model_hash

    if model is None:
        name = params.compare.registered_model if params else REGISTERED_MODEL
        model = f"models:/{name}@{tracking.CHAMPION}"
    folder = model_folder(model, root)
    segmenter = load_segmenter(folder, engine.value if engine else None)
    version = f"{segmenter.name} {model_hash(folder)}"
    terminal.console.print(f"model: {version} from {model}")
    terminal.console.print(f"engine: {segmenter.engine_note}")
    if trained_on_demo(folder):
        terminal.warn(
            "this model was trained on the drawn CT of the demo: what it makes of real CT means "
            "nothing"
        )
    unread = [finding for finding in images.findings if finding.severity == "error"]
    for finding in unread:
        _warn(images.root, finding.paths[0], f"found {finding.found}. {finding.remedy}")
    stacks = each_alone(images)
    if segmenter.needs_whole_scans:
        rules = Rules(params.data.patient if params else None, None, Roles((), mask_words))
        stacks = _whole_scans(images, rules, root / "data")
    out.mkdir(parents=True, exist_ok=True)
    keep_from_git(out, root)
    (out / TABLE).unlink(missing_ok=True)  # it would speak of masks that are being replaced
    work = ScanWork(images, stacks, out, segmenter, wanted, scale, version)
    with terminal.progress("segmenting", len(images.scans)) as tick:
        done = predict(work, out / TABLE, tick)
    _report(done, images, out, segmenter.class_names, unread=len(unread))


def _whole_scans(images: Images, rules: Rules, data: Path) -> list[list[int]]:
    """Which images are one scan for a model that looks at whole scans; says what was decided."""
    stacks, unnamed = one_scan_each(images, rules, data)
    several = [len(stack) for stack in stacks if len(stack) > 1]
    if several:
        terminal.console.print(
            f"{sum(several)} files of one slice are {count_of(len(several), 'scan')}: those of one "
            "patient in one folder are one, and this model looks at whole scans"
        )
    if unnamed:
        terminal.warn(
            f"{some_of(unnamed, 3)}: data.patient of params.yaml ({rules.patient}) does not say "
            "whose they are, so those in one folder count as one patient's. Give each patient a "
            "folder."
        )
    return stacks


def _refuse_impossible(
    images: Images, sources: Sequence[Path], out: Path, wanted: Wanted, overwrite: bool
) -> None:
    """Raises, before anything is read or written, for what cannot be done or would lose files."""
    for source in filter(Path.is_dir, sources):
        here, there = source.resolve(), out.resolve()
        if here in (there, *there.parents) or there in here.parents:
            raise ValueError(
                f"--out {out}: masks must not be written among the images of {source}, or masks "
                "that are there could be lost. Name a folder beside it."
            )
    # Of folders, which are few: to resolve the path of every file takes a while.
    of_images = {PurePath(file).parent for scan in images.scans for file in scan.files}
    of_masks = {PurePath(stem).parent for stem in images.stems}
    taken = {(images.root / folder).resolve() for folder in of_images}
    if taken.intersection((out / folder).resolve() for folder in of_masks):
        raise ValueError(
            f"--out {out}: masks would lie beside their images, and masks that are there could be "
            "lost. Name another folder."
        )
    if Path("data").resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"--out {out}: data/ holds what models are made of. Name another folder.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: this is a file. Name a folder.")
    # A table alone is that of scans that all failed.
    held = {path.name for path in out.iterdir()} - {TABLE, NOT_FOR_GIT} if out.is_dir() else set()
    if held and not overwrite:
        raise ValueError(
            f"--out {out}: the folder is not empty. Name another one, or add --overwrite to "
            "replace files of the same names."
        )
    others = [scan.path for scan in images.scans if scan.kind != "dicom"]
    if wanted.format == "dicom-seg" and others:
        raise ValueError(
            f"--format dicom-seg needs DICOM images, for it repeats their headers; got {others[0]}"
            + (f" and {len(others) - 1} more" if len(others) > 1 else "")
            + ". Leave --format out, or use png or nifti."
        )


def _report(
    done: Outcome, images: Images, out: Path, class_names: Sequence[str], *, unread: int
) -> None:
    """Says what was done and where to look; leaves with exit code 1 where something failed."""
    if images.masks:
        terminal.console.print(
            f"{count_of(len(images.masks), 'mask')} among the images left out, by a word of "
            f"data.mask_words in the name: {some_of(images.masks, 3)}"
        )
    unknown = [finding.paths[0] for finding in images.findings if finding.kind == "unknown-file"]
    if unknown:
        terminal.warn(
            f"{count_of(len(unknown), 'file')} of unknown formats passed over: "
            f"{', '.join(unknown[:3])}{', …' if len(unknown) > 3 else ''}"
        )
    if done.doubtful:
        path, reasons = done.doubtful[0]
        more = len(done.doubtful) > 1
        terminal.warn(
            f"{count_of(len(done.doubtful), 'image')} unlike the training data"
            f"{', such as' if more else ':'} {path} ({reasons})"
            + (f"; see the column unlike_training of {out / TABLE}" if more else "")
        )
    values = ", ".join(f"{index} {name}" for index, name in enumerate(class_names))
    terminal.console.print(
        f"{count_of(done.written, 'image')} segmented" + (f" ({values})" if done.written else "")
    )
    if done.written:
        terminal.console.print(f"Look at {out / TABLE} and at the masks in {out}")
    if done.failed or unread:
        terminal.fail(
            f"{count_of(done.failed + unread, 'file')} could not be segmented; the warnings above "
            "name them"
        )


if __name__ == "__main__":
    terminal.run(
        main,
        to_go_on="Masks that are there are whole. Give the same command with --overwrite: it "
        "begins anew, and writes the table at its end.",
    )
