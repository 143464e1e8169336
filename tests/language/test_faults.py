"""What can be wrong with a generation, and what the errors say."""

from __future__ import annotations

import pytest
import torch

import motes
from language.tables import TABLE, table
from motes.core.smc import steps
from motes.errors import AllWeightsZero, EmptyConstraint, MotesError, NanLogPotential, ShapeError, UnknownName
from motes.language import Generation, TableModel, grammar, json_schema, nucleus, regex


def sample(model, n=4, **settings):
    return motes.sample(model, n, seed=0, progress=False, **settings)


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: regex("(a"), "unclosed group"),
        (lambda: regex("(?=a)b"), "look-around"),
        (lambda: regex(5), "must be a string"),  # pyright: ignore
        (lambda: json_schema({"type": "strin"}), "strin"),
        (lambda: json_schema("{"), "no JSON object"),
        (lambda: json_schema({"type": "object", "if": {}}), "if"),
        (lambda: grammar("start: foo"), "foo"),
    ],
)
def test_a_constraint_that_cannot_be_read_says_why(make, what):
    with pytest.raises(MotesError, match=what):
        make()


def test_an_unknown_layout_lists_the_known_ones():
    with pytest.raises(UnknownName, match="any, compact, ordered, spaced"):
        json_schema({"type": "object"}, layout="wide")


@pytest.mark.parametrize("pattern", ["[^\\s\\S]", "c+", "ca"])
def test_an_empty_constraint_is_found_at_once(pattern):
    with pytest.raises(EmptyConstraint, match="nothing can satisfy"):
        Generation(table(), "", constraint=regex(pattern))


def test_an_unsatisfiable_schema_is_empty():
    with pytest.raises(EmptyConstraint, match="minLength"):
        json_schema({"type": "string", "minLength": 5, "maxLength": 2})


def test_rules_that_leave_nothing_to_the_constraint_are_named():
    with pytest.raises(EmptyConstraint, match="Nucleus"):
        sample(Generation(table(), "", rules=[nucleus(0.6)], constraint=regex("b+")))


def test_a_dead_end_kills_its_particle_and_not_the_others():
    """After "a" a nucleus of 0.6 keeps {a, end}; the constraint wants "ab" or the end: only the end is left."""
    run = sample(Generation(table(), "", rules=[nucleus(0.6)], constraint=regex("a|ab"), max_tokens=3), 8)
    assert run.texts == ["a"] * 8
    model = Generation(table(), "", rules=[nucleus(0.75)], constraint=regex("aab|b"), max_tokens=3)
    run = sample(model, 200, ess_threshold=0.0)
    assert {text for text, w in zip(run.texts, run.weight.tolist(), strict=True) if w > 0} == {"b"}
    assert "aa" in run.texts


def test_when_all_die_the_error_says_so():
    with pytest.raises(AllWeightsZero, match="more particles"):
        sample(Generation(table(), "", reward=lambda texts: torch.full((len(texts),), -torch.inf), max_tokens=3))


def test_no_room_for_the_constraint_to_end_is_said_at_once():
    with pytest.raises(EmptyConstraint, match="at least 4 tokens"):
        Generation(table(), "", constraint=regex("aaaa"), max_tokens=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_logits_name_the_particles_and_the_step(value):
    def logits(text):
        return torch.full((3,), value, dtype=torch.float64) if text == (0, 1) else TABLE[text[-1] if text else -1]

    model = Generation(TableModel(["a", "b", "."], logits), "", max_tokens=5)
    with pytest.raises(NanLogPotential, match=r"particles? \[\d.*at t=2"):
        sample(model, 30)


@pytest.mark.parametrize("at", [(), (0, 1)])
def test_logits_that_forbid_everything_name_the_particles(at):
    """Their softmax is 0 / 0; a model that has nothing to say after a text is broken, and not a dead end."""

    def logits(text):
        return torch.full((3,), -torch.inf).double() if text == at else TABLE[text[-1] if text else -1]

    model = Generation(TableModel(["a", "b", "."], logits), "", max_tokens=5)
    with pytest.raises(NanLogPotential, match=rf"particles? \[\d.*at t={len(at)}"):
        sample(model, 30)


def test_only_texts_of_the_run_are_evaluated_again():
    """Rows whose texts were lost are filled when a run is restored: a rule or a model may not bear texts made up."""
    asked: set[tuple[int, ...]] = set()

    def logits(text):
        asked.add(text)
        return TABLE[text[-1] if text else -1]

    model = Generation(TableModel(["a", "b", "."], logits), "", constraint=regex("b(a|b)*b"), max_tokens=7)
    for seed in range(5):
        states = [state.particles for state in steps(model, 8, seed=seed, ess_threshold=1.0)]
        before = set(asked)
        for state in states:
            model.restore(state)
        assert asked == before


@pytest.mark.parametrize(
    "reward, what",
    [
        (lambda texts: torch.zeros(len(texts), 1), r"must be a tensor \(\d+,\)"),
        (lambda texts: [0.0] * len(texts), "list"),
        (lambda texts: torch.tensor(0.0), "must be a tensor"),
    ],
)
def test_a_reward_of_the_wrong_shape(reward, what):
    with pytest.raises(ShapeError, match=what):
        sample(Generation(table(), "", reward=reward, max_tokens=2))


def test_a_nan_reward_is_an_error_and_minus_infinity_forbids():
    with pytest.raises(NanLogPotential):
        sample(Generation(table(), "", reward=lambda texts: torch.full((len(texts),), torch.nan), max_tokens=2))

    def no_b(texts):
        return torch.tensor([-torch.inf if "b" in text else 0.0 for text in texts])

    for steer in (None, 1):
        run = sample(Generation(table(), "", reward=no_b, max_tokens=3, steer=steer), 64)
        assert all("b" not in text for text, w in zip(run.texts, run.weight.tolist(), strict=True) if w > 0)


@pytest.mark.parametrize(
    "arguments, what",
    [
        ({"rules": [0.7]}, "temperature, nucleus"),
        ({"constraint": "a+"}, "regex, json_schema, choices"),
        ({"reward": 3.0}, "function of a list of texts"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"steer": 1.5}, "steer"),
    ],
)
def test_arguments_of_the_wrong_kind(arguments, what):
    with pytest.raises(MotesError, match=what):
        Generation(table(), "", **arguments)


def test_a_prompt_without_room_is_refused_at_once(tiny):
    with pytest.raises(MotesError, match="reads at most 96 together"):
        Generation(tiny, "the cat sat on a mat." * 20, max_tokens=8)
    with pytest.raises(MotesError, match="reads at most 96 together"):
        Generation(tiny, "the cat", max_tokens=96)


def test_a_model_of_the_wrong_kind():
    with pytest.raises(MotesError, match=r"motes\.language\.load"):
        Generation("smollm2", "")  # pyright: ignore


def test_a_table_of_the_wrong_shape():
    with pytest.raises(ShapeError, match=r"\(4, 3\)"):
        TableModel(["a", "b", "."], torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="logits after"):
        sample(Generation(TableModel(["a", "."], lambda text: torch.zeros(5)), ""))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model.gguf"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(MotesError, match="there is no model at"):
        motes.language.load(name)


def test_a_slip_in_a_name_is_an_error_before_anybody_is_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    for slip in ("smolm2", "SmolLM2", "smollm-2"):
        with pytest.raises(MotesError, match="perhaps you meant 'smollm2'"):
            motes.language.load(slip)


def test_a_model_that_the_hub_does_not_have_is_asked_for_once(monkeypatch):
    asked = []

    def unreachable(self, name, timeout):
        asked.append((name, timeout))
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(MotesError, match=r"(?s)'nobody/nothing'.*no route.*known names: smollm2"):
        motes.language.load("nobody/nothing")
    assert asked == [("nobody/nothing", 10.0)]
    with pytest.raises(MotesError, match="known names"):
        motes.language.load("no such name")


def test_a_run_is_resumed_only_with_the_model_and_the_reward_that_began_it(tmp_path):
    def model(scale=1.0, bias=0.0, **knobs):
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
        logits[0, 1] += bias
        return Generation(
            TableModel(["a", "b", "."], logits),
            "",
            reward=lambda texts: torch.tensor([scale * t.count("a") for t in texts]),
            max_tokens=6,
            **knobs,
        )

    def part(name: str, **knobs):
        run = sample(model(**knobs), 32, callback=lambda state: state.particles.t == 3)
        assert run.particles.x["finished"].any() and not run.particles.x["finished"].all()
        run.save(tmp_path / name)
        return tmp_path / name

    on_the_way = {"twist": lambda texts: torch.zeros(len(texts))}  # the reward comes as texts end
    with pytest.raises(MotesError, match="the reward of particle"):
        motes.resume(part("steered", **on_the_way), model(scale=2.0, **on_the_way), progress=False)
    path = part("waiting")
    with pytest.raises(MotesError, match="table"):
        motes.resume(path, model(bias=0.5), progress=False)
    assert motes.resume(path, model(), progress=False).texts == sample(model(), 32).texts
    # no text of it has been rewarded, so that with another reward it is the run that this one would have made
    other = motes.resume(part("again"), model(scale=2.0), progress=False)
    assert torch.equal(other.log_weight, sample(model(scale=2.0), 32).log_weight)
