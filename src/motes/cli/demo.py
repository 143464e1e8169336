"""Run the main job of each domain: a posterior with its evidence, steered images, and constrained text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import motes
from motes.cli import running
from motes.errors import MissingPackage, check_name

if TYPE_CHECKING:
    from motes.core.files.schema import Check
    from motes.core.model import FeynmanKac


@dataclass(frozen=True)
class Piece:
    """One part of the demo: what the table calls it, its model, how many particles, what must be installed."""

    title: str
    model: Callable[[], FeynmanKac]
    n: int
    needs: tuple[str, ...] = ()


def pieces() -> list[str]:
    """The domains with a demonstration: the packages of motes that have a file `demo.py`."""
    rooms = [(m.name, f"{folder}/{m.name}") for folder in motes.__path__ for m in iter_modules([folder]) if m.ispkg]
    return [name for name, room in rooms if "demo" in {m.name for m in iter_modules([room]) if name != "cli"}]


def piece_of(name: str) -> Piece:
    """The part of that domain."""
    demo = import_module(f"motes.{name}.demo")
    return Piece(demo.TITLE, demo.model, demo.PARTICLES, demo.NEEDS)


OWN = Path("runs/demo")
"""The demonstration's own folder, in which it begins anew; what it makes is made again in minutes."""


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("--only", default=",".join(pieces()), help="which parts, separated by commas")
    command.add_argument("--seed", type=running.whole, default=0, help="the runs are functions of it")
    command.add_argument("--out", type=Path, default=OWN, help="folder for the runs and the report")
    running.overwriting(command)
    running.common(command)
    command.set_defaults(resampling="systematic", ess_threshold=0.5, checkpoint=60.0, replicas=1)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    names = chosen(args.only)
    args.overwrite = args.overwrite or args.out == OWN
    running.use_threads(args.threads or 1)
    runs, files = {}, []
    for k, name in enumerate(names, start=1):
        piece = piece_of(name)
        print(f"[{k}/{len(names)}] {piece.title}, {piece.n} particles", file=sys.stderr, flush=True)
        args.n = piece.n
        runs[piece.title] = running.start(
            piece.model(), args, {"command": "demo", "piece": name}, f"{name}.safetensors"
        )
        files.append(args.out / f"{name}.safetensors")
    print()
    running.finish(runs, files, args.out / running.PAGE)
    return 0


def chosen(only: str) -> list[str]:
    """The parts asked for, all of them runnable here, before the first one costs time."""

    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        check_name("part of the demo", name, pieces())
    for name in names:
        missing = [p for p in piece_of(name).needs if find_spec(p) is None]
        if missing:
            rest = ",".join(n for n in names if n != name)
            raise MissingPackage(
                f"the {name} part needs {', '.join(missing)}: pip install 'motes[{name}]'"
                + (f", or leave it out with --only {rest}" if rest else "")
            )
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        raise MissingPackage("the report needs matplotlib and jinja2: pip install 'motes[report]'")
    return list(dict.fromkeys(names))


def recipe_of() -> Check:
    """What a file says of a model that this command made."""
    from motes.core.files.schema import record, text

    return record(piece=text(*pieces()))


def foreign(recipe: dict[str, Any]) -> str | None:
    """Nothing: the models are part of motes, or of packages that it knows."""
    return None


def rebuild(recipe: dict[str, Any], *, force: bool = False, model: str | None = None) -> FeynmanKac:
    """The model of a saved part of the demo."""
    return piece_of(recipe["piece"]).model()
