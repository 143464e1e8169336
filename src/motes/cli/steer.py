"""Images of a chosen handwritten digit, from a diffusion model that knows no classes and a classifier as reward."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from motes.cli import running
from motes.errors import MotesError

if TYPE_CHECKING:
    from motes.core.files.schema import Check
    from motes.core.model import FeynmanKac


MOST_STEPS = 100_000


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("--digit", type=running.whole, default=3, choices=range(10), help="the class that is rewarded")
    command.add_argument("--scale", type=float, default=1.0, help="what multiplies the class's log-probability")
    command.add_argument(
        "--steps", type=lambda t: running.positive(t, MOST_STEPS), default=40, help="steps from noise to image"
    )
    command.add_argument(
        "--guidance",
        default="reward",
        help="`reward`: drift along the reward's gradient; `none`: weights alone; a number multiplies the drift",
    )
    running.options(command, n=256, out="runs/steer")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    guidance = args.guidance if args.guidance in ("reward", "none") else number(args.guidance)
    recipe = {
        "command": "steer",
        "digit": args.digit,
        "scale": args.scale,
        "steps": args.steps,
        "guidance": None if guidance == "none" else guidance,
    }
    result = running.start(rebuild(recipe), args, recipe)
    running.finish(result, [args.out / running.FILE], args.out / running.PAGE if args.report else None)
    return 0


def number(text: str) -> float:
    """A number, or an error that says what else is allowed."""
    try:
        return float(text)
    except ValueError:
        raise MotesError(f"--guidance must be reward, none or a number, not {text!r}") from None


def recipe_of() -> Check:
    """What a file says of a model that this command made."""
    from motes.core.files.schema import either, number, record, text, whole

    guidance = either(text("reward"), number(), None)
    return record(digit=whole(0, 9), scale=number(), steps=whole(1, MOST_STEPS), guidance=guidance)


def foreign(recipe: dict[str, Any]) -> str | None:
    """Nothing: the model is part of motes."""
    return None


def rebuild(recipe: dict[str, Any], *, force: bool = False, model: str | None = None) -> FeynmanKac:
    """The model of a run, new or saved."""
    from motes.diffusion.demo import steered_digits

    return steered_digits(recipe["digit"], scale=recipe["scale"], steps=recipe["steps"], guidance=recipe["guidance"])
