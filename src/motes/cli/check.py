"""Check the density that a Python file defines as its `model`: batches, gradients, draws from the prior."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from motes.cli import running, userfile

NAMES = ("batch", "gradient", "prior")


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("file", type=Path, metavar="FILE.py", help="defines `model`")
    command.add_argument("--only", nargs="+", choices=NAMES, help="run these checks only")
    command.add_argument("--seed", type=int, default=0, help="the result is a function of it")
    command.add_argument("--out", type=Path, metavar="FILE.json", help="write the findings there as well")


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 if no check failed."""
    from motes.core.errors import FileError
    from motes.density import Chains, Tempering
    from motes.density.checks import check

    model = userfile.read(args.file)
    if not isinstance(model, (Tempering, Chains)):
        raise FileError(
            f"`model` in {args.file} is a {type(model).__name__}; check needs a Density, Tempering or Chains"
        )
    running.use_threads(1)
    result = check(model.density, seed=args.seed, only=args.only)
    print(result)
    if args.out is not None:
        args.out.write_text(json.dumps(result.to_dict(), indent=1) + "\n")
    return 0 if result.ok else 1
