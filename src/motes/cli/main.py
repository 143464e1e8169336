"""`motes COMMAND ...`: what is read from the command line, and what an error looks like there."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from motes.cli.running import RunFailed

COMMANDS = {
    "demo": "run the main job in three domains and write a report",
    "sample": "run the model that a Python file defines",
    "generate": "text from a language model, under a constraint, with weights",
    "steer": "images of a chosen handwritten digit from a diffusion model that knows no classes",
    "resume": "continue an interrupted run to the result that it would have had",
    "report": "write the HTML report of one or more saved runs",
    "check": "check a model of your own: gradients, prior, calibration, Geweke's test, predictions",
    "doctor": "check the installation, the devices and the random numbers",
}
FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 if a run failed or `doctor` found a fault; 2 if what was asked cannot be done; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser(arguments).parse_args(arguments)
        with _warning_plainly():
            return args.command(args)
    except KeyboardInterrupt as error:
        tell("interrupted", error)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has enough; Python must not complain again while it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 the last line of defence turns everything into one readable sentence
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            cause = (
                error.__cause__ if isinstance(error, RunFailed) and isinstance(error.__cause__, Exception) else error
            )
            tell(sentence(cause), cause)
        return FAILED if failed(error) else USAGE


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The whole command line; only the command that is asked for is imported."""
    top = argparse.ArgumentParser(prog="motes", description="Draw, steer and weigh samples from any model.")
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    asked = next((a for a in arguments if not a.startswith("-")), None)
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help, formatter_class=_Help)
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        if name == asked:
            module = import_module(f"motes.cli.{name}")
            command.description = module.__doc__
            module.arguments(command)
            command.set_defaults(command=module.run)
    return top


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names a default where there is one, and once."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = action.default is None or isinstance(action.default, (bool, list)) or "default:" in (action.help or "")
        return action.help if said else super()._get_help_string(action)


@contextmanager
def _warning_plainly() -> Iterator[None]:
    """While a command runs, a warning of motes is a sentence, like an error, without a place in the code."""
    usual = warnings.formatwarning

    def formatted(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        from motes.core.files.visible import visible
        from motes.errors import MotesWarning

        if issubclass(category, MotesWarning):
            return f"motes: warning: {visible(str(message))}\n"
        return usual(message, category, *place, **more)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        import motes

        print(f"motes {motes.__version__}")
        parser.exit()


def failed(error: Exception) -> bool:
    """Whether a run failed, and not the request: it had begun, its weights did, or the error was not foreseen."""
    from motes.errors import AllWeightsZero, NanLogPotential

    if isinstance(error, (AllWeightsZero, NanLogPotential, RunFailed)):
        return True
    return not isinstance(error, (ValueError, OSError, ImportError))  # a MotesError is a ValueError


def sentence(error: Exception) -> str:
    """What an error says; its type too where its own words may be a bare name."""
    from motes.errors import MotesError

    said = str(error)
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"there is no file {error.filename}"
    if isinstance(error, (MotesError, ImportError)) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def tell(message: str, error: BaseException) -> None:
    """The message and the notes that were added to the error on its way, on stderr."""
    from motes.core.files.visible import visible

    lines = [f"motes: {message}", *getattr(error, "__notes__", ())]
    if not isinstance(error, KeyboardInterrupt):
        lines.append("(--debug shows where this comes from)")
    print("\n".join(map(visible, lines)), file=sys.stderr)
