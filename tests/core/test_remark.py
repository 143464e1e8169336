"""A remark names what it doubts, and takes the error bar away where it says so."""

from __future__ import annotations

import math
import pickle

import pytest

import motes
from core.toys import Walk, data
from motes.core.remark import ALL, EVIDENCE, MEANS, Remark
from motes.errors import MotesWarning


class Doubtful(Walk):
    """A walk that remarks on itself."""

    said: tuple[str, ...] = ()

    def remarks(self, particles):
        return self.said


def doubtful(*said: str) -> motes.Run:
    model = Doubtful(data(6))
    model.said = said
    if not said:
        return motes.sample(model, 64, seed=0, progress=False)
    with pytest.warns(MotesWarning):
        return motes.sample(model, 64, seed=0, progress=False)


@pytest.mark.parametrize("doubts", [EVIDENCE, MEANS, ALL])
def test_what_is_withheld_has_a_reason_instead_of_a_bar(doubts, tmp_path):
    run = doubtful(Remark("the sampler is stuck", doubts, withholds=True))
    for found in (run, motes.load(run.save(tmp_path / "run"))):
        assert found.doubts == set(doubts)
        assert math.isnan(found.log_evidence_se) == ("evidence" in doubts)
        assert (found.standard_error.reason == "the sampler is stuck") == ("evidence" in doubts)
        assert bool(found.mean().se.isnan()) == ("means" in doubts)
        assert (found.mean().reason == "the sampler is stuck") == ("means" in doubts)


def test_a_doubt_alone_and_a_plain_sentence_leave_the_bars():
    for said in (Remark("look out", ALL), "by the way"):
        run = doubtful(said)
        assert run.log_evidence_se > 0 and run.mean().se > 0
    assert not doubtful().remarks and not doubtful("by the way").doubts


def test_remarks_are_sentences():
    remark = Remark("the sampler is stuck", MEANS, withholds=True)
    copy = pickle.loads(pickle.dumps(remark))
    assert copy == "the sampler is stuck" and copy.doubts == MEANS and copy.withholds
    with pytest.raises(ValueError, match="may doubt"):
        Remark("x", ("evidense",))  # type: ignore[arg-type]
