"""What the processors of this machine can do, and how much of them this process may use.

Nothing is imported for it: a command that starts no TensorFlow asks too.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

# Without one of these a CPU emulates bfloat16, many times slower than float32.
CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_CPU = Path("/proc/cpuinfo")
# What NVIDIA's driver makes where there is a GPU; the second under WSL.
_GPU_FILES = (Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/nvidia-smi"))


def cpu_flags(path: Path = _CPU) -> frozenset[str]:
    """Read the feature flags of the CPU.

    Args:
        path: The file in which Linux lists them.

    Returns:
        The flags of the first core; empty where there is no such file (macOS, Windows) or no
        such line (ARM), so that these machines compute in float32.
    """
    return frozenset(_of_first_core("flags", path).split())


def machine(path: Path = _CPU) -> str:
    """Tell what computes here, such as "2 cores, AMD EPYC", for whoever wants the same bits again.

    Args:
        path: The file in which Linux names the CPU.
    """
    number = cores()
    name = _of_first_core("model name", path) or platform.processor() or platform.machine()
    gpu = ", GPU" if has_nvidia_gpu() else ""
    return f"{number} core{'' if number == 1 else 's'}, {name}{gpu}"


def _of_first_core(key: str, path: Path) -> str:
    """What /proc/cpuinfo says; empty where it says nothing."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def cpu_bfloat16(flags: frozenset[str]) -> tuple[bool, str]:
    """Tell whether a CPU computes faster in bfloat16.

    Args:
        flags: Its feature flags.

    Returns:
        Whether it does, and the reason, a clause without a full stop.
    """
    if found := sorted(CPU_FLAGS & flags):
        return True, f"the CPU has bfloat16 instructions ({', '.join(found)})"
    return False, "the CPU has no bfloat16 instructions"


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Count the cores that this process may use, at least 1.

    Args:
        environment: OMP_NUM_THREADS in it lowers the number, as in other numerical libraries.
    """
    # macOS and Windows bind no process to cores.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = environment.get("OMP_NUM_THREADS", "").split(",")[0]  # one number for each nesting
    return max(1, min(bound or 1, int(asked))) if asked.isdecimal() else bound or 1


def has_nvidia_gpu(
    files: Sequence[Path] = _GPU_FILES, environment: Mapping[str, str] = os.environ
) -> bool:
    """Tell whether this process sees an NVIDIA GPU, without starting a library that could use it.

    Args:
        files: One of these is there where the driver is.
        environment: CUDA_VISIBLE_DEVICES in it may hide all GPUs.
    """
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and any(file.exists() for file in files)
