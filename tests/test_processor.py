import os
from pathlib import Path

import pytest

from src.processor import cores, cpu_bfloat16, cpu_flags, has_nvidia_gpu, machine


def test_flags_are_read_from_the_file_of_linux(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 rdpid\n\nprocessor\t: 1\n")
    assert cpu_flags(path) == {"fpu", "avx512_bf16", "rdpid"}


def test_a_cpu_that_lists_no_flags_has_none(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert cpu_flags(path) == cpu_flags(tmp_path / "absent") == frozenset()


def test_a_machine_is_named_by_its_cores_and_its_processor(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: A CPU: 9 GHz\nmodel name\t: another\n")
    words = "1 core" if cores() == 1 else f"{cores()} cores"
    assert machine(path).startswith(f"{words}, A CPU: 9 GHz")
    assert machine(tmp_path / "absent").startswith(f"{words}, ")


def test_a_cpu_computes_in_bfloat16_where_it_has_instructions_for_it() -> None:
    flags = frozenset({"avx2", "amx_bf16"})
    assert cpu_bfloat16(flags) == (True, "the CPU has bfloat16 instructions (amx_bf16)")
    assert cpu_bfloat16(frozenset({"avx2"})) == (False, "the CPU has no bfloat16 instructions")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process")
def test_the_cores_are_those_that_the_process_is_bound_to() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores({}) == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores({}) == len(before)


@pytest.mark.parametrize(
    ("asked", "expected"), [("1", 1), ("1,4", 1), ("100000", None), ("", None), ("many", None)]
)
def test_fewer_cores_can_be_asked_for_and_never_more(asked: str, expected: int | None) -> None:
    assert cores({"OMP_NUM_THREADS": asked}) == (expected or cores({}))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True),
        ({"CUDA_VISIBLE_DEVICES": ""}, False),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, False),
    ],
)
def test_a_gpu_is_seen_by_the_file_of_its_driver_unless_it_is_hidden(
    tmp_path: Path, environment: dict[str, str], expected: bool
) -> None:
    file = tmp_path / "nvidiactl"
    assert not has_nvidia_gpu([file], environment)
    file.touch()
    assert has_nvidia_gpu([file], environment) is expected
