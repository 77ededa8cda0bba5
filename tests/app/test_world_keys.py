"""The keys of the simulated world: their little languages, and who refuses them."""

from __future__ import annotations

import pytest

from app.config import RunConfig
from app.errors import ConfigError
from app.world_keys import DeviceClass, Region, device_classes, refuse_world, regions, world_keys_set


def config(**values: object) -> RunConfig:
    return RunConfig.from_run_config({key.replace("_", "-"): value for key, value in values.items()})


def test_device_classes_and_regions_are_read() -> None:
    assert device_classes("") == regions("") == ()
    assert device_classes("fast:0.3:0.5, slow : 0.2 : 4") == (
        DeviceClass("fast", 0.3, 0.5),
        DeviceClass("slow", 0.2, 4.0),
    )
    assert regions("europe:0.5:1,west coast:0.5:-8") == (Region("europe", 0.5, 1.0), Region("west coast", 0.5, -8.0))


def test_shares_may_add_up_to_one_in_floats() -> None:
    assert len(device_classes(",".join(f"c{number}:0.1:1" for number in range(10)))) == 10


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("fast", "NAME:SHARE:SLOWNESS"),
        ("fast:0.3", "NAME:SHARE:SLOWNESS"),
        ("fast:0.3:1:2", "NAME:SHARE:SLOWNESS"),
        ("fast:much:1", "NAME:SHARE:SLOWNESS"),
        (":0.3:1", "NAME:SHARE:SLOWNESS"),
        ("fast:0.3:1,", "NAME:SHARE:SLOWNESS"),
        ("fast:nan:1", "NAME:SHARE:SLOWNESS"),
        ("fast:0.3:inf", "NAME:SHARE:SLOWNESS"),
        ("fast:0.6:1,slow:0.5:2", "shares of at least 0 that add up to at most 1"),
        ("fast:-0.1:1", "shares of at least 0"),
        ("fast:0.3:1,fast:0.2:2", "with each name once"),
        ("fast:0.3:0", "a slowness above 0"),
        ("fast:0.3:-2", "a slowness above 0"),
    ],
)
def test_malformed_device_classes_are_refused_with_what_is_allowed(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(device_classes=text, example_seconds=1.0)
    assert str(caught.value).startswith(f"The key 'device-classes' is {text!r}, but must be NAME:SHARE:SLOWNESS")
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_malformed_regions_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'regions' is 'asia:0.5:20', but must be .*, with from -14 to 14 hours\."):
        config(regions="asia:0.5:20")


def test_the_keys_of_the_world_are_those_of_its_section() -> None:
    assert world_keys_set(config()) == {}
    assert world_keys_set(config(dropout=0.1, over_selection=1.2, clients_per_round=5)) == {"dropout": 0.1}


def test_only_a_simulation_of_ours_has_a_world() -> None:
    refuse_world(config(over_selection=1.2, clients_per_round=5))
    with pytest.raises(ConfigError) as caught:
        refuse_world(config(dropout=0.1, regions="here:1:0"))
    assert str(caught.value) == (
        "Only 'fedkeras simulate' has a simulated world, but the run sets 'regions' ('here:1:0'), 'dropout' (0.1): "
        "leave that out, or run it with 'fedkeras simulate'."
    )
