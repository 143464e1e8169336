"""Regulatory DNA with a motif: sequences of ENCODE's open chromatin, steered to bind GATA1 and TAL1 together.

The reward is a likelihood ratio: log of the mean, over all places and both strands, of the composite motif's
probability over that of the background, so the tilted law is that of sequences with the motif planted somewhere. For a
Markov chain as model its normaliser is a sum over places of forward passes and its samples are exact too, so that every
number of the samplers has one to compare with. The network that comes with motes has no such truth.

Naturalness: log-likelihood under a chain of higher order fitted to chromosomes that no model saw, and the distance of
4-mer frequencies from theirs. Everything that is compared costs the same number of evaluations of the model.

The table comes with the package dnadiffusion, which `make bench` puts into build/dna.

Usage: python benchmarks/dna.py [TABLE] [--seeds 5] [--network-seeds 3]
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch
from torch import Tensor

import motes
from motes.diffusion.discrete import (
    MarkovLaw,
    Masked,
    Ordered,
    Posterior,
    ReverseDiscrete,
    TokenComposition,
    TokenModel,
)
from motes.errors import MotesWarning
from motes.rng import Rng

torch.set_num_threads(1)
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks._dna_motif import BASES, F64, HIT, Motif, annealed, planted, sequences

RESULT = HERE / "results" / "dna.md"
PICTURE = HERE.parent / "docs" / "images" / "dna.png"
TABLE = HERE.parent / "build/dna/dnadiffusion/data/K562_hESCT0_HepG2_GM12878_12k_sequences_per_group.txt"


@dataclass
class Judge:
    """What is natural: a chain of higher order, and the 4-mers, of sequences that no model saw."""

    law: MarkovLaw
    kmers: Tensor
    motif: Motif

    def spectrum(self, tokens: Tensor, weight: Tensor) -> Tensor:
        code = torch.stack([tokens[:, i : tokens.shape[1] - 3 + i] * 4 ** (3 - i) for i in range(4)]).sum(0)
        each = weight[:, None].expand(code.shape)
        count = torch.zeros(256, dtype=F64).index_add(0, code.flatten(), each.flatten())
        return count / count.sum()


@dataclass
class Tally:
    """What the seeds of one method gave."""

    numbers: dict[str, list[float]] = field(default_factory=dict)
    kmers: list[Tensor] = field(default_factory=list)
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, judge: Judge, tokens: Tensor, weight: Tensor, **more: float) -> None:
        reward, best = judge.motif(tokens), judge.motif.scores(tokens).flatten(1).amax(1)
        different = (tokens[:, None] != tokens[None]).to(F64).mean(2)
        pairs = weight[:, None] * weight[None]
        pairs.fill_diagonal_(0.0)
        found = {
            "reward": float(weight @ reward),
            "hit": float(weight @ (best > HIT).to(F64)),
            "natural": float(weight @ judge.law.log_prob(tokens)) / LENGTH,
            "different": float((pairs * different).sum() / pairs.sum()),
            **more,
        }
        for name, value in found.items():
            self.numbers.setdefault(name, []).append(value)
        self.kmers.append(judge.spectrum(tokens, weight))
        self.kept.append((tokens, weight))

    def __getitem__(self, name: str) -> float:
        seen = [v for v in self.numbers.get(name, []) if math.isfinite(v)]
        return sum(seen) / len(seen) if seen else math.nan


def even(n: int) -> Tensor:
    return torch.full((n,), 1 / n, dtype=F64)


def steer(model: TokenModel, judge: Judge, steps: int, seeds: int) -> dict[str, Tally]:
    base = {"reward": judge.motif, "rule": Ordered("random")}
    own = {"reward": judge.motif, "guidance": judge.motif.tilt, "twist": judge.motif.twist}
    less = f"the same, {FEWER} times the particles, a {FEWER}th of the steps"

    def reverse(steps: int, **knobs: Any) -> ReverseDiscrete:
        return ReverseDiscrete(model, steps, **knobs)

    methods: dict[str, Any] = {
        "the model itself": None,
        f"best of {BEST}": reverse(steps, schedule="end", **base),
        "weights alone": reverse(steps, completions=8, **base),
        "`LocalReward` with its weights": reverse(steps, guidance="reward", completions=8, **base),
        less: reverse(steps // FEWER, reward=judge.motif, guidance="reward", completions=8, rule=Posterior()),
        "twist and tilt of the motif": reverse(steps, rule=Ordered("random"), **own),
        f"{less} ": reverse(steps // FEWER, rule=Posterior(), **own),
    }
    tallies = {name: Tally() for name in methods}
    for name, sampler in methods.items():
        for seed in range(seeds if sampler else 0):
            begin = time.process_time()
            alone, many = name.startswith("best"), N * FEWER if name.startswith("the same") else N
            run = motes.sample(sampler, many, seed=seed, progress=False, ess_threshold=0 if alone else 0.5)
            seconds = time.process_time() - begin
            if alone:
                best = motes.diffusion.sampling.best_of(run, BEST)
                tallies[name].add(judge, best.images, even(len(best.images)), seconds=seconds)
                tallies["the model itself"].add(judge, run.view, even(N), seconds=seconds)
            else:
                roots = float(len(run.particles.root.unique()))
                numbers = {"log_z": run.log_evidence, "se": run.log_evidence_se, "ess": run.ess, "roots": roots}
                tallies[name].add(judge, run.view, run.weight, seconds=seconds, **numbers)
            print(name, seed, {k: round(v[-1], 3) for k, v in tallies[name].numbers.items()}, flush=True)
    return tallies


def cool(law: MarkovLaw, model: TokenModel, judge: Judge, seeds: int) -> list[str]:
    """Rows of a table: powers of the chain."""
    out = []
    for beta in (0.9, 1.1, 1.25):
        tally = Tally()
        for seed in range(seeds):
            run = motes.sample(TokenComposition([model], [beta]), N, seed=seed, progress=False)
            tally.add(judge, run.view, run.weight, log_z=run.log_evidence, se=run.log_evidence_se, ess=run.ess)
            print("power", beta, seed, {k: round(v[-1], 3) for k, v in tally.numbers.items()}, flush=True)
        exact = annealed(law, beta)
        inside = sum(
            abs(z - exact) <= 1.96 * s for z, s in zip(tally.numbers["log_z"], tally.numbers["se"], strict=True)
        )
        out.append(
            f"| {beta} | {exact:.2f} | {tally['log_z']:.2f} | {tally['se']:.2f} | {inside} of {seeds} "
            f"| {tally['ess']:.0f} | {tally['natural']:.4f} |"
        )
    return out


# ---------------------------------------------------------------- what is written


def rows(tallies: dict[str, Tally], judge: Judge, exact: float | None, heldout: Tensor) -> list[str]:
    out = []
    for name, tally in tallies.items():
        tokens = sum(len(w) for _, w in tally.kept)
        floor = judge.spectrum(heldout[:tokens], even(min(tokens, len(heldout))))
        gap = 0.5 * float((torch.stack(tally.kmers).mean(0) - judge.kmers).abs().sum())
        log_z = ""
        if "log_z" in tally.numbers:
            z = torch.tensor(tally.numbers["log_z"], dtype=F64)
            log_z = f"{float(z.logsumexp(0)) - math.log(len(z)):.2f} ± {tally['se']:.2f}"
            if exact is not None:
                pairs = zip(tally.numbers["log_z"], tally.numbers["se"], strict=True)
                log_z += f", {sum(abs(a - exact) <= 1.96 * s for a, s in pairs)} of {len(z)}"
        shown = [f"{tally['ess']:.0f} ({tally['roots']:.0f})" if "ess" in tally.numbers else "", log_z]
        shown.append(f"{tally['seconds']:.1f}" if "seconds" in tally.numbers else "")
        out.append(
            f"| {name} | {tally['reward']:.2f} | {100 * tally['hit']:.0f} % | {tally['natural']:.4f} "
            f"| {gap:.3f} ({0.5 * float((floor - judge.kmers).abs().sum()):.3f}) | {tally['different']:.3f} "
            f"| {' | '.join(shown)} |"
        )
    return out


def draw(tallies: dict[str, Tally], judge: Judge) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 1.15))
    names = [name for name in tallies if not name.startswith("the same")]
    for i, name in enumerate(names):
        tokens, weight = tallies[name].kept[0]
        natural, reward = judge.law.log_prob(tokens) / LENGTH, judge.motif(tokens)
        size = 14 * (weight * len(weight)).clamp(max=6)
        left.scatter(natural[:64], reward[:64], size[:64], alpha=0.6, color=f"C{i}", label=name, linewidths=0)
    left.set_xlabel("log-likelihood under held-out DNA, nats a base")
    left.set_ylabel("log-likelihood ratio of the motif, nats")
    left.legend(fontsize=7, loc="upper left")
    left.spines[["top", "right"]].set_visible(False)
    tokens, weight = tallies["twist and tilt of the motif"].kept[0]
    colours, width, flank = ("#2a9d3a", "#2858c8", "#d88a00", "#d03030"), judge.motif.width, 6
    order = weight.argsort(descending=True, stable=True)[:14]
    for line, i in enumerate(order.tolist()):
        scores = judge.motif.scores(tokens[i : i + 1])[0]
        strand, place = divmod(int(scores.argmax()), scores.shape[1])
        sequence = tokens[i] if strand == 0 else 3 - tokens[i].flip(0)
        place = place if strand == 0 else LENGTH - width - place
        for j in range(-flank, width + flank):
            if 0 <= place + j < LENGTH:
                base = int(sequence[place + j])
                inside = 0 <= j < 3 or 11 <= j < width
                look: dict[str, Any] = {"weight": "bold"} if inside else {"alpha": 0.45}
                look |= {"color": colours[base], "family": "monospace", "ha": "center", "va": "center"}
                right.text(j, -line, BASES[base], fontsize=9, **look)
        right.text(width + flank + 0.5, -line, f"{len(weight) * float(weight[i]):.2f}", fontsize=8, va="center")
    right.set_xlim(-flank - 1, width + flank + 4)
    right.set_ylim(-14, 1)
    right.axis("off")
    right.set_title("guided, where the motif fits best, with weights", fontsize=9)
    figure.tight_layout()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--network-seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "several places are drawn at once", MotesWarning)  # known: it is compared here
    train, heldout = sequences(arguments.table)
    begin = time.process_time()
    law = MarkovLaw.fit(train, 4, ORDER)
    motif = Motif(torch.bincount(train.flatten(), minlength=4).to(F64) / train.numel())
    judge = Judge(MarkovLaw.fit(heldout, 4, JUDGE), torch.zeros(256, dtype=F64), motif)
    judge.kmers = judge.spectrum(heldout, even(len(heldout)))
    model = law.model(Masked(4))
    drawn, exact = planted(law, motif.tilts(LENGTH), 1000, Rng(0))
    truth, real = Tally(), Tally()
    truth.add(judge, drawn, even(len(drawn)))
    real.add(judge, heldout[:1000], even(1000))
    tallies = {"held-out DNA": real, "the tilted law itself": truth, **steer(model, judge, LENGTH, arguments.seeds)}
    cooled = cool(law, model, judge, max(1, arguments.seeds // 2))
    network: dict[str, Tally] = {}
    if arguments.network_seeds:
        network = steer(motes.diffusion.load("dna"), judge, LENGTH // 2, arguments.network_seeds)
    draw(network or tallies, judge)
    head = "| method | reward, nats | motif | naturalness, nats a base | 4-mers (floor) | different | ESS (roots) "
    head += "| log normaliser | s a run |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    machine = platform.processor() or platform.machine()
    out = [
        "# DNA with a motif",
        "",
        textwrap.fill(
            f"{len(train)} sequences of {LENGTH} bases of open chromatin (ENCODE, four cell types) to fit to, "
            f"{len(heldout)} of other chromosomes to judge by. The reward is the log-likelihood ratio of the composite "
            "motif of GATA1 and TAL1, CTG N8 WGATAAR, planted at some place of either strand. Motif: sequences with a "
            f"match of more than {HIT} nats (none of the ten bases wrong). Naturalness: log-likelihood under a chain "
            f"of order {JUDGE} of the held-out sequences. 4-mers: total variation from their frequencies, all seeds "
            "together; in brackets, of as many held-out sequences. Different: the share of places in which two "
            "sequences drawn by weight differ. Roots: particles of the start that have descendants. Weights alone and "
            "`LocalReward` judge what is half-filled by eight random completions; the twist of the motif takes the "
            "mean over all of them, as if the rest were background, and its tilt is what each base adds to that.",
            110,
        ),
        "",
        f"{date.today()}, motes {motes.__version__}, torch {torch.__version__}, one thread of {machine}; "
        f"{time.process_time() - begin:.0f} s of processor time.",
        "Made by `benchmarks/dna.py`.",
        "",
        f"## A Markov chain of order {ORDER}",
        "",
        textwrap.fill(
            f"{N} particles, {LENGTH} steps of one place, so {N * LENGTH} evaluations of the model a run (in the last "
            f"row by {N * FEWER} particles that draw many places at once); {arguments.seeds} seeds. The normaliser is "
            f"exactly {exact:.3f} nats; in the table, the log of the mean estimate, a run's own standard error, and "
            f"how many runs have the exact number within two of them. Best of {BEST} returns {N // BEST} sequences.",
            110,
        ),
        "",
        head,
        *rows(tallies, judge, exact, heldout),
        "",
        "## Its powers, without a reward",
        "",
        f"`TokenComposition([model], [beta])`, {N} particles.",
        "",
        "| beta | log normaliser, exactly | mean estimate | its se | within 2 se | ESS | naturalness |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        *cooled,
    ]
    if network:
        out += [
            "",
            "## The network that comes with motes",
            "",
            textwrap.fill(
                f'`motes.diffusion.load("dna")`, {N} particles, {LENGTH // 2} steps of two places, '
                f"{arguments.network_seeds} seeds.",
                110,
            ),
            "",
            head,
            *rows(network, judge, None, heldout),
        ]
    RESULT.write_text("\n".join(out) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
