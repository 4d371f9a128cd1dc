"""Hooks of MkDocs: CONTRIBUTING.md and the model cards in checkpoints/ become part of the site.

A page links to them by their path in the repository (`../../checkpoints/maze.md`), so that the link works on a code
host as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(\]\()(?:\.\./)+(checkpoints/)")


def on_files(files: Files, config: Any) -> Files:
    for path in sorted((ROOT / "checkpoints").rglob("*")):
        if path.suffix in (".md", ".png"):
            place = path.relative_to(ROOT).as_posix()
            file = File.generated(config, place, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(file)
    content = (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "contributing.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """On the site checkpoints/ lies beside the pages, one folder lower than in the repository."""
    return LINK.sub(rf"\1{'../' * page.file.src_uri.count('/')}\2", markdown)
