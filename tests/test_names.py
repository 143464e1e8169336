"""The public names and signatures are those that were agreed on; `make golden` writes the list anew, on purpose."""

from golden import doors
from golden.names import FILE, names


def test_public_names_and_signatures() -> None:
    was, now = set(FILE.read_text().splitlines()), set(names())
    assert not was - now, "gone or changed"
    assert not now - was, "new or changed"


def test_a_changed_default_is_another_line() -> None:
    now = names()
    line = next(line for line in now if line.startswith("motes.density.Tempering("))
    assert "conditional_ess: float=0.9" in line
    assert line.replace("0.9", "0.8") not in now


def test_the_written_doors_are_those_that_are_found() -> None:
    assert [str(d) for d in doors.doors() if d.with_suffix(".pyi").read_text() != doors.written(d)] == []
