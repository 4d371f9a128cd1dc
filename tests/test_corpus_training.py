"""Training on many games: each as often, batches that are functions of their number, one schema for all actions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_runs import small_tokenizer

from data_collect.errors import UserError
from data_collect.recording.record import record
from train.data.corpus import CorpusFrames, augmented
from train.data.encode import encode
from train.data.latents import LatentStore
from train.data.recordings import Recording, recordings_of
from train.data.windows import SequenceDataset
from train.report.figures import read_figures
from train.stages.cli import run_stage

pytestmark = pytest.mark.slow
LONG, SHORT, WIDE = "maze?size=7", "scroll?view=top", "scroll?view=side&width=96"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two games of 64x64, one of which has four times as many frames, and one of 96x64."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, game, frames in (("a", LONG, 320), ("b", SHORT, 80), ("c", WIDE, 80)):
        record(folder / name, game, "random", frames, episode_frames=40)
    return [str(folder / name) for name in "abc"]


def test_items_are_drawn_evenly_by_game_and_a_batch_has_one_size(recordings: list[str]) -> None:
    source = CorpusFrames(recordings, seed=3)
    assert (source.width, source.height) == (64, 64) and source.validation(8).shape[1:] == (64, 64, 3)
    first = np.concatenate([source.items(np.arange(4 * n, 4 * n + 4)) for n in range(40) if _wide(source, n) is False])
    known = Recording(recordings[0]).decode()
    of_the_maze = sum(bool((known == frame).all((1, 2, 3)).any()) for frame in first) / len(first)
    assert 0.35 < of_the_maze < 0.65
    assert Counter(_wide(source, n) for n in range(90))[True] == pytest.approx(30, abs=12)
    again = CorpusFrames([str(Path(recordings[0]).parent)], seed=3)
    assert all(np.array_equal(source.items(items), again.items(items)) for items in np.arange(40).reshape(10, 4))
    with pytest.raises(UserError, match="cache_gib"):
        CorpusFrames(recordings, seed=3, cache_gib=1e-3)


def _wide(source: CorpusFrames, number: int) -> bool:
    return source.items(np.arange(4 * number, 4 * number + 4)).shape[2] == 96


def test_frames_are_changed_by_seed_and_item_alone(recordings: list[str]) -> None:
    frames, items = CorpusFrames(recordings[:1], seed=0, row=2, still=True).items(np.arange(16)), np.arange(16)
    changed = augmented(frames, 0.5, 1, items)
    assert changed.shape == frames.shape == (16, 3, 64, 64, 3)
    kept = [bool((one == other).all()) for one, other in zip(frames, changed, strict=True)]
    assert 0 < sum(kept) < 16
    assert np.array_equal(augmented(frames[4:9], 0.5, 1, items[4:9]), changed[4:9])
    still = np.repeat(frames[:, :1], 3, axis=1)  # all pictures of an item are changed alike
    assert all((row == row[0]).all() for row in augmented(still, 1.0, 1, items))


def test_a_mixed_run_that_is_resumed_has_the_same_losses(recordings: list[str], tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "data.data": recordings, "data.batch_size": 4, "data.augment": 0.5, "data.validation_frames": 8,
        "model.tokenizer.encoder_widths": [16, 16, 16], "model.tokenizer.decoder_widths": [16, 16, 16],
        "model.perceptual": 0, "minutes": None, "runs": str(tmp_path), "wandb": "off", "decay": 0, "warmup": 0,
        "trainer.log_every_n_steps": 1, "trainer.val_check_interval": 4,
    }  # fmt: skip

    def run(name: str, steps: int, **more: bool) -> None:
        given = {**values, "name": name, "steps": steps, **more}
        assert run_stage("tokenizer", config="configs/base/tokenizer.yaml", values=given) == 0

    run("whole", 8)
    run("cut", 3)
    run("cut", 8, resume=True)
    losses = [read_figures(tmp_path / name / "tokenizer", "loss") for name in ("whole", "cut")]
    assert losses[0] == losses[1] and len(losses[0]) == 8


def test_latents_of_many_games_have_a_block_of_actions_each(recordings: list[str], tmp_path: Path) -> None:
    encode(recordings[:2], small_tokenizer(0), tmp_path, mixed=True)
    store, own = LatentStore(tmp_path), [Recording(folder).dataset for folder in recordings[:2]]
    assert store.game == "corpus" and store.schema.size == sum(each.schema.size for each in own) == 8
    assert [store.game_of(i) for i in range(10)] == [LONG] * 8 + [SHORT] * 2
    for number, (dataset, block) in enumerate([(own[0], slice(0, 4)), (own[1], slice(4, 8))]):
        place = store.split(0, validation=False)[8 * number]
        actions, episode = store.read("actions", place), dataset.episode(0)
        assert np.array_equal(actions[:-1, block], episode.encoded)
        assert not np.delete(actions, np.arange(8)[block], axis=1).any()
    assert [recording.dataset.game for recording in recordings_of(store)] == [LONG, SHORT]
    windows = SequenceDataset(store, 16, seed=0, held_out=0).batch(0, 200)
    assert Counter(store.game_of(i) for i in windows["episode"].tolist())[SHORT] == pytest.approx(100, abs=25)
    assert torch.equal(windows["actions"], SequenceDataset(store, 16, 0, 0).batch(0, 200)["actions"])
    assert not encode(recordings[:2], small_tokenizer(0), tmp_path, mixed=True)


def test_what_cannot_be_mixed_is_told(recordings: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"64x64 .* and 96x64 .* cannot be encoded together"):
        encode(recordings, small_tokenizer(0), tmp_path, mixed=True)
    with pytest.raises(UserError, match="differ in their game"):
        encode(recordings, small_tokenizer(0), tmp_path)
