"""The whole path, tiny: record, train, encode, distil, export, play; and that a second run finds nothing to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from data_collect.dataset import Dataset
from data_collect.errors import UserError
from game_wm.checkpoint import load
from train.__main__ import main

CONFIGS = Path(__file__).parent.parent / "configs" / "maze"
SMALL = {
    "tokenizer": ["--model.tokenizer.encoder_widths", "[16,16,32]", "--model.tokenizer.decoder_widths", "[16,16,32]",
                  "--model.tokenizer.decoder_blocks", "1", "--model.perceptual", "0", "--data.batch_size", "16"],
    "geometry": ["--model.geometry.hidden", "16", "--model.geometry.slots", "64", "--data.batch_size", "4",
                 "--data.length", "8", "--data.validation_windows", "4"],
    "dynamics": ["--model.dynamics.widths", "[32,32]", "--model.dynamics.blocks", "[1,1]", "--data.length", "24",
                 "--model.dynamics.context_width", "64", "--model.dynamics.window", "8", "--model.targets", "4",
                 "--data.batch_size", "4", "--data.validation_windows", "4"],
}  # fmt: skip
SMALL["distill"] = [
    *SMALL["dynamics"],
    "--model.rollout",
    "4",
    "--model.teacher_steps",
    "2",
    "--model.adversarial",
    "0.03",
]


def arguments(runs: Path, **steps: int) -> list[str]:
    """Flags of a pipeline that takes seconds."""
    flags = ["--name", "tiny", "--runs", str(runs), "--wandb", "off", "--limit", "null", "--contexts", "2"]
    flags += ["--record.frames", "1500", "--record.episode_frames", "150", "--record.workers", "1"]
    for stage, small in SMALL.items():
        given = ["--trainer.log_every_n_steps", "2", "--warmup", "5", *small]
        flags += [f"--{stage}.minutes", "null", f"--{stage}.steps", str(steps[stage])]
        flags += [f"--{stage}.flags", json.dumps(given)]
    flags += ["--geometry.config", str(CONFIGS / "geometry.yaml")]
    return ["pipeline", "--config", str(CONFIGS / "quick.yaml"), *flags]


def test_everything_from_nothing_to_play(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CONFIGS.parent.parent)
    assert main(arguments(tmp_path, tokenizer=30, geometry=6, dynamics=20, distill=4)) == 0
    told = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told[-3:]] == [
        "next frame, held-out episodes",
        "repeat the last frame",
        "gain",
    ]
    run = tmp_path / "tiny"
    for stage in SMALL:
        lines = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
        assert any("loss" in line for line in lines) and any("matrix_fraction" in line for line in lines)
        assert list((run / stage / "samples").glob("*.png"))
    assert json.loads((run / "latents" / "index.json").read_text())["complete"]

    student, teacher = load(run / "tiny.safetensors"), load(run / "tiny-teacher.safetensors")
    assert (student.game, student.model.steps, teacher.model.steps) == ("maze", 1, 2)
    assert student.contexts_frames.shape == (2, 32, 64, 64, 3) and student.contexts_actions.shape == (2, 31, 4)
    assert student.contexts_frames.float().std() > 10
    assert student.model.geometry is not None and student.model.config.dynamics.recall
    assert student.model.geometry.motion.free is not None  # as configs/maze/geometry.yaml asks for
    assert student.trained["frames"] > teacher.trained["frames"] > 0

    state = student.model.start(student.contexts_frames, student.contexts_actions, torch.tensor([1, 2]))
    for _ in range(20):
        outcome, state = student.model.step(state, torch.zeros(2, 4))
    assert outcome.frames.shape == (2, 64, 64, 3)

    # Again: nothing to do. Then a longer distillation: only that goes on, from where it was.
    before = (run / "dynamics" / "last.ckpt").stat().st_mtime_ns
    assert main(arguments(tmp_path, tokenizer=30, geometry=6, dynamics=20, distill=8)) == 0
    told = capfd.readouterr().out.splitlines()
    assert {"tokenizer: complete, skipped", "dynamics: complete, skipped"} <= set(told)
    assert any("up to date" in line for line in told)
    assert (run / "dynamics" / "last.ckpt").stat().st_mtime_ns == before
    steps = [json.loads(line)["step"] for line in (run / "distill" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 7

    goes_on_from_what_ships(tmp_path, run)


def goes_on_from_what_ships(tmp_path: Path, run: Path) -> None:
    """Motion and student are trained on from the playable file alone: the recording is encoded by its tokenizer."""
    base, latents, more = str(run / "tiny.safetensors"), str(tmp_path / "latents"), tmp_path / "more"
    assert main(["encode", "--data", str(run / "data"), "--tokenizer", base, "--out", latents]) == 0
    common = ["--name", "more", "--runs", str(tmp_path), "--wandb", "off", "--init", base, "--data.latents", latents]
    common += ["--model.tokenizer", base, "--steps", "3"]
    flags = [*common, *SMALL["geometry"][4:], "--model.depth", "false"]
    assert main(["geometry", "--config", str(CONFIGS / "geometry.yaml"), *flags]) == 0
    geometry = str(more / "geometry" / "last.ckpt")
    only = ["export", "--run", str(more), "--latents", latents, "--base", base, "--out", str(more), "--name", "only"]
    assert main(only) == 0
    assert main(["views", "--latents", latents, "--geometry", geometry, "--tokenizer", base, "--aligned"]) == 0
    flags = [*common, *SMALL["distill"][4:], "--model.geometry", geometry, "--model.dynamics.aligned", "true"]
    flags += ["--model.perceptual", "0.1"]
    assert main(["distill", "--config", str(CONFIGS / "distill.yaml"), *flags]) == 0
    assert main(["export", "--run", str(more), "--latents", latents, "--base", base, "--out", str(more)]) == 0
    old, new = load(Path(base)), load(more / "more.safetensors")
    assert old.model.geometry is not None and new.model.geometry is not None
    for part, same in (("depth", True), ("motion", False)):
        pairs = zip(getattr(old.model.geometry, part).parameters(), getattr(new.model.geometry, part).parameters())
        assert all(torch.equal(a, b) for a, b in pairs) == same
    assert not torch.equal(old.model.dynamics.denoiser.leave.weight, new.model.dynamics.denoiser.leave.weight)
    mean = ["export", "--run", str(more), "--latents", latents, "--base", base, "--out", str(more), "--name", "mean"]
    assert main([*mean, "--share", "0.25"]) == 0
    a, b, c = (x.model.dynamics.denoiser.leave.weight for x in (old, new, load(more / "mean.safetensors")))
    assert torch.allclose(0.75 * a + 0.25 * b, c, atol=1e-3)
    with pytest.raises(UserError, match="share"):
        main([*mean, "--share", "0"])
    assert torch.equal(new.contexts_frames, old.contexts_frames)
    begun = ["--beginnings", str(run / "data"), "--prompt", "40", "--contexts", "1", "--name", "placed"]
    assert main([*only, *begun]) == 0
    episode = next(Dataset(run / "data").episodes())
    placed = load(more / "placed.safetensors")
    assert torch.equal(placed.contexts_frames[0], torch.from_numpy(episode.frames[-40:]))
    assert torch.equal(placed.contexts_actions[0], torch.from_numpy(episode.encoded[-39:]))
    assert episode.pose is not None and placed.contexts_poses is not None
    assert torch.equal(placed.contexts_poses[0], torch.from_numpy(episode.pose[-40:]))
    with pytest.raises(UserError, match="no episode of"):
        main([*only, "--beginnings", str(run / "data"), "--prompt", "100000"])
    moved = load(more / "only.safetensors").model  # the base with the new motion
    for part, other in (("dynamics", old), ("geometry", new)):
        pairs = zip(getattr(moved, part).parameters(), getattr(other.model, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert new.trained["frames"] > old.trained["frames"] and new.trained["hours"] >= old.trained["hours"]


def test_errors_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent.parent)
    wrong = arguments(tmp_path, tokenizer=1, geometry=1, dynamics=1, distill=1)
    (tmp_path / "empty.yaml").touch()
    for change, words in [
        (["--tokenizer.config", "nowhere.yaml"], "nowhere.yaml"),
        (["--record.frames", "many"], "frames"),
        (["--colour", "blue"], "colour"),
        (["--config", str(tmp_path / "none.yaml")], "none.yaml"),
        (["--distill.config", str(tmp_path / "empty.yaml")], "empty.yaml is no configuration file"),
        (["--dynamics.steps", "null"], "how long"),
        (["--dynamics.steps", "-3"], "more than 0"),
        (["--init", str(tmp_path / "none.safetensors")], "none.safetensors: no such checkpoint"),
    ]:
        with pytest.raises(UserError, match=words):
            main([*wrong, *change])
    assert not (tmp_path / "tiny").exists()  # all of it before anything is recorded
