"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.pycode.parser import VariableCommentPicker

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import netmsg  # noqa: E402

project = "netmsg"
author = "the netmsg authors"
release = version = netmsg.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"netmsg {release}"

default_role = "py:obj"  # a name in single backticks is a link where there is something to link to
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}


def drop_generated_docstring(app, what, name, obj, options, lines):
    """Remove what Python itself writes as the docstring of a NamedTuple's field."""
    if len(lines) > 0 and re.fullmatch(r"Alias for field number \d+", lines[0]):
        lines.clear()


# Overloads are for type checkers. People want the one signature that has all arguments and their defaults.
VariableCommentPicker.is_overload = lambda self, decorators: False


def setup(app):
    app.connect("autodoc-process-docstring", drop_generated_docstring)
