"""What a benchmark says of the machine it ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """The CPU's name and how many there are."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
        bfloat16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in " ".join(lines)]
        cpu += f" with {', '.join(bfloat16)}" if bfloat16 else " without bfloat16"
    return f"{cpu}, {os.cpu_count()} cores"
