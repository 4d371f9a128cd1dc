"""Names of weights and of configurations' entries: the ones that older files have, and the ones of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")

RENAMED = {"enter": "conv_in", "leave": "conv_out", "was": "observed", "next": "forecast", "fake": "fake_score"}
OF_TRANSFORMERS = {"leave": "code_logits", "leave_digits": "digit_logits"}
ENTRIES = {"exact": "two_step_inertia", "glance": "bottleneck_window", "growing": "unbounded"}


def present_names(weights: Mapping[str, Value]) -> dict[str, Value]:
    """Weights under the names of today, whatever the age of the file that they come from."""
    transformers = {
        name.removesuffix("leave_digits.weight") for name in weights if name.endswith("leave_digits.weight")
    }

    def present(name: str) -> str:
        parts = name.split(".")
        for i, part in enumerate(parts):
            trunk = "".join(f"{each}." for each in parts[:i])
            parts[i] = (OF_TRANSFORMERS if trunk in transformers else {}).get(part) or RENAMED.get(part, part)
        return ".".join(parts)

    return {present(name): value for name, value in weights.items()}


def present_entries(content: Any) -> Any:
    """A configuration, whole or a part, by its entries of today; "model.dynamics.glance" is an entry too."""
    if isinstance(content, list):
        return [present_entries(each) for each in content]
    if not isinstance(content, dict):
        return content
    return {present_entry(name): present_entries(value) for name, value in content.items()}


def present_entry(name: Any) -> Any:
    return ".".join(ENTRIES.get(part, part) for part in name.split(".")) if isinstance(name, str) else name
