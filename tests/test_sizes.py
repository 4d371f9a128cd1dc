"""The ladder of sizes: what each costs is counted without computing it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from game_wm.__main__ import main  # noqa: E402
from train import locate  # noqa: E402
from train.lab.sizes.ladder import FRAMES, count_frame, module_of, read_rung  # noqa: E402
from train.lab.sizes.roofline import MACHINES, Cost, measured, saved_bytes  # noqa: E402

NAMED = {"15m": 15e6, "50m": 50e6, "300m": 300e6, "1b": 1e9}


def test_arithmetic_and_traffic_are_counted_on_the_meta_device() -> None:
    x, weight = torch.empty(64, 32, device="meta"), torch.empty(16, 32, device="meta", requires_grad=True)
    with Cost() as cost:
        F.linear(x, weight).sum().backward()
    assert cost.flops == 2 * (2 * 64 * 32 * 16)  # forward, and the gradient of the weight
    with Cost() as cost:
        x.t().unsqueeze(0)
        torch.nn.functional.silu(x)
    assert [(each.kind, each.bytes) for each in cost.operations] == [("elementwise", 2 * 2 * 64 * 32)]
    slow, fast = (cost.seconds(MACHINES[name]) for name in ("T4", "H200"))
    assert slow >= fast > 0


def test_attention_is_one_operation_that_keeps_no_scores() -> None:
    q = torch.empty(2, 4, 100, 16, device="meta", requires_grad=True)
    with Cost() as cost:
        kept = saved_bytes(lambda: F.scaled_dot_product_attention(q, q, q), set())
    assert len(cost.operations) == 1 and cost.flops == 2 * 2 * 2 * 4 * 100 * 100 * 16
    assert kept == 2 * q.numel()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_each_size_has_the_parameters_of_its_name_at_every_size_of_frames(name: str) -> None:
    rung = read_rung(Path(locate(f"configs/sizes/{name}.yaml")))
    for frame in FRAMES:
        parameters, cost, state = count_frame(rung, frame)
        assert parameters == pytest.approx(NAMED[name], rel=0.05) and cost.flops > 1e8 and state > 1 << 20
    with torch.device("meta"):
        tokenizer = module_of(rung, "tokenizer", (640, 360)).tokenizer
        assert tokenizer.config.grid == (23, 40) and tokenizer.config.padding == (8, 0)


@pytest.mark.slow
def test_the_ladder_is_printed_with_what_was_measured_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"part": "ladder", "size": "15m", "frame": "64x64", "machine": "Abacus"}
    lines = [line | {"what": "dynamics", "frames_per_second": 12345.6}, line | {"what": "play", "why": "no time left"}]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    run = ["sizes", "--sizes", "15m", "--frames", "64x64", "--machines", "T4", "H200", "--bench", str(tmp_path)]
    assert main(run) == 0
    out = capsys.readouterr().out
    assert "15.0 M parameters" in out and "predicted, H200" in out and "predicted, T4" in out
    assert next(row for row in out.splitlines() if "Abacus" in row).split()[2:] == ["–", "–", "12,346", "–"]
    assert main([*run, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["predicted"]["T4"]["dynamics"] < row["predicted"]["H200"]["dynamics"]
    assert set(row["training_gib"]) == {"tokenizer", "dynamics", "distill"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--sizes", "15"], "did you mean 15m"), (["--frames", "64x65"], "did you mean 64x64"),
     (["--machines", "H20"], "did you mean H200"), (["--bench", "nowhere"], "nowhere/bench.jsonl")],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(flags: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(["sizes", *flags])


def test_this_machine_is_measured() -> None:
    here = measured(torch.device("cpu"))
    assert min(here.matrix, here.convolution, here.elementwise, here.stream, here.kernel) > 0
