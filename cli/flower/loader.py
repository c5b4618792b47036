"""Our templates beside Flower's: they extend its base, and its navigation gets our entry.

Flower's own files are read, not copied, so that a newer one is shown as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

HERE = Path(__file__).parent
TEMPLATES, STATIC = HERE / "templates", HERE / "static"

_NAVIGATION = '<ul class="app-nav navbar-nav">'
_ENTRY = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'cohorts' %} active{% end %}"
            href="{{ reverse_url('cohorts') }}"
            {% if active_tab == 'cohorts' %}aria-current="page"{% end %}>Cohorts</a>
        </li>"""
_HEAD = "</head>"
_STYLE = """<link href="{{ reverse_url('cohorts-static', 'cohorts.css') }}" rel="stylesheet">
  """
# By file: a place in it, and what stands there instead.
ADDED = {"navbar.html": (_NAVIGATION, _NAVIGATION + _ENTRY), "base.html": (_HEAD, _STYLE + _HEAD)}


class CohortsLoader(Loader):
    """A template of ours by its name, else Flower's."""

    def _create_template(self, name: str) -> Template:
        ours = TEMPLATES / name
        path = ours if ours.is_file() else Path(self.root) / name
        text = path.read_text(encoding="utf-8")
        if name in ADDED:
            place, put = ADDED[name]
            text = text.replace(place, put, 1)
        more: dict[str, Any] = {"name": name, "loader": self}
        return Template(text, **more)
