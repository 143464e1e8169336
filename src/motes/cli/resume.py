"""Continue an interrupted run from its last checkpoint, to exactly the result that it would have had.

A file of a run is data: what it names is not run or loaded because it says so. A model that is not part of motes is
given with --model, or the file is trusted with --trust.
"""

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
    command.add_argument(
        "--model",
        metavar="FILE.py",
        help="the model of the run: the Python file that it was begun with, or the language model of `motes generate`",
    )
    command.add_argument(
        "--trust",
        action="store_true",
        help="run the Python file, or load the language model, that the file of the run names",
    )
    command.add_argument("--force", action="store_true", help="even if the model's Python file has changed")
    command.add_argument("--report", action="store_true", help=f"write {running.PAGE} beside the run")
    running.common(command)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import motes

    path = running.find(args.run)
    saved = motes.load(path)
    result = saved
    if saved.result is not motes.Result.OK or args.model is not None:  # a model that is named is held to the run
        recipe = checked(saved.setup["recipe"], path)
        running.use_threads(args.threads or recipe.get("threads", 1))
        model = rebuild(recipe, path, force=args.force, model=args.model, trusted=args.trust)
        result = running.watched(
            lambda seen: motes.resume(path, model, progress=not args.quiet, callback=seen), path, recipe
        )
    if saved.result is motes.Result.OK and result.particles.t == saved.particles.t:
        print(f"{path} has already ended OK")
    running.finish(result, [path], path.parent / running.PAGE if args.report else None)
    return 0


def checked(recipe: dict[str, Any] | None, path: Path) -> dict[str, Any]:
    """What the file says of how its model is made, if it says it as a command of motes does.

    Raises:
        FileError: it does not.
    """
    from motes.core.files.schema import record, text, whole
    from motes.errors import FileError

    if not recipe or "command" not in recipe:
        raise FileError(
            f"{path} does not say how its model was made, since no motes command began it; "
            "in Python, motes.resume(path, model) continues it"
        )
    try:
        record({"threads": whole(1, running.MOST_THREADS)}, command=text(*MAKERS))(recipe, "the recipe")
        return import_module(f"motes.cli.{recipe['command']}").recipe_of()(recipe, "the recipe")
    except FileError as error:
        raise FileError(f"{path} was not begun by this version of motes: {error}") from error


def rebuild(
    recipe: dict[str, Any], path: Path, *, force: bool = False, model: str | None = None, trusted: bool = False
) -> FeynmanKac:
    """The model of a saved run, made anew by the command that began it.

    Args:
        recipe: how, as `checked`.
        path: the file that says so.
        force: even if the model's Python file is another one than it was.
        model: what the user names as the model.
        trusted: whether what the file names may be run or loaded.
    """
    return import_module(f"motes.cli.{recipe['command']}").rebuild(
        recipe, force=force, model=named(recipe, path, model, trusted)
    )


def named(recipe: dict[str, Any], path: Path, model: str | None, trusted: bool) -> str | None:
    """What the model of a run comes from, named by the user or by a file that the user trusts; None if it is ours.

    Raises:
        FileError: a file alone names it, or the run has no such model.
    """
    from motes.core.files.visible import visible
    from motes.errors import FileError

    inside = import_module(f"motes.cli.{recipe['command']}").foreign(recipe)
    if inside is None:
        if model is not None and model != recipe.get("model"):
            raise FileError(f"--model does not apply: {path} was begun by motes {recipe['command']}, which has its own")
        return None
    if model is None and not trusted:
        raise FileError(
            f"{path} names {visible(inside)} as its model, and motes does not run or load what a file names: give the "
            f"model yourself with --model, or, if you know where the file of the run comes from, add --trust"
        )
    return inside if model is None else model
