"""What all pages share: the frame, and the macros that their parts are made of; filled by `render_page`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jinja2

from app.report.page_style import STYLE

MACROS = """\
{% macro swatch(key) %}
{% if key.kind == "ramp" %}
<span class="ramp" style="background: linear-gradient(90deg, transparent, {{ key.css }})"></span>
{% else %}
<svg class="swatch" width="22" height="12" aria-hidden="true">
{% if key.kind == "line" %}
<line x1="1" y1="6" x2="21" y2="6" stroke-width="2.5" style="stroke: {{ key.css }}" stroke-dasharray="{{ key.dash }}"/>
{% else %}
<rect x="4" y="0" width="14" height="12" rx="3"
 style="fill: {{ key.css }}; fill-opacity: {{ '0.35' if key.kind == 'band' else '1' }}"/>
{% endif %}
</svg>
{% endif %}
{% endmacro %}

{% macro legend(keys) %}
<ul class="legend">
{% for key in keys %}<li>{{ swatch(key) }}{{ key.label }}</li>{% endfor %}
</ul>
{% endmacro %}

{% macro chart_card(chart, with_legend=true) %}
<figure class="card">
<figcaption><h3>{{ chart.title }}</h3>
{% if with_legend and chart.legend %}{{ legend(chart.legend) }}{% endif %}</figcaption>
<div class="plot" role="img" aria-label="{{ chart.alt }}">{{ chart.svg }}</div>
{% if chart.caption %}<p class="caption">{{ chart.caption }}</p>{% endif %}
</figure>
{% endmacro %}

{% macro pairs(rows, kind="") %}
<dl class="card pairs {{ kind }}">
{% for name, value in rows %}<div><dt>{{ name }}</dt><dd>{{ value if value != "" else '""' }}</dd></div>{% endfor %}
</dl>
{% endmacro %}

{% macro curve_rows(rows) %}
{{ legend(rows[0][0].legend) }}
{% for charts in rows %}
<div class="three row">{% for chart in charts %}{{ chart_card(chart, false) }}{% endfor %}</div>
{% endfor %}
{% endmacro %}

{% macro notes_list(notes) %}
{% if notes %}
<ul class="notes" role="note">{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{% endmacro %}

{% macro tiles(figures) %}
<dl class="tiles">
{% for figure in figures %}
<div class="tile"><dt>{{ figure.label }}</dt><dd class="value">{{ figure.value }}</dd>
<dd class="detail">{{ figure.detail }}</dd></div>
{% endfor %}
</dl>
{% endmacro %}

"""

FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }} – fedkeras</title>
<style>{{ style|safe }}</style>
</head>
<body>
<main>
{% block page %}{% endblock %}
<footer>Written {{ written }} {% block source %}{% endblock %}. This page needs no
network: keep it, mail it, print it.</footer>
</main>
</body>
</html>
"""


def render_page(template: str, title: str, **values: Any) -> str:
    """Return the page that a template, which extends "frame", makes of values. All values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"frame": FRAME, "macros": MACROS}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.from_string(template).render(style=STYLE, written=written, title=title, **values)
