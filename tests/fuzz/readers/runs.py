"""Files of runs: spoilt bytes, and spoilt contents under digests that are right."""

from __future__ import annotations

import json
import random
import struct
import tempfile
import warnings
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import motes
from core.toys import Walk, data
from fuzz import mutate
from fuzz.harness import Reader
from motes.core.files import store as files
from motes.report.table import table


def model() -> Walk:
    """The model of the run that is spoilt."""
    return Walk(data(9), s=0.3)


@cache
def whole(replicas: int = 1) -> tuple[bytes, dict[str, Any], dict[str, torch.Tensor]]:
    """A good file: its bytes, the JSON of its header, its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        motes.sample(model(), 12, seed=3, max_steps=6, checkpoint=path, progress=False, replicas=replicas)
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["motes"])
            tensors = {k: file.get_tensor(k).clone() for k in sorted(file.keys())}
        for name in tensors:
            if name.endswith("trace/seconds"):
                tensors[name].fill_(0.5)
        return sealed(header, tensors), header, tensors


def sealed(header: Any, tensors: dict[str, torch.Tensor]) -> bytes:
    """A file whose digests are right, whatever it holds."""
    if isinstance(header, dict):
        header["digests"] = {k: files.checksum(v) for k, v in tensors.items()}
    written = json.dumps(header)
    return serialised(tensors, {"motes": written, "digest": sha256(written.encode()).hexdigest()})


TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.int64: "I64", torch.int32: "I32",
    torch.bool: "BOOL",
}  # fmt: skip


def serialised(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file that is the same bytes each time (the library's own order of metadata is not)."""
    header: dict[str, Any] = {"__metadata__": metadata}
    body = b""
    for name, value in tensors.items():
        data = value.contiguous().numpy().tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": TYPES[value.dtype], "shape": list(value.shape), "data_offsets": offsets}
        body += data
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return struct.pack("<Q", len(written)) + written + body


def make(rng: random.Random) -> bytes:
    """Half of the files have spoilt bytes; the others are well written and say what cannot be."""
    good, header, tensors = whole(rng.choice([1, 1, 2]))
    kind = rng.randrange(8)
    if kind < 4:
        return mutate.spoil_bytes(rng, good)
    if kind == 4:
        return rng.choice([b"", struct.pack("<Q", rng.choice([0, 2, 2**40, 2**63])) + b"{}", rng.randbytes(200)])
    if kind == 5:
        name = rng.choice(sorted(tensors))
        return sealed({**header}, {**tensors, name: odd_tensor(rng, tensors[name])})
    spoilt = mutate.spoil_json(rng, {k: header[k] for k in ("format", "meta", "trees")})
    return sealed(spoilt, tensors)


def odd_tensor(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of another type or shape, or with an entry that cannot be."""
    kind = rng.randrange(5)
    if kind == 0:
        return tensor.to(rng.choice([torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.half]))
    if kind == 1:
        return tensor.reshape(-1)[: rng.randrange(3)].clone()
    if kind == 2:
        return tensor[None].clone()
    if kind == 3:
        return torch.cat([tensor.reshape(-1)] * 2)
    spoilt = tensor.clone().reshape(-1)
    if len(spoilt):
        value = rng.choice([-1, 2**31 - 1, 10**15, -(10**15)])
        odd = value if not spoilt.is_floating_point() else rng.choice([float("nan"), float("inf"), -1.0, 1e300])
        spoilt[rng.randrange(len(spoilt))] = torch.tensor(odd).to(spoilt.dtype)
    return spoilt.reshape(tensor.shape)


def read(given: bytes, folder: Path) -> None:
    """Load the file, look at what it says, and go on with it."""
    path = folder / "run"
    path.write_bytes(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        use(motes.load(path))
        motes.resume(path, model(), checkpoint=folder / "on", progress=False, throw=False)


def use(run: motes.Run) -> None:
    """What is done with a run that was read."""
    assert str(run) and table(run)
    run.standard_error, run.ess, run.seconds, run.weight, run.trace["ess"], run.genealogy.paths()
    for ask in (run.mean, lambda: run.draws(3)):
        try:
            ask()
        except motes.MotesError:
            pass


READER = Reader("runs", make, read)
