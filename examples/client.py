"""Slices in HU to the server of `make serve`, their masks back."""

import argparse
import json
import sys
import urllib.error
import urllib.request

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("slices", help=".npy: (slices, height, width) in HU, of one scan in order")
parser.add_argument("masks", help=".npy that is written: class indices of the same size")
parser.add_argument(
    "--spacing-mm", type=float, nargs=2, metavar=("Y", "X"),
    help="size of a pixel, for a model that was trained at one spacing",
)  # fmt: skip
parser.add_argument("--address", default="http://127.0.0.1:5002/invocations")
given = parser.parse_args()

hu = np.load(given.slices)
params = {"output": "mask"} | ({"spacing_mm": given.spacing_mm} if given.spacing_mm else {})
body = json.dumps({"inputs": hu.tolist(), "params": params}).encode()
request = urllib.request.Request(given.address, body, {"Content-Type": "application/json"})
try:
    with urllib.request.urlopen(request) as answer:
        mask = np.array(json.load(answer)["predictions"], np.uint8)
except urllib.error.HTTPError as error:
    told = error.read().decode()
    try:  # MLflow's server tells the reason in the last line of a stack trace
        told = json.loads(told)["stack_trace"].strip().splitlines()[-1]
    except (ValueError, KeyError):
        told = told[:500]
    hint = " Here: --spacing-mm Y X" if "spacing_mm" in told else ""
    sys.exit(f"{given.address} refused {hu.shape}: {told}{hint}")
except urllib.error.URLError as error:
    sys.exit(
        f"{given.address}: no answer ({error.reason}). Start the server with `make serve`, or name "
        "another with --address."
    )
np.save(given.masks, mask)
