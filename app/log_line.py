"""One round as one line of text."""

from __future__ import annotations

import math

from app.units import human_bytes, human_seconds, percent
from strategies.privacy.spending import Spending
from strategies.records import RoundRecord


def log_line(record: RoundRecord, num_rounds: int) -> str:
    """Return what a person wants to know of a round: progress, losses, accuracies, who took part, cost.

    Parts that the round does not have are left out: round 0 has no clients, most rounds no federated evaluation.
    """
    parts = [f"round {record.round:{len(str(num_rounds))}d}/{num_rounds}", *_learning(record)]
    if record.round == 0 and not record.selected:
        parts.insert(1, "initial model")
    if record.selected or record.banned:
        parts.append(_clients(record))
    if record.skipped:
        parts.append("SKIPPED, the model stays")
    if record.bytes_down or record.bytes_up:
        parts.append(f"{human_bytes(record.bytes_down)} down, {human_bytes(record.bytes_up)} up")
    if record.staleness is not None:
        parts.append(f"staleness {record.staleness['mean']:.1f}, at most {record.staleness['largest']:g}")
    if record.privacy is not None:
        parts.append(_privacy(record.privacy))
    if record.simulated_seconds is not None:
        parts.append(f"{human_seconds(record.simulated_seconds)} simulated")
    if "total" in record.seconds:
        parts.append(human_seconds(record.seconds["total"]))
    return " | ".join(parts)


def _learning(record: RoundRecord) -> list[str]:
    parts = []
    if "loss" in record.train:
        parts.append(f"train loss {record.train['loss']:.4f}")
    if record.central is not None and "accuracy" in record.central:
        parts.append(f"central accuracy {percent(record.central['accuracy'])}")
    if record.federated is not None:
        scores = record.federated.summary()
        mean, worst = percent(scores["accuracy"]), percent(scores["accuracy-worst-10"])
        parts.append(f"clients {mean}, worst tenth {worst}")
    return parts


def _privacy(spent: Spending) -> str:
    if not math.isfinite(spent.epsilon):
        return "NO PRIVACY"
    text = f"epsilon {spent.epsilon_in_words} by {spent.accountant}"
    return f"{text} ({spent.caveat})" if spent.caveat else text


def _clients(record: RoundRecord) -> str:
    text = f"{len(record.accepted)}/{len(record.selected)} clients"
    reasons = [f"{count} {reason}" for reason, count in sorted(record.rejected.items()) if count]
    known = [f"rejected: {', '.join(reasons)}"] if reasons else []
    known += [f"{record.banned} banned"] if record.banned else []
    return f"{text} ({'; '.join(known)})" if known else text
