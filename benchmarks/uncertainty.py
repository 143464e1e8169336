"""How well each uncertainty estimate tells SmolLM2's wrong answers from its right ones, as areas under the ROC.

Every question stands behind a few solved ones; the first line that the model writes is its answer. The greedy answer is
right or wrong by a match of normalised texts. Ten answers drawn at temperature 1 give the estimates. What the model
said is kept in runs/uncertainty, so the estimates can be changed without asking it again.

Usage: python benchmarks/uncertainty.py [--questions 194] [--samples 10]
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import platform
import re
import textwrap
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch
from torch import Tensor

import motes
from motes.language import Generation, LanguageModel, top_k
from motes.language.uncertainty import (
    Answers,
    ByEmbedding,
    ByKey,
    MiniLM,
    Scored,
    auroc,
    best_split,
    embed_texts,
    good_turing,
    hidden_states,
    missing_mass,
    out_of_fold,
    perplexity,
    score_run,
    semantic_entropy,
    semantic_entropy_of_likelihood,
    semantic_volume,
    sequence_entropy,
    shapley_uncertainty,
    strangeness,
    token_entropy,
)
from motes.rng import Rng

torch.set_num_threads(1)
HERE = Path(__file__).parent
QUESTIONS = HERE / "data" / "questions.json"
RESULT = HERE / "results" / "uncertainty.md"
KEPT = HERE.parent / "runs" / "uncertainty"
SOLVED = (
    "Q: What is the capital of Spain?\nA: Madrid\n"
    "Q: What is 4 + 5?\nA: 9\n"
    "Q: Who painted the ceiling of the Sistine Chapel?\nA: Michelangelo\n"
    "Q: Which metal has the symbol Ag?\nA: silver\n"
)
TOKENS = 12
SMALL = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"}
SMALL |= {"eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12"}


EXPLAINED = (
    "The area is the probability that a question answered wrongly has the larger number (0.5 tells nothing), with "
    "DeLong's 95 % interval over questions. Rows see the same questions, so differences between them are surer than "
    "the intervals suggest."
)
ROWS = (
    "An answer is right if its normalised text (lower case, no punctuation or articles, small numbers as digits) is "
    "that of an accepted one. Keys are normalised texts too; MiniLM joins answers whose cosine is at least 0.8. Probes "
    "read the hidden state behind the prompt, before any answer, and are judged on questions that they were not fitted "
    "to (5 folds); the one for errors is the only row that was shown which answers are right. The length of the greedy "
    "answer is there to compare with: it is no estimate of uncertainty."
)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and blanks at the ends; small numbers as digits."""
    words = re.sub(r"[^\w\s]", " ", text.casefold()).split()
    return " ".join(SMALL.get(word, word) for word in words if word not in ("a", "an", "the"))


def right(text: str, answers: list[str]) -> bool:
    return normalised(text) in {normalised(answer) for answer in answers}


def ends_at_newline(model: Any) -> Any:
    """The model with every token that holds a newline among those that end a text."""
    model = copy.copy(model)
    lines = [v for v in range(model.vocabulary) if "\n" in model.decode([v])]
    model.end = tuple(sorted({*model.end, *lines}))
    return model


def ask(model: LanguageModel, question: str, samples: int) -> dict[str, Any]:
    """What the model says to one question: numbers and texts, as JSON."""
    prompt = f"{SOLVED}Q: {question}\nA:"
    greedy = Generation(model, prompt, rules=[top_k(1)], globalise=False, max_tokens=TOKENS, chat=False)
    best = motes.sample(greedy, 1, seed=0, progress=False)
    drawn = Generation(model, prompt, max_tokens=TOKENS, chat=False)
    answers = score_run(motes.sample(drawn, samples, seed=1, progress=False), drawn, laws=True)
    scored = answers.scored
    assert scored is not None
    length = int(best.particles.x["length"][0])
    return {
        "greedy": best.texts[0],
        "greedy_log_prob": best.particles.x["log_prob"][0, :length].tolist(),
        "texts": list(answers.texts),
        "tokens": scored.tokens,
        **{name: getattr(scored, name).tolist() for name in ("log_prob", "entropy", "variance", "length")},
        "hidden": [round(v, 5) for v in hidden_states(model, [prompt], chat=False)[0].tolist()],
    }


def kept(question: str, samples: int, model: list[Any]) -> dict[str, Any]:
    """`ask`, or what is known from before."""
    code = hashlib.sha256(f"{SOLVED}{question}|{samples}|{TOKENS}|{motes.__version__}".encode()).hexdigest()[:16]
    path = KEPT / f"{code}.json"
    if not path.exists():
        if not model:
            model.append(ends_at_newline(motes.language.load("smollm2")))
        KEPT.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        said = ask(model[0], question, samples)
        path.write_text(json.dumps({**said, "seconds": time.perf_counter() - begin}))
    return json.loads(path.read_text())


def answers_of(said: dict[str, Any]) -> Answers:
    log_prob, entropy, variance = (
        torch.tensor(said[k], dtype=torch.float64) for k in ("log_prob", "entropy", "variance")
    )
    scored = Scored([tuple(t) for t in said["tokens"]], log_prob, entropy, variance, torch.tensor(said["length"]))
    return Answers(said["texts"], log_prob=scored.total, scored=scored)


def estimates(said: dict[str, Any], embed: MiniLM) -> dict[str, float]:
    """Every estimate for one question."""
    answers, key = answers_of(said), ByKey(normalised)
    known: dict[str, Tensor] = {}

    def vectors(texts: list[str]) -> Tensor:
        known.update(zip(texts, embed_texts(embed, texts), strict=True))
        return torch.stack([known[text] for text in texts])

    nearby = ByEmbedding(vectors, least=0.8)
    v = vectors(list(dict.fromkeys(answers.texts)))
    both = Answers(
        [said["greedy"], *answers.texts], log_weight=torch.tensor([-math.inf, *[0.0] * answers.n], dtype=torch.float64)
    )
    greedy = torch.tensor(said["greedy_log_prob"])
    return {
        "1 - share of the greedy answer's key": strangeness(both, key, 0),
        "semantic entropy, key": float(semantic_entropy(answers, key)),
        "semantic entropy, MiniLM": float(semantic_entropy(answers, nearby)),
        "semantic entropy of likelihood, key": float(semantic_entropy_of_likelihood(answers, key)),
        "sequence entropy": float(sequence_entropy(answers)),
        "token entropy per text": float(token_entropy(answers, per_token=False)),
        "token entropy per token": float(token_entropy(answers)),
        "perplexity of the samples": float(perplexity(answers)),
        "perplexity of the greedy answer": float((-greedy.mean()).exp()),
        "-log p of the greedy answer": float(-greedy.sum()),
        "missing mass, exact": float(missing_mass(answers)),
        "missing mass, Good-Turing": float(good_turing(answers)),
        "semantic volume, MiniLM": float(semantic_volume(answers, vectors)),
        "Shapley (kernel entropy), MiniLM": float(shapley_uncertainty(answers, v @ v.T)),
        "number of distinct keys": float(len({normalised(text) for text in answers.texts})),
        "length of the greedy answer": float(len(greedy)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=None)
    parser.add_argument("--samples", type=int, default=10)
    arguments = parser.parse_args()
    asked = json.loads(QUESTIONS.read_text())
    if arguments.questions:  # the file is in the order of topics, so every part of it is taken from all of them
        asked = [asked[i * len(asked) // arguments.questions] for i in range(arguments.questions)]
    model, embed = [], MiniLM()
    said = [kept(item["question"], arguments.samples, model) for item in asked]
    seconds = sum(s["seconds"] for s in said) / len(said)
    wrong = torch.tensor([not right(s["greedy"], i["answers"]) for s, i in zip(said, asked, strict=True)])
    rows = [estimates(s, embed) for s in said]
    numbers = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    hidden = torch.tensor([s["hidden"] for s in said], dtype=torch.float64)
    entropy = numbers["semantic entropy, key"]
    doubt = (entropy >= best_split(entropy)).long()
    # far more features than questions: a strong ridge, fixed before any result was seen
    probes = {"probe for semantic entropy": doubt, "probe for errors": wrong.long()}
    numbers |= {k: out_of_fold(Rng(0).at("probe"), hidden, y, ridge=len(said)) for k, y in probes.items()}
    areas = sorted(((auroc(x, wrong), name) for name, x in numbers.items()), key=lambda pair: -pair[0].value)
    share = 1 - float(wrong.double().mean())
    machine = platform.processor() or platform.machine()
    versions = f"motes {motes.__version__}, torch {torch.__version__}, transformers {version('transformers')}"
    out = [
        "# Uncertainty and errors",
        "",
        textwrap.fill(
            f"SmolLM2-135M-Instruct, {len(said)} questions of `benchmarks/data/questions.json` behind four solved "
            f"ones; {arguments.samples} answers to each at temperature 1, of at most {TOKENS} tokens. The greedy "
            f"answer is right for {100 * share:.0f} % of them. {EXPLAINED}",
            110,
        ),
        "",
        textwrap.fill(ROWS, 110),
        "",
        f"{date.today()}, {versions}, one thread of {machine}; {seconds:.1f} s a question.",
        "Made by `benchmarks/uncertainty.py`.",
        "",
        "| estimate | area | 95 % interval |",
        "|---|---:|---:|",
        *(f"| {name} | {a.value:.3f} | {a.low:.3f} to {a.high:.3f} |" for a, name in areas),
        "",
        "Right answers by topic:",
        "",
        "| topic | questions | right |",
        "|---|---:|---:|",
    ]
    for kind in dict.fromkeys(item["kind"] for item in asked):
        mine = [not bool(w) for w, item in zip(wrong, asked, strict=True) if item["kind"] == kind]
        out.append(f"| {kind} | {len(mine)} | {sum(mine)} |")
    RESULT.write_text("\n".join(out) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
