"""Chains too short to know what their steps err by, and those that do not know it at any length."""

from __future__ import annotations

from motes.core.remark import MEANS, Remark

SHORT = 18
"""A chain of fewer steps than this, of fewer than six long ones, is too far from the limit to tell how its error falls:
10 steps of a mixture were off by up to twice of what 4 changed, and 20 by a tenth to a half of what 7 did. That levels
do not differ by more than chance tells no more: 5 steps of a normal law and 2 long ones, of 100 particles, could
not be told apart in 12 of 12 runs, and the mean was off by more than three errors in all of them."""


def too_few(steps: int, others: str = "steps of thrice the length", least: int = SHORT) -> str:
    """The sentence about a chain so short that a coarser one tells nothing of its error, not even that it is small."""
    many = "1 step is too few to know its error" if steps == 1 else f"{steps} steps are too few to know their error"
    return f"{many}: {others} may be off as much. Use at least {least} steps"


def alone(steps: int, fast: bool) -> list[Remark]:
    """The remark about means of a chain without a coarse one beside it, where its steps may be off by more than chance.

    The mean square of a standard normal law, 1000 particles: 30 steps of Euler's were .18 low and of dpm++2m .07 high,
    8 of Heun's .48 high and 18 within .06.

    Args:
        steps: of the chain.
        fast: whether its error falls so fast that it need not be spoken of from `SHORT` steps on.
    """
    if steps < SHORT:
        return [Remark(too_few(steps), MEANS, withholds=True)]
    if fast:
        return []
    text = (
        f"the images are those of the chain of {steps} steps, and what these err by the run does not know: compare "
        "with twice as many"
    )
    return [Remark(text, MEANS)]
