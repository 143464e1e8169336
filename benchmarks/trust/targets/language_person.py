"""A person as JSON, from a plain prompt: texts of SmolLM2-135M under a schema, any layout and any order of the keys.

Nobody can count them. The truth is a reference: `POPULATIONS` independent runs of 64 texts each, whose evidences are
unbiased (-14.42, -14.30, -14.51, -14.69, -14.51, -14.58); the log of their mean, with its error by the jackknife.
Claims are judged with that error added to their own. Of means only the reference that the file computes again knows
something: `python -m benchmarks.trust.targets.language_person`, 40 seconds of CPU a population.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from benchmarks.trust.target import Target, Truth
from benchmarks.trust.texts import Worth, each, sampler, smollm2

import motes
from motes.language import Generation, json_schema

PROMPT = "Write a person as JSON with the keys name, age, city and member."
KEYS = {
    "name": {"type": "string", "maxLength": 12},
    "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "city": {"enum": ["Paris", "London", "Berlin"]},
    "member": {"type": "boolean"},
}
SCHEMA = {"type": "object", "properties": KEYS, "required": list(KEYS), "additionalProperties": False}
FUNCTIONS: dict[str, Worth] = {
    "London": lambda text: float('"London"' in text),
    "member": lambda text: float("true" in text),
    "length": len,
}
POPULATIONS, SIZE, FIRST = 6, 64, 100
"""Runs of the reference, texts in each, and the seed of the first."""
TRUTH = Truth(-14.494, errors={"evidence": 0.054})


def make() -> Generation:
    return Generation(smollm2(), PROMPT, constraint=json_schema(SCHEMA), max_tokens=40)


def reference(populations: int = POPULATIONS) -> Truth:
    """The truth computed again."""
    log_z, means = [], []
    for seed in range(FIRST, FIRST + populations):
        run = motes.sample(make(), SIZE, seed=seed, progress=False)
        log_z.append(run.log_evidence)
        means.append([float(run.mean(each(f)).value) for f in FUNCTIONS.values()])
        print(seed, log_z[-1], means[-1], file=sys.stderr, flush=True)
    return pooled(np.array(log_z), np.array(means))


def pooled(log_z: np.ndarray, means: np.ndarray) -> Truth:
    """The truth and its errors from (R,) log evidences and (R, F) means of independent populations."""
    z = np.exp(log_z - log_z.max())
    found = np.append(math.log(z.mean()) + log_z.max(), z @ means / z.sum())
    others = [np.delete(np.arange(len(z)), k) for k in range(len(z))]
    left = np.array([np.append(math.log(z[o].mean()) + log_z.max(), z[o] @ means[o] / z[o].sum()) for o in others])
    error = np.sqrt((len(z) - 1) * left.var(0))
    names = list(FUNCTIONS)
    errors = dict(zip(["evidence", *names], error.tolist(), strict=True))
    return Truth(float(found[0]), dict(zip(names, found[1:].tolist(), strict=True)), errors)


TARGETS = [
    Target(
        "language-person",
        "A person as JSON by SmolLM2",
        lambda: TRUTH,
        {name: each(f) for name, f in FUNCTIONS.items()},
        {"Generation": sampler(make)},
        domain="language",
        sizes=(32,),
    )
]

if __name__ == "__main__":
    print(reference())
