"""The exceptions that the simulator raises in the program that runs it."""

from __future__ import annotations


class SimulatorError(Exception):
    """Base class of the simulator's errors."""


class SimulatorStateError(SimulatorError, RuntimeError):
    """The simulator is not running, or it is started twice."""


class InvalidOptionError(SimulatorError, ValueError):
    """An option, a limit or a receipt policy has an invalid value; the message names it."""


class InvalidFaultError(InvalidOptionError):
    """A fault's fields contradict each other, or its probability is out of range."""
