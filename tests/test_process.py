"""What stops a test: its own work, not the clock of a busy machine."""

import pytest

from process import python


def test_a_process_that_runs_in_circles_is_stopped() -> None:
    with pytest.raises(AssertionError, match="more than 1 s of CPU time"):
        python("-c", "while True: pass", limit=1)


def test_a_process_that_waits_is_not() -> None:
    assert python("-c", "import time; time.sleep(1.5); print('done')", limit=1).stdout == "done\n"


def test_no_other_process_of_a_test_is_stopped_by_the_clock(request: pytest.FixtureRequest) -> None:
    told = "time" + "out="
    files = [p for p in (request.config.rootpath / "tests").rglob("*.py") if told in p.read_text()]
    assert files == []
