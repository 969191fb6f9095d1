"""Machines at the prompt, while other guests run."""


def test_the_prompt_lives_beside_a_guest_that_spins_with_interrupts_off(bench, guest):
    """It makes no exit of its own, and the host's interrupts are all that ends its turn."""
    made = guest("cli\nagain: jmp again")
    made.go()
    assert bench.eval("max(range(1000))") == 999
    assert made.state == "running"
