"""How a run ended."""

from enum import Enum


class Result(Enum):
    """How a run ended."""

    OK = "OK"
    ALL_WEIGHTS_ZERO = "ALL_WEIGHTS_ZERO"
    NAN_LOG_POTENTIAL = "NAN_LOG_POTENTIAL"
    MAX_STEPS = "MAX_STEPS"
    INTERRUPTED = "INTERRUPTED"
