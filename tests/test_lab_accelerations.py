"""Accelerations of the lab: step caching and pipelining play the same model."""

import threading

import pytest
import torch
from prompted import prompted
from tiny import tiny_world

from data_collect.errors import UserError
from train.lab.acceleration import caching, pipelining


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.3])
def test_step_caching_keeps_its_bound(bound: float) -> None:
    plain, cached = tiny_world(), caching.cache(tiny_world(), bound)
    kept = cached.dynamics.denoiser
    state, actions = prompted(plain, players=2)
    changes = []
    with torch.inference_mode():
        for action in actions[5:]:
            before = kept.ran, kept.spared
            latents = [model.step_latents(state.clone(), action, steps=8)[0] for model in (plain, cached)]
            assert kept.ran + kept.spared - sum(before) == 8 and kept.ran > before[0]  # nothing from another frame
            changes.append(caching.change(latents[1], latents[0]))
            plain.step(state, action)
    assert max(changes) <= bound
    assert bound or not kept.spared


def test_step_caching_spares_more_with_a_wider_bound() -> None:
    spared = []
    for bound in (0.02, 0.1, 0.9):
        model = caching.cache(tiny_world(), bound)
        state, actions = prompted(model)
        model.step(state, actions[5], steps=16)
        spared.append(model.dynamics.denoiser.spared)
        model.step(state, actions[5], steps=1)
        assert model.dynamics.denoiser.spared == spared[-1]  # a single call has nothing to take over
    assert spared == sorted(spared) and spared[-1] == 15
    with pytest.raises(UserError, match="bound"):
        caching.cache(tiny_world(), 1.5)


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_a_pipelined_model_dreams_the_same(recall: bool) -> None:
    plain, pipelined = tiny_world(recall=recall), tiny_world(recall=recall)
    threads = set()
    layer = next(m for m in pipelined.tokenizer.decoder.modules() if isinstance(m, torch.nn.Conv2d))
    layer.register_forward_pre_hook(lambda *_: threads.add(threading.current_thread()))

    state, actions = prompted(plain, players=2)
    pipelining.pipeline(pipelined)
    other = state.clone()
    for action in actions[5:]:
        frames = plain.step(state, action)[0].frames
        assert torch.equal(pipelined.step(other, action)[0].frames, frames)
    assert threads and threading.main_thread() not in threads
    for name, value in state.to_dict().items():
        assert torch.equal(other.to_dict()[name], value), name
