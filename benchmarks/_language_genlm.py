"""genlm-control on the job of the language benchmark, in a process and an interpreter of its own.

Usage: PYTHON _language_genlm.py FOLDER, with the job as JSON in the first line of standard input. Each further line is
a seed, and is answered by a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import torch
from genlm.control import AWRS, JsonSchema, PromptedLLM

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


async def one(llm: Any, condition: Any, job: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run from an empty cache: the prompt is evaluated once, and its keys and values are kept, as its users can."""
    np.random.seed(seed)  # noqa: NPY002 what genlm-control draws from
    torch.manual_seed(seed)
    sampler = AWRS(llm, condition, seed=seed)
    start = time.process_time()
    llm.model.clear_cache()
    llm.model.cache_kv(job["prompt"])
    found = await sampler.smc(
        n_particles=job["n"], ess_threshold=0.5, max_tokens=job["max_tokens"], resampling_method="systematic"
    )
    seconds = time.process_time() - start
    texts = [b"".join(bytes(t) for t in c[:-1]).decode("utf-8", "replace") for c in found.contexts]
    tokens = sum(len(c) for c in found.contexts)
    return {"seconds": seconds, "log_z": float(found.log_ml), "ess": float(found.ess), "tokens": tokens, "texts": texts}


def main(folder: str) -> None:
    """Answer seed by seed."""
    job = json.loads(sys.stdin.readline())
    llm = PromptedLLM.from_name(
        folder,
        backend="hf",
        prompt_ids=job["prompt"],
        eos_byte_strings=[e.encode() for e in job["end"]],
        batch_size=job["n"],
        hf_opts={"torch_dtype": torch.float32},
    )
    condition = JsonSchema(job["schema"]).coerce(llm, f=b"".join)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(asyncio.run(one(llm, condition, job, int(line)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
