"""The options of `motes generate`, on a table of eight tokens in the model's place."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import motes
from motes import language
from motes.cli import generate, resume
from motes.cli.main import main
from motes.language import rules

TOKENS = ["a", "b", "c", "ab", "\n", " ", "x", "."]
ASKED: list[tuple[Any, Any]] = []


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """`language.load` gives the table, which notes the prompts that it is asked."""
    logits = torch.linspace(-1, 1, 9 * 8, dtype=torch.float64).reshape(9, 8).sin() * 2

    def encode(self: language.TableModel, prompt: Any, chat: Any = "auto") -> torch.Tensor:
        ASKED.append((prompt, chat))
        return torch.tensor([7])

    monkeypatch.setattr(language.TableModel, "encode", encode)
    monkeypatch.setattr(language, "load", lambda name: language.TableModel(TOKENS, logits, name=name))
    ASKED.clear()


def run(out: Path, *arguments: object, prompt: str = "x") -> int:
    asked = [] if any(str(a).startswith("--prompt") for a in arguments) else ["--prompt", prompt]
    common = ["--max-tokens", 6, "--quiet", "--out", out]
    return main([str(a) for a in ("generate", *asked, *common, *arguments)])


def settings(out: Path) -> dict[str, Any]:
    return motes.load(out / "run.safetensors").setup["settings"]


def test_rules_apply_in_the_order_that_the_help_says(tmp_path: Path) -> None:
    given = ["--rule", "typical(0.9), epsilon(0.001)", "--min-p", 0.01, "--rule", "no_repeat(3)", "--top-k", 7]
    assert run(tmp_path, *given, "--top-p", 0.99, "--temperature", 0.9) == 0
    want = [
        rules.temperature(0.9),
        rules.top_k(7),
        rules.nucleus(0.99),
        rules.min_p(0.01),
        rules.typical(0.9),
        rules.epsilon(0.001),
        rules.no_repeat(3),
    ]
    found = settings(tmp_path)["rules"]
    assert found == [rule.settings() for rule in want] != [rule.settings() for rule in reversed(want)]


def test_the_smallest_values_are_no_defaults(tmp_path: Path) -> None:
    """The likeliest token alone is left, by either rule."""
    for option, value in (("--top-k", 1), ("--min-p", 1.0)):
        assert run(tmp_path, option, value, "--overwrite") == 0
        assert len(settings(tmp_path)["rules"]) == 1 and len(set(motes.load(tmp_path / "run.safetensors").texts)) == 1


def test_weights_are_global_unless_local(tmp_path: Path) -> None:
    """Locally every token follows the renormalised law, and nothing is left to weigh."""
    assert run(tmp_path / "a", "--top-k", 3) == 0
    assert run(tmp_path / "b", "--top-k", 3, "--local") == 0
    whole, local = (motes.load(tmp_path / f / "run.safetensors") for f in "ab")
    assert whole.log_evidence < -0.1 and whole.ess < whole.n
    assert local.log_evidence == 0 and local.ess == local.n and settings(tmp_path / "b")["globalise"] is False


def test_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--choice", "abc", "--choice", "c") == 0
    saved = motes.load(tmp_path / "run.safetensors")
    assert set(saved.texts) == {"abc", "c"}
    assert run(tmp_path, "--choice", "c", "--choice", "c") == 2
    assert "given twice" in capsys.readouterr().err


def test_constraints_are_written_as_rules_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = "starts_with('ab'), regex('[ab]{3}')"
    assert run(tmp_path, "--constraint", written) == 0
    assert settings(tmp_path)["constraint"] == (language.starts_with("ab") & language.regex("[ab]{3}")).settings()
    assert set(motes.load(tmp_path / "run.safetensors").setup["recipe"]["constraint"]) == {"written", written}
    capsys.readouterr()
    assert run(tmp_path, "--constraint", "starts_wiht('ab')") == 2
    assert "no constraint is called 'starts_wiht', perhaps you meant 'starts_with'" in capsys.readouterr().err


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Texts with the weights of all their particles, the log normaliser with its error, the effective sample size."""
    assert run(tmp_path, "--choice", "abc", "--choice", "c", "--n", 64, "--seed", 3) == 0
    said, saved = capsys.readouterr().out, motes.load(tmp_path / "run.safetensors")
    for text in ("abc", "c"):
        weight = sum(w for t, w in zip(saved.texts, saved.weight.tolist(), strict=True) if t == text)
        assert re.search(rf"^ *{weight:.3f}  {text}$", said, re.MULTILINE)
    found = re.search(r"Generation +64 +−([\d.]+) ± ([\d.]+) +([\d.]+) ", said)
    assert found is not None, said
    value, error, ess = map(float, found.groups())
    assert abs(value + saved.log_evidence) < 0.006 and abs(error - saved.log_evidence_se) < 0.006
    assert abs(ess - saved.ess) < 0.51 and error > 0.01


def test_the_prompt_comes_from_a_file_or_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Größe?\n\n", encoding="utf-8")
    assert run(tmp_path, "--prompt-file", file) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert run(tmp_path, "--prompt-file", "-", "--no-chat", "--overwrite") == 0
    assert ASKED == [("Größe?\n", "auto"), ("from a pipe", False)]
    saved = motes.load(tmp_path / "run.safetensors")
    assert saved.setup["recipe"]["prompt"] == "from a pipe"
    assert run(tmp_path, "--prompt-file", tmp_path / "none") == 2


def test_steps_of_text(tmp_path: Path) -> None:
    assert run(tmp_path, "--step-of-text", r"\n", "--top-k", 7, "--ess-threshold", 1) == 0
    assert settings(tmp_path)["step"] == "\n"
    steps = len(motes.load(tmp_path / "run.safetensors").trace["t"]) - 1
    longest = max(len(text) for text in motes.load(tmp_path / "run.safetensors").texts)
    assert 0 < steps < longest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rule", "min_pp(0.1)"], "min_p"),
        (["--rule", "min_p(2)"], "min_p"),
        (["--rule", "min_p(0.1"], "write rules as in"),
        (["--rule", "__import__('os')"], "rule"),
        (["--temperature", "0"], "temperature"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *arguments) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not (tmp_path / "run.safetensors").exists()


@pytest.mark.parametrize("two", [["--prompt-file", "f"], ["--choice", "a", "--regex", "a"]])
def test_one_of_each_kind(two: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["generate", "--prompt", "x", *two])
    assert end.value.code == 2


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [
        "--rule",
        "typical(0.9)",
        "--top-k",
        7,
        "--choice",
        "abcab",
        "--choice",
        "bab",
        "--ess-threshold",
        1,
        "--no-chat",
    ]
    assert run(tmp_path / "whole", *options) == 0
    step, calls = language.Generation.step, []

    def failing(self: language.Generation, rng: Any, particles: Any, *more: Any) -> Any:
        calls.append(particles.t)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, rng, particles, *more)

    with monkeypatch.context() as patch:
        patch.setattr(language.Generation, "step", failing)
        assert run(tmp_path / "cut", *options, "--checkpoint", 0) == 130
    file = tmp_path / "cut" / "run.safetensors"
    assert motes.load(file).result is not motes.Result.OK
    assert main(["resume", str(file), "--quiet", "--model", "smollm2"]) == 0
    whole, resumed = motes.load(tmp_path / "whole" / "run.safetensors"), motes.load(file)
    assert resumed.texts == whole.texts and torch.equal(resumed.log_weight, whole.log_weight)


def test_a_run_that_is_older_than_the_rules_can_be_resumed() -> None:
    old = {
        "command": "generate",
        "model": "table",
        "prompt": "x",
        "constraint": ["regex", "[abc]+"],
        "max_tokens": 6,
        "temperature": 0.9,
        "top_p": 0.99,
    }
    found = json.loads(json.dumps(resume.rebuild(old, Path("run"), trusted=True).settings()))
    assert [r["rule"] for r in found["rules"]] == ["Temperature", "Nucleus"]
    assert found["globalise"] is True and found["step"] == "token" and ASKED == [("x", "auto")]
    assert generate.shortcuts({**old, "temperature": 1.0, "top_p": 1.0}) == []
