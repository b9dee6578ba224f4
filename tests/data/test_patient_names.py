"""Which names may be one patient's; numbering as collections have it must stay silent."""

from __future__ import annotations

import hashlib
import random
import uuid

import pytest

from src.data.patient_names import spelling, without_occasion

ROLES = {"ct", "image", "scan", "volume"}


def together(names):
    """Names that may be one patient's, group by group."""
    groups = {}
    for name in dict.fromkeys(names):
        left = spelling(without_occasion(name, ROLES.__contains__))
        groups.setdefault(left, []).append(name)
    return [members for members in groups.values() if len(members) > 1]


def numbered(pattern, *, last=40, first=1):
    return [pattern % number for number in range(first, last + 1)]


def several(pattern, places, seed=1):
    """For each place one to eight numbers from 1."""
    draw = random.Random(seed)
    return [pattern % (at, n) for at in places for n in range(1, draw.randint(1, 8) + 1)]


DRAW = random.Random(0)
SILENT = {
    "one running number": numbered("case_%03d"),
    "numbers that pass through years": numbered("case_%04d", last=3000),
    "numbers that are all like years": numbered("case_%d", first=2001, last=2030),
    "patients": numbered("patient_%03d"),
    "bare numbers": numbered("%d"),
    "LIDC-IDRI": numbered("LIDC-IDRI-%04d"),
    "LiTS": numbered("volume-%d"),
    "Medical Decathlon": numbered("liver_%d") + numbered("spleen_%d") + numbered("colon_%d"),
    "BraTS": numbered("BraTS20_Training_%03d") + numbered("BraTS20_Validation_%03d"),
    "nnU-Net": numbered("case_%03d_0000"),
    "with a word for images": numbered("patient_%03d_ct"),
    "study as a word of all names": numbered("study_%04d"),
    "KiTS of two years": numbered("kits19_%05d") + numbered("kits21_%05d"),
    "3D-IRCADb": numbered("3Dircadb1.%d", last=20) + numbered("3Dircadb2.%d", last=2),
    "sets": numbered("train_%03d") + numbered("val_%03d") + numbered("test_%03d"),
    "two sites": numbered("siteA_%03d") + numbered("siteB_%03d", last=20),
    "two small sites": ["siteA_001", "siteA_002", "siteB_001"],
    "many small sites": several("site%d_%03d", range(1, 15)),
    "many small centres": several("center_%d_%03d", range(1, 15)),
    "sites with patients": several("site%d_patient%d", range(1, 15)),
    "hospitals with cases": several("hospital%d_case_%03d", range(1, 15)),
    "sites with numbered scans": numbered("siteA_scan_%03d") + numbered("siteB_scan_%03d"),
    "sites with dates": [f"site{at}_2019-{m:02d}-0{d}" for at in "AB" for m in range(1, 13)
                         for d in (3, 9)],
    "a trial": several("%02d-%03d", range(1, 31)),
    "a trial of equal widths": several("%d-%03d", range(101, 131)),
    "a trial of wide sites": several("%d-%03d", range(1001, 1031)),
    "a balanced trial": [f"{at}-{n:03d}" for at in range(101, 109) for n in (1, 2, 3)],
    "a register a year": several("%d_%03d", range(2015, 2025)),
    "another register a year": several("CT%d-%d", range(2015, 2025)),
    "TCGA": [f"TCGA-{at:02d}-{DRAW.choice('A0123')}{DRAW.randint(100, 999)}"
             for at in range(1, 30) for _ in range(DRAW.randint(1, 9))],
    "Head-Neck-PET-CT": several("HN-%s-%03d", ("CHUM", "HGJ", "HMR", "CHUS")),
    "CPTAC": numbered("C3L-%05d") + numbered("C3N-%05d"),
    "NSCLC": numbered("AMC-%03d") + numbered("R01-%03d"),
    "COVID-19-CT-Seg": [*numbered("coronacases_org_%03d", last=10), "radiopaedia_7_85703_0",
                        "radiopaedia_14_85914_0", "radiopaedia_29_86490_1"],
    "dates": [f"{y}-{m:02d}-0{d}" for y in (2019, 2020) for m in range(1, 13) for d in (1, 5)],
    "dates of eight digits": [f"2019{m:02d}{d:02d}" for m in range(1, 13) for d in (3, 17)],
    "German dates": [f"{d:02d}.{m:02d}.2019" for m in range(1, 13) for d in (3, 17)],
    "numbers of a day": [f"2019-{m:02d}-03_{n}" for m in range(1, 13) for n in (1, 2)],
    "times of a day": [f"2019-01-03_{h:02d}-{m:02d}" for h in range(8, 18) for m in (1, 30)],
    "UUIDs": [str(uuid.UUID(int=DRAW.getrandbits(128), version=4)) for _ in range(500)],
    "UIDs": [f"1.2.840.{DRAW.randint(1, 5)}.{DRAW.randint(1, 3)}.{DRAW.randint(1, 20)}"
             for _ in range(100)],
    "hashes": [hashlib.sha256(bytes([n])).hexdigest()[:12] for n in range(200)],
    "people": ["Mueller_Anna", "Mueller_Hans", "Schmidt_Anna", "Schmidt_Eva", "Huber_Hans"],
    "people and numbers": ["Muster_Max", "Muster_Eva", "ID4711", "ID4712", "Meier"],
    "one patient before and after": ["case_pre", "case_post"],
    "names without a word": ["__", "--"],
    "one": ["P00_pre"],
    "none": [],
}  # fmt: skip


@pytest.mark.parametrize("names", SILENT.values(), ids=SILENT)
def test_names_as_collections_number_their_patients_are_no_doubt(names):
    assert together(names) == []


@pytest.mark.parametrize(
    "names",
    [
        ["P00_pre", "P00_post"],
        ["patient_001_baseline", "patient_001_Follow-up"],
        ["001_pre", "001_post"],
        ["P00_2019", "P00_2021"],
        ["P00_2019-01-03", "P00_03.07.2021"],
        ["patient_001_20190103", "patient_001_20210701"],
        ["P00_arterial", "P00_portal_venous", "P00_delayed"],
        ["P00_visit1", "P00_visit_2", "P00 Visit 3"],
        ["P00_t1", "P00_t2", "P00_v3"],
        ["P00_pre_0000", "P00_post_0000"],
        ["P00_pre_ct", "P00_post_ct"],
        ["P00_2019_arterial", "P00_2021"],
        ["P01", "P01_followup"],
        ["P00_pre", "p00_post"],
    ],
)
def test_names_that_are_one_but_for_an_occasion_may_be_one_patient(names):
    assert together([*names, "P77_pre", "P78"]) == [names]


def test_a_spelling_knows_no_upper_case_and_no_blanks_but_between_words():
    assert spelling(" P00  A") == spelling("p00 a") != spelling("p00a")
