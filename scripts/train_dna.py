"""Train the masked denoiser of DNA that comes with motes, and write its weights.

    python scripts/train_dna.py TABLE [FOLDER] [--checkpoints FOLDER]        some minutes of one core

TABLE is K562_hESCT0_HepG2_GM12878_12k_sequences_per_group.txt, which the package dnadiffusion carries: 47,872 stretches
of 200 bases of human DNA that are open in one of four cell types (ENCODE). The network learns with the cell type and
without it, half of the time each.

The losses that are printed at the end are of chromosome 2, which the table keeps for tests, in nats for each base, with
those of Markov chains beside them. Every random number comes from motes.rng.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from motes.diffusion.denoisers.pretrained import DNA_BASES, DNA_CELLS, DNA_PROCESS, write
from motes.diffusion.discrete import MarkovLaw
from motes.diffusion.networks import SequenceNetwork
from motes.diffusion.training import TokenDenoising, train_discrete
from motes.learn import Plan, build
from motes.rng import Rng

SEED = 20262
FOLDER = Path(__file__).parents[1] / "src/motes/diffusion/weights"
NETWORK = {"vocabulary": 4, "channels": 64, "classes": 4, "rounds": 1, "width": 5}
PLAN = Plan(steps=2400, batch=64, rate=2e-3, warm_up=200, average=0.998, held_out=0.02, every=400)


def sequences(path: Path, part: str) -> tuple[Tensor, Tensor]:
    """Tokens (M, 200) and cell types (M,) of the part "training", "validation" or "test"."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["data_label"] == part]
    tokens = torch.tensor([[DNA_BASES.index(base) for base in row["sequence"]] for row in rows])
    return tokens, torch.tensor([DNA_CELLS.index(row["TAG"].split("_")[0]) for row in rows])


def mean(values: Tensor) -> str:
    """A mean and its standard error."""
    return f"{float(values.double().mean()):.4f} ± {float(values.double().std() / math.sqrt(len(values))):.4f}"


def main(table: Path, folder: Path, checkpoints: Path) -> None:
    network, data = (
        build(lambda: SequenceNetwork(**NETWORK), seed=Rng(SEED).at("network")),
        sequences(table, "training"),
    )
    path = checkpoints / "dna.motes"
    trained = train_discrete(network, data, DNA_PROCESS, drop=0.5, plan=PLAN, seed=SEED, path=path)
    tokens, labels = sequences(table, "test")
    report = {}
    with torch.no_grad():
        for name, drop in (("with the cell type", 0.0), ("without it", 1.0)):
            loss = TokenDenoising(DNA_PROCESS, drop=drop)
            parts = enumerate(zip(tokens.split(256), labels.split(256), strict=True))
            each = [loss(trained.network, Rng(SEED).at("test", step=i), part) for i, part in parts]
            report[name] = mean(torch.cat(each))
    for order in (1, 3, 5):
        law = MarkovLaw.fit(data[0], 4, order)
        report[f"Markov chain of order {order}"] = mean(-law.log_prob(tokens) / 200)
    print(f"dna: {trained}; test loss {report}")
    about = {**NETWORK, "test loss": report, "seed": SEED, "plan": PLAN}
    write(trained.network, folder / "dna.safetensors", about)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the order of sums, and with it the weights' last bits, depends on the number of threads
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/dna"))
    given = parser.parse_args()
    main(given.table, given.folder, given.checkpoints)
