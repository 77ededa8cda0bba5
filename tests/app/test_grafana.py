"""The dashboard is one that Grafana knows every key of: it is read by the models of Grafana's own SDK.

They are generated from Grafana's schemas. They ignore the keys that they do not know and take any value, so a dashboard
is written again and compared, and each value is held against what its field is declared to be.
"""

from __future__ import annotations

import copy
import json
import re
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.app.promql import parse, selectors
from tests.app.test_prometheus_files import DEPLOY, exported

GRAFANA = DEPLOY / "grafana"
MODELS = "grafana_foundation_sdk.models."


def dashboard() -> dict[str, Any]:
    return json.loads((GRAFANA / "dashboard.json").read_text())  # type: ignore[no-any-return]


def mistakes(board: dict[str, Any]) -> list[str]:
    """What Grafana would not understand."""
    register_default_plugins()
    model = Dashboard.from_json(copy.deepcopy(board))
    return [*lost(board, json.loads(JSONEncoder().encode(model)), ""), *misfits(model, "")]


def lost(given: Any, kept: Any, path: str) -> Iterator[str]:
    """Yield where what was read is not what was given; defaults may have come on top."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from lost(value, kept[key], f"{path}/{key}") if key in kept else [f"{path}/{key} is not known"]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for place, pair in enumerate(zip(given, kept, strict=True)):
            yield from lost(*pair, f"{path}/{place}")
    elif given != kept:
        yield f"{path} became {kept!r}"


def misfits(value: Any, path: str) -> Iterator[str]:
    """Yield the fields of models that hold something else than they are declared to."""
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from misfits(item, f"{path}/{place}")
    elif type(value).__module__.startswith(MODELS) and not isinstance(value, Enum):
        for name, kind in typing.get_type_hints(type(value)).items():
            held = getattr(value, name)
            if not fits(held, kind):
                yield f"{path}/{name} is {held!r}, not {kind}"
            yield from misfits(held, f"{path}/{name}")


def fits(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    if kind is Any or kind is object:
        return True
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if issubclass(kind, Enum):
        return value in [member.value for member in kind]
    return isinstance(value, kind)


def test_grafana_knows_every_key_and_value_of_the_dashboard() -> None:
    assert mistakes(dashboard()) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("panels/0/fieldConfg", {}),
        ("panels/0/gridPos/h", "4"),
        ("panels/0/targets/0/instnt", True),
        ("panels/0/fieldConfig/defaults/max", "one"),
        ("panels/7/fieldConfig/defaults/custom", {"drawStyl": "line"}),
        ("panels/7/options", {"legend": {}, "tooltips": {}}),
        ("templating/list/1/refresh", 7),
        ("templating/list/0/type", "data-source"),
        ("schemaVersion", "39"),
        ("tags", "fedkeras"),
    ],
)
def test_it_would_tell_of_a_mistake(place: str, value: Any) -> None:
    board: Any = dashboard()
    *way, last = place.split("/")
    inside = board
    for step in way:
        inside = inside[int(step) if isinstance(inside, list) else step]
    inside[last] = value
    assert mistakes(board)


def test_legends_and_variables_name_labels_that_there_are() -> None:
    board, known = dashboard(), exported()
    for panel in board["panels"]:
        for target in panel["targets"]:
            found = list(selectors(parse(target["expr"].replace("$instance", "here"))))
            labels = set.union(*(known[selector.name] for selector in found))
            assert {*re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"])} <= labels, target
    (query,) = [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()  # type: ignore[union-attr]
    assert label in known[name]


def test_it_is_provisioned_from_where_it_is_mounted() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/fedkeras.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/fedkeras.yaml").read_text())["datasources"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./grafana/dashboard.json"].startswith(provider["options"]["path"] + "/")
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["type"] == "prometheus" and any(
        source["url"] == f"http://{argument.removeprefix('--web.listen-address=')}"
        for argument in services["prometheus"]["command"]
    )
