"""CONTRIBUTING.md: its map of the modules is that of the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import netmsg

PACKAGE = Path(netmsg.__file__).parent
CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"


def in_the_package() -> dict[str, str]:
    """The first paragraph of each module's docstring, by its path."""
    return {str(path.relative_to(PACKAGE)): " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
                                                      or "").split("\n\n")[0].split())
            for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")}


def in_the_map() -> dict[str, str]:
    found: dict[str, str] = {}
    text = CONTRIBUTING.read_text(encoding="utf-8").partition("## The map")[2]
    for heading, lines in re.findall(r"^\*\*netmsg/(\w*)/?\*\*:.*?\n\n(.*?)(?=^\*\*|\Z)", text, re.M | re.S):
        for name, said in re.findall(r"^- `(\w+\.py)`: (.*?)(?=^- |\Z)", lines, re.M | re.S):
            found[f"{heading}/{name}" if heading else name] = " ".join(said.split())
    return found


def test_the_map_has_every_module_with_what_it_says_of_itself() -> None:
    assert in_the_map() == in_the_package()
