"""The page's style sheet: light and dark, no web fonts, readable when printed."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f5f1; --card: #fffffd; --line: #e3e1d9; --ink: #16150f; --ink-soft: #3d3c3a; --muted: #6f6e69;
  --grid: #ebe9e2; --axis: #c3c2b7; --accent: #1f62b3;
  --good: #14734a; --good-back: #e0f3e8; --warn: #8a5a00; --warn-back: #fdf1d8; --bad: #b02a2a; --bad-back: #fbe6e4;
  --series-1: #2a78d6; --series-2: #eb6834; --series-3: #1baf7a; --series-4: #eda100;
  --series-5: #d8619a; --series-6: #6a5acd; --series-7: #7c8a1c; --series-8: #d03b3b;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121210; --card: #1b1b19; --line: #31302c; --ink: #f4f3ee; --ink-soft: #cfcdc5; --muted: #a09e95;
    --grid: #2b2a27; --axis: #4a4944; --accent: #7db3f2;
    --good: #6fd3a4; --good-back: #15301f; --warn: #f0c060; --warn-back: #33270d; --bad: #f39a94; --bad-back: #3a1917;
    --series-1: #4a94ea; --series-2: #e8743f; --series-3: #25b583; --series-4: #d99a12;
    --series-5: #dc6fa4; --series-6: #9388ea; --series-7: #a0ae3a; --series-8: #e66767;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 64px; }
header { margin-bottom: 24px; }
.eyebrow { color: var(--muted); font-size: 13px; letter-spacing: .02em; margin: 0 0 4px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 4px; letter-spacing: -.005em; }
h3 { font-size: 14px; font-weight: 600; margin: 0; }
p { margin: 4px 0; }
.lead { color: var(--muted); margin: 0 0 12px; max-width: 75ch; }
.subtitle { color: var(--ink-soft); margin: 8px 0 0; display: flex; gap: 10px; align-items: center; flex-wrap: wrap; }
.state { font-size: 13px; font-weight: 600; padding: 1px 10px; border-radius: 99px; background: var(--warn-back);
  color: var(--warn); }
.state.completed { background: var(--good-back); color: var(--good); }
.state.failed { background: var(--bad-back); color: var(--bad); }
.notes { margin: 16px 0; padding: 10px 16px 10px 34px; background: var(--warn-back); color: var(--ink);
  border-radius: 10px; border: 1px solid color-mix(in srgb, var(--warn) 25%, transparent); }
.notes li { margin: 2px 0; overflow-wrap: anywhere; }
.notes li::marker { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin: 20px 0 0; padding: 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile { padding: 14px 16px; min-width: 0; }
.tile dt { color: var(--muted); font-size: 13px; }
.tile dd { margin: 0; }
.tile .value { font-size: 26px; line-height: 1.25; font-weight: 650; letter-spacing: -.015em;
  font-variant-numeric: tabular-nums; }
.tile .detail { color: var(--muted); font-size: 13px; min-height: 1.5em; }
.three, .two, .one { display: grid; gap: 12px; }
.three { grid-template-columns: repeat(3, 1fr); }
.two { grid-template-columns: repeat(2, 1fr); }
.row { margin-top: 12px; }
figure.card { margin: 0; padding: 14px 14px 8px; min-width: 0; display: flex; flex-direction: column; }
.plot { margin-top: auto; }
.plot svg { display: block; width: 100%; height: auto; overflow: visible; }
.plot svg text { font-family: var(--font) !important; }
figcaption { display: grid; gap: 4px; margin-bottom: 8px; }
.caption { color: var(--muted); font-size: 13px; margin: 4px 0 2px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; list-style: none; margin: 0; padding: 0; font-size: 13px;
  color: var(--ink-soft); }
.legend li { display: inline-flex; gap: 6px; align-items: center; overflow-wrap: anywhere; }
.swatch { flex: none; }
.ramp { width: 64px; height: 12px; border-radius: 3px; border: 1px solid var(--line); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; color: var(--muted); white-space: nowrap; }
td { overflow-wrap: anywhere; }
tbody th { color: var(--ink); }
td small { display: block; color: var(--muted); font-size: 12px; }
.numbers td { text-align: right; white-space: nowrap; }
.numbers thead th { text-align: right; white-space: normal; vertical-align: bottom; }
.numbers td small { white-space: normal; }
.numbers .legend { min-width: 180px; }
.numbers th:first-child, .numbers td:first-child, .numbers thead th.name { text-align: left; }
.pairs { columns: 3; column-gap: 32px; padding: 10px 16px; margin: 0; font-size: 13.5px; }
.pairs.wide { columns: 2; }
.pairs div { display: flex; justify-content: space-between; gap: 16px; padding: 4px 0; break-inside: avoid;
  border-bottom: 1px solid var(--line); }
.pairs dt { color: var(--muted); white-space: nowrap; }
.pairs dd { margin: 0; font-family: var(--mono); font-size: 12.5px; text-align: right; overflow-wrap: anywhere; }
.command { font-family: var(--mono); font-size: 13px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 12px 16px; margin: 12px 0 0; overflow-x: auto; white-space: pre; }
tr.best > * { background: var(--good-back); }
details { margin-top: 12px; }
details > summary { cursor: pointer; padding: 10px 16px; font-weight: 600; }
details > summary:focus-visible { outline: 2px solid var(--accent); border-radius: 12px; }
details.run > .inside { padding: 0 16px 20px; }
.inside h2 { font-size: 16px; margin-top: 28px; }
footer { margin-top: 48px; color: var(--muted); font-size: 13px; }
@media (max-width: 1000px) { .tiles, .two, .three { grid-template-columns: repeat(2, 1fr); } .pairs { columns: 2; } }
@media (max-width: 680px) {
  .one .plot { overflow-x: auto; }
  .one .plot svg { min-width: 760px; }
  main { padding: 24px 14px; }
  .three, .two { grid-template-columns: 1fr; }
  .pairs, .pairs.wide { columns: 1; }
  .tile .value { font-size: 21px; }
}
@media print { body { background: none; } .card, .tile { break-inside: avoid; } }
"""
