"""Check a model of your own before you run it: batches, gradients, prior, calibration, Geweke's test, predictions.

FILE.py defines `model` (a Density, or a Tempering or Chains of one). For the checks that simulate data it defines
`density(data)`, which returns the Density for any data, `simulate(rng, parameters)`, which returns data for one set of
parameters with all its random numbers from `rng`, and `data`, what was observed; then `model` may be left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.cli import running, userfile

if TYPE_CHECKING:
    from motes.density.checks import Setting
    from motes.laws import Law

NAMES = ("batch", "gradient", "prior", "calibration", "geweke", "predictive")
NEEDED = ("density", "simulate", "data")


def arguments(command: argparse.ArgumentParser) -> None:
    """The options of the command."""
    command.add_argument("file", type=Path, metavar="FILE.py", help="defines `model`, or density, simulate and data")
    command.add_argument("--only", nargs="+", choices=NAMES, help="run these checks only")
    command.add_argument(
        "--replicates",
        type=running.positive,
        default=100,
        help="simulated data sets of each check (default: 100; a small model takes some seconds, others minutes)",
    )
    command.add_argument("--quick", action="store_true", help="batch, gradient and prior only: less than a second")
    command.add_argument("--seed", type=running.whole, default=0, help="the result is a function of it")
    command.add_argument("--out", type=Path, metavar="FILE.json", help="write the findings there as well")
    command.add_argument(
        "--html", type=running.page, metavar="FILE.html", help="write a page with the findings and their charts"
    )
    command.add_argument("--quiet", action="store_true", help="show no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 if no check failed."""
    from motes.core.files.atomic import write_text
    from motes.density.checks import check

    running.use_threads(1)
    density, setting = read(args.file)
    only = args.only or (NAMES[:3] if args.quick else None)
    shown = not args.quiet and sys.stderr.isatty()
    result = check(density, setting=setting, seed=args.seed, only=only, replicates=args.replicates, progress=shown)
    print(result)
    if args.out is not None:
        write_text(args.out, json.dumps(result.to_dict(), indent=1) + "\n")
    if args.html is not None:
        from motes.report.checked import report_check

        print(f"\nwrote {report_check(result, args.html, title=args.file.name)}")
    return 0 if result.ok else 1


def read(path: Path) -> tuple[Law, Setting | None]:
    """The density that a file defines, and how its data come about if the file says so.

    Raises:
        FileError: it defines neither, or only some of what simulation needs.
    """
    from motes.density import Chains, Tempering
    from motes.density.checks import Setting
    from motes.errors import FileError
    from motes.laws import Law

    names: dict[str, Any] = userfile.run(path)
    setting = None
    if callable(names.get("simulate")):
        missing = [n for n in NEEDED if n not in names]
        if missing:
            raise FileError(f"{path} defines `simulate`, so it must define {', '.join(missing)} too: see --help")
        setting = Setting(names["density"], names["simulate"], data=names["data"])
    if userfile.NAME_OF_MODEL in names:
        model = userfile.as_model(names[userfile.NAME_OF_MODEL], path)
        if not isinstance(model, (Tempering, Chains)):
            raise FileError(
                f"`model` in {path} is a {type(model).__name__}; check needs a Density, Tempering or Chains"
            )
        return model.density, setting
    if setting is None:
        raise FileError(f"{path} defines no `model`, nor `density`, `simulate` and `data`: see --help")
    density = setting.first()
    if not isinstance(density, Law):
        raise FileError(f"`density` in {path} returned a {type(density).__name__}, not a motes.Density")
    return density, setting
