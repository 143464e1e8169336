"""Denoisers from ONNX files, which the tests make: the exact denoiser of normal data, written as a graph."""

import sys

import pytest
import torch

import motes
from diffusion.linear import F64
from motes.diffusion import gaussian
from motes.diffusion.denoisers.adapters.onnx import from_onnx
from motes.diffusion.processes.edm import EDM
from motes.errors import MotesError, UnknownName

EDMS = EDM(t_max=20.0)
X = torch.linspace(-2, 2, 24, dtype=torch.float32).reshape(6, 1, 2, 2)


@pytest.fixture(scope="module")
def onnx():
    pytest.importorskip("onnxruntime", reason="comes with the extra motes[onnx]")
    return pytest.importorskip("onnx", reason="needed to write files")


def write(onnx, path, rows="n", level=("n",), kind="FLOAT"):
    """data = (x + sigma^2 centre) / (1 + sigma^2) for data of unit variance around `centre`, with two outputs."""
    from onnx import TensorProto, helper

    number = getattr(TensorProto, kind)

    def value(name, shape, kind=number):
        return helper.make_tensor_value_info(name, kind, shape)

    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 1, 1, 1]),
    ]
    nodes = [
        helper.make_node("Cast", ["sigma"], ["level"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["level", "shape"], ["s"]),
        helper.make_node("Mul", ["s", "s"], ["square"]),
        helper.make_node("Add", ["square", "one"], ["total"]),
        helper.make_node("Reshape", ["centre", "shape"], ["c"]),
        helper.make_node("Mul", ["square", "c"], ["pull"]),
        helper.make_node("Add", ["noisy", "pull"], ["sum"]),
        helper.make_node("Div", ["sum", "total"], ["denoised"]),
        helper.make_node("Identity", ["noisy"], ["copy"]),
    ]
    centre = value("centre", level if level else [1], TensorProto.FLOAT)
    inputs = [value("noisy", [rows, 1, 2, 2], TensorProto.FLOAT), value("sigma", list(level)), centre]
    outputs = [value(name, [rows, 1, 2, 2], TensorProto.FLOAT) for name in ("denoised", "copy")]
    graph = helper.make_graph(nodes, "normal", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def exact(t, centre=0.5):
    denoiser = gaussian(EDMS, torch.full((4,), centre), torch.eye(4))
    return denoiser.data(X.flatten(1), t).reshape(X.shape)


@pytest.mark.parametrize("level", [("n",), (), (1,), ("n", 1), ("n", 1, 1, 1)])
@pytest.mark.parametrize("rows", ["n", 4, 1])
def test_a_file_is_the_denoiser_that_it_holds(onnx, tmp_path, rows, level):
    """Any rank of the condition, any fixed batch."""
    level = tuple(rows if s == "n" else s for s in level)
    path = write(onnx, tmp_path / "m.onnx", rows, level)
    denoiser = from_onnx(path, EDMS, extra={"centre": 0.5 if level else [0.5]}, threads=1)
    for t in (0.1, 3.0):
        assert torch.allclose(denoiser.data(X, t), exact(t), rtol=1e-5, atol=1e-6)
    assert denoiser.name.startswith("m.onnx ") and denoiser.data(X.double(), 0.1).dtype == F64
    if level and level[0] == "n":
        each = torch.linspace(0.1, 3.0, 6, dtype=F64)
        want = torch.cat([exact(float(t))[i : i + 1] for i, t in enumerate(each)])
        assert torch.allclose(denoiser.data(X, each), want, rtol=1e-5, atol=1e-6)
    elif rows == "n":
        with pytest.raises(MotesError, match="one number a call"):
            denoiser.data(X, torch.linspace(0.1, 3.0, 6))


def test_names_repeated_arrays_and_whole_conditions(onnx, tmp_path):
    path = write(onnx, tmp_path / "m.onnx")
    once = from_onnx(path, EDMS, inputs=("noisy", "sigma"), extra={"centre": torch.tensor([0.5])}, output="denoised")
    assert torch.allclose(once.data(X, 1.5), exact(1.5), rtol=1e-5, atol=1e-6)
    copy = from_onnx(path, EDMS, extra={"centre": 0.0}, output="copy")
    assert torch.equal(copy.data(X, 1.5), X)
    whole = from_onnx(write(onnx, tmp_path / "i.onnx", kind="INT64"), EDMS, extra={"centre": 0.5})
    assert torch.allclose(whole.data(X, 3.0), exact(3.0), rtol=1e-5, atol=1e-6)
    with pytest.raises(MotesError, match="whole numbers"):
        whole.data(X, 1.5)


def test_steering_without_gradients_has_the_right_normaliser(onnx, tmp_path):
    """E exp(mean of x) = exp(centre + 1/8) under unit normals; 2000 particles, wrong by 0.1 is caught."""
    denoiser = from_onnx(write(onnx, tmp_path / "m.onnx"), EDMS, extra={"centre": 0.5}, threads=1)
    model = motes.ReverseDiffusion(
        denoiser, 40, reward=lambda x: x.flatten(1).mean(1), shape=(1, 2, 2), micro_batch=500
    )
    run = motes.sample(model, 2000, seed=1, progress=False)
    assert abs(run.log_evidence - 0.625) < 0.1
    guided = motes.ReverseDiffusion(denoiser, 4, reward=model.reward, guidance="reward", shape=(1, 2, 2))
    with pytest.raises(MotesError, match="keeps no gradients"):
        motes.sample(guided, 3, seed=1, progress=False)


def test_what_does_not_fit_is_said(onnx, tmp_path):
    path = write(onnx, tmp_path / "m.onnx")
    with pytest.raises(UnknownName, match=r"input of the file .*noisy"):
        from_onnx(path, EDMS, inputs=("x", "sigma"))
    with pytest.raises(UnknownName, match="output of the file"):
        from_onnx(path, EDMS, extra={"centre": 0.5}, output="noise")
    with pytest.raises(MotesError, match="centre of the file have no value"):
        from_onnx(path, EDMS)


def test_without_onnxruntime_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"motes\[onnx\]"):
        from_onnx("m.onnx", EDMS)
