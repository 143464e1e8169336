"""Run the model that a Python file defines: its `model` is a FeynmanKac, a Density, or a function that returns one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.cli import running, userfile

if TYPE_CHECKING:
    from motes.core.model import FeynmanKac


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("file", type=Path, metavar="FILE.py", help="defines `model`")
    running.options(command, n=1024, out="runs/sample")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    model = userfile.read(args.file)
    recipe = {"command": "sample", "file": str(args.file.resolve()), "sha256": userfile.digest(args.file)}
    result = running.start(model, args, recipe)
    running.finish(result, [args.out / running.FILE], args.out / running.PAGE if args.report else None)
    return 0


def rebuild(recipe: dict[str, Any], *, force: bool) -> FeynmanKac:
    """The model of a saved run, if its file is still what it was."""
    from motes.core.errors import FileError

    path = Path(recipe["file"])
    if not path.is_file():
        raise FileNotFoundError(f"the run was made by {path}, which is not there any more")
    if userfile.digest(path) != recipe["sha256"] and not force:
        raise FileError(
            f"{path} has changed since the run began, so the end would not fit the beginning; "
            "bring the old file back, begin a new run, or resume all the same with --force"
        )
    return userfile.read(path)
