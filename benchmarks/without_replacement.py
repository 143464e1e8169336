"""Spread of estimates from independent, arithmetic and without-replacement texts, at the same number of texts.

For each method the expectation of some functions of the text is estimated many times, each run with its own seed; the
table has the standard deviation over the runs. All methods evaluate at most N prefixes a token.

Usage: python benchmarks/without_replacement.py [--runs 400] [--model-runs 24]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import motes
from motes.language import Generation, LanguageModel, TableModel, temperature
from motes.language.search import Arithmetic, PoissonBeam, StochasticBeam

torch.set_num_threads(1)
RESULT = Path(__file__).parent / "results" / "without_replacement.md"
METHODS = {
    "independent": Generation,
    "arithmetic": Arithmetic,
    "stochastic beam": StochasticBeam,
    "Poisson beam": PoissonBeam,
}
TABLE = torch.tensor(
    [[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.25, 0.05]], dtype=torch.float64
).log()
PROMPT = "Name a fruit."


def length(texts: list[str]) -> torch.Tensor:
    return torch.tensor([len(t) for t in texts], dtype=torch.float64)


def starts(letter: str):
    return lambda texts: torch.tensor([t.strip().lower().startswith(letter) for t in texts], dtype=torch.float64)


def measure(model: LanguageModel, prompt: str, n: int, runs: int, functions: dict, **knobs) -> dict[str, list[str]]:
    rows = {}
    for name, cls in METHODS.items():
        begin, plain, normalised = time.perf_counter(), [], []
        for seed in range(runs):
            run = motes.sample(cls(model, prompt, **knobs), n, seed=seed, progress=False, ess_threshold=0.0)
            values = torch.stack([run.values(f) for f in functions.values()])
            plain.append(values @ (run.log_weight.exp() / n))
            normalised.append(values @ run.weight)
        seconds = (time.perf_counter() - begin) / runs
        plain, normalised = torch.stack(plain), torch.stack(normalised)
        cells = [f"{float(a):.3g} / {float(b):.3g}" for a, b in zip(plain.std(0), normalised.std(0), strict=True)]
        rows[name] = [*cells, f"{1000 * seconds:.0f} ms"]
    return rows


def section(title: str, functions: dict, rows: dict[str, list[str]]) -> list[str]:
    head = ["texts", *functions, "one run"]
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return [*lines, *("| " + " | ".join([name, *cells]) + " |" for name, cells in rows.items()), ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--model-runs", type=int, default=24)
    arguments = parser.parse_args()
    out = [
        "# Estimates without replacement",
        "",
        "Standard deviation over runs of an expectation, as *unbiased / normalised*: the mean of w f, and that",
        "divided by the mean of w. Smaller is better. Written by `python benchmarks/without_replacement.py`.",
        "",
    ]
    table = TableModel(["a", "b", "."], TABLE)
    functions = {"length": length, "P(starts with b)": starts("b")}
    for n in (4, 16):
        rows = measure(table, "", n, arguments.runs, functions, max_tokens=6)
        out += section(f"Table model, three tokens, texts of up to 6, N = {n}, {arguments.runs} runs", functions, rows)
    model = motes.language.load("smollm2")
    functions = {"characters": length, "P(starts with a)": starts("a")}
    for t in (0.5, 1.0):
        knobs = {"max_tokens": 4, "rules": [temperature(t)], "globalise": False}
        rows = measure(model, PROMPT, 8, arguments.model_runs, functions, **knobs)
        out += section(f"SmolLM2, 4 tokens, temperature {t}, N = 8, {arguments.model_runs} runs", functions, rows)
    RESULT.write_text("\n".join(out))
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
