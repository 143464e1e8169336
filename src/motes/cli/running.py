"""What the commands that run a model share: their options, the file they write while they run, what they print."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.errors import MissingFile, MotesError

if TYPE_CHECKING:
    from motes.core.model import FeynmanKac
    from motes.core.run import Run
    from motes.core.smc import State
    from motes.errors import FileError

FILE = "run.safetensors"
PAGE = "report.html"


def options(command: argparse.ArgumentParser, *, n: int, out: str) -> None:
    """The options of every run."""
    command.add_argument("-n", "--n", type=positive, default=n, help="number of particles")
    command.add_argument("--seed", type=whole, default=0, help="the run is a function of it")
    command.add_argument(
        "--replicas",
        type=positive,
        default=1,
        help="independent populations of n particles each: an error bar by their spread, and a way to find lost modes",
    )
    command.add_argument("--resampling", default="systematic", help="resampling scheme; `motes doctor` lists them")
    command.add_argument(
        "--ess-threshold",
        type=float,
        default=0.5,
        help="resample once the effective sample size is at most this part of n",
    )
    command.add_argument(
        "--checkpoint",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how often the run is written while it goes on",
    )
    command.add_argument("--out", type=Path, default=Path(out), help=f"folder that gets {FILE}")
    overwriting(command)
    command.add_argument("--report", action="store_true", help=f"write {PAGE} beside it")
    common(command)


def overwriting(command: argparse.ArgumentParser) -> None:
    """The option that lets a run take the place of another."""
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what stands there, even a run that is unfinished or has other settings",
    )


def common(command: argparse.ArgumentParser) -> None:
    """The options of every command that runs a model, `resume` among them."""
    command.add_argument(
        "--threads",
        type=threads,
        help="CPU threads of PyTorch; more than one slows small models down, often many times (default: 1, or what the "
        "run was begun with)",
    )
    command.add_argument("--quiet", action="store_true", help="show no progress bar")


def use_threads(threads: int) -> None:
    """Let PyTorch use `threads` CPU threads."""
    import torch

    torch.set_num_threads(threads)


MOST = 10**9
"""The most particles, steps or tokens that a command counts."""
MOST_THREADS = 1024


def whole(text: str) -> int:
    """A whole number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def positive(text: str, most: int = MOST) -> int:
    """A whole number from 1 to `most`, for argparse."""
    value = whole(text)
    if not 1 <= value <= most:
        raise argparse.ArgumentTypeError(f"must be {'at least 1' if value < 1 else f'at most {most}'}, not {value}")
    return value


def threads(text: str) -> int:
    """A number of threads, for argparse."""
    return positive(text, MOST_THREADS)


def page(text: str) -> Path:
    """The path of a page, for argparse."""
    from motes.report.page import must_be_page

    try:
        return must_be_page(text)
    except MotesError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class RunFailed(Exception):
    """What stopped a run that had begun is the cause of this error."""


def start(model: FeynmanKac, args: argparse.Namespace, recipe: dict[str, Any], file: str = FILE) -> Run:
    """Run `model` as the options say, writing checkpoints into the folder; `recipe` is what `motes resume` goes by."""
    import motes

    recipe = {**recipe, "threads": args.threads or 1}  # the last bits of a matrix product depend on their number
    use_threads(recipe["threads"])
    return watched(
        lambda seen: motes.sample(
            model,
            args.n,
            seed=args.seed,
            resampling=args.resampling,
            ess_threshold=args.ess_threshold,
            checkpoint=motes.Checkpoint(args.out / file, every=args.checkpoint, overwrite=args.overwrite),
            progress=not args.quiet,
            callback=seen,
            recipe=recipe,
            replicas=args.replicas,
        ),
        args.out / file,
        recipe,
    )


def watched(go: Callable[[Callable[[State], None]], Run], file: Path, recipe: dict[str, Any]) -> Run:
    """What `go(callback)` returns, written to `file` on its way; `recipe` says what goes on with it.

    An error that comes after the first step is a failed run, not a wrong request. Ctrl-C ends the command too.
    """
    from motes.core.drive import uninterrupted
    from motes.errors import FileError

    steps: list[int] = []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="interrupted after", category=UserWarning)
            return uninterrupted(go(lambda state: steps.append(state.particles.t)))
    except KeyboardInterrupt as stop:
        if steps:
            how = f"motes resume {file}" + (f" --model {recipe['file']}" if "file" in recipe else "")
            stop.add_note(f"the run up to t={steps[-1]} is in {file}; `{how}` continues it")
        raise
    except Exception as error:
        if isinstance(error, FileError) and error.run is not None:
            keep(error.run, error)
        if steps:
            raise RunFailed from error
        raise


def keep(run: Run, error: FileError) -> None:
    """Write a run that could not be written where it should into the folder for temporary files, and say so."""
    import tempfile

    try:
        path = run.save(Path(tempfile.mkdtemp(prefix="motes-")) / FILE)
    except Exception as other:  # noqa: BLE001 the error under way is the one to see
        error.add_note(f"it could not be kept in {tempfile.gettempdir()} either: {other}")
    else:
        error.add_note(f"it is kept in {path}")


def finish(runs: Run | dict[str, Run], files: list[Path], page: Path | None) -> None:
    """Print the table and what was drawn, write the report, and say where everything is."""
    from motes.core.files.visible import visible
    from motes.core.run import Run
    from motes.report.table import missing, table

    print(visible(table(runs, ascii=not speaks_unicode())))
    if why := missing(runs, ascii=not speaks_unicode()):
        print(visible(why))
    if isinstance(runs, Run):
        show_texts(runs)
    if page is not None:
        from motes.report.html import report

        files = [*files, report(runs, page)]
    print("\n" + "\n".join(f"wrote {f}" for f in files))


def show_texts(run: Run, most: int = 8) -> None:
    """The distinct texts of a run with the largest weights, where its particles are texts."""
    if not (isinstance(run.view, list) and run.view and isinstance(run.view[0], str)):
        return
    from motes.core.files.visible import visible

    weight: dict[str, float] = {}
    for text, w in zip(run.view, run.weight.tolist(), strict=True):
        weight[text] = weight.get(text, 0.0) + w
    best = sorted(weight.items(), key=lambda item: -item[1])
    print(f"\nweight  text ({len(best)} different)")
    for text, w in best[:most]:
        shown = visible(json.dumps(text, ensure_ascii=not speaks_unicode())[1:-1].replace('\\"', '"'))
        print(f"{w:6.3f}  {shown}")


def speaks_unicode() -> bool:
    """Whether the terminal can print letters beyond ASCII."""
    try:
        "±─−".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def find(path: Path) -> Path:
    """The file of a run: the path itself, or the one run that a folder holds.

    Raises:
        FileNotFoundError: nothing is there.
        FileError: the folder holds several runs.
    """
    from motes.errors import FileError

    if not path.is_dir():
        if not path.exists():
            raise MissingFile(f"there is no run at {path}")
        return path
    found = sorted(path.glob("*.safetensors"))
    if not found:
        raise MissingFile(f"there is no run in the folder {path}")
    if len(found) > 1:
        raise FileError(f"{path} holds several runs, choose one: {', '.join(f.name for f in found)}")
    return found[0]
