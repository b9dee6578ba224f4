"""Slices in HU to the server of `make serve`, their masks back."""

import json
import sys
import urllib.error
import urllib.request

import numpy as np

hu = np.load(sys.argv[1])  # (slices, height, width) of one scan in order; argv[2] gets the mask
body = json.dumps({"inputs": hu.tolist(), "params": {"output": "mask"}}).encode()
address = sys.argv[3] if len(sys.argv) > 3 else "http://127.0.0.1:5002/invocations"
request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
try:
    with urllib.request.urlopen(request) as answer:
        mask = np.array(json.load(answer)["predictions"], np.uint8)
except urllib.error.HTTPError as error:
    sys.exit(f"{address} refused {hu.shape}: {error.read().decode()[:500]}")
except urllib.error.URLError as error:
    sys.exit(
        f"{address}: no answer ({error.reason}). Start the server with `make serve`, or give its "
        "address as the third argument."
    )
np.save(sys.argv[2], mask)
