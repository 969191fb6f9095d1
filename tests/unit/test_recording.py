"""Records and measures of exits: buckets, quantiles, and the words that a record prints."""

import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm import verdict
from vmm.insight.exits import records, words
from vmm.vtx import reasons, recording


def bucket(ticks: int) -> int:
    """As port/trace.h counts."""
    if ticks < 8:
        return ticks
    power = ticks.bit_length() - 1
    return (power - 2) * 8 + (ticks >> (power - 3) & 7)


@given(st.integers(0, (1 << recording.BUCKET_BITS) - 1))
def test_a_bucket_begins_at_or_below_its_ticks(ticks):
    index = bucket(ticks)
    assert index < recording.BUCKETS
    assert recording.bucket_start(index) <= ticks < recording.bucket_start(index + 1)
    assert recording.bucket_start(index + 1) - recording.bucket_start(index) <= max(1, ticks // 8)


@given(st.lists(st.integers(0, 100000), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_a_quantile_is_within_an_eighth(values, part):
    counts = [0] * recording.BUCKETS
    for value in values:
        counts[bucket(value)] += 1
    exact = sorted(values)[max(0, -int(-part * len(values) // 1) - 1)]
    assert abs(recording.quantile(counts, part) - exact) <= exact / 8 + 1


def test_there_is_no_quantile_of_nothing():
    assert recording.quantile([0] * recording.BUCKETS, 0.5) is None


def record(reason, **fields):
    found = {"qualification": 0, "rax": 0, "rcx": 0, "rdx": 0, "gpa": 0, "intr_info": 0, **fields}
    return SimpleNamespace(number=reason, **found)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (record(reasons.CPUID, rax=7, rcx=1), "leaf 0x7, subleaf 0x1"),
        (record(reasons.IO_INSTRUCTION, qualification=0x3F80000, rax=0x1241), "out 0x3f8 1 = 0x41"),
        (record(reasons.IO_INSTRUCTION, qualification=0x3FD0008), "in 0x3fd 1"),
        (record(reasons.IO_INSTRUCTION, qualification=0x1F00039), "rep ins 0x1f0 2"),
        (record(reasons.RDMSR, rcx=0x10), "0x10 IA32_TSC"),
        (record(reasons.WRMSR, rcx=0x6E0, rax=0x1_0000_0005, rdx=2), "0x6e0 IA32_TSC_DEADLINE = 0x200000005"),
        (record(reasons.CONTROL_REGISTER_ACCESS, qualification=0x203), "mov cr3, rdx"),
        (record(reasons.CONTROL_REGISTER_ACCESS, qualification=0x918), "mov r9, cr8"),
        (record(reasons.CONTROL_REGISTER_ACCESS, qualification=0x20), "clts"),
        (record(reasons.CONTROL_REGISTER_ACCESS, qualification=0x10030), "lmsw 0x1"),
        (record(reasons.MOV_DR, qualification=0x007), "mov dr7, rax"),
        (record(reasons.MOV_DR, qualification=0x316), "mov rbx, dr6"),
        (record(reasons.EPT_VIOLATION, qualification=0x182, gpa=0xFEE000B0), "write of gpa 0xfee000b0"),
        (record(reasons.EPT_VIOLATION, qualification=0x83, gpa=0x1000), "read and write of gpa 0x1000 by a page walk"),
        (record(reasons.EXCEPTION_OR_NMI, intr_info=0x80000B0E, qualification=0x123), "#PF at 0x123"),
        (record(reasons.EXCEPTION_OR_NMI, intr_info=0x80000306), "#UD"),
        (record(reasons.APIC_ACCESS, qualification=0x10B0), "write of offset 0xb0"),
        (record(reasons.TASK_SWITCH, qualification=0x80000028), "to 0x28 by JMP"),
        (record(reasons.VIRTUALIZED_EOI, qualification=0x30), "vector 48"),
        (record(reasons.HLT), ""),
    ],
)
def test_words_of_a_record(made, text):
    assert words.detail(made) == text


def test_words_of_verdicts():
    assert words.verdict(0) == "resume"
    assert words.verdict(1) == "advance"
    assert words.verdict(2 | 256) == "yield, host interrupt"
    assert words.verdict(1 | 4) == "advance, wait"
    assert words.verdict(recording.UNKNOWN_VERDICT) == ""


@pytest.mark.parametrize(
    "bit",
    ["ADVANCE", "YIELD", "WAIT", "STOP", "PAUSE", "RESET", "POWER_OFF", "TRIPLE_FAULT", "HOST", "SPIN"],
)
def test_each_bit_of_a_verdict_has_its_word(bit):
    """words.py repeats the bits of vmm/verdict.py, which does not import on the host."""
    word = {"HOST": "host interrupt"}.get(bit, bit.lower().replace("_", " "))
    assert words.verdict(getattr(verdict, bit)) == word


def test_the_format_has_the_size():
    assert struct.calcsize(recording.RECORD_FORMAT) == recording.RECORD_SIZE


def test_reasons_by_name_and_number():
    assert records.numbers(None) is None
    assert records.numbers("cpuid") == [reasons.CPUID]
    assert records.numbers(["HLT", 30]) == [reasons.HLT, 30]
    for wrong in ("CPU", 99, -1, 1.5, ["HLT", None]):
        with pytest.raises(ValueError, match="is no exit reason"):
            records.numbers(wrong)
