"""What a benchmark says of the machine it ran on."""

from __future__ import annotations

from src.processor import CPU_FLAGS, cpu_flags
from src.processor import machine as cores_and_name


def machine() -> str:
    """How many cores there are, the CPU's name and its instructions for bfloat16."""
    found = sorted(CPU_FLAGS & cpu_flags())
    bfloat16 = f"with {', '.join(found)}" if found else "without bfloat16"
    return f"{cores_and_name()} {bfloat16}"
