"""Build the wheel, install it with what it depends on into a fresh environment, and use it there: `make wheel`.

What an installation lacks shows only outside of the checkout: weights, templates, data, the licence.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "wheel"
NEEDED = ("py.typed", ".safetensors", ".html.jinja", "breast_cancer.csv", "LICENSE")
PROGRAM = """
import motes
from motes.density.demo import logistic_regression
run = motes.sample(logistic_regression(), 64, seed=0, progress=False)
run.report("report.html")
assert run.log_evidence < 0
images = motes.sample(motes.diffusion.demo.steered_digits(3, steps=3), 4, seed=0, progress=False)
assert images.view.shape == (4, 1, 8, 8)
print(motes.__version__, motes.__file__)
"""


def main() -> None:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(FOLDER), str(ROOT))
    wheel = max(FOLDER.glob("motes-*.whl"), key=lambda path: path.stat().st_mtime)
    with ZipFile(wheel) as file:
        missing = [end for end in NEEDED if not any(name.endswith(end) for name in file.namelist())]
    if missing:
        sys.exit(f"{wheel.name} has no {', '.join(missing)}")
    fresh = FOLDER / "environment"
    venv.create(fresh, with_pip=True, clear=True)
    python = str(fresh / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[report]")
    run(python, "-m", "motes", "doctor", folder=FOLDER)
    run(python, "-c", PROGRAM, folder=FOLDER)


def run(*command: str, folder: Path = ROOT) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        sys.exit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
