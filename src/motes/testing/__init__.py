"""Law checks for what is written against the contracts of motes: kernels, schemes, rules, models, transitions.

Whoever writes one elsewhere runs on it what the house runs on its own. A check raises `LawViolation`, which is an
AssertionError, so that it works under any test runner.
"""

from motes.testing.enumeration import enumerate_runs
from motes.testing.exact_laws import ExactLaw
from motes.testing.kernels import check_kernel
from motes.testing.models import check_model, mean_weights
from motes.testing.rules import check_rule
from motes.testing.schemes import check_scheme
from motes.testing.transitions import check_transition
from motes.testing.violation import LawViolation

__all__ = [
    "ExactLaw",
    "LawViolation",
    "check_kernel",
    "check_model",
    "check_rule",
    "check_scheme",
    "check_transition",
    "enumerate_runs",
    "mean_weights",
]
