"""Denoisers from diffusers: what schedulers say, with models in closed form; and tiny real networks, if it is there."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import motes
from diffusion.linear import F64
from motes.core.files.settings import described
from motes.diffusion import Denoiser, gaussian
from motes.diffusion.denoisers.adapters.diffusers import from_diffusers
from motes.diffusion.flows.flow import ProbabilityFlow
from motes.diffusion.processes.edm import EDM
from motes.diffusion.processes.interpolant import RectifiedFlow
from motes.diffusion.processes.tabulated import Tabulated
from motes.errors import MotesError, ShapeError

TABLE = torch.cumprod(1 - torch.linspace(1e-3, 0.05, 200, dtype=F64), 0)
PROCESS = Tabulated(TABLE)
X = torch.linspace(-2, 2, 8, dtype=F64).reshape(2, 1, 2, 2)


def flat(denoiser):
    """A denoiser of vectors, asked about images."""
    return {
        kind: lambda x, t, kind=kind: getattr(denoiser, kind)(x.flatten(1), t).reshape(x.shape)
        for kind in ("data", "noise", "velocity", "flow")
    }


def exact(process):
    return flat(gaussian(process, 0.3 * torch.ones(4), 0.25 * torch.eye(4)))


class Fake(nn.Module):
    """Answers as diffusers models do."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []
        self.eval()

    def forward(self, sample, timestep, return_dict=True, **extra):
        self.seen.append((timestep, extra))
        out = self.function(sample, timestep)
        return SimpleNamespace(sample=out) if return_dict else (out,)


def scheduler(kind="DDPMScheduler", table=TABLE, **config):
    made = type(kind, (), {})()
    made.config = config
    if table is not None:
        made.alphas_cumprod = table
    return made


@pytest.mark.parametrize(("said", "kind"), [("epsilon", "noise"), ("sample", "data"), ("v_prediction", "velocity")])
def test_every_prediction_of_a_table(said, kind):
    """A model that gives the exact answer of its kind is the exact denoiser."""
    want = exact(PROCESS)
    fake = Fake(want[kind])
    denoiser = from_diffusers(fake, scheduler(prediction_type=said))
    for t in (0.0, 57.0, 199.0):
        assert torch.allclose(denoiser.data(X, t), want["data"](X, t), rtol=1e-6, atol=1e-6)
    assert fake.seen[-1][0].tolist() == [199.0, 199.0] and denoiser.name == "Fake"
    assert described(denoiser.process) == described(PROCESS)


@pytest.mark.parametrize("backward", [False, True])
def test_flow_matching(backward):
    process = RectifiedFlow()
    want, sign = exact(process), -1 if backward else 1

    def answer(x, told):
        return sign * want["flow"](x, 1 - told / 1000 if backward else told / 1000)

    made = scheduler("FlowMatchEulerDiscreteScheduler", None, num_train_timesteps=1000, invert_sigmas=backward)
    denoiser = from_diffusers(Fake(answer), made)
    for t in (0.1, 0.9):
        assert torch.allclose(denoiser.data(X, t), want["data"](X, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("said", ["epsilon", "v_prediction"])
def test_networks_with_scaled_inputs(said):
    """The network whose scaled output is the exact denoiser's, worked out by hand."""
    want, d = exact(EDM()), 0.5

    def answer(x, told):
        sigma = torch.exp(4 * told).reshape(-1, 1, 1, 1)
        total = torch.sqrt(sigma**2 + d**2)
        noisy = x * total
        data = want["data"](noisy, float(sigma[0]))
        out = (data - d**2 / total**2 * noisy) * total / (sigma * d)
        return out if said == "epsilon" else -out

    config = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": d, "rho": 5.0, "prediction_type": said}
    denoiser = from_diffusers(Fake(answer), scheduler("EDMEulerScheduler", None, **config))
    assert denoiser.process == EDM(0.002, t_max=80.0, rho=5.0)
    for t in (0.01, 1.0, 50.0):
        assert torch.allclose(denoiser.data(X, t), want["data"](X, t), rtol=1e-5, atol=1e-6)


def test_other_arguments_learned_variances_and_last_levels_without_data():
    want = exact(PROCESS)
    fake = Fake(lambda x, t: torch.cat([want["noise"](x, t), x], 1))
    zero = torch.cat([TABLE, torch.zeros(1, dtype=F64)])
    extra = {"class_labels": torch.tensor([3]), "scale": 2.0}
    made = scheduler(table=zero, prediction_type="epsilon", variance_type="learned_range")
    denoiser = from_diffusers(fake, made, extra=extra, name="mine")
    assert torch.allclose(denoiser.data(X, 57.0), want["data"](X, 57.0), rtol=1e-6, atol=1e-6)
    assert fake.seen[0][1]["class_labels"].tolist() == [3, 3] and fake.seen[0][1]["scale"] == 2.0
    assert denoiser.process.t_max == 199.0 and denoiser.name == "mine"
    with pytest.raises(ShapeError, match="shape"):
        from_diffusers(fake, scheduler(prediction_type="epsilon")).data(X, 3.0)


def test_what_it_cannot_take_is_said():
    fake = Fake(lambda x, t: x)
    for made, why in (
        (scheduler("LCMScheduler", prediction_type="epsilon"), "end of a path"),
        (scheduler("EulerDiscreteScheduler", prediction_type="epsilon", timestep_type="continuous"), "continuous"),
        (scheduler("ScoreSdeVeScheduler", None, prediction_type="epsilon"), "by hand"),
        (scheduler("EDMEulerScheduler", None, prediction_type="sample", sigma_data=0.5), "no rule"),
    ):
        with pytest.raises(MotesError, match=why):
            from_diffusers(fake, made)
    with pytest.raises(MotesError, match="does not say what the model predicts"):
        from_diffusers(fake, scheduler())
    with pytest.raises(ValueError, match="first axis of 1"):
        from_diffusers(fake, scheduler(prediction_type="epsilon"), extra={"class_labels": torch.zeros(2)})
    with pytest.raises(ValueError, match="eval"):
        from_diffusers(Fake(lambda x, t: x).train(), scheduler(prediction_type="epsilon"))


def test_the_table_is_a_process():
    """Levels at whole times are the table's, in between the rates fit the levels; grids are whole where they can be."""
    whole = torch.arange(200, dtype=F64)
    assert torch.allclose(PROCESS.alpha(whole) ** 2, TABLE, rtol=1e-12)
    t = torch.linspace(0.3, 198.7, 100, dtype=F64, requires_grad=True)
    alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(t))
    (slope,) = torch.autograd.grad(alpha.log().sum(), t, retain_graph=True)
    (rate,) = torch.autograd.grad(sigma.square().sum(), t)
    assert torch.allclose(PROCESS.drift(t), slope, rtol=1e-10)
    assert torch.allclose(PROCESS.diffusion(t) ** 2, rate - 2 * slope * sigma.detach() ** 2, rtol=1e-8)
    assert torch.allclose(PROCESS.time(PROCESS.log_snr(whole)), whole, atol=1e-8)
    assert PROCESS.times(199).tolist() == list(range(199, -1, -1))
    assert bool((PROCESS.times(50, "snr").diff() < 0).all()) and not bool((PROCESS.times(300) % 1 == 0).all())
    for table, error in ((TABLE[:1], ShapeError), (TABLE.flip(0), ValueError), (TABLE - 1, ValueError)):
        with pytest.raises(error, match="table"):
            Tabulated(table)


def test_ddpm_on_a_table_gives_the_right_moments():
    """All 200 steps for normal data: mean and variance of 4000 particles at alpha 1e-6; catches 0.04 and 0.03."""
    denoiser = gaussian(PROCESS, torch.tensor([0.3]), torch.tensor([[0.25]]))
    run = motes.sample(motes.ReverseDiffusion(denoiser, 199, shape=(1,)), 4000, seed=1, progress=False)
    assert abs(float(run.view.mean()) - 0.3) < 4.9 * 0.5 / 4000**0.5 + 0.002
    assert abs(float(run.view.var()) - 0.25) < 4.9 * 0.25 * (2 / 4000) ** 0.5 + 0.005


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers", reason="comes with the extra motes[diffusers]")


def unet(diffusers, **more):
    """A tiny network with random weights."""
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        **more,
    ).eval()


def test_the_denoised_prediction_is_that_of_the_schedulers_own_step(diffusers):
    x = torch.linspace(-2, 2, 128).reshape(2, 1, 8, 8)
    network = unet(diffusers)
    for said in ("epsilon", "sample", "v_prediction"):
        made = diffusers.DDIMScheduler(prediction_type=said, clip_sample=False)
        denoiser = from_diffusers(network, made)
        made.set_timesteps(10)
        for t in (made.timesteps[0], made.timesteps[4]):
            with torch.no_grad():
                step = made.step(network(x, t).sample, t, x)
                want = step.pred_original_sample
                got = denoiser.data(x, float(t))
            assert torch.allclose(got, want, rtol=1e-4, atol=1e-4), said
            s = float(t) - 100  # the deterministic step is "ddim" without noise
            table = motes.diffusion.transitions(
                denoiser.process, torch.tensor([float(t), s], dtype=F64), integrator="ddim", noise=0.0, still=True
            )
            moved = float(table.keep[0]) * x + float(table.pull[0]) * got
            assert torch.allclose(moved, step.prev_sample, rtol=1e-3, atol=1e-3)


def test_flow_matching_and_scaled_networks_of_the_package(diffusers):
    x = torch.linspace(-2, 2, 128).reshape(2, 1, 8, 8)
    network = unet(diffusers)
    flow = from_diffusers(network, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    with torch.no_grad():
        assert torch.allclose(flow.data(x, 0.4), x - 0.4 * network(x, 400.0).sample, rtol=1e-5, atol=1e-5)
    made = diffusers.EDMEulerScheduler()
    scaled = from_diffusers(network, made)
    sigma = torch.tensor(2.5)
    with torch.no_grad():
        out = network(made.precondition_inputs(x, sigma), made.precondition_noise(sigma)).sample
        assert torch.allclose(scaled.data(x, 2.5), made.precondition_outputs(x, out, sigma), rtol=1e-5, atol=1e-5)


def test_steering_a_network_of_the_package(diffusers):
    labels = {"class_labels": torch.tensor([1])}
    network = unet(diffusers, num_class_embeds=3)
    denoiser = from_diffusers(network, diffusers.DDPMScheduler(), extra=labels)
    model = motes.ReverseDiffusion(
        denoiser, 5, reward=lambda x: -x.flatten(1).square().mean(1), guidance=0.5, shape=(1, 8, 8)
    )
    run = motes.sample(model, 3, seed=1, progress=False)
    assert run.view.shape == (3, 1, 8, 8) and bool(torch.isfinite(run.log_weight).all())
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=1,
        out_channels=2,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        norm_num_groups=1,
    ).eval()
    made = diffusers.DDPMScheduler(variance_type="learned_range")
    assert from_diffusers(transformer, made, extra=labels).data(torch.zeros(2, 1, 8, 8), 99.0).shape == (2, 1, 8, 8)


@pytest.mark.filterwarnings("ignore")
def test_every_scheduler_of_the_package_is_taken_or_refused_with_a_reason(diffusers):
    taken, network = [], unet(diffusers)
    names = [n for n in dir(diffusers.schedulers) if n.endswith("Scheduler")]
    for name in names:
        try:
            made = getattr(diffusers, name)()
        except Exception:  # some cannot be made without their own package or arguments
            continue
        try:
            assert isinstance(from_diffusers(network, made), Denoiser)
            taken.append(name)
        except MotesError:
            pass
    assert {"DDPMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"} < {
        *taken
    }
    assert {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler"} < {*taken}
    assert not any("LCM" in name or "TCD" in name for name in taken)


def test_the_multistep_integrator_agrees_with_the_package(diffusers):
    """The same network, start and times: the states before the last step, which the package does at first order."""
    network = unet(diffusers)
    made = diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", lower_order_final=False)
    denoiser = from_diffusers(network, made)
    made.set_timesteps(8)
    times = made.timesteps.to(F64)
    model = ProbabilityFlow(denoiser, times, integrator="dpm++2m", shape=(1, 8, 8), final="state")
    particles = model.init(motes.Rng(1).at("init", step=0), 2)
    x = particles.x["state"]
    for k, t in enumerate(made.timesteps[:-1]):
        with torch.no_grad():
            x = made.step(network(x, t).sample, t, x).prev_sample
        particles = model.step(motes.Rng(1).at("step", step=k + 1), particles)
        assert torch.allclose(particles.x["state"], x, rtol=1e-3, atol=1e-3), k
