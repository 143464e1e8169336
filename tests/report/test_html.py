"""The HTML page: complete, self-contained, and safe whatever the particles say."""

import dataclasses
import math
import re
import sys
from html.parser import HTMLParser

import matplotlib
import pytest
import torch

from motes.core.estimate.variance import StandardError
from motes.core.run import Result
from motes.errors import MotesError
from motes.report import charts, facts, html
from motes.report.html import render
from report import made

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Every tag with its attributes, the visible words, and whether tags are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check_self_contained(text: str) -> Page:
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            if name in ("src", "srcset", "xlink:href"):
                assert str(value).startswith(("data:", "#")), f"{tag} {name}={value!r}"
            if name == "href":
                assert str(value).startswith(("#", "data:")), f"{tag} {name}={value!r}"
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "http:" not in text and "https:" not in text
    return page


@pytest.fixture(scope="module")
def runs():
    return {"posterior": made.run(made.Tempered()), "words": made.run(made.Words()), "blobs": made.run(made.Blobs())}


@pytest.fixture(scope="module")
def page(runs):
    return render(runs)


def test_three_domains_on_one_self_contained_page(page):
    text = check_self_contained(page).text
    for words in ("3 runs", "Log normaliser so far", "Which ancestors survive", "Marginals", "Texts", "Images"):
        assert words in text
    assert "Acceptance rate" in text and "Temperature schedule" in text
    assert "That is a probability of" in text
    assert "Kitagawa (1996)" in text
    assert len(page.encode()) < 1_000_000


def test_what_a_language_model_writes_is_text_and_nothing_else(runs, page):
    assert any("<script>" in t for t in runs["words"].texts)
    text = check_self_contained(page).text
    assert "<script>alert('mote')</script>" in text  # shown as it was written
    assert "&lt;script&gt;" in page and "{{ 7*7 }}" in page
    raw = page.replace("&lt;script&gt;", "<script>")
    with pytest.raises(AssertionError):  # the broken twin: a page that does not escape
        check_self_contained(raw)


def test_names_are_text_too():
    run = made.run(made.Tempered(names=("<b>bold</b>", "$a_b$ & 北", "x" * 200), d=1), 20)
    text = check_self_contained(render({'"><script>x</script> $': run, "\N{BELL}": run})).text
    assert "<b>bold</b>[0]" in text and "$a_b$ & 北[0]" in text and '"><script>x</script> $' in text


def test_headline_says_value_and_error(runs):
    run = runs["posterior"]
    f = facts.read(run)
    found = html.section(f, run, 1)
    assert found["value"] == f"{run.log_evidence:.2f}".replace("-", "−")
    assert found["error"] == f"{run.log_evidence_se:.2f}"
    chance = html.chance(
        dataclasses.replace(f, quantity="log-probability", log_evidence=-2.0, se=0.5, freedom=float("inf"))
    )
    assert chance == {"value": "0.135", "low": "0.051", "high": "0.36"}
    assert html.chance(f) is None


def test_a_missing_error_bar_says_why(runs, monkeypatch):
    why = StandardError(math.nan, "", "all particles descend from one ancestor")
    monkeypatch.setattr("motes.core.run.log_evidence_se", lambda *_: why)
    text = check_self_contained(render(runs["posterior"])).text
    assert "No error bar: All particles descend from one ancestor." in text
    assert "±" not in text.split("What to be careful about")[0]


@pytest.mark.parametrize(("n", "steps"), [(1, 0), (1, 2), (2, 1)])
def test_the_smallest_runs(n, steps):
    for model in (made.Tempered(steps), made.Words(steps), made.Blobs(steps)):
        text = check_self_contained(render(made.run(model, n))).text
        assert not re.search(r"\b1 (particles|steps|chains|draws)\b", text)


def test_a_run_without_trace_and_one_that_failed(runs):
    run = runs["posterior"]
    bare = dataclasses.replace(run, trace=type(run.trace)(), result=Result.ALL_WEIGHTS_ZERO)
    text = check_self_contained(render(bare)).text
    assert "The run ended with ALL_WEIGHTS_ZERO" in text and "Nothing is known about the way" in text


def test_values_that_are_not_finite(runs):
    run = runs["posterior"]
    view = {"theta": torch.full((run.n, 2), torch.nan), "tau": run.view["theta"][:, 0].clone()}
    view["tau"][0] = torch.inf
    text = check_self_contained(render(dataclasses.replace(run, view=view))).text
    assert "Values that are not finite" in text and "NaN" in text


def test_a_view_that_nobody_can_show(runs):
    for view in (None, [], {"a": object()}, ["text", 3]):
        f = facts.read(dataclasses.replace(runs["posterior"], view=view))
        assert f.summaries == [] and f.distinct == [] and f.hidden == 0
    check_self_contained(render(dataclasses.replace(runs["posterior"], view=None)))


def test_many_numbers_texts_and_particles_are_cut_and_say_so():
    wide = made.run(made.Tempered(2, d=300), 50)
    text = check_self_contained(render(wide)).text
    assert "176 more are in the table" in text and "100 further numbers" in text
    many = render(made.run(made.Words(6), 20_000))
    assert "more, which hold" in check_self_contained(many).text
    assert len(many.encode()) < 2_000_000
    images = render(made.run(made.Blobs(4, 3), 3_000, ess_threshold=1.0))
    assert "more, which hold" in check_self_contained(images).text
    assert len(images.encode()) < 2_000_000


def test_large_images_are_shown_small():
    run = dataclasses.replace(made.run(made.Blobs(1, 3), 60), view=torch.rand(60, 3, 400, 300))
    page = render(run)
    assert len(page.encode()) < 2_000_000
    sizes = {(a["width"], a["height"]) for tag, a in check_self_contained(page).tags if tag == "img"}
    assert sizes == {("192", "256")}


def test_long_runs_are_thinned():
    long = render(made.run(made.Tempered(1500, d=1), 64, ess_threshold=0.9))
    assert len(long.encode()) < 1_000_000
    check_self_contained(long)


def test_runs_of_one_model_are_compared():
    runs = {f"seed {k}": made.run(made.Tempered(1, d=1), seed=k) for k in range(3)}
    text = check_self_contained(render(runs, "Three <seeds>")).text
    assert "Three <seeds>" in text
    assert "Do the runs of Tempered agree?" in text and "The 3 answers spread by" in text
    other = [facts.read(made.run(made.Tempered(steps, d=1))) for steps in (2, 3)]
    assert charts.agreement(other) == []


def test_the_same_run_gives_the_same_page_and_matplotlib_is_as_it_was(runs):
    before = dict(matplotlib.rcParams)
    one = render(runs["posterior"])
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "lines.linewidth": 9}):
        assert render(runs["posterior"]) == one


def test_the_file_is_written_whole_into_a_new_folder(runs, tmp_path):
    path = runs["words"].report(tmp_path / "new" / "page.html")
    assert path == tmp_path / "new" / "page.html"
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_ids_are_not_used_twice(page):
    ids = [a["id"] for _, a in Page(page).tags if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(runs, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'motes\[report\]'"):
        runs["words"].report()


def test_a_report_is_a_page(runs, tmp_path):
    run = next(iter(runs.values()))
    for name in ("x.pdf", "x"):
        with pytest.raises(MotesError, match=r"give a name that ends in \.html, not '.*x"):
            run.report(tmp_path / name)
    assert not list(tmp_path.iterdir())
