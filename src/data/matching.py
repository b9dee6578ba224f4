"""Images matched with masks by what their names and folders say; never by position in a list.

Words that say "image" or "mask" are taken out, and what is left is compared as whole words: first
folders and name apart, then all in a row, then one row inside the other. Wherever more than one
partner fits, that is an error which names them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from src.data.findings import Finding, count_of, some_of
from src.data.roles import Name, Roles, Words
from src.data.scans import ScanFile

Pair = tuple[ScanFile, ScanFile]

_SHOWN = 4  # names of rivals in a message
_Sides = tuple[str, str]  # what is matched with what, in messages
_DATA: _Sides = ("image", "mask")


def match(
    scans: Sequence[ScanFile], *, image_words: Sequence[str], mask_words: Sequence[str]
) -> tuple[list[Pair], list[Finding]]:
    """Matches images with masks.

    A DICOM SEG goes to the series that it references. A DICOM series goes by the name of its
    folder, or, where masks are named after its files, file by file.

    Args:
        scans: What `list_scans` gave.
        image_words: Words that say nothing about which image it is.
        mask_words: Words that make a file a mask.

    Returns:
        Pairs (image, mask), sorted by the image's path, and findings: what was left over, what is
        ambiguous, and what agreed in part alone.
    """
    roles = Roles(image_words, mask_words)
    images, masks, segmentations = _by_role(scans, roles)
    if not images or not (masks or segmentations):
        return [], [_nothing(len(scans), bool(images), roles)]
    findings: list[Finding] = []
    pairs, images = _by_reference(images, segmentations, findings)
    images, masks = _unfolded(images, masks, roles), _unfolded(masks, images, roles)

    found, images, masks = _by_name(images, masks, roles, findings, _DATA)
    pairs += found
    findings += [
        Finding(
            "orphan-image", "error", (scan.path,), "no mask of this name", "one mask",
            "Add the mask, mend its name, or move the image out of the folder.",
        )
        for scan in images
    ] + [
        Finding(
            "orphan-mask", "error", (scan.path,), "no image of this name", "one image",
            "Add the image, mend its name, or move the mask out of data/. If this is an image, a "
            "word of data.mask_words stands in its path.",
        )
        for scan in masks
    ]  # fmt: skip
    return sorted(pairs, key=_place), findings


def images_of(
    masks: Sequence[ScanFile], others: Sequence[ScanFile], roles: Roles
) -> list[ScanFile]:
    """Those of other scans that a mask beside them was drawn on, or that go with such an image.

    Their words hold those of a mask, or are held in them ("P1_overlay" and "P1_mask"); a DICOM
    series is named by a DICOM SEG.
    """
    named = {series for mask in masks for series in mask.references}
    names = [roles.name(mask.path) for mask in masks]
    whole: dict[Words, list[Name]] = {}
    part: dict[Words, list[Name]] = {}
    for name in names:
        whole.setdefault(name.row, []).append(name)
        for piece in _pieces(name.row):
            part.setdefault(piece, []).append(name)

    def is_image(scan: ScanFile) -> bool:
        name = roles.name(scan.path)
        near = [mask for piece in _pieces(name.row) for mask in whole.get(piece, ())]
        near += part.get(name.row, [])
        near += whole.get((), []) if not name.row else []
        return scan.series in named or any(_telling(name, mask) for mask in near)

    return [scan for scan in others if is_image(scan)]


def match_masks(
    truths: Sequence[ScanFile],
    predictions: Sequence[ScanFile],
    *,
    words: Sequence[str],
) -> tuple[list[Pair], list[ScanFile], list[ScanFile], list[Finding]]:
    """Matches masks of two folders by the rules for images and masks.

    Args:
        truths: Masks below one folder.
        predictions: Masks below another one.
        words: Words that say nothing about which case it is, such as "mask" and "prediction".

    Returns:
        Pairs (truth, prediction) in the order of the truths, truths without a prediction,
        predictions without a truth, and findings: what is ambiguous (an error), and what agreed in
        part alone (a warning).
    """
    roles = Roles((), words)
    findings: list[Finding] = []
    pairs, truths, predictions = _by_common_reference(truths, predictions)
    truths, predictions = (
        _unfolded(truths, predictions, roles),
        _unfolded(predictions, truths, roles),
    )
    found, truths, predictions = _by_name(
        truths, predictions, roles, findings, ("truth", "prediction")
    )
    return sorted(pairs + found, key=_place), truths, predictions, findings


def _place(pair: Pair) -> tuple[str, tuple[str, ...]]:
    return pair[0].path, pair[0].files


def _by_common_reference(
    truths: Sequence[ScanFile], predictions: Sequence[ScanFile]
) -> tuple[list[Pair], list[ScanFile], list[ScanFile]]:
    """DICOM segmentations that are alone in naming a series on either side; the masks left."""

    def alone(scans: Sequence[ScanFile]) -> dict[tuple[str, ...], ScanFile]:
        named = [scan.references for scan in scans if scan.references]
        return {scan.references: scan for scan in scans if named.count(scan.references) == 1}

    left, right = alone(truths), alone(predictions)
    pairs = [(left[series], right[series]) for series in left if series in right]
    taken = {scan for pair in pairs for scan in pair}
    return (
        pairs,
        [scan for scan in truths if scan not in taken],
        [scan for scan in predictions if scan not in taken],
    )


def _by_role(
    scans: Sequence[ScanFile], roles: Roles
) -> tuple[list[ScanFile], list[ScanFile], list[ScanFile]]:
    """Images, masks, DICOM segmentations."""
    images: list[ScanFile] = []
    masks: list[ScanFile] = []
    segmentations = [scan for scan in scans if scan.kind == "dicom-seg"]
    for scan in scans:
        if scan.kind != "dicom-seg":
            others, drawn = roles.parted(scan)
            images += others
            masks += drawn
    return images, masks, segmentations


def _nothing(found: int, images: bool, roles: Roles) -> Finding:
    if images:
        return Finding(
            "no-masks", "error", (), f"{found} files, none of them a mask",
            f"masks that one of the words {', '.join(roles.mask_words)} marks",
            "Put the masks into a folder named masks/, or add your word to data.mask_words.",
        )  # fmt: skip
    text = f"{found} files, all of them masks" if found else "no file that can be read"
    return Finding(
        "no-images", "error", (), text, "images, and masks of the same names",
        "If these are images, a word of data.mask_words stands in the name of a folder above "
        "them: rename the folder or take the word out." if found else
        "Bring data in with `python -m src.ingest FOLDER`, FOLDER with images and masks.",
    )  # fmt: skip


def _by_reference(
    images: list[ScanFile], segmentations: list[ScanFile], findings: list[Finding]
) -> tuple[list[Pair], list[ScanFile]]:
    """DICOM segmentations with the series that they name; the images that are left."""
    drawn_on: dict[ScanFile, list[ScanFile]] = {}
    for mask in segmentations:
        fitting = [image for image in images if image.series in mask.references]
        if not fitting:
            findings.append(
                Finding(
                    "orphan-mask", "error", (mask.path,),
                    "a DICOM SEG whose series is not among the images",
                    "the series it was drawn on",
                    "Add the DICOM series, or move the DICOM SEG out of data/.",
                )
            )  # fmt: skip
        elif len(fitting) > 1:
            findings.append(_ambiguous("ambiguous", fitting, [mask]))
        else:
            drawn_on.setdefault(fitting[0], []).append(mask)
    pairs: list[Pair] = []
    for image, masks in drawn_on.items():
        if len(masks) == 1:
            pairs.append((image, masks[0]))
        else:
            findings.append(_ambiguous("two-masks", [image], masks))
    return pairs, [image for image in images if image not in drawn_on]


def _unfolded(scans: list[ScanFile], others: list[ScanFile], roles: Roles) -> list[ScanFile]:
    """DICOM series, file by file where the other side is named after files, not the folder."""
    if all(len(scan.files) == 1 for scan in scans):
        return scans
    rows = {roles.name(other.path).row for other in others}
    result: list[ScanFile] = []
    for scan in scans:
        by_file = len(scan.files) > 1 and roles.name(scan.path).row not in rows
        if by_file and any(roles.name(file).row in rows for file in scan.files):
            result += scan.single_files()
        else:
            result.append(scan)
    return result


def _by_name(
    images: list[ScanFile],
    masks: list[ScanFile],
    roles: Roles,
    findings: list[Finding],
    sides: _Sides,
) -> tuple[list[Pair], list[ScanFile], list[ScanFile]]:
    """Pairs by name: folders and stem, then all words in a row, then a part; and what is left."""

    def name(scan: ScanFile) -> Name:
        return roles.name(scan.path)

    pairs: list[Pair] = []
    for key in (name, lambda scan: name(scan).row):
        found, images, masks = _by_key(images, masks, key, findings, sides)
        pairs += found
    found, images, masks = _by_part(images, masks, name, findings, sides)
    return pairs + found, images, masks


def _by_key(
    images: list[ScanFile],
    masks: list[ScanFile],
    key: Callable[[ScanFile], Hashable],
    findings: list[Finding],
    sides: _Sides,
) -> tuple[list[Pair], list[ScanFile], list[ScanFile]]:
    """Pairs whose keys are equal; then the images and masks that are left."""
    groups: dict[Hashable, tuple[list[ScanFile], list[ScanFile]]] = {}
    for side, scans in enumerate((images, masks)):
        for scan in scans:
            groups.setdefault(key(scan), ([], []))[side].append(scan)
    pairs: list[Pair] = []
    left: tuple[list[ScanFile], list[ScanFile]] = ([], [])
    for some_images, some_masks in groups.values():
        if len(some_images) == len(some_masks) == 1:
            pairs.append((some_images[0], some_masks[0]))
        elif some_images and some_masks:
            kind = "two-masks" if len(some_images) == 1 else "ambiguous"
            findings.append(_ambiguous(kind, some_images, some_masks, sides))
        else:
            left[0].extend(some_images)
            left[1].extend(some_masks)
    return pairs, *left


def _by_part(
    images: list[ScanFile],
    masks: list[ScanFile],
    name: Callable[[ScanFile], Name],
    findings: list[Finding],
    sides: _Sides,
) -> tuple[list[Pair], list[ScanFile], list[ScanFile]]:
    """Pairs of which one name holds the other ("case_0000" and "case"), alone on both sides."""
    whole: dict[Words, list[ScanFile]] = {}
    part: dict[Words, list[ScanFile]] = {}
    for mask in masks:
        row = name(mask).row
        whole.setdefault(row, []).append(mask)
        for piece in _pieces(row):
            part.setdefault(piece, []).append(mask)
    partners: dict[ScanFile, list[ScanFile]] = {}
    wanted_by: dict[ScanFile, list[ScanFile]] = {}
    for image in images:
        row = name(image).row
        fitting = [mask for piece in _pieces(row) for mask in whole.get(piece, [])]
        for mask in dict.fromkeys(fitting + part.get(row, [])):
            if _telling(name(image), name(mask)):
                partners.setdefault(image, []).append(mask)
                wanted_by.setdefault(mask, []).append(image)
    pairs: list[Pair] = []
    said: set[ScanFile] = set()
    for image, fitting in partners.items():
        rivals = wanted_by[fitting[0]]
        if len(fitting) == len(rivals) == 1:
            pairs.append((image, fitting[0]))
            findings.append(
                Finding(
                    "matched-in-part", "warning", (image.path, fitting[0].path),
                    "names that agree in part", "names that agree but for role words",
                    "Look whether they belong together; the same name for both would say so.",
                )
            )  # fmt: skip
        elif len(fitting) > 1:
            findings.append(_ambiguous("ambiguous", [image], fitting, sides))
        elif fitting[0] not in said:  # several images of one mask: once
            said.add(fitting[0])
            findings.append(_ambiguous("ambiguous", rivals, fitting, sides))
    return (
        pairs,
        [image for image in images if image not in partners],
        [mask for mask in masks if mask not in wanted_by],
    )


def _pieces(row: Words) -> set[Words]:
    """All runs of whole words, but the empty one."""
    size = len(row)
    return {row[start:end] for start in range(size) for end in range(start + 1, size + 1)}


def _telling(image: Name, mask: Name) -> bool:
    """A bare number is no evidence across folders: "2" also stands in another patient's folder."""
    shorter = min(image.row, mask.row, key=len)
    return image.folders == mask.folders or any(char.isalpha() for char in "".join(shorter))


def _ambiguous(
    kind: str, images: list[ScanFile], masks: list[ScanFile], sides: _Sides = _DATA
) -> Finding:
    image, mask = sides
    place = "out of data/" if sides == _DATA else "elsewhere"
    names = [scan.files[0] if len(scan.files) > 1 else scan.path for scan in (*images, *masks)]
    return Finding(
        kind, "error", tuple(names),
        f"{count_of(len(images), image)} ({some_of(names[: len(images)], _SHOWN)}) and "
        f"{count_of(len(masks), mask)} ({some_of(names[len(images) :], _SHOWN)}) "
        "that fit each other",
        f"one {image} and one {mask}",
        f"Give one {image} and one {mask} the same folders and name, or move one {place}.",
    )  # fmt: skip
