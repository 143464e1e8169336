"""Adding an entry of any kind is one file, and a domain one folder: tried in a copy of the package, law tests too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from process import python

ROOT = Path(__file__).parents[1]


class Kind(NamedTuple):
    """Where an entry goes, its registry, what it is, its table in the documentation, and the tests of its laws."""

    file: str
    registry: str
    source: str
    table: str = ""
    laws: str = ""


KINDS = {
    "scheme": Kind(
        "core/resampling/toy.py",
        "motes.core.resampling.schemes",
        """
        from motes.core.cite import Reference
        from motes.core.resampling import scheme
        from motes.core.resampling.multinomial import multinomial

        @scheme("toy", variance=None, references=(Reference("toy", "Toy", 2000, "Toy", "Toy"),))
        def toy(rng, log_weight, n):
            return multinomial(rng.at("toy"), log_weight, n)
        """,
        "schemes",
        "core/test_enumeration.py",
    ),
    "kernel": Kind(
        "kernels/toy.py",
        "motes.kernels.kernels",
        """
        from dataclasses import dataclass
        from typing import ClassVar

        from motes.kernels.kernel import Kernel, Sweep, accepted, kernels, mean_acceptance, select

        @kernels.register
        @dataclass(frozen=True)
        class Toy(Kernel):
            name: ClassVar[str] = "toy"
            gradient: ClassVar[bool] = False
            references: ClassVar[tuple] = ()

            def start(self, d, dtype):
                return {"step_size": 1.0}

            def fit(self, parameters, target, state, weight):
                return parameters

            def learn(self, parameters, sweep, weight):
                step = parameters["step_size"] * (1 + 0.5 * (mean_acceptance(sweep, weight) - 0.3))
                return {"step_size": step}

            def sweep(self, rng, target, state, parameters):
                x = state["position"]
                step = rng.at("proposal").normal(tuple(x.shape), dtype=x.dtype)
                proposal = target.evaluate(x + parameters["step_size"] * step, False)
                probability, accept = accepted(rng, target.log_density(proposal) - target.log_density(state))
                return Sweep(select(accept, proposal, state), probability, 1)

            def describe(self, parameters):
                return parameters
        """,
        "kernels",
        "kernels/test_kernels.py",
    ),
    "rule": Kind(
        "language/rules/toy.py",
        "motes.language.rules.rules",
        """
        from dataclasses import dataclass

        from motes.language.rule import Rule, renormalised, rules

        @rules.register
        @dataclass(frozen=True)
        class Toy(Rule):
            power: float = 2.0

            def __call__(self, log_prob, seen=None):
                return renormalised(self.power * log_prob)
        """,
        "rules",
        "language/test_rule_laws.py",
    ),
    "constraint": Kind(
        "language/constraints/toy.py",
        "motes.language.constraints.constraints",
        """
        from motes.language.constraint import constraints
        from motes.language.constraints.starts_with import starts_with

        @constraints.register
        def toy():
            return starts_with("b")
        """,
        "entries motes.language.constraints.constraints",
        "language/test_constraints.py",
    ),
    "measure": Kind(
        "language/uncertainty/toy.py",
        "motes.language.uncertainty.measures",
        """
        from motes.core import Estimate
        from motes.language.uncertainty.answers import answers_of, measures

        @measures.register
        def toy(answers):
            answers = answers_of(answers)
            return Estimate(float(answers.weight.max()), 0.0, ess=answers.ess)
        """,
        "entries motes.language.uncertainty.measures",
        "language/test_uncertainty_methods.py",
    ),
    "process": Kind(
        "diffusion/processes/toy.py",
        "motes.diffusion.processes.processes",
        """
        from dataclasses import dataclass

        from motes.diffusion.processes.process import VariancePreserving, processes

        @processes.register
        class Toy(VariancePreserving):
            pass
        """,
        "entries motes.diffusion.processes.processes",
        "diffusion/test_process.py",
    ),
    "guidance": Kind(
        "diffusion/guidance/toy.py",
        "motes.diffusion.guidance.guidances",
        """
        from motes.diffusion.evaluation.context import Guidance, guidances

        @guidances.register
        class Toy(Guidance):
            def __call__(self, context):
                return context.shift(0.3 + 0 * context.x)
        """,
        "entries motes.diffusion.guidance.guidances",
        "diffusion/test_guidance.py",
    ),
    "view": Kind(
        "core/views/toy.py",
        "motes.core.views.views",
        """
        from motes.core.views import views
        from motes.core.views._view import View

        @views.register
        class ToyView(View):
            kind = "toy"
            needs = "anything"
            plural = "toys"

            def fits(self):
                return True
        """,
    ),
}

DOMAIN = {
    "toy/__init__.py": '''
        """A domain with one sampler."""

        from motes.toy.coin import Coin

        __all__ = ["Coin"]
        ''',
    "toy/coin.py": '''
        """Throws of a coin."""

        import torch

        from motes.core.model import FeynmanKac
        from motes.core.particles import Particles


        class Coin(FeynmanKac):
            """Throws of a coin, weighed by how often it fell on its head."""

            def init(self, rng, n):
                heads = torch.zeros(n, dtype=torch.float64)
                return Particles.start({"heads": heads}, torch.zeros(n, dtype=torch.float64))

            def step(self, rng, particles):
                head = (rng.uniform((particles.n,)) < 0.5).double()
                return particles.step({"heads": particles.x["heads"] + head}, 0.1 * head)

            def done(self, particles):
                return particles.t == 3
        ''',
    "toy/demo.py": '''
        """The demonstration of the domain."""

        from motes.toy.coin import Coin

        TITLE, PARTICLES, NEEDS = "Throws of a coin", 64, ()


        def model():
            return Coin()
        ''',
}

PROBE = """
import json, sys
from importlib import import_module
import pytest
kinds, root = json.loads(sys.argv[1]), sys.argv[2]
sys.path += [root + "/docs", root + "/tests"]
import hooks, motes
assert root not in motes.__path__[0]
found = {}
for kind, (registry, table, laws) in kinds.items():
    package, _, name = registry.rpartition(".")
    entries = getattr(import_module(package), name)
    found[kind] = [str(entries.find("toy")), hooks.on_page_markdown("{{ " + table + " }}") if table else ""]
from motes.cli.main import main
found["domain"] = [str(motes.toy.Coin), hooks.samplers(), main(["demo", "--only", "toy", "--out", "out", "--quiet"])]
class Passed:
    ids = []
    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.ids.append(report.nodeid)
passed = Passed()
laws = [f"{root}/tests/{law}" for _, _, law in kinds.values() if law]
options = ["-q", "-p", "no:cacheprovider"]
options += ["-k", "toy and not evidence", "--rootdir", root, "-c", f"{root}/pyproject.toml"]
pytest.main([*options, *laws], [passed])
print("\\n" + json.dumps([found, passed.ids]))
"""


def written(source: str) -> str:
    lines = source.strip("\n").splitlines()
    room = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[room:] for line in lines) + "\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with a file more for each kind, and a folder more for a domain; nothing else is another."""
    top = tmp_path_factory.mktemp("copy")
    files = {kind.file: kind.source for kind in KINDS.values()} | DOMAIN
    shutil.copytree(ROOT / "src" / "motes", top / "motes", copy_function=os.symlink)
    for name, source in files.items():
        (top / "motes" / name).parent.mkdir(exist_ok=True)
        (top / "motes" / name).write_text(written(source))
    return top


@pytest.fixture(scope="module")
def found(copy: Path) -> Any:
    """What a process finds in the copy, and which of the tests named toy have passed there."""
    kinds = {name: (kind.registry, kind.table, kind.laws) for name, kind in KINDS.items()}
    done = python("-c", PROBE, json.dumps(kinds), str(ROOT), folder=copy, PYTHONPATH=str(copy))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_one_file(kind: str, found: Any) -> None:
    entry, table = found[0][kind]
    assert "toy" in entry.lower()
    assert not KINDS[kind].table or "`toy" in table
    assert not KINDS[kind].laws or any(KINDS[kind].laws in node for node in found[1]), found[1]


def test_a_domain_is_one_folder(copy: Path, found: Any) -> None:
    """It has the command, a report, and its place in the documentation."""
    coin, samplers, code = found[0]["domain"]
    assert "motes.toy.coin.Coin" in coin and "| `Coin` | `motes.toy` |" in samplers and code == 0
    assert "Throws of a coin" in (copy / "out" / "report.html").read_text()
    assert (copy / "out" / "toy.safetensors").exists()


@pytest.mark.parametrize("line", [True, False])
def test_a_domain_has_its_line_in_the_import_contract(line: bool, copy: Path) -> None:
    contract = (ROOT / "pyproject.toml").read_text()
    contract = contract.replace('"density | ', '"toy | density | ') if line else contract
    (copy / "pyproject.toml").write_text(contract)
    lint = Path(sys.executable).with_name("lint-imports")
    here = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([str(lint), "--no-cache"], cwd=copy, env=here, capture_output=True, text=True)
    assert (done.returncode == 0) == line, done.stdout
