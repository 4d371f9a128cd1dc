"""The bench of a GPU, in miniature on the processor."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tiny import tiny_checkpoint  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm.__main__ import main  # noqa: E402
from train.lab.bench import gpu  # noqa: E402
from train.lab.bench.launches import Launches  # noqa: E402
from train.lab.bench.parts import PARTS  # noqa: E402

TINY = """
tokenizer:
  config: configs/own/tokenizer.yaml
  values: {model.tokenizer.encoder_widths: [16, 16, 16], model.tokenizer.decoder_widths: [16, 16, 16],
           data.batch_size: 2}
dynamics:
  config: configs/own/dynamics.yaml
  values: {model.dynamics.widths: [16, 32], model.dynamics.blocks: [1, 1], model.dynamics.context_width: 32,
           model.dynamics.heads: 2, data.batch_size: 1, data.length: 16}
distill:
  config: configs/own/distill.yaml
  values: {data.batch_size: 1, data.length: 16, model.rollout: 2}
"""


@pytest.mark.slow
def test_all_parts_run_and_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "GRACE", 100.0)  # on a busy machine
    (tmp_path / "tiny.yaml").write_text(TINY)
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", recall=True, endless=True)
    out = tmp_path / "bench"
    run = ["bench", "gpu", "--device", "cpu", "--minutes", "0.3", "--out", str(out), "--checkpoint", str(path)]
    assert main([*run, "--sizes", str(tmp_path / "tiny.yaml")]) == 0
    rows = [json.loads(line) for line in (out / "bench.jsonl").read_text().splitlines()]
    assert {row["part"] for row in rows} == set(PARTS)
    for part in ("play", "training", "ladder", "encode", "views"):  # a busy machine has no time for the last ones
        of_part = [row for row in rows if row["part"] == part]
        assert any(row.get("frames_per_second", 0) > 0 or row.get("why") == "no time left" for row in of_part), part
    assert any(row.get("frames_per_second", 0) > 0 for row in rows)
    assert {row["what"] for row in rows if row["part"] == "training"} == {"tokenizer", "dynamics", "distill"}
    assert all("predicted" in row or "why" in row for row in rows if row["part"] == "ladder")
    report = (out / "bench.md").read_text()
    assert all(f"## {part}\n" in report for part in PARTS) and report in capsys.readouterr().out
    with pytest.raises(UserError, match="another --out"):
        main(run)


def test_a_part_that_hangs_or_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hangs(bench: Any) -> Any:
        yield {"a": 1.0}
        time.sleep(60)

    def fails(bench: Any) -> Any:
        raise ZeroDivisionError("by zero")
        yield

    monkeypatch.setattr(gpu, "GRACE", 0.0)
    monkeypatch.setitem(PARTS, "play", (hangs, 0.5))
    monkeypatch.setitem(PARTS, "encode", (fails, 0.5))
    assert (
        main(["bench", "gpu", "--device", "cpu", "--out", str(tmp_path), "--only", "play", "encode", "versions"]) == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["play", "play", "encode", "versions"]
    assert "broken off" in rows[1]["why"] and "by zero" in rows[2]["why"] and rows[3]["torch"]


def test_what_the_host_waits_for_is_counted() -> None:
    x = torch.arange(4.0)
    with Launches() as asked:
        y = x[1:] + 1
        y[y > 2]
        y.nonzero()
        bool((y > 0).any())
    assert asked.waits == ["index", "nonzero", "_local_scalar_dense"] and asked.operations == 7


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--only", "plai"], "did you mean play"), (["--sizes", "nowhere.yaml"], "nowhere.yaml: no such file"),
     (["--checkpoint", "nowhere"], "nowhere: no such file")],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(flags: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        main(["bench", "gpu", "--device", "cpu", "--out", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out").exists()
