"""Command lines: commands, options and values that do not belong together, files that are not what they should be."""

from __future__ import annotations

import io
import os
import random
import shutil
import warnings
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

import motes
from core.toys import Walk, data
from fuzz import mutate
from fuzz.harness import Reader
from fuzz.readers import runs
from motes.cli import main as cli

OPTIONS = {
    "demo": ["--only", "--seed", "--out", "--overwrite"],
    "sample": ["--n", "--seed", "--resampling", "--ess-threshold", "--checkpoint", "--out", "--report", "--overwrite"],
    "generate": [
        "--model", "--prompt", "--prompt-file", "--no-chat", "--regex", "--choice", "--json-schema", "--grammar",
        "--max-tokens", "--temperature", "--top-k", "--top-p", "--min-p", "--rule", "--local", "--step-of-text", "--n",
    ],
    "steer": ["--digit", "--scale", "--steps", "--guidance", "--n", "--ess-threshold", "--out"],
    "resume": ["--model", "--trust", "--force", "--report"],
    "report": ["-o", "--out"],
    "check": ["--only", "--replicates", "--quick", "--seed", "--out", "--html"],
    "doctor": [],
}  # fmt: skip
EVERYWHERE = ["--threads", "--quiet", "--debug", "--help", "--version", "--", "-", "-x", "--n=", "--seed=1e9"]
FILES = ["good.safetensors", "ended.safetensors", "spoilt.safetensors", "empty", "model.py", "wrong.py", "folder"]
FILES += ["schema.json", "none", ".", "/", "", "folder/none/none.py"]
MODEL = "import motes\nfrom core.toys import Walk, data\nmodel = Walk(data(4), s=0.3)\n"
WORDS = [w for w in mutate.WORDS if "\x00" not in w] + ["\udc80", "density", "3", "0", "0.5", "-1", "reward", "yes"]


GOOD = ["3", "0.5", "0", "1", "x.html", "out", "a|b", 'start: "a"', "typical(0.9)", "reward", "none", "batch", "prior"]
GOOD += ["systematic", "density", "images", "top_k(3), nucleus(0.5)", "1e-3", "-1", "nan", "inf", "1e400", "1_000"]
NEEDED = {
    "generate": lambda rng: ["--prompt", rng.choice(["x", "", "\udc80"])],
    "report": lambda rng: [rng.choice(FILES) for _ in range(rng.choice([1, 1, 2]))],
    **dict.fromkeys(("sample", "resume", "check"), lambda rng: [rng.choice(FILES)]),
}
"""What a command cannot do without."""


class Reached(BaseException):
    """The command line was good: a run would begin."""


@cache
def kept(folder: Path) -> None:
    """The files that command lines name."""
    (folder / "good.safetensors").write_bytes(runs.whole()[0])
    motes.sample(Walk(data(4), s=0.3), 8, seed=1, progress=False, checkpoint=folder / "ended.safetensors")
    (folder / "spoilt.safetensors").write_bytes(runs.whole()[0][:-7])
    (folder / "empty").write_bytes(b"")
    (folder / "model.py").write_text(MODEL)
    (folder / "wrong.py").write_text("model = 1 / 0\n")
    (folder / "schema.json").write_text('{"type": "boolean"}')


def value(rng: random.Random) -> str:
    """What may stand after an option."""
    kind = rng.randrange(5)
    if kind == 0:
        return str(rng.choice(mutate.NUMBERS))
    if kind == 1:
        return rng.choice(FILES)
    return rng.choice(GOOD) if kind < 4 else rng.choice(WORDS)


def make(rng: random.Random) -> list[str]:
    """A command with what it needs, mostly, and up to four options, most of which belong to it."""
    command = rng.choice([*OPTIONS, *OPTIONS, "", "smaple", "-h", "\udcff"])
    own = OPTIONS.get(command, []) or ["--seed"]
    words = [command]
    if rng.random() < 0.9:
        words += NEEDED.get(command, lambda _: [])(rng)
    for _ in range(rng.randrange(5)):
        kind = rng.randrange(20)
        if kind < 15:
            words += [rng.choice(own), value(rng)]
        elif kind == 15:
            words.append(rng.choice(own))
        elif kind == 16:
            words.append(rng.choice(EVERYWHERE))
        elif kind == 17:
            words += ["--threads", value(rng)]
        elif kind == 18:
            words.append(value(rng))
        else:
            words.append(mutate.spoil_text(rng, rng.choice(own)).replace("\x00", ""))
    return words


def read(argv: list[str], folder: Path) -> None:
    """Run the command as far as a run would begin; it may end well, or say in a sentence why it cannot."""
    here = folder / "commands"
    here.mkdir(exist_ok=True)
    kept(here)
    shutil.rmtree(here / "folder", ignore_errors=True)
    (here / "folder").mkdir()
    said = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]  # as Python's

    def reached(*_: object, **__: object) -> None:
        raise Reached

    with ExitStack() as held:
        held.enter_context(chdir(here))
        held.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        held.enter_context(patch("sys.stdin", io.StringIO("y\ny\n")))
        for name in ("motes.cli.running.start", "motes.density.checks.check", "motes.language.load"):
            held.enter_context(patch(name, reached))
        for name in ("motes.resume", "motes.cli.doctor.run", "motes.report.html.report"):
            held.enter_context(patch(name, reached))
        held.enter_context(patch("torch.set_num_threads"))
        held.enter_context(redirect_stdout(said[0]))
        held.enter_context(redirect_stderr(said[1]))
        try:
            code = cli.main(argv)
        except Reached:
            return
        except SystemExit as end:
            code = end.code
        for stream in said:
            stream.flush()
    words = said[1].buffer.getvalue().decode()  # type: ignore[attr-defined]
    if code not in (0, 2) or ("Traceback" in words and "--debug" not in argv):
        raise AssertionError(f"exit code {code}: {words[-2000:]}")
    assert os.path.lexists(here / "model.py")


READER = Reader("commands", make, read, refusals=(), count=10_000, slice=300)
