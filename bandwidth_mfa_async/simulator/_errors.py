"""What can be wrong with the simulator itself, as opposed to what it answers."""

from __future__ import annotations


class SimulatorError(Exception):
    """The base of every error the simulator raises in the program that runs it."""


class SimulatorStateError(SimulatorError, RuntimeError):
    """The simulator was used before it was started, after it was stopped, or started twice."""


class InvalidOptionError(SimulatorError, ValueError):
    """An option, a limit or a receipt policy has a value that cannot work; the text names it."""


class InvalidFaultError(InvalidOptionError):
    """A fault's fields contradict each other, or its share of answers is out of range."""
