"""Exported networks give the frames of the model, and play in its place."""

import sys
from pathlib import Path

import numpy as np
import pytest
from prompted import prompted
from tiny import tiny_world

from data_collect.errors import UserError
from game_wm.acceleration import export
from game_wm.world import frame_noise
from train.lab.acceleration import onnx

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("recall", [False, True], ids=["working memory", "episodic memory"])
def test_exported_networks_give_the_same_frames(tmp_path: Path, recall: bool) -> None:
    pytest.importorskip("onnxscript", reason="needs pip install -e '.[export]'")
    runtime = pytest.importorskip("onnxruntime", reason="needs pip install -e '.[export]'")
    model = tiny_world(recall=recall)
    export.export(model, tmp_path)
    run = {name: runtime.InferenceSession(tmp_path / f"{name}.onnx").run for name in ("decoder", "denoiser", "context")}
    state, actions = prompted(model)
    kept = {k: v.numpy() for k, v in state.to_dict().items() if k.startswith("dynamics.")}
    read = ["dynamics.latents", "dynamics.actions", *export.RING]
    for action in actions[5:]:
        noisy = frame_noise(state.seeds, state.dynamics.context.working.count, model.latent_shape).numpy()
        told = {"action": action.numpy(), "noisy": noisy, "level": np.zeros(1, "f"), "stride": np.ones(1, "f")}
        if recall:
            told["drawn"] = model.render_views(state, action)[1].numpy()
        (clean,) = run["denoiser"](None, {**{k: kept[k] for k in read}, **told})
        (frame,) = run["decoder"](None, {"latents": clean})
        reward, termination, *after = run["context"](None, {**kept, "clean": clean, "action": action.numpy()})
        outcome, state = model.step(state, action)
        assert np.abs(frame.astype(int) - outcome.frames.numpy()).max() <= 1
        np.testing.assert_allclose(reward, outcome.rewards, atol=1e-4)
        np.testing.assert_allclose(termination, outcome.terminated, atol=1e-4)
        kept = dict(zip(kept, after))
    # In place of the model's own networks, they dream the same.
    played = onnx.run(tiny_world(recall=recall), tmp_path)
    state, actions = prompted(model)
    dream = state.clone()
    for action in actions[5:]:
        made = played.step(dream, action)[0].frames.int()
        assert (made - model.step(state, action)[0].frames.int()).abs().max() <= 1


def test_export_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match="pip install"):
        export.export(tiny_world(), tmp_path)
