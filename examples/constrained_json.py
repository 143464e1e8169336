"""JSON from a small language model, with weights: which replies the model would give if all it gave were valid.

    python examples/constrained_json.py [particles]

Masking invalid tokens alone gives valid JSON too, but with the wrong probabilities: it follows a beginning that the
mask forced upon the model as readily as one that the model likes. The weights correct that, and their mean is the
probability that the model's own reply is valid.
"""

from __future__ import annotations

import json
import math
import sys

import motes
from motes.language import Generation, json_schema, load

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "maxLength": 20},
        "season": {"enum": ["spring", "summer", "autumn", "winter"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 21},
    },
    "required": ["city", "season", "days"],
    "additionalProperties": False,
}
TALK = [
    {"role": "user", "content": "Suggest a journey, as JSON."},
    {"role": "assistant", "content": '{"city": "Lisbon", "season": "spring", "days": 5}'},
    {"role": "user", "content": "Another one."},
]


def main(n: int = 12) -> motes.Run:
    model = Generation(load("smollm2"), TALK, constraint=json_schema(SCHEMA), max_tokens=32)
    run = motes.sample(model, n, seed=1)
    best = sorted(zip(run.weight.tolist(), run.texts, strict=True), reverse=True)
    for weight, text in best:
        if weight > 0:
            print(f"{weight:.3f}  {json.loads(text)}")
    print(f"log P(valid) = {run.log_evidence:.2f} ± {run.log_evidence_se:.2f}: {math.exp(run.log_evidence):.1%} of the")
    print(f"model's own replies are valid; effective sample size {run.ess:.1f} of {n}, {run.families:.1f} families")
    return run


if __name__ == "__main__":
    main(*(int(v) for v in sys.argv[1:2]))
