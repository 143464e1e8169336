"""The real model: its file, valid outputs, and the probability of validity against the truth."""

from __future__ import annotations

import json
import math
import re
import runpy
from pathlib import Path

import pytest
import torch

import motes
from motes.errors import FileError
from motes.language import Generation, json_schema, regex
from motes.language.demo import json_generation
from motes.language.models import gguf, gguf_file
from motes.language.models.hugging_face import packaged

QUESTION = "Is a tomato a fruit? Answer yes or no."
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "maxLength": 12},
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


def sample(model, n, seed=0, **settings):
    return motes.sample(model, n, seed=seed, progress=False, **settings)


def test_the_file_reads_as_the_gguf_library_reads_it(smollm2):
    """Every kind of block in the file, bit for bit, and the shapes."""
    from gguf import GGMLQuantizationType, dequantize

    header = gguf.read_header(packaged("smollm2"))
    data = Path(header.path).read_bytes()
    kinds = {}
    for name, entry in header.tensors.items():
        kinds.setdefault(entry.kind, (name, entry))
    assert {GGMLQuantizationType(kind).name for kind in kinds} == {"F32", "Q4_1", "Q8_0"}
    for kind, (name, entry) in kinds.items():
        values, size = gguf_file.BLOCKS[kind]
        length = min(math.prod(entry.shape), 64 * values) // values * size
        raw = torch.frombuffer(bytearray(data[header.start + entry.offset :][:length]), dtype=torch.uint8)
        theirs = dequantize(raw.numpy(), GGMLQuantizationType(kind))
        torch.testing.assert_close(gguf_file.dequantize(raw, kind), torch.from_numpy(theirs.copy()).flatten(), msg=name)


@pytest.mark.parametrize("kind", [2, 3, 8])
def test_blocks_are_read_as_the_gguf_library_writes_them(kind):
    from gguf import GGMLQuantizationType, dequantize, quantize

    x = torch.linspace(-3, 2, 256).sin().reshape(4, 64).numpy()
    packed = quantize(x, GGMLQuantizationType(kind))
    ours = gguf_file.dequantize(torch.from_numpy(packed.copy()).flatten(), kind)
    torch.testing.assert_close(ours, torch.from_numpy(dequantize(packed, GGMLQuantizationType(kind))).flatten())


@pytest.mark.parametrize("length", [3, 1000, 2_000_000])
def test_a_truncated_file_is_refused(smollm2, tmp_path, length):
    path = tmp_path / "model.gguf"
    with open(packaged("smollm2"), "rb") as f:
        path.write_bytes(f.read(length))
    with pytest.raises(FileError):
        gguf.build_model(gguf.read_header(path), torch.float32)


def test_the_tokenizer_keeps_text_and_splits_digits(smollm2):
    text = "I've 12345 apples  and\n\n3.14 pies, ça va? 你好"
    ids = smollm2.encode(text, chat=False)
    assert smollm2.decode(ids.tolist()) == text
    assert [smollm2.decode([i]) for i in ids.tolist()][3:8] == list("12345")


def test_it_knows_the_capital_of_france(smollm2):
    """Greedy decoding by hand: the weights stand where they belong."""
    prefixes = smollm2.prefixes(smollm2.encode("What is the capital of France?"), 8)
    text = []
    for _ in range(8):
        text.append(int(prefixes.logits[0].argmax()))
        prefixes.extend(torch.tensor([0]), torch.tensor([text[-1]]))
    assert "Paris" in smollm2.decode(text)


def test_constrained_outputs_parse(smollm2):
    run = sample(Generation(smollm2, TALK, constraint=json_schema(SCHEMA), max_tokens=30), 8)
    valid = [text for text, w in zip(run.texts, run.weight.tolist(), strict=True) if w > 0]
    assert valid
    for text in valid:
        found = json.loads(text)
        assert set(found) == {"city", "season", "days"}
        assert 2 <= len(found["city"]) <= 12 and 1 <= found["days"] <= 21
        assert found["season"] in SCHEMA["properties"]["season"]["enum"]
    assert run.log_evidence < 0


def spellings(model, words: list[str]) -> list[list[int]]:
    """Every way to spell the words with the model's tokens."""
    pieces = {}
    for word in words:
        for i in range(len(word)):
            for j in range(i + 1, len(word) + 1):
                ids = model.tokenizer.convert_tokens_to_ids([word[i:j]])
                if ids[0] is not None and model.decode(ids) == word[i:j]:
                    pieces[word[i:j]] = ids[0]

    def split(rest: str) -> list[list[int]]:
        if not rest:
            return [[]]
        return [
            [pieces[rest[:k]], *more] for k in range(1, len(rest) + 1) if rest[:k] in pieces for more in split(rest[k:])
        ]

    return [ids for word in words for ids in split(word)]


def test_the_probability_of_validity_is_that_of_all_spellings(smollm2):
    """Z for "Yes" or "No" summed over every spelling; 5 standard errors of 6 runs; 15 % would be seen."""
    prompt, total = smollm2.encode(QUESTION), 0.0
    (end,) = smollm2.end
    for ids in spellings(smollm2, ["Yes", "No"]):
        whole = torch.cat([prompt, torch.tensor([*ids, end])])
        with torch.inference_mode():
            rows = smollm2.model(input_ids=whole[None], use_cache=False).logits[0].double().log_softmax(-1)
        total += float(rows[torch.arange(len(prompt) - 1, len(whole) - 1), whole[len(prompt) :]].sum().exp())
    model = Generation(smollm2, QUESTION, constraint=regex("Yes|No"), max_tokens=5)
    z = torch.tensor([math.exp(sample(model, 100, seed=s).log_evidence) for s in range(6)]) / total
    se = float(z.std()) / math.sqrt(len(z))
    assert 0.01 < total < 0.5
    assert se < 0.03
    assert abs(float(z.mean()) - 1) < 5 * se + 1e-4


PATTERN = "(Yes|No), .*"


@pytest.mark.parametrize("n", [500, pytest.param(4000, marks=pytest.mark.slow)])
def test_the_probability_of_validity_is_that_of_brute_force(smollm2, n):
    """The share of valid texts among free ones; 5 standard errors, 0.09 (0.03 in the slow one) in probability."""
    free = sample(Generation(smollm2, QUESTION, max_tokens=4), n)
    valid = sum(re.fullmatch(PATTERN, text, re.DOTALL) is not None for text in free.texts) / n
    run = sample(Generation(smollm2, QUESTION, constraint=regex("(Yes|No), (.|\n)*"), max_tokens=4), 100, seed=1)
    se = math.sqrt(valid * (1 - valid) / n + (math.exp(run.log_evidence) * run.log_evidence_se) ** 2)
    assert 0.03 < valid < 0.4
    assert abs(math.exp(run.log_evidence) - valid) < 5 * se
    assert se < 0.02


def test_a_run_of_the_real_model_resumes_bit_for_bit(smollm2, tmp_path):
    model = Generation(smollm2, QUESTION, constraint=regex("(Yes|No)[^0-9]*"), max_tokens=8)
    whole = sample(model, 6, ess_threshold=0.9)
    path = tmp_path / "run.safetensors"
    sample(model, 6, ess_threshold=0.9, checkpoint=path, callback=lambda state: state.particles.t == 5)
    resumed = motes.resume(path, model, progress=False)
    assert whole.particles.t == 8
    assert resumed.texts == whole.texts
    assert torch.equal(resumed.particles.log_weight, whole.particles.log_weight)


@pytest.mark.slow
def test_the_demo(smollm2):
    run = sample(json_generation(smollm2), 16, seed=1)
    for text, w in zip(run.texts, run.weight.tolist(), strict=True):
        if w > 0:
            assert set(json.loads(text)) == {"dish", "course", "minutes", "note"}
    assert -6 < run.log_evidence < 0


@pytest.mark.slow
def test_the_example(smollm2, capsys):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "constrained_json.py"))
    example["main"](4)
    assert "log P(valid)" in capsys.readouterr().out
