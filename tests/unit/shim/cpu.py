"""The parts of the port's `cpu` module that pure modules use."""


def hold(_more):
    """Nobody interrupts anybody here."""


def limited(function, argument, _account):
    """Without limits here."""
    return function(argument)
