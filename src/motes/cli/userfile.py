"""The model that a Python file of the user defines."""

from __future__ import annotations

import hashlib
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motes.errors import MissingFile

if TYPE_CHECKING:
    from motes.core.model import FeynmanKac

NAME = "motes_user_file"


def checksum(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> FeynmanKac:
    """Run the file and return its `model`.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: the file fails, or defines no model; the message names the line.
    """
    from motes.errors import FileError

    names = run(path)
    try:
        if NAME_OF_MODEL not in names:
            raise FileError(
                f"{path} defines no `{NAME_OF_MODEL}`: a FeynmanKac, a Density, or a function that returns one"
            )
        return as_model(names[NAME_OF_MODEL], path)
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{path}{line(error, path)}: {type(error).__name__}: {error}") from error


def run(path: Path) -> dict[str, Any]:
    """Run the file and return what it defines.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: the file fails; the message names the line.
    """
    from motes.errors import FileError

    if not path.is_file():
        raise MissingFile(f"there is no file {path}")
    spec = spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None:
        raise FileError(f"{path} is no Python file: its name must end in .py")
    module = sys.modules[NAME] = module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` does, for what the file imports
    try:
        spec.loader.exec_module(module)
        return vars(module)
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{path}{line(error, path)}: {type(error).__name__}: {error}") from error


NAME_OF_MODEL = "model"


def as_model(value: Any, path: Path) -> FeynmanKac:
    """A FeynmanKac as it is, a Density under tempering, and what a function returns."""
    from motes.core.model import FeynmanKac
    from motes.density import Tempering
    from motes.errors import FileError
    from motes.laws import Density

    if callable(value) and not isinstance(value, (FeynmanKac, Density)):
        value = value()
    if isinstance(value, Density):
        return Tempering(value)
    if isinstance(value, FeynmanKac):
        return value
    raise FileError(
        f"`{NAME_OF_MODEL}` in {path} is a {type(value).__name__}, which is neither a FeynmanKac nor a Density"
    )


def line(error: Exception, path: Path) -> str:
    """`, line 12`: the last line of the file that the error went through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f", line {lines[-1]}" if lines else ""
