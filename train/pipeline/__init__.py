"""From nothing to a model that plays: record, tokenizer, encode, geometry and all that belongs to episodic memory,
dynamics, distill, export, and what the result is worth.

    python -m train pipeline --config configs/maze/quick.yaml [--name N] [--minutes 30] [--data FOLDER FOLDER]

Everything lies under RUNS/NAME/. Run it again and it continues: what is complete is skipped, a stage with a longer
budget trains on, a stage whose configuration or whose input has changed starts anew (its old folder is kept beside it).
"""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    from train.pipeline.flags import parse
    from train.pipeline.run import Runner
    from train.stages.processes import check_alone

    check_alone()
    return Runner(parse(arguments), arguments).run()
