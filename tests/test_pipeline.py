"""The whole path, tiny: record, train, encode, distil, export, play; and that a second run finds nothing to do."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_collect import games
from data_collect.dataset import Dataset
from data_collect.errors import UserError
from data_collect.recording.record import record
from game_wm.checkpoint import load
from game_wm.library import BASE, SHIPPED
from game_wm.memory.scroll.system import ScrollMemory
from game_wm.play.files.recording import ShardRecording
from tests.tiny_game import PLACELESS
from train.__main__ import main
from train.data.latents import LatentStore
from train.data.recordings import recordings_of
from train.pipeline.flags import parse
from train.pipeline.stages import values_of

pytestmark = pytest.mark.slow

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
    flags = ["--name", "tiny", "--runs", str(runs), "--wandb", "off", "--contexts", "2"]
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
    assert [line.split(":")[0] for line in told[-6:-2]] == [
        "tokenizer alone",
        "next frame, held-out episodes",
        "next frame of the teacher",
        "repeat the last frame",
    ]
    run = tmp_path / "tiny"
    diagnosed(run, told)
    for stage in SMALL:
        lines = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
        assert any("loss" in line for line in lines) and any("matrix_fraction" in line for line in lines)
        assert list((run / stage / "samples").glob("*.png"))
    assert json.loads((run / "latents" / "index.json").read_text())["complete"]

    student, teacher = load(run / "tiny.safetensors"), load(run / "tiny-teacher.safetensors")
    assert (student.game, student.model.steps, teacher.model.steps) == ("maze", 1, 2)
    assert student.contexts_frames.shape == (2, 32, 64, 64, 3) and student.contexts_actions.shape == (2, 31, 4)
    assert student.contexts_frames.float().std() > 10
    assert student.model.config.dynamics.recall
    assert student.model.memory.geometry.motion.free is not None  # as configs/maze/geometry.yaml asks for
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


def test_a_game_that_scrolls_gets_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent.parent)
    flags = ["--geometry.config", "", "--scroll", "5", "--record.game", "scroll", "--record.player", "random"]
    for stage in ("tokenizer", "dynamics", "distill"):
        flags += [f"--{stage}.config", str(CONFIGS.parent / "own" / f"{stage}.yaml")]
    assert main([*arguments(tmp_path, tokenizer=5, geometry=0, dynamics=4, distill=2), *flags]) == 0
    playable = load(tmp_path / "tiny" / "tiny.safetensors")
    assert isinstance(playable.model.memory, ScrollMemory) and not playable.model.config.dynamics.recall
    state = playable.model.start(playable.contexts_frames, playable.contexts_actions, torch.tensor([1, 2]))
    outcome, state = playable.model.step(state, torch.zeros(2, 4))
    assert outcome.frames.shape == (2, 64, 64, 3) and state.memory.mosaic.pixels.any()
    assert main(["export", "--run", str(tmp_path / "tiny"), "--name", "again", "--out", str(tmp_path)]) == 0
    assert isinstance(load(tmp_path / "again.safetensors").model.memory, ScrollMemory)


def diagnosed(run: Path, told: list[str]) -> None:
    """A result that is worse than repeating is not handed over in silence, and what to do about it can be done."""
    report, student = json.loads((run / "diagnosis.json").read_text()), load(run / "tiny.safetensors")
    assert set(report["psnr"]) == set(report["psnr_moving"]) == {"tokenizer", "next_frame", "teacher", "repeat"}
    assert report["gain"] < 0 and report["limit"] == "tokenizer"
    assert told[-2].startswith("warning: WORSE than repeating the last frame, by ")
    assert told[-1] == f"train the tokenizer longer: {report['longer']}"
    words = shlex.split(report["longer"])
    assert words[:4] == ["python", "-m", "train", "pipeline"] and words[-2:] == ["--tokenizer.steps", "60"]
    before, after = parse(arguments(run.parent, tokenizer=30, geometry=6, dynamics=20, distill=4)[1:]), parse(words[4:])
    assert after == replace(before, tokenizer=replace(before.tokenizer, steps=60))
    assert student.measured == {"frames": 64, **{
        name: {k: v for k, v in report[name].items() if k != "teacher"} for name in ("psnr", "psnr_moving")
    }}  # fmt: skip
    assert "worse than the last one again" in (student.warning or "")


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
    for part, same in (("depth", True), ("motion", False)):
        pairs = zip(
            getattr(old.model.memory.geometry, part).parameters(), getattr(new.model.memory.geometry, part).parameters()
        )
        assert all(torch.equal(a, b) for a, b in pairs) == same
    assert not torch.equal(old.model.dynamics.denoiser.conv_out.weight, new.model.dynamics.denoiser.conv_out.weight)
    mean = ["export", "--run", str(more), "--latents", latents, "--base", base, "--out", str(more), "--name", "mean"]
    assert main([*mean, "--share", "0.25"]) == 0
    a, b, c = (x.model.dynamics.denoiser.conv_out.weight for x in (old, new, load(more / "mean.safetensors")))
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
    for part, other in (("dynamics", old), ("memory", new)):
        pairs = zip(getattr(moved, part).parameters(), getattr(other.model, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert new.trained["frames"] > old.trained["frames"] and new.trained["hours"] >= old.trained["hours"]


def own(runs: Path, name: str, *more: str) -> list[str]:
    """Flags of a pipeline of a game of one's own, with networks and budgets that are almost nothing."""
    flags = ["--name", name, "--runs", str(runs), "--wandb", "off", "--contexts", "2", "--record.workers", "1"]
    flags += ["--init", "none"]
    for stage in ("tokenizer", "dynamics", "distill"):
        small = [*SMALL[stage], "--sample_minutes", "100"]
        small = [flag for i, flag in enumerate(small) if "--data.length" not in (flag, small[i - 1])]
        flags += [f"--{stage}.minutes", "null", f"--{stage}.steps", "2", f"--{stage}.flags", json.dumps(small)]
    return ["pipeline", "--config", str(CONFIGS.parent / "own" / "quick.yaml"), *flags, *more]


@pytest.mark.parametrize("steps", [20, 6])
def test_short_episodes_end_in_a_model_that_plays(
    steps: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.chdir(Path(__file__).parent)  # for the process that records
    game = f"gym:tiny_game:Tiny-v0?width=64&height=64&shortest={steps}&longest={steps}"
    assert main(own(tmp_path, "short", "--record.game", game, "--record.frames", str(60 * (steps + 1)))) == 0
    told = capfd.readouterr().out
    windows = f"dynamics {steps + 1} instead of 32, distill {steps + 1} instead of 32"
    assert (
        f"outlook: episodes have {steps} steps (median), so windows are shorter: {windows}; for longer ones, " in told
    )
    student = load(tmp_path / "short" / "short.safetensors")
    assert student.model.window == min(8, steps + 1) and student.contexts_frames.shape[1] == steps + 1
    state = student.model.start(student.contexts_frames, student.contexts_actions, torch.tensor([1, 2]))
    for _ in range(30):
        outcome, state = student.model.step(state, torch.zeros(2, 3))
    assert outcome.frames.shape == (2, 64, 64, 3)


def test_recordings_that_there_are_are_trained_on_together(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bot's and a person's: nothing is recorded, both are learnt from, and a part of both is held out."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    bot = record(tmp_path / "bot", PLACELESS, "random", 500)
    hand = ShardRecording(tmp_path / "hand", PLACELESS, replace(bot.schema, keys={"a": "left"}), seed=5)
    with contextlib.closing(games.make(PLACELESS)) as game:
        hand.begin(*game.reset(seed=0))
        for i in range(30):
            picture, reward, ended, _, info = game.step(i % 3)
            hand.step(bot.schema.raw(i % 3), reward, ended, picture, info)
    hand.close()
    both = ["--data", str(tmp_path / "bot"), str(tmp_path / "hand"), "--distill.config", ""]
    assert main(own(tmp_path, "both", *both)) == 0
    told, run = capfd.readouterr().out, tmp_path / "both"
    assert "record:" not in told and not (run / "data").exists()
    store = LatentStore(run / "latents")
    assert [recording.dataset.folder for recording in recordings_of(store)] == [tmp_path / "bot", tmp_path / "hand"]
    assert {store.episodes[span.episode]["recording"] for span in store.split(0.1, validation=True)} == {0, 1}
    assert main(own(tmp_path, "both", *both)) == 0
    told = capfd.readouterr().out
    assert told.count("complete, skipped") == 3 and "is up to date" in told

    record(tmp_path / "other", "maze?size=7", "random", 100)
    record(tmp_path / "small", PLACELESS.replace("64", "32"), "random", 100)
    dream = ShardRecording(tmp_path / "dream", "dream:both", bot.schema, seed=0)
    dream.begin(picture, {})
    dream.step(bot.schema.raw(0), 0.0, True, picture, {})
    dream.close()
    for folder, words in (("other", "differ in their game"), ("small", "32x32 and 64x64"), ("dream", "dream:both and")):
        with pytest.raises(UserError, match=words):
            main(own(tmp_path, "no", "--data", str(tmp_path / "bot"), str(tmp_path / folder)))
    assert not (tmp_path / "no").exists()


def test_a_stage_that_diverges_is_told_in_the_pipelines_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    record(tmp_path / "data", PLACELESS, "random", 500)
    wild = ["--data", str(tmp_path / "data"), "--tokenizer.model.lr", "1e30", "--tokenizer.steps", "20"]
    with pytest.raises(
        UserError, match=r"training diverged.* such as --tokenizer\.model\.lr 2\.5e\+29; what was saved"
    ):
        main(own(tmp_path, "wild", *wild))


def test_what_begins_with_a_base_may_differ() -> None:
    """`from_base` holds with `init` alone, and what is given by a flag wins."""
    flags = ["--config", str(CONFIGS.parent / "own" / "quick.yaml"), "--tokenizer.from_base", '{"model.lr": 2e-4}']
    rate = lambda *more: values_of(parse([*flags, *more]), "tokenizer").get("model.lr")  # noqa: E731
    assert rate("--init", "none") is None and rate("--init", "base.safetensors") == 2e-4
    assert rate("--init", "base.safetensors", "--tokenizer.model.lr", "5e-4") == "5e-4"
    plan = parse([*flags, "--init", "base.safetensors"])
    assert values_of(plan, "tokenizer")["init"] == values_of(plan, "dynamics")["init"] == "base.safetensors"
    assert Path(parse(flags).init or "").samefile(SHIPPED / f"{BASE}.safetensors")


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
        (["--scroll", "5"], "a model has one memory"),
        (["--init", str(tmp_path / "none.safetensors")], "none.safetensors: no such checkpoint"),
    ]:
        with pytest.raises(UserError, match=words):
            main([*wrong, *change])
    assert not (tmp_path / "tiny").exists()  # all of it before anything is recorded
