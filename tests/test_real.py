"""The real game and the dream: from the same moment, by the same keys; what is played as data; other beginnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from test_rewind import actions, play  # noqa: E402
from tiny import tiny_checkpoint  # noqa: E402

from data_collect import games  # noqa: E402
from data_collect.dataset import Dataset  # noqa: E402
from data_collect.errors import UserError, main_guard  # noqa: E402
from data_collect.recording.record import record  # noqa: E402
from data_collect.recording.recorder import seeds  # noqa: E402
from data_collect.shards.verify import verify  # noqa: E402
from data_collect.shards.writer import ShardWriter  # noqa: E402
from game_wm.checkpoint import load  # noqa: E402
from game_wm.dream import NO_CONTEXT  # noqa: E402
from game_wm.play import app, starts  # noqa: E402
from game_wm.play.live_game import LiveGame  # noqa: E402
from game_wm.play.session import Session  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", prompt=6, endless=True))


def test_both_begin_at_the_same_moment_and_do_the_same(checkpoint: Any) -> None:
    session = Session(checkpoint, view="both", seed=3)
    real = session.scene.real
    assert real is not None and session.scene.linked and session.dream.context == NO_CONTEXT
    assert np.array_equal(session.dream.moment.picture, real.moment.picture)
    assert np.array_equal(session.dream.prompt[0], real.prompt()[0]) and len(session.dream.prompt[0]) == 6
    prompted = real.moment.frames
    assert prompted == 5
    play(session, actions(7))
    assert (session.now.frames, real.moment.frames, len(session.scene.likeness.psnr)) == (7, 12, 7)
    assert (
        session.scene.likeness.psnr[-1] < 20 and session.scene.likeness.diverged is not None
    )  # random weights dream noise
    assert session.scene.film.shape == (64, 128, 3)

    maze = games.make("maze")
    maze.reset(seed=seeds(3, 0)[0])
    for raw in real.actions:
        frame = maze.step(raw)[0]
    assert np.array_equal(frame, real.moment.picture)
    assert np.array_equal(real.actions[prompted:], actions(7))


def test_both_go_back_in_time(checkpoint: Any) -> None:
    session = Session(checkpoint, view="both")
    real = session.scene.real
    assert real is not None
    play(session, actions(4))
    then = real.moment.picture, session.dream.moment.picture, list(session.scene.likeness.psnr)
    play(session, actions(5, 1))
    after = real.moment.picture, session.dream.moment.picture
    for _ in range(5):
        assert session.rewind()
    assert np.array_equal(real.moment.picture, then[0]) and np.array_equal(session.dream.moment.picture, then[1])
    assert session.scene.likeness.psnr == then[2] and session.scene.linked
    play(session, actions(5, 1))  # the game is played again from its seed
    assert np.array_equal(real.moment.picture, after[0]) and np.array_equal(session.dream.moment.picture, after[1])
    session.scene.restart()
    assert (session.now.frames, real.moment.frames) == (0, 5) and not session.scene.likeness.psnr
    session.scene.restart(1)
    assert real.number == 1 and np.array_equal(session.dream.moment.picture, real.moment.picture)


def test_switching_keeps_the_moment(checkpoint: Any) -> None:
    session = Session(checkpoint)
    play(session, actions(3))
    session.show("real")
    real = session.scene.real
    assert real is not None and session.now.picture is real.moment.picture
    dreamt = session.dream.moment.frames
    play(session, actions(4))
    assert (session.now.frames, session.dream.moment.frames) == (9, dreamt)  # the dream waits
    assert session.rewind() and session.now.frames == 8
    session.show("dream")
    assert session.now.frames == 0 and np.array_equal(session.now.picture, real.moment.picture)
    play(session, actions(2))
    assert real.moment.frames == 10  # it follows, unseen
    session.scene.restart()
    assert session.scene.linked and (session.now.frames, real.moment.frames) == (0, 8)
    play(session, actions(2))
    session.show("real")
    assert session.now.frames == 10
    with pytest.raises(UserError, match="real game"):
        session.snapshot()


def test_a_dream_with_memory_begins_with_more_of_what_was_played(tmp_path: Path) -> None:
    session = Session(load(tiny_checkpoint(tmp_path / "tiny.safetensors", recall=True, endless=True)), view="real")
    play(session, actions(20))
    session.show("dream")
    real = session.scene.real
    assert real is not None and len(session.dream.prompt[0]) == 25 and session.dream.prompt[1].shape == (24, 4)
    assert np.array_equal(session.dream.prompt[1][-20:], actions(20))
    assert int(session.dream.state.dynamics.context.working.count[0]) == 25


def test_a_game_that_is_not_here_or_another_is_told(
    checkpoint: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for game, word in (("gym:Nowhere-v0", "Nowhere"), ("maze?width=80", "80x64"), ("dream:maze", "not a game")):
        session = Session(replace(checkpoint, game=game))
        with pytest.raises(UserError, match=word):
            session.show("both")
        assert session.scene.view == "dream"
        session.tick()
    path = tiny_checkpoint(tmp_path / "tiny.safetensors")
    command = [str(path), "--headless", "--frames", "3", "--view", "both", "--video", str(tmp_path / "both.gif")]
    assert app.main(command) == 0
    with Image.open(tmp_path / "both.gif") as film:
        assert (film.n_frames, film.width) == (3, 2 * film.height)  # type: ignore[attr-defined]


def test_an_episode_shorter_than_a_prompt_begins_before_its_end() -> None:
    game = "gym:tiny_game:Tiny-v0?width=16&height=16&shortest=3&longest=5"
    schema = games.make(game).action_schema  # type: ignore[attr-defined]
    checkpoint: Any = SimpleNamespace(
        schema=schema, game=game, name="tiny", contexts_frames=torch.zeros(1, 9, 16, 16, 3, dtype=torch.uint8)
    )
    real = LiveGame(checkpoint, seed=1)
    for number in range(4):
        real.begin(number)
        frames, encoded, poses = real.prompt()
        assert not real.moment.ended and 3 <= len(frames) <= 5 and encoded.shape == (len(frames) - 1, 3)
        assert poses is not None and poses.shape == (len(frames), 3)
        assert real.step(schema.raw(schema.noop())).ended
        assert real.back() and not real.moment.ended


def test_doom_goes_back_in_time() -> None:
    pytest.importorskip("vizdoom")
    schema = games.make("doom").action_schema  # type: ignore[attr-defined]
    checkpoint: Any = SimpleNamespace(
        schema=schema, game="doom", name="tiny", contexts_frames=torch.zeros(1, 5, 96, 128, 3, dtype=torch.uint8)
    )
    real = LiveGame(checkpoint)
    real.begin(0)
    _, _, poses = real.prompt()
    assert poses is not None and poses.shape == (5, 3) and torch.equal(poses[-1], torch.tensor(real.info["pose"]))
    keys = np.random.default_rng(0).integers(0, 2, (20, schema.width))
    pictures = [real.step(raw).picture for raw in keys]
    for _ in range(12):
        assert real.back()
    assert np.array_equal(real.moment.picture, pictures[7])
    assert np.array_equal([real.step(raw).picture for raw in keys[8:]], pictures[8:])
    real.close()


# --- what is played as data -------------------------------------------------------------------------------------


def test_the_real_game_is_recorded_as_shards_that_replay(checkpoint: Any, tmp_path: Path) -> None:
    session = Session(checkpoint, view="real", seed=5)
    play(session, actions(3))
    session.record_data(tmp_path / "data")
    play(session, actions(300))  # more than a chunk
    session.scene.restart(1)
    play(session, actions(20))
    session.rewind()  # what was recorded stays; it goes on at the next place
    play(session, actions(5))
    session.scene.restart()
    play(session, actions(4))
    assert session.stop_data() == tmp_path / "data"
    assert "3 episodes replayed exactly" in verify(tmp_path / "data", "all")
    lengths = [len(episode.actions) for episode in Dataset(tmp_path / "data").episodes()]
    assert len(lengths) == 3 and lengths[1:] == [25, 9]


def test_a_full_disk_ends_the_recording_alone(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ShardWriter, chunk: Any) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(ShardWriter, "add", full)
    for view in ("dream", "real"):
        session = Session(checkpoint, view=view, player="random")
        session.record_data(tmp_path / view)
        session.tick()
        with pytest.raises(UserError, match="disk is full"):
            for _ in range(300):
                session.tick()
        assert session.data is None and session.controls.name == "random"
        session.tick()


def test_a_dream_is_recorded_as_shards(checkpoint: Any, tmp_path: Path) -> None:
    session = Session(checkpoint)
    session.record_data(tmp_path / "data")
    pictures = play(session, actions(10))
    for _ in range(4):
        session.rewind()
    branch = play(session, actions(5, 1))
    session.scene.begin(1)
    play(session, actions(2))
    session.stop_data()
    assert "sound" in verify(tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    first, second, third = dataset.episodes()
    assert dataset.game == "dream:tiny" and np.array_equal(first.frames[1:], pictures)
    assert first.truncated[-1] and np.array_equal(second.frames[1:], branch)
    assert np.array_equal(second.frames[0], pictures[5]) and len(third.actions) == 2
    session.record_data(tmp_path / "nothing")
    assert session.stop_data() is None and not (tmp_path / "nothing").exists()
    with pytest.raises(UserError, match="cannot be made"):
        session.record_data(tmp_path / "data")


# --- beginnings -------------------------------------------------------------------------------------------------


def test_a_dream_begins_in_a_picture(checkpoint: Any, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (200, 40, 90)).save(tmp_path / "room.png")
    session = Session(starts.from_picture(checkpoint, tmp_path / "room.png"))
    assert session.scene.contexts == 1 and session.now.picture.shape == (64, 64, 3)
    assert np.unique(session.now.picture.reshape(-1, 3), axis=0).tolist() == [[200, 40, 90]]
    session.tick()
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "missing.png"):
        with pytest.raises(UserError, match=name):
            starts.from_picture(checkpoint, tmp_path / name)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_picture_stands_as_its_camera_was_held(kind: str, checkpoint: Any, tmp_path: Path) -> None:
    """Orientation 6: what is stored as the left edge is the top."""
    stored = Image.new("RGB", (64, 64), (0, 0, 0))
    stored.paste((255, 255, 255), (0, 0, 32, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / f"turned.{kind}", exif=exif)
    frame = starts.from_picture(checkpoint, tmp_path / f"turned.{kind}").contexts_frames[0, 0]
    assert frame[:24].min() > 200 and frame[40:].max() < 50


def test_pictures_that_are_too_large_or_damaged_are_named(
    checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.new("RGB", (64, 64))
    picture.save(tmp_path / "large.png")
    for name, exif in {"header": b"Exif\0\0garbage", "short": b"Exif\0\0II*\0"}.items():
        picture.save(tmp_path / f"{name}.png", exif=exif)
        with pytest.raises(UserError, match=rf"{name}\.png .*damaged"):
            starts.from_picture(checkpoint, tmp_path / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"large\.png .*give a smaller picture"):
        starts.from_picture(checkpoint, tmp_path / "large.png")


def test_a_dream_begins_in_a_recording(checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "data", "maze", "random", 40, episode_frames=16)
    session = Session(starts.from_recording(checkpoint, tmp_path / "data"))
    episode = next(Dataset(tmp_path / "data").episodes())
    assert session.scene.contexts == 3 - (40 % 16 < 6) and np.array_equal(session.now.picture, episode.frames[5])
    assert np.array_equal(session.dream.prompt[1], episode.encoded[:5])
    session.tick()
    poses = session.dream.prompt[2]
    assert poses is not None and episode.pose is not None and torch.equal(poses, torch.from_numpy(episode.pose[:6]))
    # Of a checkpoint with longer prompts than the recording has, across chunks: as long as the longest episode.
    longer = replace(checkpoint, contexts_frames=torch.zeros(1, 600, 64, 64, 3, dtype=torch.uint8))
    record(tmp_path / "long", "maze", "random", 300, episode_frames=300)
    begun = starts.from_recording(longer, tmp_path / "long")
    whole = next(Dataset(tmp_path / "long").episodes())
    assert begun.contexts_frames.shape[1] == len(whole.frames) > 256
    assert np.array_equal(begun.contexts_frames[0], whole.frames)
    assert np.array_equal(begun.contexts_actions[0], whole.encoded[: len(whole.frames) - 1])
    record(tmp_path / "other", "maze?size=9", "random", 20)  # poses of another level tell nothing
    assert starts.from_recording(checkpoint, tmp_path / "other").contexts_poses is None
    record(tmp_path / "wide", "maze?width=80", "random", 20)
    with pytest.raises(UserError, match="80x64"):
        starts.from_recording(checkpoint, tmp_path / "wide")
    record(tmp_path / "brief", "maze", "random", 4)
    with pytest.raises(UserError, match="6 frames"):
        starts.from_recording(checkpoint, tmp_path / "brief")
    assert main_guard(lambda: app.main([str(checkpoint.path), "--headless", "--recording", str(tmp_path)])) == 2
    assert "no recording" in capsys.readouterr().err
