"""The number format and compiler that suit the machine, each with its reason.

These functions look at the machine and decide; nothing is set here. The reason is meant to be
printed at the start of a run, since the choice changes both speed and the last digits.
"""

import keras

from src.processor import cpu_bfloat16, cpu_flags

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
# NVIDIA Ampere, the first generation with bfloat16.
COMPUTE_CAPABILITY = (8, 0)


def choose_precision(requested: str) -> tuple[str, str]:
    """Choose the Keras dtype policy for this machine.

    Args:
        requested: "auto", "float32" or "mixed_bfloat16".

    Returns:
        The policy ("float32" or "mixed_bfloat16") and the reason, one sentence.

    Raises:
        ValueError: The request is none of the three.

    Example:
        >>> policy, reason = choose_precision("auto")
        >>> keras.mixed_precision.set_dtype_policy(policy)
    """
    if requested not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {requested!r}.")
    supported, reason = bfloat16_support(
        compute_capability=gpu_compute_capability(), flags=cpu_flags()
    )
    best = "mixed_bfloat16" if supported else "float32"
    if requested == "auto":
        return best, f"{best}: {reason}."
    if requested == "mixed_bfloat16" and not supported:
        return requested, f"{requested}, as asked for, but expect it to be slow: {reason}."
    return requested, f"{requested}, as asked for."


def bfloat16_support(
    *, compute_capability: tuple[int, int] | None, flags: frozenset[str]
) -> tuple[bool, str]:
    """Tell whether a machine computes faster in bfloat16.

    Args:
        compute_capability: Major and minor number of the GPU; None without a GPU, and (0, 0) for
            one that does not tell.
        flags: The feature flags of the CPU, which decide only without a GPU.

    Returns:
        Whether it does, and the reason, a clause without a full stop.
    """
    if compute_capability is not None:
        supported = compute_capability >= COMPUTE_CAPABILITY
        number = ".".join(map(str, compute_capability))
        verb = "has" if supported else "has no"
        return supported, f"the GPU {verb} bfloat16 units (compute capability {number})"
    return cpu_bfloat16(flags)


def choose_jit_compile() -> bool | str:
    """Choose `jit_compile` for `keras.Model.compile` on this machine.

    Returns:
        False on a CPU, where XLA takes about 1.5 times as long as TensorFlow's own kernels;
        "auto" on a GPU, where Keras knows which models it can compile.
    """
    return False if gpu_compute_capability() is None else "auto"


def gpu_compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of the weakest GPU.

    Returns:
        Major and minor number, (0, 0) if a GPU does not tell; None without a GPU, and on a
        backend other than TensorFlow, which this function does not ask.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf  # keras.ops has no question about devices

    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return min(capabilities, default=None)
