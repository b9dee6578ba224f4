"""Many scans on their way to masks: read, segmented and written at the same time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import terminal
from src.data.dicom import read_header
from src.data.images import Images
from src.data.parallel import in_order
from src.data.pictures import PictureScale
from src.data.readers import read_scan
from src.data.scans import ScanFile
from src.prediction import (
    Image,
    Prediction,
    Wanted,
    check_values,
    measures,
    segment_together,
    unlike_training,
    write,
)
from src.processor import cores

if TYPE_CHECKING:
    from src.inference import AnySegmenter

TOGETHER = 8  # small pictures that go through the network as one batch
SMALL_BYTES = 2**20  # of a file; a larger one is a batch by itself

Row = dict[str, Any]
"""A row of predictions.csv."""

Group = list[tuple[ScanFile, Path]]
"""Scans that are worked on together, and where the outputs of each go."""


class ScanWork:
    """The scans of an INPUT, several of them under way at a time."""

    def __init__(
        self,
        images: Images,
        out: Path,
        segmenter: AnySegmenter,
        wanted: Wanted,
        scale: PictureScale,
        version: str,
    ) -> None:
        """Plan the work; nothing is begun.

        Args:
            images: From `find_images`.
            out: The output folder; it gets the same tree.
            segmenter: The model.
            wanted: What is written of each.
            scale: What pictures mean.
            version: What tells this model from others.
        """
        self._images, self._out, self._segmenter = images, out, segmenter
        self._wanted, self._scale, self._version = wanted, scale, version
        self._stopped = threading.Event()
        # Reading and writing DICOM silence warnings of its libraries, which is not to be done by
        # two threads at a time.
        self._dicom = threading.Lock()
        self._uneven = {
            finding.paths[0]: finding.found
            for finding in images.findings
            if finding.kind == "slice-spacing"
        }

    @property
    def root(self) -> Path:
        """The folder that the paths of the rows are relative to."""
        return self._images.root

    @property
    def columns(self) -> list[str]:
        """Of the table."""
        classes = self._segmenter.class_names[1:]
        quantities = ("area_mm2", "volume_ml")
        return [
            *("path", "mask", "slices", "height", "width", "spacing_y_mm", "spacing_x_mm"),
            "thickness_mm",
            *(f"{quantity}_{name}" for quantity in quantities for name in classes),
            *("uncertainty", "unlike_training", "seconds", "model", "error"),
        ]

    def rows(self) -> Generator[Row, None, None]:
        """A row for each scan, in their order; closing it ends the work.

        Raises:
            OSError: The output cannot be written.
        """
        # Of large scans, one more than the network is at.
        number = cores() + 1 if all(map(self._is_small, self._images.scans)) else 2
        work = in_order(self._rows_of, self._groups(), number, on_end=self._stopped.set)
        with closing(work):
            for rows in work:
                yield from rows

    def _groups(self) -> Iterator[Group]:
        """Small pictures that follow each other, and each larger scan by itself."""
        group: Group = []
        for scan, stem in zip(self._images.scans, self._images.stems, strict=True):
            small = self._is_small(scan)
            if group and (not small or len(group) == TOGETHER):
                yield group
                group = []
            group.append((scan, self._out / stem))
            if not small:
                yield group
                group = []
        if group:
            yield group

    def _is_small(self, scan: ScanFile) -> bool:
        """Whether a scan is a picture that may share a batch with others."""
        if scan.kind != "picture" or self._segmenter.sees_neighbours:
            return False
        try:
            return (self._images.root / scan.path).stat().st_size <= SMALL_BYTES
        except OSError:  # reading it will say why
            return False

    def _rows_of(self, group: Group) -> list[Row]:
        started = time.perf_counter()
        rows: list[Row] = [
            {"path": self._images.name_of(scan), "model": self._version} for scan, _ in group
        ]
        read: dict[int, Image] = {}
        for number, (scan, _) in enumerate(group):
            try:
                read[number] = self._read(scan)
            except ValueError as error:
                rows[number]["error"] = str(error)
        results: list[Prediction] = []
        try:
            if read:
                results = segment_together(
                    self._segmenter, [image.scan for image in read.values()], self._wanted,
                    on_slice=self._go_on,
                )  # fmt: skip
        except ValueError as error:
            if len(group) > 1:  # one of them is to blame
                return [row for one in group for row in self._rows_of([one])]
            rows[0]["error"], read = str(error), {}
        for (number, image), result in zip(read.items(), results, strict=True):
            try:
                rows[number] |= self._written(group[number], image, result)
            except ValueError as error:
                rows[number]["error"] = str(error)
        seconds = round((time.perf_counter() - started) / len(group), 6)
        return [row | {"seconds": seconds} for row in rows]

    def _read(self, scan: ScanFile) -> Image:
        root = self._images.root
        files = tuple(root / file for file in scan.files)
        with self._alone(scan.kind):
            self._go_on()
            try:
                loaded = read_scan(scan, self._scale, root=root)
                header = read_header(files[0], scan.files[0]) if scan.kind == "dicom" else None
            except OSError as error:  # of this scan alone; one in writing stops the run
                if error.filename:  # by the name that the messages of readers have
                    error.filename = os.path.relpath(error.filename, root).replace(os.sep, "/")
                raise ValueError(terminal.explain(error)) from error
        check_values(loaded)
        return Image(loaded, scan.kind, files, header.modality if header else "")

    def _written(self, job: tuple[ScanFile, Path], image: Image, result: Prediction) -> Row:
        """Writes the files of a scan; its row."""
        (scan, stem), segmenter = job, self._segmenter
        thickness, y, x = image.scan.spacing_mm
        doubts = unlike_training(image, segmenter)
        doubts += [self._uneven[scan.path]] if scan.path in self._uneven else []
        with self._alone(scan.kind):
            self._go_on()
            mask = write(stem, image, result, segmenter, self._wanted, version=self._version)
        row: Row = {
            "mask": mask.relative_to(self._out).as_posix(),
            **dict(zip(("slices", "height", "width"), result.mask.shape, strict=True)),
            "spacing_y_mm": round(y, 6),
            "spacing_x_mm": round(x, 6),
            "thickness_mm": round(thickness, 6),
            **measures(result.mask, segmenter.class_names, image.scan.spacing_mm),
            "unlike_training": "; ".join(doubts),
        }
        if result.mean_uncertainty is not None:
            row["uncertainty"] = round(result.mean_uncertainty, 6)
        return row

    def _alone(self, kind: str) -> Any:
        return self._dicom if kind == "dicom" else nullcontext()

    def _go_on(self) -> None:
        """Ends the work on a scan where nobody waits for it any more."""
        if self._stopped.is_set():
            raise CancelledError
