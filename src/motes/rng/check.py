"""Known answers: what the generators must give, checked on every route that runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from . import routes
from .philox import philox4x32
from .rng import GENERATORS, Rng
from .squares import squares32, squares64
from .threefry import threefry2x32


def known_answers() -> dict[str, Any]:
    """The answers as in known_answers.json: "published" by generator, and ours by "address" as hexadecimal text."""
    return json.loads(files("motes.rng").joinpath("known_answers.json").read_text())


def self_test() -> dict[str, str]:
    """What is wrong with each generator on each route that can run here; an empty text where nothing is.

    The published vectors check the generators themselves; the addresses check keys, counters and every kind of
    number, bit for bit, on each route.
    """
    answers = known_answers()
    result = {}
    for name in GENERATORS:
        result[f"{name} (published)"] = _first(published(name, answers["published"][name]))
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for route in routes.available(device):
            for name in GENERATORS:
                rng = Rng(0, generator=name, route=route, device=device)
                cases = [c for c in answers["address"] if c["generator"] == name]
                result[f"{name} ({route}, {device})"] = _first(addressed(rng, cases))
    return result


def _first(faults: Iterator[str]) -> str:
    return next(faults, "")


def _tensors(words: list[str]) -> list[Tensor]:
    return [torch.tensor([int(w, 16)]) for w in words]


def published(name: str, cases: list[dict[str, Any]]) -> Iterator[str]:
    """Faults of a generator's own function against vectors printed elsewhere."""
    for case in cases:
        key = [int(w, 16) for w in case["key"]]
        if name.startswith("squares"):
            counter, halved = torch.arange(len(case["out"])), (key[0] & 0xFFFFFFFF, key[0] >> 32)
            if name == "squares32":
                values = squares32(counter, halved).tolist()
            else:
                high, low = (w.tolist() for w in squares64(counter, halved))
                values = [(h << 32) | w for h, w in zip(high, low, strict=True)]
        else:
            function: Callable[..., Any] = philox4x32 if name.startswith("philox") else threefry2x32
            values = [int(w) for w in function(_tensors(case["counter"]), key, case["rounds"])]
        for place, (value, must) in enumerate(zip(values, case["out"], strict=True)):
            if int(value) != int(must, 16):
                yield f"word {place} of {case} is {int(value):x}, must be {must}"


def addressed(rng: Rng, cases: list[dict[str, Any]]) -> Iterator[str]:
    """Faults of an Rng (its seed and purpose are replaced by the case's) against the numbers at some addresses."""
    for case in cases:
        r = replace(rng, seed=case["seed"], purpose=case["purpose"], step=case["step"], inner=case["inner"])
        ids = torch.tensor(case["particles"])
        for kind, dtype, must in ((k, d, v) for k, by in case["draws"].items() for d, v in by.items()):
            shape = (len(ids), len(must[0]))
            options = () if kind == "bits" else (getattr(torch, dtype),)
            found = text(getattr(r.shard(ids), kind)(shape, *options))
            if found != must:
                yield f"{kind} {dtype} at {case['purpose']!r}, step {case['step']} are {found}, must be {must}"


def text(numbers: Tensor) -> list[list[str]]:
    """Numbers as hexadecimal text, which loses no bit."""
    rows = numbers.tolist()
    return [[format(x, "08x") if isinstance(x, int) else x.hex() for x in row] for row in rows]
