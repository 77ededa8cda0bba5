"""The page of a sweep as a Jinja template, in the frame of all reports."""

SWEEP_PAGE = """\
{% extends "frame" %}
{% from "macros" import chart_card, legend, notes_list, pairs, swatch, tiles as figures %}

{% block source %}from the sweep's run directories{% endblock %}
{% block page %}
<header>
<p class="eyebrow">fedkeras · sweep report</p>
<h1>{{ title }}</h1>
<p class="subtitle">{{ subtitle }}</p>
{{ notes_list(notes) }}
{{ figures(tiles) }}
</header>
{% if pivot is not none %}
<h2>The table</h2>
<p class="lead">{{ metric[0]|upper }}{{ metric[1:] }} at the end{{ ", the median over %d seeds" % seeds if seeds > 1
else "" }}. As numbers in <code>table.csv</code>.</p>
<div class="one row">{{ chart_card(pivot.chart) }}</div>
<div class="one row"><div class="card scroll"><table class="numbers">
<thead><tr>{% for name in pivot.names %}<th scope="col" class="name">{{ name }}</th>{% endfor %}
{% for column in pivot.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in pivot.rows %}
<tr>{% for name in row["names"] %}<th scope="row">{{ name }}</th>{% endfor %}
{% for cell in row["cells"] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></div>
{% endif %}
{% if best is not none %}
<h2>The best configuration</h2>
<p class="lead">The best median of {{ metric }}{{ " over %d seeds" % seeds if seeds > 1 else "" }}. The command runs it
again, with the seed of the median run, and comes to the same model.</p>
{{ pairs(best, "wide") }}
<div class="command">{{ command }}</div>
{% endif %}
{% if curves %}
<h2>Learning</h2>
<p class="lead">The eight best in colour{{ ": the median over the seeds, and a band from the lowest to the highest" if
seeds > 1 else "" }}. A line that ends early is a configuration that was stopped.</p>
{{ legend(legend_keys) }}
<div class="{{ "three" if curves|length == 3 else "two" }} row">
{% for chart in curves %}{{ chart_card(chart, false) }}{% endfor %}</div>
{% endif %}
{% if slices %}
<h2>What each key does</h2>
<p class="lead">A dot per configuration that was run to its end{{ ", a line over its seeds" if seeds > 1 else "" }}; the
best one stands out.</p>
<div class="{{ "three" if slices|length in (3, 5, 6, 9) else "two" }}">
{% for chart in slices %}{{ chart_card(chart) }}{% endfor %}</div>
{% if together %}<div class="two row">{% for chart in together %}{{ chart_card(chart) }}{% endfor %}</div>{% endif %}
{% if parallel is not none %}<div class="one row">{{ chart_card(parallel) }}</div>{% endif %}
{% endif %}
<h2>All configurations</h2>
<p class="lead">From the best to the worst of those that were run to their end, then those that were stopped, by how far
they came. More in <code>results.csv</code>, each run in <code>runs.csv</code>.</p>
<div class="card scroll"><table class="numbers">
<thead><tr>{% for name in head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ swatch(row["key"]) }} {{ row.rank }}</th>
{% for cell in row.cells %}<td>{{ cell if cell != "" else "–" }}</td>{% endfor %}
<td><span class="state {{ row.state }}">{{ row.state }}</span></td></tr>
{% endfor %}
</tbody></table>
{% if left_out %}<p class="caption">{{ left_out }} more are in results.csv.</p>{% endif %}</div>
<h2>Config of all runs</h2>
<p class="lead">What the sweep file says of all of them; the rest are defaults.</p>
{{ pairs(fixed) }}
{% endblock %}
"""
