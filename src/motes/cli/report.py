"""Write the HTML report of one or more saved runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from motes.cli import running


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("run", type=Path, nargs="+", metavar="RUN", help="files of runs, or folders that hold them")
    command.add_argument("-o", "--out", type=Path, default=Path(running.PAGE), help="the page to write")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    import motes

    paths: list[Path] = []
    for path in args.run:
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else []
        paths += inside or [running.find(path)]
    runs = {name(path, paths): motes.load(path) for path in paths}
    running.finish(next(iter(runs.values())) if len(runs) == 1 else runs, [], args.out)
    return 0


def name(path: Path, among: list[Path]) -> str:
    """What a run is called: its file, or its folder where the file has the usual name; the whole path if two clash."""
    short = [p.parent.name if p.name == running.FILE else p.stem for p in among]
    mine = path.parent.name if path.name == running.FILE else path.stem
    return mine if mine and short.count(mine) == 1 else str(path)
