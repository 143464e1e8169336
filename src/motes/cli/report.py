"""Write the HTML report of one or more saved runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from motes.cli import running


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("run", type=Path, nargs="+", metavar="RUN", help="files of runs, or folders that hold them")
    command.add_argument(
        "-o",
        "--out",
        type=running.page,
        help=f"the page to write (default: {running.PAGE} in the folder that holds all these runs; NAME.html beside "
        "NAME.safetensors)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import motes

    paths: list[Path] = []
    for path in args.run:
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else []
        paths += inside or [running.find(path)]
    runs = {name(path, paths): motes.load(path) for path in paths}
    running.finish(next(iter(runs.values())) if len(runs) == 1 else runs, [], args.out or beside(paths))
    return 0


def beside(paths: list[Path]) -> Path:
    """Where the page of these runs goes."""
    if len(paths) == 1:
        return paths[0].with_name(running.PAGE) if paths[0].name == running.FILE else paths[0].with_suffix(".html")
    parents = {p.parent for p in paths}
    folder = parents.pop() if len(parents) == 1 else Path(os.path.commonpath([p.resolve().parent for p in paths]))
    return folder / running.PAGE


def name(path: Path, among: list[Path]) -> str:
    """What a run is called: its file, or its folder where the file has the usual name; the whole path if two clash."""
    short = [p.parent.name if p.name == running.FILE else p.stem for p in among]
    mine = path.parent.name if path.name == running.FILE else path.stem
    return mine if mine and short.count(mine) == 1 else str(path)
