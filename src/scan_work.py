"""Many scans on their way to masks: read, segmented and written at the same time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import terminal
from src.data.dicom import read_header
from src.data.findings import some_of
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
SMALL_BYTES = 2**20  # of the files of a scan; a larger one is a batch by itself

Row = dict[str, Any]
"""A row of predictions.csv."""

Stack = Sequence[int]
"""Places in `Images.scans` of those that are one scan, in the order of their slices."""

ALONE = "a single slice, where the model looks at all slices of a scan"


class ScanWork:
    """The scans of an INPUT, several of them under way at a time."""

    def __init__(
        self,
        images: Images,
        stacks: Sequence[Stack],
        out: Path,
        segmenter: AnySegmenter,
        wanted: Wanted,
        scale: PictureScale,
        version: str,
    ) -> None:
        """Plan the work; nothing is begun.

        Args:
            images: From `find_images`.
            stacks: From `one_scan_each` where the model needs whole scans, else from `each_alone`.
            out: The output folder; it gets the same tree.
            segmenter: The model.
            wanted: What is written of each.
            scale: What pictures mean.
            version: What tells this model from others.
        """
        self._images, self._stacks, self._out = images, stacks, out
        self._segmenter = segmenter
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
        """A row for each image, in their order; closing it ends the work.

        Raises:
            OSError: The output cannot be written.
        """
        # Of large scans, one more than the network is at.
        number = cores() + 1 if all(map(self._is_small, self._stacks)) else 2
        work = in_order(self._rows_of, self._groups(), number, on_end=self._stopped.set)
        with closing(work):
            early: dict[int, Row] = {}  # images of a scan need not follow each other
            place = 0
            for rows in work:
                early |= rows
                while place in early:
                    yield early.pop(place)
                    place += 1

    def _groups(self) -> Iterator[list[Stack]]:
        """Small scans that follow each other, and each larger scan by itself."""
        group: list[Stack] = []
        for stack in self._stacks:
            shares = not self._segmenter.sees_neighbours and self._is_small(stack)
            if group and (not shares or sum(map(len, group)) + len(stack) > TOGETHER):
                yield group
                group = []
            group.append(stack)
            if not shares:
                yield group
                group = []
        if group:
            yield group

    def _is_small(self, stack: Stack) -> bool:
        """Whether a scan is of pictures, and small enough that several may be in memory."""
        scans = [self._images.scans[number] for number in stack]
        if any(scan.kind != "picture" for scan in scans):
            return False
        try:
            sizes = ((self._images.root / scan.path).stat().st_size for scan in scans)
            return sum(sizes) <= SMALL_BYTES
        except OSError:  # reading it will say why
            return False

    def _rows_of(self, group: list[Stack]) -> dict[int, Row]:
        """The row of each image by its place."""
        started = time.perf_counter()
        rows: dict[int, Row] = {}
        read: dict[int, Image] = {}
        for number in (number for stack in group for number in stack):
            scan = self._images.scans[number]
            rows[number] = {"path": self._images.name_of(scan), "model": self._version}
            try:
                read[number] = self._read(scan)
            except ValueError as error:
                rows[number]["error"] = str(error)
        results: list[Prediction] = []
        try:
            if read:
                stacks = [[read[number].scan for number in stack if number in read]
                          for stack in group]  # fmt: skip
                results = segment_together(
                    self._segmenter, stacks, self._wanted, on_slice=self._go_on
                )
        except ValueError as error:
            if len(group) > 1:  # one of them is to blame
                return {
                    number: row for stack in group for number, row in self._rows_of([stack]).items()
                }
            for number in read:
                rows[number]["error"] = str(error)
            read = {}
        doubts = {number: doubt for stack in group for number, doubt in self._of_stack(stack, read)}
        for (number, image), result in zip(read.items(), results, strict=True):
            try:
                rows[number] |= self._written(number, image, result, doubts[number])
            except ValueError as error:
                rows[number]["error"] = str(error)
        seconds = round((time.perf_counter() - started) / len(rows), 6)
        return {number: row | {"seconds": seconds} for number, row in rows.items()}

    def _of_stack(self, stack: Stack, read: dict[int, Image]) -> Iterator[tuple[int, list[str]]]:
        """What is doubtful about each image of a scan because of the others, or for want of any."""
        there = [number for number in stack if number in read]
        doubts = []
        if self._segmenter.needs_whole_scans:
            depth = sum(len(read[number].scan.array) for number in there)
            doubts += [ALONE] if depth == 1 else []
            lacks = [self._images.scans[number].path for number in stack if number not in read]
            if lacks:
                doubts.append(f"the scan lacks {some_of(lacks, 3)}, which could not be read")
        yield from ((number, doubts) for number in there)

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

    def _written(self, number: int, image: Image, result: Prediction, doubts: Sequence[str]) -> Row:
        """Writes the files of an image; what its row says of them."""
        scan, segmenter = self._images.scans[number], self._segmenter
        stem = self._out / self._images.stems[number]
        thickness, y, x = image.scan.spacing_mm
        doubts = [*unlike_training(image, segmenter), *doubts]
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
