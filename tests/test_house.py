"""The rules of the house: no random source outside `rng`, files one can read, nothing that runs a file's content."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import house
import motes
from process import python

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
WRITTEN = [
    p
    for folder in ("src", "tests", "benchmarks", "examples", "docs", "scripts", ".ci")
    for p in sorted((ROOT / folder).rglob("*"))
    if p.is_file() and "__pycache__" not in p.parts and p.suffix in {".py", ".md", ".toml", ".txt", ".html", ".yml", ""}
] + [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", "mkdocs.yml") if (ROOT / name).exists()]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------ random sources

FORBIDDEN = [
    "import random",
    "from random import gauss",
    "import secrets",
    "import numpy as np\nnp.random.default_rng(0)",
    "import numpy\nnumpy.random.rand(3)",
    "from numpy import random as r\nr.normal()",
    "from numpy.random import default_rng",
    "import os\nos.urandom(4)",
    "import uuid\nuuid.uuid4()",
    "import torch\ntorch.manual_seed(0)",
    "import torch\ntorch.Generator()",
    "import torch as t\nt.randn(3)",
    "from torch import randn",
    "import torch.nn.functional as F\nF.dropout(x)",
    "from torch.nn import functional as F\nF.gumbel_softmax(x)",
    "import torch\nF = torch.nn.functional\nF.dropout(x)",
    "import torch\ntorch.nn.init.xavier_uniform_(w)",
    "import torch\ntorch.cuda.manual_seed(1)",
    "import torch\ntorch.random.fork_rng()",
    "torch.distributions.Normal(0, 1).sample()",
    "dist.sample((3,))",
    "dist.rsample()",
    "self.prior.sample((n,))",
    "norm.rvs(size=3)",
    "p.multinomial(3)",
    "p.bernoulli()",
    "count.binomial(p)",
    "model.generate(ids, do_sample=True)",
    *(f"import torch\ntorch.{f}(x)" for f in sorted(house.TORCH)),
    *(f"x.{f}()" for f in sorted(house.IN_PLACE)),
]
ALLOWED = [
    "rng.normal((3,))",
    "self.rng.at('a', step=t).normal((3, d))",
    "r.sample(torch.distributions.Normal(0, 1), n)",
    "rng.at('x').shard(ids).bernoulli(p)",
    "rng.at('births').binomial(count, p)",
    "import motes\nmotes.sample(model, 8, seed=0)",
    "from motes.core.resampling import multinomial\nmultinomial(rng, w)",
    "import torch\ntorch.distributions.Normal(0, 1).log_prob(x)",
    "x.normal_mean()",
    "import torch\ntorch.log(x).exp_()",
    "self.prior.sample(rng.at('prior'), n)",
    "parameters.sample(Rng(0).at('probe'), 4)",
    "model.generate(ids, do_sample=False)",
    "'torch.randn is not used'",
]


@pytest.mark.parametrize("source", FORBIDDEN)
def test_the_rule_sees_each_random_source(source: str) -> None:
    assert house.random_sources(source)


@pytest.mark.parametrize("source", ALLOWED)
def test_the_rule_leaves_numbers_by_address_alone(source: str) -> None:
    assert house.random_sources(source) == []


@pytest.mark.parametrize("path", [p for p in SOURCES if "rng" not in p.relative_to(ROOT / "src/motes").parts], ids=name)
def test_all_random_numbers_come_from_rng(path: Path) -> None:
    assert house.random_sources(path.read_text()) == [], "draw from a motes.rng.Rng instead"


def test_ruff_forbids_random_sources_too(tmp_path: Path) -> None:
    inside = tmp_path / "src" / "motes" / "bad.py"
    inside.parent.mkdir(parents=True)
    inside.write_text("import random\n\nimport torch\n\nprint(random, torch.randn(3))\n")
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    found = subprocess.run([*command, "--output-format", "json", str(inside)], capture_output=True, text=True)
    assert [v["code"] for v in json.loads(found.stdout)].count("TID251") == 2


# ------------------------------------------------------------------------------------------------ files

LONGEST = {"src": 400, "tests": 600, "benchmarks": 400, "examples": 120}


@pytest.mark.parametrize("folder", LONGEST)
def test_files_are_short_enough_to_read(folder: str) -> None:
    long = {
        name(p): n for p in (ROOT / folder).rglob("*.py") if (n := len(p.read_text().splitlines())) > LONGEST[folder]
    }
    assert long == {}, f"a file of {folder}/ holds one idea, in at most {LONGEST[folder]} lines"


def test_nothing_asks_whether_an_attribute_is_there() -> None:
    assert {name(p): lines for p in SOURCES if (lines := list(house.calls(p.read_text(), "hasattr")))} == {}


FOREIGN = {"sys._getframe", "os._exit", "func._overloadpacket", "prior._validate_args", "Distribution._validate_args"}
"""Of Python and torch, which have no public name for it."""


def test_what_is_private_is_used_where_it_is_defined() -> None:
    found = {}
    for path in SOURCES:
        package = ".".join(path.parent.relative_to(ROOT / "src").parts)
        uses = [use for use in house.privates(path.read_text(), package) if use[1] not in FOREIGN]
        if uses and package != "motes.rng":  # the draws of an Rng stand in several files of its room
            found[name(path)] = uses
    assert found == {}, "make it public where it is defined, or ask for what you need"


def test_uses_of_what_is_private_are_found() -> None:
    assert house.privates("generation._pay(x)", "motes.a") == [(1, "generation._pay")]
    assert house.privates("self.part._open()\nsuper()._open()\nself._open()", "motes.a") == [(1, "self.part._open")]
    assert house.privates("from motes.b.c import _f\nfrom motes.a import _module", "motes.a") == [(1, "_f")]
    assert house.privates("class A:\n    def copy(self, new):\n        self._x = new._x", "motes.a") == []


def test_nothing_is_left_to_do_and_nothing_runs_what_a_file_holds() -> None:
    bad = re.compile(
        r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|\b(import pickle|torch\.load|torch\.save|trust_remote_code=True)\b"
    )
    assert {name(p): m.group() for p in SOURCES if (m := bad.search(p.read_text()))} == {}


def test_no_path_of_one_machine_is_written_down() -> None:
    bad = re.compile(r"(?<![\w.}/])/(work|root|home|opt|Users)/\w")
    assert {name(p): m.group() for p in WRITTEN if p != Path(__file__) and (m := bad.search(p.read_text()))} == {}


# ------------------------------------------------------------------------------------------------ the package

MODULES = [
    m.name
    for m in pkgutil.walk_packages(motes.__path__, "motes.")
    if not m.name.endswith("__main__")
    # no extra brings triton: it comes with a CUDA build of torch, and nothing else can use it
    and not (m.name == "motes.rng.routes.cuda" and importlib.util.find_spec("triton") is None)
]


def test_every_module_says_what_it_is() -> None:
    assert [m for m in MODULES if not importlib.import_module(m).__doc__] == []


def test_classes_are_abstract_or_final() -> None:
    """A class of motes inherits from none of its other classes, unless that one is abstract or an error."""
    found = []
    for module in MODULES:
        for cls in vars(importlib.import_module(module)).values():
            if not isinstance(cls, type) or cls.__module__ != module or issubclass(cls, BaseException):
                continue
            found += [
                f"{module}.{cls.__name__}({base.__name__})"
                for base in cls.__bases__
                if base.__module__.startswith("motes.")
                and not inspect.isabstract(base)
                and not getattr(base, "_is_protocol", False)
            ]
    assert found == []


def test_public_names_are_all_there() -> None:
    assert sorted({*motes._HOME, *motes._PACKAGES}) == sorted(motes.__all__)
    for public in motes.__all__:
        value = getattr(motes, public)
        assert value.__name__.split(".")[-1] == public
        assert value.__doc__, f"motes.{public} has no docstring"
    assert set(motes.__all__) <= set(dir(motes))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = motes.nonsense


def test_version_is_that_of_the_project() -> None:
    assert motes.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_every_requirement_is_pinned() -> None:
    def key(requirement: str) -> str:
        return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {key(k): v for k, v in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    asked += [r for extra in project["project"]["optional-dependencies"].values() for r in extra]
    assert [r for r in map(key, asked) if r not in pins and r != "motes"] == []
    assert all("+" not in v for v in pins.values()), "a local version would exclude the same release from elsewhere"
    assert not [k for k in pins if k.startswith("nvidia")]


def run_python(code: str) -> str:
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_motes_loads_nothing_heavy() -> None:
    loaded = run_python("import motes, sys; print(*sys.modules)").split()
    assert not {"torch", "numpy", "transformers", "matplotlib", "numba"} & set(loaded)


OPTIONAL = (
    "numba",
    "transformers",
    "tokenizers",
    "gguf",
    "llguidance",
    "jinja2",
    "matplotlib",
    "arviz_base",
    "arviz_stats",
    "h5netcdf",
    "jax",
    "numpyro",
    "pymc",
    "pyro",
    "bridgestan",
    "onnxruntime",
    "diffusers",
    "torchmetrics",
)
OTHERS = ("sklearn", "scipy", "pandas", "xarray", "jaxtyping", "beartype", "hypothesis", "pytest")
WITHOUT = f"import sys\nsys.modules.update(dict.fromkeys({OPTIONAL + OTHERS!r}))\n"


@pytest.mark.parametrize(
    "module", ["core", "density", "diffusion", "kernels", "language", "report", "rng", "testing", "cli.main"]
)
def test_every_package_can_be_imported_with_the_core_alone(module: str) -> None:
    run_python(f"{WITHOUT}\nimport importlib\nprint(dir(importlib.import_module('motes.{module}')))")


def test_a_posterior_needs_the_core_alone() -> None:
    code = """
import motes, torch
from torch.distributions import Normal
y = torch.tensor([0.5, 1.5])
density = motes.Density(lambda p: Normal(p["mean"], 1.0).log_prob(y).sum(), {"mean": Normal(0.0, 3.0)})
run = motes.sample(motes.Tempering(density), 64, seed=1, progress=False)
print(run.result.value)
"""
    assert run_python(WITHOUT + code).split() == ["OK"]


def test_a_missing_extra_is_named() -> None:
    code = """
import motes
try:
    motes.language.load("smollm2")
except (ImportError, motes.MotesError) as error:
    print(error)
"""
    assert "motes[language]" in run_python(WITHOUT + code)
