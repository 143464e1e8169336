"""Reverse diffusion keeps the promises: the same particles however it is cut or interrupted, errors that say why."""

import json

import pytest
import torch

import motes
from motes.core import tree
from motes.diffusion import Denoiser, VariancePreserving, gaussian
from motes.errors import AllWeightsZero, MotesError, NanLogPotential, ShapeError, UnknownName

PROCESS = VariancePreserving()
DENOISER = gaussian(PROCESS, torch.zeros(3), torch.eye(3))


class Cutoff(Exception):
    """The run is interrupted here."""


def reward(x):
    return -x.square().sum(1)


def made(steps=6, reward=reward, guidance="reward", denoiser=DENOISER, **kwargs):
    kwargs = {"shape": (3,), "potential": "max", "schedule": "linear", **kwargs}
    return motes.ReverseDiffusion(denoiser, steps, reward=reward, guidance=guidance, **kwargs)


def run(model, n=20, seed=4, **kwargs):
    return motes.sample(model, n, seed=seed, ess_threshold=0.9, progress=False, **kwargs)


def same(a, b):
    return tree.equal(a.particles.x, b.particles.x) and torch.equal(a.log_weight, b.log_weight)


def test_the_same_seed_gives_the_same_particles_and_another_does_not():
    assert same(run(made()), run(made()))
    assert not same(run(made()), run(made(), seed=5))


def test_the_cut_of_the_population_does_not_matter():
    """Row-wise models give the same bits whatever the parts: sizes that divide 20 and sizes that do not."""
    denoiser = Denoiser(lambda x, t: torch.tanh(x) * t[:, None], PROCESS, predicts="data")
    whole = run(made(denoiser=denoiser))
    for size in (1, 7, 20, 64):
        assert same(run(made(denoiser=denoiser, micro_batch=size)), whole)


def test_shards_draw_what_the_whole_draws():
    model, rng = made(micro_batch=4), motes.Rng(11)
    particles = model.init(rng.at("init", step=0), 20)
    for _ in range(3):
        particles = model.step(rng.at("step", step=particles.t + 1), particles)
    for ids in (torch.arange(7, 16), torch.tensor([19, 2, 11])):
        part = model.init(rng.shard(ids).at("init", step=0), len(ids))
        for _ in range(3):
            part = model.step(rng.shard(ids).at("step", step=part.t + 1), part)
        assert tree.equal(part.x, tree.take(particles.x, ids))
        assert torch.equal(part.log_weight, particles.log_weight[ids])


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, stop):
    def interrupt(state):
        if state.particles.t == stop:
            raise Cutoff

    path, whole = tmp_path / "run.safetensors", run(made())
    with pytest.raises(Cutoff):
        run(made(), checkpoint=path, callback=interrupt)
    resumed = motes.resume(path, made(), progress=False)
    assert resumed.result.value == "OK" and same(resumed, whole) and torch.equal(resumed.view, whole.view)
    assert resumed.log_evidence == whole.log_evidence


def test_resuming_with_another_model_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run(made(), checkpoint=path, callback=lambda state: state.particles.t == 2)
    with pytest.raises(motes.MotesError, match="noise"):
        motes.resume(path, made(noise=0.5), progress=False)
    other = VariancePreserving(t_max=0.9)
    with pytest.raises(motes.MotesError, match=r"denoiser|times"):
        motes.resume(path, made(denoiser=gaussian(other, torch.zeros(3), torch.eye(3))), progress=False)


def test_resuming_with_another_reward_is_refused(tmp_path):
    """A function has no name that a file could compare; what it says of the particles has."""
    path = tmp_path / "run.safetensors"
    run(made(), checkpoint=path, callback=lambda state: state.particles.t == 2)
    with pytest.raises(motes.MotesError, match="the reward is not what it was"):
        motes.resume(path, made(reward=lambda x: 1.1 * reward(x)), progress=False)


def test_a_reward_that_is_asked_at_the_end_only_is_compared_too(tmp_path):
    path, late = tmp_path / "run.safetensors", {"guidance": None, "schedule": "end"}
    r = run(made(**late), checkpoint=path, callback=lambda state: state.particles.t == 2)
    assert "reward" not in r.trace
    with pytest.raises(motes.MotesError, match="the reward is not what it was"):
        motes.resume(path, made(reward=lambda x: 1.1 * reward(x), **late), progress=False)
    assert len(motes.resume(path, made(**late), progress=False).trace["reward"]) == 7


def test_settings_are_json_and_the_run_cites_what_it_uses():
    model = made()
    assert json.loads(json.dumps(model.settings())) == model.settings()
    guided = motes.cite(run(model, n=2), style="text")
    assert all(word in guided for word in ("Song", "Singhal", "Trippe"))
    assert "Trippe" not in motes.cite(run(made(guidance=None), n=2), style="text")


def test_view_and_order_and_trace():
    model = made(final="state", dtype=torch.float64)
    r = run(model)
    assert r.view.shape == (20, 3) and torch.equal(r.view, r.particles.x["state"])
    assert torch.equal(r.particles.x["reward"], reward(r.view)) and r.view.dtype == torch.float64
    assert torch.equal(model.order(r.particles), r.particles.x["reward"])
    assert len(r.trace["reward"]) == 7 and r.trace["noise_level"][0] > r.trace["noise_level"][-1]
    r = run(made())
    assert torch.equal(r.view, DENOISER.data(r.particles.x["state"], PROCESS.t_min)) and r.view.dtype == torch.float32
    with pytest.raises(ShapeError, match="order"):
        made(reward=None, guidance=None).order(r.particles)


def test_the_reward_is_not_asked_while_it_does_not_count():
    asked = []

    def counted(x):
        asked.append(len(x))
        return x.sum(1)

    run(made(reward=counted, guidance=None, potential="difference", schedule="end", coarse=0))
    assert asked == [2, 20]  # two fixed images, by which a resumed run knows its reward; then the final images


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_wrong_reward_names_particles_and_step(value):
    calls = []

    def reward(x):
        calls.append(1)
        out = x.sum(1)
        if len(calls) == 4:  # one look at fixed images; nothing counts at time 0; steps 1 and 2 went well
            out = out.clone()
            out[[3, 17]] = value
        return out

    with pytest.raises(NanLogPotential, match=r"reward is NaN or \+inf at step 3 of 6 .*particles \[3, 17\]") as error:
        run(made(reward=reward, guidance=None))
    assert error.value.run is not None and error.value.run.particles.t == 2


def test_zero_weights_are_for_the_end_only():
    def positive(x):
        return torch.where(x[:, 0] > 0, 0.0, -torch.inf)

    with pytest.raises(NanLogPotential, match=r'-inf at step 1 .*particles.*schedule="end"'):
        run(made(reward=positive, guidance=None))
    r = run(made(reward=positive, guidance=None, schedule="end", potential="difference"))
    assert bool((torch.exp(r.log_weight) == (r.view[:, 0] > 0)).all())
    with pytest.raises(AllWeightsZero, match="t=6"):
        run(made(reward=lambda x: x.sum(1) - torch.inf, guidance=None, schedule="end", potential="difference"))


def test_a_denoiser_or_guidance_that_is_not_finite():
    broken = Denoiser(lambda x, t: torch.where(x > 1, torch.nan, x), PROCESS, predicts="data")
    with pytest.raises(NanLogPotential, match=r"denoised prediction is not finite at step 0 .*particles? \["):
        run(made(denoiser=broken, guidance=None))
    with pytest.raises(NanLogPotential, match=r"guidance is not finite at step 1 of 6 .*look at the guidance"):
        run(made(guidance=lambda x, t: x / 0))
    with pytest.raises(NanLogPotential, match="gradient of the reward is not finite"):
        run(made(reward=lambda x: torch.sqrt((x * 0).sum(1)), denoiser=DENOISER))


def test_wrong_shapes_and_names():
    with pytest.raises(ShapeError, match=r"shape \(20,\), not \(20, 3\)"):
        run(made(reward=lambda x: x))
    with pytest.raises(ShapeError, match="not float"):
        run(made(reward=lambda x: 1.0, guidance=None))
    with pytest.raises(ShapeError, match="guidance returned shape"):
        run(made(guidance=lambda x, t: x[:, :1]))
    for field, value in (("potential", "min"), ("schedule", "cosine"), ("integrator", "midpoint"), ("final", "clean")):
        with pytest.raises(UnknownName, match=value):
            made(**{field: value})
    with pytest.raises(UnknownName, match="guidance"):
        made(guidance="classifier")
    with pytest.raises(ValueError, match="finite number"):
        made(schedule=lambda t: float("nan"))


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="needs a reward"):
        made(reward=None)
    with pytest.raises(MotesError, match="no gradient"):
        run(made(reward=lambda x: x.detach().sum(1)))
    with pytest.raises(TypeError, match="Denoiser"):
        motes.ReverseDiffusion(lambda x, t: x, 5, shape=(3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without noise"):
        made(noise=0.0)
    with pytest.raises(ValueError, match="micro_batch"):
        run(made(micro_batch=0))
