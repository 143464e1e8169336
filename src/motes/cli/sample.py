"""Run the model that a Python file defines: its `model` is a FeynmanKac, a Density, or a function that returns one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.cli import running, userfile
from motes.errors import MissingFile

if TYPE_CHECKING:
    from motes.core.files.schema import Check
    from motes.core.model import FeynmanKac


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("file", type=Path, metavar="FILE.py", help="defines `model`")
    running.options(command, n=1024, out="runs/sample")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    model = userfile.read(args.file)
    recipe = {"command": "sample", "file": str(args.file.resolve()), "sha256": userfile.checksum(args.file)}
    result = running.start(model, args, recipe)
    running.finish(result, [args.out / running.FILE], args.out / running.PAGE if args.report else None)
    return 0


def recipe_of() -> Check:
    """What a file says of a model that this command made."""
    from motes.core.files.schema import record, text

    return record(file=text(), sha256=text())


def foreign(recipe: dict[str, Any]) -> str | None:
    """What the model comes from that is not part of motes."""
    return recipe["file"]


def rebuild(recipe: dict[str, Any], *, force: bool, model: str | None) -> FeynmanKac:
    """The model of a saved run, from the file `model`, if that is still what it was."""
    from motes.errors import FileError

    path = Path(recipe["file"] if model is None else model)
    if not path.is_file():
        raise MissingFile(f"there is no file {path}, from which the model would be made")
    if userfile.checksum(path) != recipe["sha256"] and not force:
        raise FileError(
            f"{path} has changed since the run began, or is another file, so the end would not fit the beginning; "
            "give the one that began it, begin a new run, or resume all the same with --force"
        )
    return userfile.read(path)
