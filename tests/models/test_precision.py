import pytest
import tensorflow as tf

from src.models.precision import (
    bfloat16_support,
    choose_jit_compile,
    choose_precision,
    gpu_compute_capability,
)
from src.processor import cpu_flags


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_with_bfloat16_instructions_supports_it(flag):
    supported, reason = bfloat16_support(compute_capability=None, flags=frozenset({"avx2", flag}))
    assert supported
    assert reason == f"the CPU has bfloat16 instructions ({flag})"


def test_a_cpu_without_them_does_not():
    supported, reason = bfloat16_support(compute_capability=None, flags=frozenset({"avx2"}))
    assert not supported
    assert reason == "the CPU has no bfloat16 instructions"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((0, 0), False)]
)
def test_a_gpu_supports_it_from_compute_capability_8(capability, expected):
    flags = frozenset({"avx512_bf16"})  # of the CPU beside it, which does not compute
    supported, reason = bfloat16_support(compute_capability=capability, flags=flags)
    assert supported is expected
    assert "GPU" in reason


def test_auto_follows_this_machine_and_says_why():
    supported, reason = bfloat16_support(
        compute_capability=gpu_compute_capability(), flags=cpu_flags()
    )
    policy = "mixed_bfloat16" if supported else "float32"
    assert choose_precision("auto") == (policy, f"{policy}: {reason}.")


@pytest.mark.parametrize("requested", ["float32", "mixed_bfloat16"])
def test_a_request_is_followed(requested):
    policy, reason = choose_precision(requested)
    assert policy == requested
    assert reason.startswith(f"{requested}, as asked for")


def test_an_unknown_precision_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"precision must be one of .*'auto'.*got 'float16'"):
        choose_precision("float16")


def test_xla_is_left_alone_on_a_cpu():
    expected = "auto" if tf.config.list_physical_devices("GPU") else False
    assert choose_jit_compile() == expected
