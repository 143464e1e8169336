"""What a user can check of a model of his own before he runs it."""

from motes.density.checks.finding import Checked, Finding
from motes.density.checks.selfcheck import CHECKS, check
from motes.density.checks.setting import Setting

__all__ = ["CHECKS", "Checked", "Finding", "Setting", "check"]
