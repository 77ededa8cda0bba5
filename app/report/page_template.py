"""The page of one run or of several, as a Jinja template: a Python string, as Flower bundles carry no .html."""

PAGE = """\
{% extends "frame" %}
{% from "macros" import chart_card, curve_rows, legend, notes_list, pairs, tiles %}

{% macro run_sections(view) %}
{% if view.learning %}
<h2>Learning</h2>
<p class="lead">How good the model is after each round, and what that had cost by then.</p>
{{ curve_rows(view.learning) }}
{% endif %}
{% if view.clients %}
<h2>Clients</h2>
<p class="lead">The global model on each client's own test part: a good mean can hide clients whom it serves badly.</p>
<div class="two">{% for chart in view.clients %}{{ chart_card(chart) }}{% endfor %}</div>
{% endif %}
{% if view.labels or view.groups %}
<h2>Data</h2>
<p class="lead">{% if view.labels %}Who holds what: the stronger a cell, the larger the label's share of the client's \
examples.{% else %}Who could be asked, as the nodes say. The server does not know the clients' labels.{% endif %}</p>
{% if view.labels %}<div class="one">{{ chart_card(view.labels) }}</div>{% endif %}
{% if view.groups %}<div class="two row">
{% for title, rows in view.groups %}
<div class="card scroll"><table>
<thead><tr><th>{{ title }}</th><th>clients</th><th>training examples</th></tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endfor %}
</div>{% endif %}
{% endif %}
{% if view.rounds %}
<h2>Participation and time</h2>
<p class="lead">Whose updates counted, why others did not, and where the seconds went.</p>
<div class="two">{% for chart in view.rounds %}{{ chart_card(chart) }}{% endfor %}</div>
{% endif %}
{% if view.health %}
<h2>Health</h2>
<p class="lead">{{ view.health.lead }}</p>
{% if view.health.timeline %}<div class="one">{{ chart_card(view.health.timeline) }}</div>
<div class="card scroll row"><table>
<thead><tr><th scope="col">when</th><th scope="col">alert</th><th scope="col">what was found</th></tr></thead>
<tbody>{% for row in view.health.alerts %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if view.health.charts %}
<div class="two row">{% for chart in view.health.charts %}{{ chart_card(chart) }}{% endfor %}</div>
{% endif %}
{% endif %}
{% if view.communication %}
<h2>Communication</h2>
<p class="lead">Bytes of the messages as Flower sends them.</p>
<div class="two">{% for chart in view.communication %}{{ chart_card(chart) }}{% endfor %}</div>
{% endif %}
{% if view.privacy %}
<h2>Privacy</h2>
<p class="lead">{{ view.privacy.meaning }}</p>
{% if view.privacy.charts %}
<div class="two">{% for chart in view.privacy.charts %}{{ chart_card(chart) }}{% endfor %}</div>
{% endif %}
{% endif %}
{% if view.table_rows %}
<details class="card"><summary>All rounds as a table</summary>
<div class="scroll"><table class="numbers">
<thead><tr>{% for name in view.table_head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in view.table_rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% if view.table_left_out > 0 %}<p class="caption">The {{ view.table_left_out }} rounds before these are in
metrics.jsonl.</p>{% endif %}</div></details>
{% endif %}
<h2>Config</h2>
<p class="lead">As the run resolved it; <code>-c config.toml</code> with the file in the run directory repeats it.</p>
{{ pairs(view.config) }}
{% if view.versions %}
<h2>Versions and code</h2>
{{ pairs(view.versions, "wide") }}
{% endif %}
{% endmacro %}

{% macro run_head(view) %}
<p class="subtitle"><span class="state {{ view.state }}">{{ view.state }}</span>{{ view.subtitle }}</p>
{{ notes_list(view.notes) }}
{{ tiles(view.headline) }}
{% endmacro %}

{% block source %}from the run director{{ "y" if comparison is none else "ies" }}{% endblock %}
{% block page %}
<header>
<p class="eyebrow">fedkeras · federated learning report</p>
<h1>{{ title }}</h1>
{% if comparison is none %}{{ run_head(views[0]) }}{% endif %}
</header>
{% if comparison is none %}
{{ run_sections(views[0]) }}
{% else %}
<div class="card scroll"><table class="numbers">
<thead><tr><th scope="col">run</th>
{% for name in comparison.head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for figures in comparison.figures %}
<tr><th scope="row">{{ legend([comparison["keys"][loop.index0]]) }}</th>
{% for figure in figures %}<td>{{ figure.value }}<small>{{ figure.detail }}</small></td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<h2>What differs in the config</h2>
{% if comparison.differences %}
<div class="card scroll row"><table>
<thead><tr><th scope="col">key</th>
{% for key in comparison["keys"] %}<th scope="col">{{ legend([key]) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, values in comparison.differences %}
<tr><th scope="row">{{ name }}</th>
{% for value in values %}<td>{{ value if value != "" else '""' }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p class="lead">Nothing: the runs have the same config.</p>
{% endif %}
{% if comparison.rows %}
<h2>Learning</h2>
<p class="lead">The same measure of all runs, over rounds and over what they cost.</p>
{{ legend(comparison["keys"]) }}
{% for charts in comparison.rows %}
<div class="three row">{% for chart in charts %}{{ chart_card(chart, false) }}{% endfor %}</div>
{% endfor %}
{% endif %}
{% if comparison.conduct %}
<h2>Participation and time</h2>
<div class="two">{% for chart in comparison.conduct %}{{ chart_card(chart, false) }}{% endfor %}</div>
{% endif %}
<h2>Each run by itself</h2>
{% for view in views %}
<details class="card run"><summary>{{ view["key"].label }}</summary>
<div class="inside">{{ run_head(view) }}{{ run_sections(view) }}</div></details>
{% endfor %}
{% endif %}
{% endblock %}
"""
