"""Rewards, twists and embeddings by networks in training mode are refused before their numbers are used."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import motes
from language.tables import table
from motes.errors import MotesError
from motes.language import Generation, reward_model
from motes.language.uncertainty import MiniLM
from motes.language.uncertainty.embedding import embed_texts
from motes.language.uncertainty.probe import hidden_states

SAID = r"training mode.*\.eval\(\)"


def judge(network: nn.Module):
    """A reward of the texts' lengths."""
    return lambda texts: network(torch.tensor([[float(len(text))] for text in texts]))[:, 0]


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def test_a_reward_in_training_mode_is_refused_before_the_run(network):
    with pytest.raises(MotesError, match=f"the reward is .*{SAID}"):
        Generation(table(), "", reward=judge(network), max_tokens=4)
    model = Generation(table(), "", reward=judge(network.eval()), max_tokens=4)
    motes.sample(model, 8, seed=0, progress=False)
    network.train()  # on the way
    with pytest.raises(MotesError, match=f"the reward is .*{SAID}"):
        motes.sample(model, 8, seed=0, progress=False)


def test_a_twist_in_training_mode_is_refused(network):
    reward = judge(nn.Linear(1, 1))
    model = Generation(table(), "", reward=reward, twist=judge(network), max_tokens=4)
    with pytest.raises(MotesError, match=f"the twist is .*{SAID}"):
        motes.sample(model, 8, seed=0, progress=False)


def test_reward_models_are_put_in_evaluation_mode_and_must_stay_there(tiny):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=1)
    bert = BertForSequenceClassification(config).train()
    tiny.tokenizer.pad_token = "</s>"
    bert.config.pad_token_id = tiny.tokenizer.pad_token_id
    reward = reward_model(bert, tokenizer=tiny.tokenizer)
    assert torch.equal(reward(["a cat"]), reward(["a cat"]))
    reward.model.train()
    with pytest.raises(MotesError, match=SAID):
        reward(["a cat"])


def test_embeddings_and_hidden_states_are_not_random(folder, tiny, network):
    embed = MiniLM(folder)
    embed.tokenizer.pad_token = "</s>"
    assert torch.equal(embed(["a cat"]), embed(["a cat"]))
    own = judge(network)
    with pytest.raises(MotesError, match=f"the embedding is .*{SAID}"):
        embed_texts(lambda texts: own(texts)[:, None], ["a", "bb"])
    dropping = motes.language.load(folder)
    dropping.model.model.layers[1].mlp.register_module("noise", nn.Dropout(0.5))
    dropping.model.train()
    with pytest.raises(MotesError, match=SAID):
        hidden_states(dropping, ["the cat"])
