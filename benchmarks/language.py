"""SmolLM2-135M on one thread: plain sampling beside transformers, JSON beside genlm-control, in one run.

Plain: 32 texts of 64 tokens behind a prompt of 200 tokens, with no end before. JSON: 32 particles under a schema, the
same prompt and schema for both. Contenders run in turn; every time is CPU time of a whole run, the prompt included, so
that other work on the machine matters little. genlm-control needs an interpreter of its own, without which its half is
left out:
    python -m venv build/genlm && build/genlm/bin/pip install "genlm-control==0.4.*" "torch==2.13.*"
Usage: python benchmarks/language.py [--rounds 5] [--seeds 5] [--genlm build/genlm/bin/python]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch

import motes
from motes import language
from motes.language.models.cache import RowLayer

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
HERE = Path(__file__).parent
RESULT = HERE / "results" / "language.md"
N, PROMPT, NEW, JSON_NEW = 32, 200, 64, 64

PASSAGE = """The ferry left the island at half past six, an hour late, because the fog had not lifted from the harbour.
Among the passengers was Marta Lindgren, who had turned thirty-four the week before and was on her way home to Bergen
after a summer of counting seabirds on the northern cliffs. She had filled eleven notebooks with numbers, and she had a
feeling that the numbers were wrong. There had been fewer guillemots than in any year since the counts began, but more
puffins, and nobody at the station could say why. The captain, an old man with a white beard who had known the island
before there was a lighthouse, told her over coffee that birds go where the fish go, and that the fish go where they
like. She wrote this down as well. Behind them the cliffs turned grey and then blue, and when the fog closed again there
was nothing left to count. She shut the last notebook, put it into her bag with the others and began to think about what
she would say to the committee on Monday, and about whether any of them would believe a word of it. The first thing that
she would have to explain was"""
QUESTION = "\n\nWho is the passenger in this text? Answer with one JSON object: name, age, city, and whether employed."
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "city": {"type": "string", "maxLength": 20},
        "employed": {"type": "boolean"},
    },
    "required": ["name", "age", "city", "employed"],
    "additionalProperties": False,
}


def cut(model: Any, text: str, tokens: int) -> str:
    """The first so many tokens of a text."""
    found = model.decode(model.encode(text, False)[:tokens].tolist())
    assert len(model.encode(found, False)) == tokens
    return found


# ------------------------------------------------------------------------------------------------ plain sampling


def ours(model: Any, prompt: str, rules: tuple[Any, ...], seed: int) -> motes.Run:
    """The law that transformers samples too: tokens from the model's own, without the end."""
    job = language.Generation(model, prompt, rules=rules, max_tokens=NEW, chat=False, globalise=False)
    return motes.sample(job, N, seed=seed, progress=False)


def theirs(model: Any, ids: torch.Tensor, seed: int, new: int = NEW) -> torch.Tensor:
    torch.manual_seed(seed)
    return model.generate(
        ids[None],
        attention_mask=torch.ones_like(ids)[None],
        do_sample=True,
        top_k=0,
        num_return_sequences=N,
        min_new_tokens=new,
        max_new_tokens=new,
        pad_token_id=0,
    )


def bare(model: Any, prompt: str, tokens: torch.Tensor) -> float:
    """CPU seconds of the calls of the model alone: the prompt, and each new token for N rows that never move."""
    prefixes = model.prefixes(model.encode(prompt, False), NEW)
    prefixes.extend(torch.zeros(N, dtype=torch.int64), tokens[:, 0])
    rows = torch.arange(N)
    start = time.process_time()
    for t in range(1, NEW):
        prefixes.extend(rows, tokens[:, t])
    return time.process_time() - start


def plain(rounds: int) -> list[str]:
    model = language.load("smollm2")
    peer = language.load("smollm2").model  # pyright: ignore[reportAttributeAccessIssue]
    peer.set_attn_implementation("sdpa")
    prompt = cut(model, PASSAGE, PROMPT)
    ids, rules = model.encode(prompt, False), (language.min_new_tokens(NEW),)
    seconds: dict[str, list[float]] = {"motes": [], "transformers": [], "new tokens": [], "prompt": [], "steps": []}
    evaluated = 0
    ours(model, prompt, rules, 0), theirs(peer, ids[:8], 0)
    for seed in range(rounds):
        start = time.process_time()
        run = ours(model, prompt, rules, seed)
        seconds["motes"].append(time.process_time() - start)
        assert bool((run.particles.x["length"] == NEW).all())
        evaluated = sum(int(row["evaluated"]) for row in run.trace.rows) - 1
        start = time.process_time()
        found = theirs(peer, ids, seed)
        seconds["transformers"].append(time.process_time() - start)
        assert found.shape == (N, PROMPT + NEW)
        start = time.process_time()
        theirs(peer, ids, seed, 1)
        seconds["new tokens"].append(seconds["transformers"][-1] - (time.process_time() - start))
        start = time.process_time()
        model.prefixes(ids, NEW)
        seconds["prompt"].append(time.process_time() - start)
        seconds["steps"].append(bare(model, prompt, run.particles.x["tokens"]))
    mid = {name: statistics.median(s) for name, s in seconds.items()}
    floor = mid["prompt"] + mid["steps"] * evaluated / (N * (NEW - 1))
    rate = {name: N * NEW / mid[name] for name in ("motes", "transformers")}
    alone = mid["new tokens"] / (mid["motes"] - mid["prompt"])
    call, share = mid["steps"] / (NEW - 1), evaluated / (N * (NEW - 1))
    return [
        "## Plain sampling beside transformers",
        "",
        *wrapped(
            f"{N} texts of {NEW} tokens behind one prompt of {PROMPT} tokens, no end before; the same float32 weights. "
            f"transformers {version('transformers')}: `generate(do_sample=True, num_return_sequences={N})`, which "
            f"evaluates the prompt {N} times. Medians of CPU time, {rounds} interleaved rounds."
        ),
        "",
        "| | CPU seconds | tokens/s |",
        "|---|---:|---:|",
        *(f"| {name} | {mid[name]:.2f} | {rate[name]:.0f} |" for name in rate),
        f"| transformers, its prompt left out | {mid['new tokens']:.2f} | {N * NEW / mid['new tokens']:.0f} |",
        "",
        *wrapped(
            f"motes makes **{rate['motes'] / rate['transformers']:.2f}** times the tokens per second. Without the "
            f"prompt on either side it is {alone:.2f} times: most of the gain is "
            "that the prompt is evaluated and kept once."
        ),
        "",
        *wrapped(
            f"One call of the model for {N} rows takes {call * 1e3:.0f} ms and the prompt, once, "
            f"{mid['prompt'] * 1e3:.0f} ms. The run evaluated {evaluated} rows ({share:.0%} of all, since equal "
            f"beginnings count once), so the calls of the model cost about {floor:.2f} s: laws, draws and bookkeeping "
            f"are {max(0.0, 1 - floor / mid['motes']):.0%} of the run."
        ),
        "",
    ]


# ------------------------------------------------------------------------------------------------ JSON


class Timed:
    """A function that counts the seconds spent in it."""

    def __init__(self, f: Callable[..., Any]):
        self.f, self.seconds = f, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return self.f(*args, **kwargs)
        finally:
            self.seconds += time.process_time() - start


class Peer:
    """genlm-control in its own process, asked for one seed at a time."""

    def __init__(self, python: Path, folder: str, job: dict[str, Any]):
        script = str(HERE / "_language_genlm.py")
        self.process = subprocess.Popen(
            [str(python), script, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask(json.dumps(job))

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise SystemExit(f"genlm-control stopped with exit code {self.process.wait()}")
        return json.loads(said)


def peer(python: Path, model: Any, prompt: torch.Tensor, folder: str) -> Peer | None:
    if not python.exists():
        return None
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    end = [model.tokenizer.convert_ids_to_tokens(e) for e in model.end]
    job = {"prompt": prompt.tolist(), "n": N, "max_tokens": JSON_NEW, "schema": SCHEMA, "end": end}
    return Peer(python, folder, job)


def constrained(seeds: int, python: Path) -> list[str]:
    model = language.load("smollm2")
    question = cut(model, PASSAGE, 112) + " ..." + QUESTION
    found: dict[str, list[dict[str, Any]]] = {"motes": [], "genlm-control": []}
    layers, parts = RowLayer.move, {"resampling": 0.0, "rows": 0.0}

    def once(seed: int) -> dict[str, Any]:
        constraint = language.json_schema(SCHEMA, layout="ordered")
        start = time.process_time()
        job = language.Generation(model, question, constraint=constraint, max_tokens=JSON_NEW)
        job.resampled = resampled = Timed(job.resampled)  # pyright: ignore[reportAttributeAccessIssue]
        run = motes.sample(job, N, seed=seed, progress=False)
        seconds = time.process_time() - start
        tokens = int(run.particles.x["length"].sum())
        parts["resampling"] += resampled.seconds / seconds / seeds
        times = sum(int(row["resampled"]) for row in run.trace.rows)
        return {"seconds": seconds, "log_z": run.log_evidence, "ess": run.ess, "tokens": tokens, "times": times}

    with tempfile.TemporaryDirectory() as folder:
        other = peer(python, model, model.encode(question), folder)
        once(seeds)
        parts.update(resampling=0.0, rows=0.0)
        for seed in range(seeds):
            move = Timed(layers)
            setattr(RowLayer, "move", lambda *a, move=move: move(*a))  # noqa: B010 a method that counts
            try:
                found["motes"].append(once(seed))
            finally:
                setattr(RowLayer, "move", layers)  # noqa: B010
            parts["rows"] += move.seconds / found["motes"][-1]["seconds"] / seeds
            if other is not None:
                found["genlm-control"].append(other.ask(str(seed)))
                print({k: v for k, v in found["genlm-control"][-1].items() if k != "texts"}, flush=True)
    if other is not None and other.process.stdin is not None:
        other.process.stdin.close()
        other.process.wait()
    lines = [
        "## JSON beside genlm-control",
        "",
        *wrapped(
            f"{N} particles, at most {JSON_NEW} tokens, a prompt of {len(model.encode(question))} tokens, a schema of "
            f"four fields, {seeds} seeds, resampled below half of the effective sample size. genlm-control 0.4: its "
            "AWRS sampler on its JSON schema and its transformers back end, with the prompt's keys and values kept and "
            "all particles in one batch. Its recogniser of JSON is another one (whitespace, escapes), and a text that "
            "is too long gets its end there, so the two normalisers need not be equal. What it waits for a batch to "
            "fill is no CPU time and not counted."
        ),
        "",
        "| | CPU seconds (median) | log normaliser | its standard deviation | effective sample size | tokens a text |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in found.items():
        if not runs:
            lines.append(f"| {name} | not installed | | | | |")
            continue
        take = {key: [r[key] for r in runs] for key in ("seconds", "log_z", "ess", "tokens")}
        spread = statistics.stdev(take["log_z"]) if seeds > 1 else float("nan")
        mean = {key: statistics.mean(values) for key, values in take.items()}
        lines.append(
            f"| {name} | {statistics.median(take['seconds']):.2f} | {mean['log_z']:.2f} | {spread:.2f} | "
            f"{mean['ess']:.1f} | {mean['tokens'] / N:.1f} |"
        )
    lines.append("")
    if found["genlm-control"]:
        a, b = (statistics.median([r["seconds"] for r in found[name]]) for name in found)
        lines += [f"genlm-control / motes: **{b / a:.1f}** times the seconds.", ""]
    times = statistics.mean([r["times"] for r in found["motes"]])
    lines += wrapped(
        f"motes resampled {times:.1f} times a run, which took {parts['resampling']:.2%} of it; moving the cache's rows "
        f"when texts branch took {parts['rows']:.2%}."
    )
    return lines


def wrapped(text: str) -> list[str]:
    """Lines of a result file."""
    return textwrap.wrap(text, 110, break_on_hyphens=False)


def version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--genlm", type=Path, default=HERE.parent / "build" / "genlm" / "bin" / "python")
    args = parser.parse_args()
    threads = torch.get_num_threads()
    lines = [
        "# Speed of language models",
        "",
        f"SmolLM2-135M-Instruct in float32 on {threads} CPU thread{'s' * (threads > 1)}, PyTorch {torch.__version__}. "
        "Made by `benchmarks/language.py`.",
        "",
        *plain(args.rounds),
        *constrained(args.seeds, args.genlm),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
