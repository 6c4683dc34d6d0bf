"""The docs as a site: ``make docs`` builds it into docs/_build/html, with warnings as errors.

Every Markdown file of this folder is a page, and every notebook of docs/course. ``index.md`` has
the order; a page that none of its lists takes in is an error. Files of the project beside this
folder (CHANGELOG and so on) take the places of the pages that link to them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ral_env

ROOT = Path(__file__).parents[1]
project = "ral-env"
author = "the ral-env authors"
project_copyright = author
version = release = ral_env.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build"]
smartquotes = False  # --options stay as they are typed
html_theme = "furo"
html_title = f"ral-env {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]

nb_execution_mode = "off"  # notebooks are committed as they ran: `make notebooks`
myst_enable_extensions: list[str] = []  # formulas are plain text: no script from elsewhere
myst_heading_anchors = 3
# Links may lead to the code, which is no page.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures have them
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_ivar = True


def as_rest(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings may hold Markdown's headings, and lists without a blank line before them."""
    shown: list[str] = []
    for line in lines:
        if line.startswith("## "):
            shown += ["", f"**{line[3:]}**", ""]
            continue
        previous = shown[-1] if shown else ""
        starts = line.startswith("- ") and not previous.startswith(("- ", "  "))
        if previous and (starts or (previous.startswith("  - ") and not line.startswith(" "))):
            shown.append("")
        if previous.startswith("  ") and line and not line.startswith((" ", "- ")):
            shown.append("")
        shown.append(line)
    lines[:] = shown


INCLUDED = {  # pages that are files beside this folder
    "benchmarks": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}


def lead_to_pages(app: Any, page: str, source: list[str]) -> None:
    """Files beside this folder take their pages' places, and links to them lead there."""
    if page in INCLUDED:
        file = ROOT / INCLUDED[page]
        app.env.note_dependency(str(file), docname=page)
        source[0] = file.read_text(encoding="utf-8")
    text = re.sub(r"\]\((\.\./)*docs/", "](/", source[0])
    for name, file in INCLUDED.items():
        text = re.sub(rf"\]\((\.\./)*{re.escape(file)}", f"](/{name}.md", text)
    source[0] = text


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("source-read", lead_to_pages)
    app.connect("autodoc-process-docstring", as_rest, priority=400)  # before napoleon
