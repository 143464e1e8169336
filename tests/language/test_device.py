"""A device that is not here is an error that names those that are."""

from __future__ import annotations

import pytest
import torch

from motes import language
from motes.errors import MotesError
from motes.language.models.device import device_here, names


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "xpu:99", "privateuseone", 3.5, None])
def test_a_device_that_is_not_here(device):
    with pytest.raises(MotesError, match="there is cpu"):
        device_here(device)


def test_devices_that_are_here():
    assert [device_here(name) for name in names()] == [torch.device(name) for name in names()]
    assert device_here(torch.device("cpu")).type == "cpu"


def test_a_language_model_is_not_loaded_for_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr("motes.language.models.hugging_face.find_spec", lambda name: True)
    with pytest.raises(MotesError, match="'cuda:99' is not here, as torch sees it; there is cpu"):
        language.load("smollm2", device="cuda:99")
