"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import motes
from motes.cli.main import COMMANDS, main
from motes.core.files import store as files

MODEL = Path(__file__).with_name("models.py")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the model file that a test may change."""
    return Path(shutil.copy(MODEL, tmp_path / "model.py"))


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def sample(model: Path, out: Path, *more: object) -> int:
    return run("sample", model, "--n", 64, "--seed", 5, "--quiet", "--out", out, *more)


# ------------------------------------------------------------------------------------------------ help


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--help")
    said = capsys.readouterr().out
    assert end.value.code == 0 and all(command in said for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(command, "--help")
    said = capsys.readouterr().out
    assert end.value.code == 0 and "--debug" in said
    assert "default: None" not in said and "default: False" not in said and "default: []" not in said


def test_a_warning_of_a_command_is_a_sentence_without_a_place_in_the_code(tmp_path: Path) -> None:
    file = tmp_path / "warns.py"
    file.write_text(MODEL.read_text() + "\n\nfrom motes.errors import warn\nwarn('mind the gap')\n")
    command = [
        sys.executable,
        "-m",
        "motes",
        "sample",
        str(file),
        "--n",
        "8",
        "--quiet",
        "--out",
        str(tmp_path / "out"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0 and "motes: warning: mind the gap" in ended.stderr.splitlines()
    assert "MotesWarning" not in ended.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--version")
    assert end.value.code == 0 and capsys.readouterr().out == f"motes {motes.__version__}\n"


def test_help_loads_no_tensors() -> None:
    code = "import sys; from motes.cli.main import parser; parser(['sample']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# ------------------------------------------------------------------------------------------------ sample


def test_sample_prints_a_table_and_writes_the_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(model, tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "Coins" in said.out and "log-likelihood" in said.out and "64" in said.out and said.err == ""
    saved = motes.load(tmp_path / "out" / "run.safetensors")
    direct = motes.sample(motes_model(), 64, seed=5, progress=False)
    assert saved.result is motes.Result.OK and torch.equal(saved.particles.x, direct.particles.x)
    assert saved.log_evidence == direct.log_evidence


def motes_model() -> motes.FeynmanKac:
    from motes.cli import userfile

    return userfile.read(MODEL)


def test_options_reach_the_engine(model: Path, tmp_path: Path) -> None:
    assert sample(model, tmp_path, "--resampling", "stratified", "--ess-threshold", 0.9) == 0
    setup = motes.load(tmp_path / "run.safetensors").setup
    assert (setup["resampling"], setup["ess_threshold"], setup["n"], setup["seed"]) == ("stratified", 0.9, 64, 5)


def test_progress_is_shown_on_stderr(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sample", model, "--n", 8, "--out", tmp_path) == 0
    said = capsys.readouterr()
    assert "ess=" in said.err and "ess=" not in said.out


def test_a_density_is_tempered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Normal prior and likelihood: y ~ N(0, 2) is the evidence; 6 standard errors, alpha 2e-9."""
    file = tmp_path / "normal.py"
    file.write_text(
        "import motes\nfrom torch.distributions import Normal\n"
        "model = motes.Density(lambda p: Normal(p['mean'], 1.0).log_prob(p['mean'] * 0 + 1.0), "
        "{'mean': Normal(0.0, 1.0)})\n"
    )
    assert run("sample", file, "--n", 512, "--quiet", "--out", tmp_path) == 0
    saved = motes.load(tmp_path / "run.safetensors")
    exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0)).item()
    assert abs(saved.log_evidence - exact) < max(6 * saved.log_evidence_se, 1e-9) < 0.5


def test_report_option_writes_the_page(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(model, tmp_path, "--report") == 0
    assert "report.html" in capsys.readouterr().out
    assert "<html" in (tmp_path / "report.html").read_text()


# ------------------------------------------------------------------------------------------------ errors


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """The one message of a command that fails with `code`, without a traceback."""
    assert run(*arguments) == code
    said = capsys.readouterr().err
    assert said.startswith("motes: ") and "Traceback" not in said
    return said


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.py" in fails(capsys, 2, "sample", tmp_path / "nowhere.py")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", "defines no `model`"),
        ("model = 3\n", "is a int"),
        ("x = 1\ny = x +\n", "line 2"),
        ("x = 1\n\nmodel = 1 / 0\n", "line 3: ZeroDivisionError"),
        ("def model():\n    return nothing\n", "line 2: NameError"),
    ],
)
def test_a_file_that_makes_no_model_is_refused_with_its_line(
    source: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.py"
    file.write_text(source)
    message = fails(capsys, 2, "sample", file, "--out", tmp_path)
    assert said in message and "bad.py" in message


def test_an_unknown_scheme_lists_the_known_ones(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, 2, "sample", model, "--resampling", "sistematic", "--out", tmp_path)
    assert "'sistematic'" in message and "systematic" in message.replace("'sistematic'", "")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--n", "0"), "argument -n/--n: must be at least 1, not 0"),
        (("-n", "many"), "argument -n/--n: must be a whole number, not 'many'"),
        (("-n", "1.5"), "argument -n/--n: must be a whole number, not '1.5'"),
        (("--seed", "x"), "argument --seed: must be a whole number, not 'x'"),
        (("--nonsense", "1"), "unrecognized arguments: --nonsense 1"),
    ],
)
def test_argparse_refuses_with_2(
    option: tuple[str, str], words: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run("sample", model, *option)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("usage: motes") and words in said


def test_a_page_that_is_none_is_refused_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("report", "none.safetensors", "-o", "x.pdf"), ("check", "none.py", "--html", "x")):
        with pytest.raises(SystemExit) as end:
            run(*command)
        assert end.value.code == 2 and "give a name that ends in .html, not 'x" in capsys.readouterr().err


def test_a_model_that_fails_is_a_failed_run_and_debug_shows_where(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINS_FAIL_AT", "4")
    message = fails(capsys, 1, "sample", model, "--quiet", "--out", tmp_path)
    assert "the coin rolled away" in message and "run.safetensors" in message
    assert run("sample", model, "--quiet", "--out", tmp_path, "--debug", "--overwrite") == 1
    assert "Traceback" in capsys.readouterr().err


def test_all_weights_zero_is_a_failed_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINS_ZERO", "1")
    assert "weight zero at t=1" in fails(capsys, 1, "sample", model, "--quiet", "--out", tmp_path)


# ------------------------------------------------------------------------------------------------ resume, report


def test_a_killed_command_resumes_bit_for_bit(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "motes", "sample", str(model), "--n", "64", "--seed", "5", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--checkpoint", "0", "--quiet"], env={**os.environ, "COINS_PAUSE": "1.5"}, stderr=subprocess.DEVNULL
    )
    file = out / "run.safetensors"
    while process.poll() is None and not (file.exists() and motes.load(file).particles.t > 0):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    broken = motes.load(file)
    assert broken.result is motes.Result.INTERRUPTED and 0 < broken.particles.t < 12
    assert run("resume", out, "--quiet", "--model", model) == 0
    whole = motes.sample(motes_model(), 64, seed=5, progress=False)
    resumed = motes.load(file)
    assert torch.equal(resumed.particles.x, whole.particles.x) and resumed.log_evidence == whole.log_evidence
    assert resumed.log_evidence_se == whole.log_evidence_se
    for named in ([], ["--model", model]):
        assert run("resume", file, "--quiet", *named) == 0
        assert "already ended" in capsys.readouterr().out
    model.write_text(model.read_text() + "\n# another one\n")
    assert "has changed since the run began" in fails(capsys, 2, "resume", file, "--model", model)
    model.write_text("from core.toys import Walk, data\nmodel = Walk(data(4), s=0.3)\n")
    assert "the model given is Walk" in fails(capsys, 2, "resume", file, "--model", model, "--force")


def test_ctrl_c_ends_the_command_with_130_and_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "motes", "sample", str(model), "--n", "64", "--seed", "5", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--checkpoint", "0", "--quiet"],
        env={**os.environ, "COINS_PAUSE": "1.5"},
        stderr=subprocess.PIPE,
        text=True,
    )
    file = out / "run.safetensors"
    while process.poll() is None and not (file.exists() and motes.load(file).particles.t > 0):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert (
        said.startswith("motes: interrupted\n")
        and f"`motes resume {file} --model {model}` continues it" in said
        and "Warning" not in said
    )
    assert motes.load(file).result is motes.Result.INTERRUPTED
    assert run("resume", out, "--quiet", "--model", model) == 0
    assert motes.load(file).log_evidence == motes.sample(motes_model(), 64, seed=5, progress=False).log_evidence


def test_a_command_that_is_given_again_does_not_replace_an_unfinished_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    recipe = {
        "command": "sample",
        "file": str(model.resolve()),
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    motes.sample(
        motes_model(), 64, seed=5, progress=False, max_steps=3, checkpoint=out / "run.safetensors", recipe=recipe
    )
    message = fails(capsys, 2, "sample", model, "--n", 64, "--seed", 5, "--quiet", "--out", out)
    assert "up to t=3" in message and f"`motes resume {out / 'run.safetensors'} --model {model}`" in message
    assert "--overwrite" in message and motes.load(out / "run.safetensors").particles.t == 3
    assert sample(model, out, "--overwrite") == 0
    assert sample(model, out) == 0, "a finished run of the same setup gives way"
    assert "differs in seed" in fails(capsys, 2, "sample", model, "--n", 64, "--seed", 6, "--quiet", "--out", out)


def test_replicas_of_a_command_are_those_of_the_library(model: Path, tmp_path: Path) -> None:
    assert sample(model, tmp_path, "--replicas", 3) == 0
    found = motes.load(tmp_path / "run.safetensors")
    assert len(found.replicas) == 3 and found.interval()[0] < found.log_evidence < found.interval()[1]


def interrupted(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COINS_FAIL_AT", "4")
    assert sample(model, out) == 1
    monkeypatch.delenv("COINS_FAIL_AT")
    return out / "run.safetensors"


def test_a_changed_file_is_not_resumed_unless_forced(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = interrupted(model, tmp_path, monkeypatch)
    model.write_text(model.read_text() + "# another line\n")
    capsys.readouterr()
    assert "has changed" in fails(capsys, 2, "resume", file, "--quiet", "--model", model)
    assert run("resume", file, "--quiet", "--force", "--model", model) == 0
    assert motes.load(file).result is motes.Result.OK


def test_a_lost_file_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = interrupted(model, tmp_path, monkeypatch)
    model.unlink()
    capsys.readouterr()
    assert "model.py" in fails(capsys, 2, "resume", file, "--trust")


EVIL = """
from pathlib import Path
Path({marker!r}).write_text("run")
{rest}
"""


def test_resume_runs_no_code_that_a_file_names(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    file = interrupted(model, tmp_path / "out", monkeypatch)
    again = tmp_path / "evil.py"
    again.write_text(EVIL.format(marker=str(marker), rest=model.read_text()))
    capsys.readouterr()
    saved = motes.load(file)
    recipe = {**saved.setup["recipe"], "file": str(again), "sha256": hashlib.sha256(again.read_bytes()).hexdigest()}
    replace(saved, setup={**saved.setup, "recipe": recipe}).save(file)
    with monkeypatch.context() as patch:
        patch.setattr("builtins.input", lambda *_: "y")
        patch.setattr("sys.stdin", io.StringIO("y\n" * 9))
        said = fails(capsys, 2, "resume", file, "--quiet", "--force")
    assert "names" in said and "evil.py" in said and "--model" in said and "--trust" in said
    assert "or is another file" in fails(capsys, 2, "resume", file, "--quiet", "--model", model)
    assert not marker.exists()
    assert run("resume", file, "--quiet", "--trust") == 0  # the twin: it would have been run
    assert marker.exists()


def test_a_model_is_not_asked_for_where_it_is_part_of_motes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steered = motes.diffusion.demo.steered_digits(3, steps=4)
    recipe = {"command": "steer", "digit": 3, "scale": 1.0, "steps": 4, "guidance": 0.5}
    file = tmp_path / "run.safetensors"
    motes.sample(steered, 4, seed=1, progress=False, max_steps=2, checkpoint=file, recipe=recipe)
    assert "does not apply" in fails(capsys, 2, "resume", file, "--model", "x.py")
    assert run("resume", file, "--quiet") == 0


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"command": "os", "file": "x"}, "command"),
        ({"command": "sample"}, "lacks file, sha256"),
        ({"command": "sample", "file": 3, "sha256": ""}, "must be a text"),
        ({"command": "steer", "digit": 3, "scale": 1.0, "steps": 10**12, "guidance": None}, "steps"),
        ({"command": "demo", "piece": "density", "threads": 10**9}, "threads"),
        ({"command": "generate", "model": "m", "prompt": "x", "constraint": ["exec", "x"], "max_tokens": 3}, "regex"),
        (
            {"command": "generate", "model": "a/b", "prompt": "", "constraint": None, "max_tokens": 3},
            "names a/b as its",
        ),
        ({"command": "sample", "file": "\x1b[2Ja\u202e.py", "sha256": ""}, r"\x1b[2Ja\u202e.py"),
    ],
)
def test_recipes_are_read_as_data(
    recipe: dict[str, object], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.safetensors"
    motes.sample(motes_model(), 8, seed=0, progress=False, max_steps=3, checkpoint=file, recipe=recipe)
    assert says in fails(capsys, 2, "resume", file, "--quiet")


def test_a_run_that_cannot_be_written_is_kept_elsewhere(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write

    def full(path, *more, **kinds):
        if Path(path).is_relative_to(tmp_path / "out"):
            raise OSError(28, "No space left on device")
        return real(path, *more, **kinds)

    monkeypatch.setattr(files, "write", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sample(model, tmp_path / "out") == 1
    said = capsys.readouterr().err
    kept = Path(re.search(r"it is kept in (.*)", said)[1])
    assert "No space left" in said and motes.load(kept).result is motes.Result.OK


def test_a_run_without_a_recipe_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = motes.sample(motes_model(), 8, seed=0, progress=False, max_steps=3).save(tmp_path / "mine.safetensors")
    assert "motes.resume(path, model)" in fails(capsys, 2, "resume", file)


@pytest.mark.parametrize("command", ["resume", "report"])
def test_what_is_no_run_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing" in fails(capsys, 2, command, tmp_path / "nothing")
    assert "no run in the folder" in fails(capsys, 2, command, tmp_path)
    (tmp_path / "text.safetensors").write_text("no run")
    assert "text.safetensors is no motes run" in fails(capsys, 2, command, tmp_path)


def test_report_of_several_runs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(model, tmp_path / "first") == sample(model, tmp_path / "second", "--ess-threshold", 1) == 0
    capsys.readouterr()
    page = tmp_path / "both.html"
    assert run("report", tmp_path / "first", tmp_path / "second" / "run.safetensors", "-o", page) == 0
    said = capsys.readouterr().out
    assert "first" in said and "second" in said
    assert "first" in page.read_text() and "second" in page.read_text()


def test_the_report_is_written_beside_the_runs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert sample(model, tmp_path / "runs" / "first") == 0
    shutil.copytree(tmp_path / "runs" / "first", tmp_path / "runs" / "second")
    named = Path(shutil.copy(tmp_path / "runs" / "first" / "run.safetensors", tmp_path / "mine.safetensors"))
    folder = tmp_path / "runs"
    for runs, page in [
        ([folder / "first"], folder / "first" / "report.html"),
        ([folder / "first", folder / "second"], folder / "report.html"),
        ([named], tmp_path / "mine.html"),
    ]:
        capsys.readouterr()
        assert run("report", *runs) == 0
        assert f"wrote {page}" in capsys.readouterr().out and page.exists()
    assert not list(here.iterdir())


def test_why_there_is_no_error_bar_is_printed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sample", model, "--n", 1, "--quiet", "--out", tmp_path) == 0
    assert capsys.readouterr().out.count("no error bar: one particle alone has no spread") == 1
