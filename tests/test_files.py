"""Files are whole or not there: what a full disk, a name or another error leaves behind is nothing at all."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from tiny import tiny_checkpoint  # noqa: E402

from data_collect import files  # noqa: E402
from data_collect.dataset import Dataset  # noqa: E402
from data_collect.errors import UserError  # noqa: E402
from data_collect.files import Part, append_line, save_picture, whole  # noqa: E402
from data_collect.recording.mp4 import VideoWriter  # noqa: E402
from data_collect.recording.record import record  # noqa: E402
from data_collect.shards import writer  # noqa: E402
from data_collect.shards.chunk import Chunk  # noqa: E402
from data_collect.shards.inspect import contact_sheet  # noqa: E402
from game_wm import checkpoint as checkpoints  # noqa: E402
from game_wm.dream import saved  # noqa: E402
from game_wm.evaluation.report import card  # noqa: E402
from game_wm.play.files.recording import ShardRecording  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from train.data.encode import write_shard  # noqa: E402

NOISE = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)  # no codec makes it small


class Disk:
    """A disk with so many bytes left; what is open on it."""

    def __init__(self) -> None:
        self.left = 1 << 40
        self.open: list[io.FileIO] = []

    def take(self, wanted: int) -> int:
        """Bytes that are written of these. OSError where it is none."""
        taken = min(wanted, self.left)
        self.left -= taken
        if wanted and not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken


class OnDisk(io.FileIO):
    """A file on a `Disk`."""

    disk: Disk

    def write(self, data: Any) -> int:
        return super().write(memoryview(data).cast("B")[: self.disk.take(memoryview(data).nbytes)])

    def fileno(self) -> int:
        if self.disk.left < 1 << 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # who writes past us finds it full, too
        return super().fileno()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk that everything is written to from here on."""
    disk = Disk()

    def opened(path: Any, mode: str = "r", buffering: int = -1) -> Any:
        raw = OnDisk(path, mode.replace("b", ""))
        raw.disk = disk
        disk.open.append(raw)
        return raw if buffering == 0 else io.BufferedWriter(raw)

    def cut(file: int, size: int) -> None:
        disk.left += os.fstat(file).st_size - size
        ftruncate(file, size)

    write, ftruncate = os.write, os.ftruncate
    monkeypatch.setattr(files, "open", opened, raising=False)
    monkeypatch.setattr(writer.os, "write", lambda file, data: write(file, data[: disk.take(len(data))]))
    monkeypatch.setattr(writer.os, "ftruncate", cut)
    return disk


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", side=16, endless=True)
    made = Session(checkpoints.load(path))
    for action in np.random.default_rng(0).integers(0, 2, (300, 4)):
        made.step(action)
    return made


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording") / "data"
    record(folder, "maze", "random", 20)
    return folder


def film(path: Path, *_: Any) -> None:
    with VideoWriter(path, 20) as video:
        for picture in NOISE:
            video.write(picture)


def data(path: Path, session: Session, *_: Any) -> None:
    made = ShardRecording(path, "maze", session.schema, 0)
    made.begin(NOISE[0], {})
    try:
        for picture in NOISE:
            made.step(session.schema.raw(session.schema.noop()), 0.0, False, picture, {})
    finally:
        made.close()


def part_of(path: Path, *_: Any) -> None:
    from train.checkpoints import save_part

    save_part({"state_dict": {}, "current_model_state": {}}, "part", {"weight": torch.rand(10_000)}, path)


WRITERS: dict[str, Callable[[Path, Session, Path], Any]] = {
    "film.mp4": film,
    "film.gif": film,
    "walk.dream": lambda path, session, _: saved.save(path, session.snapshot()),
    "log.npz": lambda path, session, _: session.dream.log.save(path, session.checkpoint.name, session.scene.steps),
    "sheet.png": lambda path, _, recording: save_picture(path, contact_sheet(Dataset(recording))),
    "card.json": lambda path, *_: card.write(path, json.dumps(NOISE[0].tolist())),
    "model.safetensors": lambda path, session, _: checkpoints.save(path, session.checkpoint),
    "part.ckpt": part_of,
    "data": data,
    "latents-00000.npy": lambda path, *_: write_shard(path.parent, 0, [{"latents": NOISE}]),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("room", [0, 200, 700])
def test_a_full_disk_leaves_nothing_behind(
    name: str, room: int, disk: Disk, session: Session, recording: Path, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "folder" / name
    disk.left = room
    with pytest.raises(UserError, match="disk is full") as error:
        WRITERS[name](path, session, recording)
    assert "\n" not in str(error.value) and not os.listdir(tmp_path)
    assert all(file.closed for file in disk.open)

    disk.left = 1 << 40  # the next one works
    WRITERS[name](path, session, recording)
    assert os.listdir(path.parent) == [name] and path.stat().st_size

    if name != "data":  # and one that stands there is replaced by a whole one only
        before, disk.left = path.read_bytes(), room
        with pytest.raises(UserError, match="disk is full"):
            WRITERS[name](path, session, recording)
        assert os.listdir(path.parent) == [name] and path.read_bytes() == before


def test_what_was_recorded_before_the_disk_was_full_stays(disk: Disk, session: Session, tmp_path: Path) -> None:
    made = ShardRecording(tmp_path / "data", "maze", session.schema, 0)
    made.begin(NOISE[0], {})
    with pytest.raises(UserError, match="disk is full"):
        for i in range(800):
            if made.steps == 400:
                disk.left = 2000
            made.step(session.schema.raw(session.schema.noop()), 0.0, False, NOISE[i % 40], {})
    assert made.broken
    with pytest.raises(UserError, match="disk is full"):  # no room for the index either: the shards are all it takes
        made.close()
    chunks = [Dataset(tmp_path / "data").read(ref) for ref in Dataset(tmp_path / "data").index]
    assert sum(len(chunk.actions) for chunk in chunks) == 256 and isinstance(chunks[0], Chunk)


def test_lines_are_added_whole(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    disk.left = 3
    with pytest.raises(UserError, match="disk is full"):
        append_line(path, "the first")
    assert not path.exists()
    disk.left = 14
    append_line(path, "the first")
    with pytest.raises(UserError, match="disk is full"):
        append_line(path, "the second")
    assert path.read_text() == "the first\n"
    disk.left = 100
    append_line(path, "the second")
    assert path.read_text() == "the first\nthe second\n"


@pytest.mark.parametrize(
    "name",
    ["12:30.gif", "take:1.mp4", "x:y.mp4", "http:a.gif", "pipe:1.mp4", "concat:a|b.mp4", "a%03d.mp4", "-.gif", "ä.mp4"],
)  # fmt: skip
def test_films_may_have_names_that_ffmpeg_reads_as_addresses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    monkeypatch.chdir(tmp_path)
    Path(name).write_text("older")
    with VideoWriter(name, 20) as video:
        video.write(NOISE[0])
        assert Path(name).read_text() == "older"
    assert os.listdir(tmp_path) == [name]
    with open(name, "rb") as file, av.open(file) as container:
        assert len(list(container.decode(video=0))) == 1


def test_what_pyav_raises_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    (tmp_path / "a.mp4").write_text("older")
    for error in (av.error.ExternalError(1, "no such encoder"), av.error.InvalidDataError(2, "odd pictures")):
        video = VideoWriter(tmp_path / "a.mp4", 20)
        monkeypatch.setattr(av, "open", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(UserError, match=rf"a\.mp4 .*{error.strerror}"):
            video.write(NOISE[0])
        video.close()
        with pytest.raises(UserError, match="is finished"):
            video.write(NOISE[0])
        monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_text() == "older"


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "deep" / "a.bin") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_names_that_are_long_or_no_files(tmp_path: Path) -> None:
    for length in (200, 255):
        name = "ü" * (length // 2 - 2) + ".bin"
        with whole(tmp_path / name) as file:
            file.write(b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
    with pytest.raises(UserError, match="name is too long"):
        Part(tmp_path / ("a" * 300)).finish()
    (tmp_path / "real").write_text("older")
    (tmp_path / "link").symlink_to("real")
    with whole(tmp_path / "link") as file:
        file.write(b"newer")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "newer"
    with pytest.raises(UserError, match="is a folder"):
        Part(tmp_path)
    with pytest.raises(UserError, match="device or a pipe"):
        Part(os.devnull)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written \(its folder is a file\)"):
        Part(tmp_path / "file" / "a.bin")
    with pytest.raises(UserError, match="no kind of picture"):
        save_picture(tmp_path / "a.pngg", Image.new("RGB", (4, 4)))
    assert not list(tmp_path.glob(".*"))
