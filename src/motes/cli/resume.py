"""Continue an interrupted run from its last checkpoint, to exactly the result that it would have had."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.cli import running

if TYPE_CHECKING:
    from motes.core.model import FeynmanKac

MAKERS = ("sample", "generate", "steer", "demo")


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("run", type=Path, metavar="RUN", help="the file of a run, or the folder that holds one")
    command.add_argument("--force", action="store_true", help="even if the model's Python file has changed")
    command.add_argument("--report", action="store_true", help=f"write {running.PAGE} beside the run")
    running.common(command)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import motes

    path = running.find(args.run)
    saved = motes.load(path)
    if saved.result is motes.Result.OK:
        print(f"{path} has already ended OK")
        result = saved
    else:
        running.use_threads(args.threads or (saved.setup.get("recipe") or {}).get("threads", 1))
        model = rebuild(saved.setup.get("recipe"), path, force=args.force)
        result = running.watched(lambda seen: motes.resume(path, model, progress=not args.quiet, callback=seen))
    running.finish(result, [path], path.parent / running.PAGE if args.report else None)
    return 0


def rebuild(recipe: dict[str, Any] | None, path: Path, *, force: bool) -> FeynmanKac:
    """The model of a saved run, made anew by the command that began it."""
    from motes.core.errors import FileError

    if not recipe or recipe.get("command") not in MAKERS:
        raise FileError(
            f"{path} does not say how its model was made, since no motes command began it; "
            "in Python, motes.resume(path, model) continues it"
        )
    return import_module(f"motes.cli.{recipe['command']}").rebuild(recipe, force=force)
