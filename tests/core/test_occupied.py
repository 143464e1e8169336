"""No run is lost to another: what stands at a path is replaced by the same run only, or on request."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import motes
from core.toys import Walk, data
from motes.core.files.checkpoint import Checkpoint, Writer
from motes.core.files.runfile import before, load
from motes.core.sample import resume, sample
from motes.errors import FileError, MotesWarning


def model(a: float = 0.9) -> Walk:
    return Walk(data(9), s=0.3, a=a)


def begun(path: Path, **more: object) -> tuple[bytes, bytes]:
    """An unfinished run at `path`, with the checkpoint before it; the bytes of both."""
    sample(model(), 40, seed=11, checkpoint=Checkpoint(path, every=0), max_steps=4, progress=False, **more)
    return path.read_bytes(), before(path).read_bytes()


def test_an_unfinished_run_is_not_replaced_without_a_word(tmp_path):
    path = tmp_path / "run"
    kept = begun(path)
    for seed in (11, 12):
        with pytest.raises(FileError, match=r"unfinished run \(Walk, n=40, seed=11\) up to t=4") as caught:
            sample(model(), 40, seed=seed, checkpoint=path, progress=False)
        said = str(caught.value)
        assert (
            f"motes.resume({str(path)!r}, model)" in said and f"motes.Checkpoint({str(path)!r}, overwrite=True" in said
        )
        assert (path.read_bytes(), before(path).read_bytes()) == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.previous"]
    sample(model(), 40, seed=12, checkpoint=Checkpoint(path, overwrite=True), progress=False)
    assert load(path).seed == 12 and not before(path).exists()


def test_the_twin_without_the_look_loses_it(tmp_path, monkeypatch):
    path = tmp_path / "run"
    kept = begun(path)
    monkeypatch.setattr("motes.core.files.checkpoint.must_be_free", lambda *_: None)
    sample(model(), 40, seed=11, checkpoint=path, max_steps=1, progress=False)
    assert path.read_bytes() != kept[0] and not before(path).exists()


def test_the_checkpoint_before_is_not_lost_either(tmp_path):
    path = tmp_path / "run"
    begun(path)
    for spoil in (lambda: path.write_bytes(b"spoilt"), path.unlink):
        spoil()
        with pytest.raises(FileError, match="up to t=3"):
            sample(model(), 40, seed=11, checkpoint=path, progress=False)
    with pytest.warns(MotesWarning, match="stands at t=3"):
        assert resume(path, model(), progress=False).result is motes.Result.OK


def test_an_unfinished_run_of_several_populations_is_kept(tmp_path):
    path = tmp_path / "run"
    begun(path, replicas=2)
    with pytest.raises(FileError, match="up to t=4"):
        sample(model(), 40, seed=11, checkpoint=path, progress=False, replicas=2)


def test_a_run_that_goes_on_elsewhere_does_not_replace_another(tmp_path):
    begun(tmp_path / "a")
    kept = begun(tmp_path / "b")
    with pytest.raises(FileError, match="b holds an unfinished run"):
        resume(tmp_path / "a", model(), checkpoint=tmp_path / "b", progress=False)
    assert (tmp_path / "b").read_bytes() == kept[0]
    resume(tmp_path / "a", model(), checkpoint=Checkpoint(tmp_path / "b", overwrite=True), progress=False)
    assert load(tmp_path / "b").result is motes.Result.OK


@pytest.mark.parametrize(
    "other, differ",
    [
        ({"seed": 2}, "seed"),
        ({"n": 20}, "n"),
        ({"resampling": "multinomial"}, "resampling"),
        ({"ess_threshold": 0.9}, "ess_threshold"),
        ({"model": model(0.8)}, "settings"),
        ({"replicas": 2}, "replicas"),
        ({"recipe": {"command": "sample", "sha256": "2"}}, "the model's file"),
    ],
)
def test_a_finished_run_gives_way_to_its_equal_only(tmp_path, other, differ):
    path = tmp_path / "run"
    same = {"model": model(), "n": 40, "seed": 1, "recipe": {"command": "sample", "sha256": "1", "file": "here.py"}}
    first = sample(**same, checkpoint=path, progress=False)
    again = sample(**same | {"recipe": same["recipe"] | {"file": "there.py"}}, checkpoint=path, progress=False)
    assert first.log_evidence == again.log_evidence
    kept = path.read_bytes()
    with pytest.raises(FileError, match=f"differs in {differ}, which a new run would replace: give another"):
        sample(**same | other, checkpoint=path, progress=False)
    assert path.read_bytes() == kept


def test_a_finished_run_of_another_likelihood_is_not_replaced(tmp_path, monkeypatch):
    path, prior = tmp_path / "run", torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)

    def posterior(y: float, checkpoint: object = path, **more: int) -> motes.Run:
        density = motes.Density(lambda x: -0.5 * (x - y).square().sum(-1), prior, vectorised=True)
        return sample(motes.Tempering(density), 40, seed=1, checkpoint=checkpoint, progress=False, **more)

    for more in ({}, {"replicas": 2}):
        first = posterior(1.0, Checkpoint(path, overwrite=True), **more)
        assert posterior(1.0, **more).log_evidence == first.log_evidence
        kept = path.read_bytes()
        with pytest.raises(FileError, match=r"finished run .* of another model, .* log-likelihood of particle 0 was"):
            posterior(2.0, **more)
        assert path.read_bytes() == kept
    monkeypatch.setattr(motes.Tempering, "restore", lambda self, particles: particles)
    posterior(2.0, replicas=2)
    assert path.read_bytes() != kept


def test_a_finished_run_from_an_rng_cannot_be_had_again(tmp_path):
    path = tmp_path / "run"
    sample(model(), 40, seed=motes.Rng(1), checkpoint=path, progress=False)
    with pytest.raises(FileError, match="differs in seed"):
        sample(model(), 40, seed=motes.Rng(1), checkpoint=path, progress=False)


def test_a_file_that_is_no_run_is_not_replaced_and_an_empty_one_is(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("dear")
    with pytest.raises(FileError, match="A new run would replace it"):
        sample(model(), 40, seed=1, checkpoint=path, progress=False)
    assert path.read_text() == "dear" and [p.name for p in tmp_path.iterdir()] == ["data.csv"]
    path.write_text("")
    sample(model(), 40, seed=1, checkpoint=path, progress=False)
    assert load(path).seed == 1


def test_a_path_that_is_refused_is_free_for_the_next(tmp_path):
    path = tmp_path / "run"
    begun(path)
    for _ in range(2):
        with pytest.raises(FileError, match="unfinished"), Writer(Checkpoint(path), load(path).setup):
            pass
    with Writer(Checkpoint(path, overwrite=True), load(path).setup):
        pass
