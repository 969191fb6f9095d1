"""Each event that policies can answer is raised by a guest that runs, in a case that looks at what the policy saw.

A new event has no case here, and fails; so does a case that no longer names its event.
"""

import ast
import re

import pytest
from pcanel.paths import ROOT

from vmm.policies.events import WORDS

_VERDICTS = "monitor/test_policy_verdicts.py"
_INSTRUCTIONS = "monitor/test_policy_instructions.py"
_STEPS = "monitor/test_policy_steps.py"
_EACH = (_INSTRUCTIONS, "test_each_instruction_that_only_exits_for_policies")
CASES = {
    "ARRIVAL": ("monitor/test_policy_interrupt.py", "test_arrivals_are_seen_when_they_come"),
    "CALL": ("monitor/test_calls.py", "test_arguments_and_the_value"),
    "CPUID": (_VERDICTS, "test_cpuid_value"),
    "CR": (_INSTRUCTIONS, "test_control_registers_by_number_and_direction"),
    "DESCRIPTOR_TABLE": _EACH,
    "EXCEPTION": (_VERDICTS, "test_exception_retry_after_repair"),
    "EXECUTE": ("monitor/test_watches.py", "test_execution_of_a_range"),
    "HLT": (_INSTRUCTIONS, "test_hlt"),
    "INJECTION": ("monitor/test_policy_injection.py", "test_a_denied_msr"),
    "INTERRUPT": ("monitor/test_policy_interrupt.py", "test_each_is_seen_in_its_order"),
    "INVD": _EACH,
    "INVLPG": _EACH,
    "INVPCID": (_INSTRUCTIONS, "test_invpcid_where_the_cpu_can"),
    "IO": (_VERDICTS, "test_port_filters"),
    "MEMORY": ("monitor/test_policy_memory.py", "test_each_instruction_of_a_watched_page_is_seen"),
    "MODE": ("monitor/test_policy_time.py", "test_changes_of_mode"),
    "MOV_DR": (_INSTRUCTIONS, "test_mov_dr_by_number_and_direction"),
    "PACKET": ("linux/network.py", "check_policies"),
    "PAUSE": _EACH,
    "RDMSR": (_VERDICTS, "test_rdmsr_of_a_passed_through_msr"),
    "RDPMC": _EACH,
    "RDRAND": (_INSTRUCTIONS, "test_rdrand_and_rdseed_where_the_cpu_can"),
    "RDSEED": (_INSTRUCTIONS, "test_rdrand_and_rdseed_where_the_cpu_can"),
    "RDTSC": (_INSTRUCTIONS, "test_rdtsc_value"),
    "RDTSCP": _EACH,
    "READ": ("monitor/test_watches.py", "test_reads_to_the_byte"),
    "RESET": (_STEPS, "test_reset"),
    "RETURN": ("monitor/test_calls.py", "test_arguments_and_the_value"),
    "STEP": (_STEPS, "test_single_steps"),
    "SWITCH": ("linux/switches.py", "check"),
    "RING": (_STEPS, "test_changes_of_ring"),
    "SYSCALL": ("linux/systemcalls.py", "check"),
    "SYSCALL32": ("linux/calls32.py", "check"),
    "SYSRET": ("linux/systemcalls.py", "check"),
    "SYSRET32": ("linux/calls32.py", "check"),
    "TIME": ("monitor/test_policy_time.py", "test_time_comes_every_so_many_ticks"),
    "TRIPLE_FAULT": (_STEPS, "test_triple_fault"),
    "VMCALL": (_VERDICTS, "test_vmcall"),
    "WBINVD": (_INSTRUCTIONS, "test_wbinvd_where_the_cpu_can"),
    "WRITE": ("monitor/test_watches.py", "test_writes_to_the_byte"),
    "WRMSR": (_VERDICTS, "test_wrmsr_value_and_skip"),
    "XSETBV": (_INSTRUCTIONS, "test_xsetbv"),
}


def test_every_event_has_a_case_and_a_row_in_the_documents():
    assert set(CASES) == set(WORDS)
    text = (ROOT / "docs/policies.md").read_text()
    table = text.partition("## Events and filters")[2].partition("\n\n`")[0]
    assert set(re.findall(r"`([A-Z_0-9]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))) == set(WORDS)


@pytest.mark.parametrize("event", CASES)
def test_the_case_names_its_event(event):
    path, name = CASES[event]
    file = ast.parse((ROOT / "tests" / path).read_text())
    function = next(node for node in file.body if isinstance(node, ast.FunctionDef) and node.name == name)
    texts = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]
    texts = [text for text in texts if isinstance(text, str)]
    assert any(re.search(rf"(^|on\(){event}\b", text) for text in texts)
