"""Check the installation: Python, packages, devices, the random generators' known answers, models, write access."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CORE = ("torch", "numpy", "safetensors", "tqdm")
EXTRAS = {
    "fast": ("numba",),
    "language": ("transformers", "tokenizers", "gguf", "llguidance", "jinja2"),
    "report": ("matplotlib", "jinja2"),
    "arviz": ("arviz-base", "h5netcdf"),
}
OK, ABSENT, FAULT = "ok", "-", "FAULT"
Check = tuple[str, str, str]
"""A mark (ok; - for something optional that is not there; FAULT), what was checked, what was found."""


def arguments(command: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 if nothing is at fault."""
    faults = 0
    for checks in (python, packages, devices, generators, registries, models, files):
        try:
            for mark, what, found in checks():
                print(f"{mark:5}  {what:22} {found}", flush=True)
                faults += mark == FAULT
        except Exception as error:  # noqa: BLE001 one broken part must not hide the others
            print(f"{FAULT:5}  {checks.__name__:22} {type(error).__name__}: {error}", flush=True)
            faults += 1
    print("\nnothing is at fault" if not faults else f"\n{faults} at fault")
    return 1 if faults else 0


def python() -> Iterator[Check]:
    """The interpreter and the machine."""
    yield (
        OK if sys.version_info >= (3, 11) else FAULT,
        "Python",
        f"{platform.python_version()} on {platform.platform()}",
    )


def packages() -> Iterator[Check]:
    """The core must be there; an extra may be missing."""
    import motes

    yield OK, "motes", motes.__version__
    for name in CORE:
        yield OK, name, version(name)
    for extra, names in EXTRAS.items():
        found, missing = [], []
        for name in names:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                missing.append(name)
        if missing:
            yield ABSENT, f"motes[{extra}]", f"{', '.join(missing)} not installed: pip install 'motes[{extra}]'"
        else:
            yield OK, f"motes[{extra}]", ", ".join(found)


def devices() -> Iterator[Check]:
    """What PyTorch can compute on."""
    import torch

    yield OK, "cpu", f"{os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            yield OK, f"cuda:{k}", torch.cuda.get_device_name(k)
    else:
        yield ABSENT, "cuda", "no device"
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    yield (
        OK if compiler else ABSENT,
        "torch.compile",
        compiler or "no C++ compiler found; models run without compilation",
    )


def generators() -> Iterator[Check]:
    """Every route of every generator gives its published numbers."""
    from motes.rng import self_test

    for name, fault in self_test().items():
        yield FAULT if fault else OK, name, fault or "known answers"


def registries() -> Iterator[Check]:
    """The resampling schemes that --resampling knows."""
    from motes.core.resampling import schemes

    yield OK, "resampling", ", ".join(sorted(schemes))


def models() -> Iterator[Check]:
    """The models that come with motes, and the one that `make setup` installs."""
    from motes.diffusion.denoisers import pretrained
    from motes.errors import MotesError

    for name in pretrained.MODELS:
        pretrained.load(name)
        yield OK, name, "comes with motes"
    from motes.language.models import hugging_face as hub

    try:
        path = hub.packaged("smollm2")
        yield OK, "smollm2", f"{path.name}, {path.stat().st_size / 1e6:.0f} MB"
    except MotesError as error:
        yield ABSENT, "smollm2", str(error)


def files() -> Iterator[Check]:
    """Whether runs can be written here."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(dir=here, prefix=".motes-doctor-") as folder:
        from motes.core.files import store as format

        path = format.write(Path(folder) / "run.safetensors", {"x": {"a": 1}}, {})
        same = format.read(path)[0] == {"x": {"a": 1}}
    free = shutil.disk_usage(here).free / 1e9
    yield OK if same else FAULT, "files", f"runs can be written to {here} ({free:.0f} GB free)"
