"""How the clients differ: accuracy on their own test parts, and what labels each of them holds."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from app.report.figure import PER_CENT, ROUND_STEPS, SERIES, Chart, Key, drawing
from app.report.reading import Population, Run
from app.units import percent
from strategies.records import WORST_SHARE

WIDE = (564.0, 300.0)
FULL_WIDTH = 1150.0
MAX_HEIGHT = 420.0
MAX_ROWS = 200
_NAMED_ROWS = 30
_LABEL_LENGTH = 14
_HEAT = "#2f7fe0"


def fan_chart(name: str, run: Run) -> Chart | None:
    """Draw the deciles of the clients' accuracy over the rounds, as nested bands around the median."""
    evaluated = [record for record in run.rounds if record.deciles is not None]
    if not evaluated:
        return None
    x = np.array([record.number for record in evaluated], dtype=np.float64)
    deciles = np.array([record.deciles for record in evaluated]).T
    worst = np.array([(record.federated or {}).get("accuracy-worst-10", np.nan) for record in evaluated])
    if len(x) == 1:
        x = np.array([x[0] - 0.4, x[0] + 0.4])
        deciles, worst = np.repeat(deciles, 2, axis=1), np.repeat(worst, 2)
    with drawing(name, *WIDE) as canvas:
        axes = canvas.axes
        for low, opacity in enumerate((0.10, 0.13, 0.17, 0.21, 0.26)):
            axes.fill_between(x, deciles[low], deciles[10 - low], color=SERIES[0], alpha=opacity, linewidth=0)
        axes.plot(x, deciles[5], color=SERIES[0])
        axes.plot(x, worst, color=SERIES[1])
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=ROUND_STEPS, min_n_ticks=1))
        axes.yaxis.set_major_formatter(PER_CENT)
        axes.set_ylim(
            max(0.0, np.nanmin(deciles, initial=1.0) - 0.03), min(1.0, np.nanmax(deciles, initial=0.0) + 0.03)
        )
    last = evaluated[-1]
    spread = ", ".join(percent(value) for value in last.deciles or ())
    alt = f"Deciles of the clients' accuracy over {len(evaluated)} evaluations; in round {last.number}: {spread}."
    legend = (
        Key("median", SERIES[0]),
        Key("deciles, from lowest to highest client", SERIES[0], kind="band"),
        Key("mean of the worst tenth of clients", SERIES[1]),
    )
    return Chart("Accuracy of the clients over rounds", alt, canvas.svg, legend)


def histogram_chart(name: str, run: Run) -> Chart | None:
    """Count the clients by accuracy in the last federated evaluation; the worst tenth stand out."""
    last = run.evaluations[-1] if run.evaluations else None
    if last is None or not np.isfinite(last.accuracies).any():
        return None
    accuracies = np.sort(last.accuracies[np.isfinite(last.accuracies)])
    cut = max(1, int(np.ceil(WORST_SHARE * len(accuracies))))
    edges = np.linspace(0.0, 1.0, 21)
    worst, others = (np.histogram(part, edges)[0] for part in (accuracies[:cut], accuracies[cut:]))
    with drawing(name, *WIDE) as canvas:
        axes = canvas.axes
        axes.bar(edges[:-1], worst, width=0.046, align="edge", color=SERIES[1], linewidth=0)
        axes.bar(edges[:-1], others, width=0.046, align="edge", bottom=worst, color=SERIES[0], linewidth=0)
        axes.set_xlabel("accuracy on the client's own test part")
        axes.set_ylabel("clients")
        axes.grid(axis="x", visible=False)
        axes.set_xlim(0, 1)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(PER_CENT)
    alt = (
        f"Histogram of the accuracy of {len(accuracies)} clients in round {last.number}: lowest "
        f"{percent(accuracies[0])}, median {percent(float(np.median(accuracies)))}, highest {percent(accuracies[-1])}."
    )
    legend = (Key("worst tenth of clients", SERIES[1], kind="bar"), Key("other clients", SERIES[0], kind="bar"))
    return Chart(f"Clients by accuracy, round {last.number}", alt, canvas.svg, legend)


def label_chart(name: str, population: Population | None) -> Chart | None:
    """Draw the share of each label within each client as a heat map, with the clients' sizes beside it."""
    if population is None or population.label_counts is None or not population.label_counts.size:
        return None
    counts, labels, caption = heat_rows(population)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    with drawing(name, FULL_WIDTH, min(MAX_HEIGHT, 100.0 + 24.0 * len(counts))) as canvas:
        canvas.axes.remove()
        heat, sizes = canvas.figure.subplots(1, 2, sharey=True, width_ratios=[5, 1])
        # One colour of growing opacity: full cells stand out on a light page and on a dark one.
        picture = np.concatenate([np.broadcast_to(to_rgb(_HEAT), (*shares.shape, 3)), shares[..., None] ** 0.7], axis=2)
        heat.imshow(picture, aspect="auto", interpolation="none")
        heat.grid(visible=False)
        heat.set_xlabel("label")
        heat.set_ylabel("client" if labels else "clients, sorted by their most frequent label")
        heat.set_yticks(range(len(labels)), labels) if labels else heat.set_yticks([])
        heat.xaxis.set_major_locator(MaxNLocator(min(20, shares.shape[1]), integer=True))
        sizes.barh(range(len(totals)), totals[:, 0], height=0.8 if labels else 1.0, color=SERIES[0], linewidth=0)
        sizes.set_xlabel("training examples")
        sizes.grid(axis="y", visible=False)
        sizes.xaxis.set_major_locator(MaxNLocator(3))
        sizes.tick_params(axis="y", labelleft=False)
    legend = (Key("0 to 100 % of the client's examples", SERIES[0], kind="ramp"),)
    return Chart("Labels of each client", _labels_in_words(population.label_counts), canvas.svg, legend, caption)


def heat_rows(population: Population) -> tuple[np.ndarray, list[str], str]:
    """Return the rows of the heat map (float64 [rows, classes], mean counts), their names if few, and a caption.

    Up to 30 clients keep their order and name. More are sorted by their most frequent label, then by its share, so that
    what they have in common can be seen; and more than 200 are put in at most 200 bins of neighbours.
    """
    counts = np.asarray(population.label_counts, dtype=np.float64)
    if len(counts) <= _NAMED_ROWS:
        return counts, [_short(client) for client in population.clients], ""
    top = counts.argmax(axis=1)
    share = counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1.0)
    counts = counts[np.lexsort((-share, top))]
    if len(counts) <= MAX_ROWS:
        return counts, [], ""
    bins = np.array_split(counts, MAX_ROWS)
    sizes = sorted({len(part) for part in bins})
    many = " or ".join(str(size) for size in sizes)
    caption = f"{len(counts)} clients in {MAX_ROWS} rows: each row is the mean of {many} clients that are alike."
    return np.stack([part.mean(axis=0) for part in bins]), [], caption


def _labels_in_words(counts: np.ndarray) -> str:
    held = (counts > 0).sum(axis=1)
    totals = counts.sum(axis=1)
    return (
        f"Heat map of {counts.shape[1]} labels on {len(counts)} clients: a client holds {held.min()} to {held.max()} "
        f"labels (median {np.median(held):g}) and {totals.min()} to {totals.max()} training examples."
    )


def _short(client: str) -> str:
    return client if len(client) <= _LABEL_LENGTH else client[: _LABEL_LENGTH - 1] + "…"
