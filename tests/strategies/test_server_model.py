"""The server's half of a round: weights read once, steps by the composition's parts, and none to what is not finite."""

import numpy as np
import pytest

from strategies import registry, wire
from strategies.fixed_point import FixedPointSum
from strategies.server_model import ServerModel
from strategies.step_fold import StepFold
from strategies.updates import PartialSum, Update

START = {"kernel": np.array([[1.0, 2.0]], np.float32), "steps": np.array(7, np.int64)}


def folded(model: ServerModel, *delta: float) -> StepFold:
    step = StepFold.start(model.composition, model.states, {}, len(delta))
    step.take(Update("a", np.array(delta, np.float32), 3.0))
    return step


def model(rate: float = 1.0) -> ServerModel:
    return ServerModel(registry.build("fedavg", {"server-learning-rate": rate}))


def test_a_step_gives_the_record_of_the_new_weights_in_their_shapes_and_dtypes() -> None:
    server, record = model(0.5), wire.array_record(START)
    moved = server.step(folded(server, 1.0, -2.0, 4.0), server.weights_of(record), 1, 10)
    assert moved is not None and list(moved) == ["kernel", "steps"]
    kernel, steps = moved.to_numpy_ndarrays()
    assert kernel.tolist() == [[1.5, 1.0]] and (steps.dtype, int(steps)) == (np.int64, 9)


def test_what_was_just_written_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server, record = model(), wire.array_record(START)
    moved = server.step(folded(server, 1.0, 1.0, 1.0), server.weights_of(record), 1, 10)
    assert moved is not None
    monkeypatch.setattr(wire, "read_weights", lambda record: pytest.fail("read again"))
    known = server.weights_of(moved)
    assert known.flat.tolist() == [2.0, 3.0, 8.0] and not known.flat.flags.writeable
    monkeypatch.undo()
    read = wire.read_weights(wire.array_record(dict(zip(moved, moved.to_numpy_ndarrays(), strict=True))))
    assert read.layout == known.layout and read.flat.tobytes() == known.flat.tobytes()
    assert [array.tobytes() for array in read.arrays] == [array.tobytes() for array in known.arrays]


def test_the_server_goes_on_from_the_very_weights_that_clients_are_sent() -> None:
    """Also where these were rounded: else a run that reads its record again would go on from others."""
    server = model()
    record = wire.array_record(START | {"half": np.array([1.0], np.float16), "flag": np.array([True])})
    moved = server.step(folded(server, 0.1, 0.2, 1.3, 2.0**-14, -0.3), server.weights_of(record), 1, 10)
    assert moved is not None
    sent = wire.array_record(dict(zip(moved, moved.to_numpy_ndarrays(), strict=True)))
    assert server.weights_of(moved).flat.tolist() == wire.read_weights(sent).flat.tolist()
    assert server.weights_of(moved).flat.tolist()[2:] == [8.0, 1.0, 1.0]


def test_another_record_is_read() -> None:
    server = model()
    server.weights_of(wire.array_record(START))
    assert server.weights_of(wire.array_record({"w": np.ones(2, np.float32)})).flat.tolist() == [1.0, 1.0]


def test_a_step_to_what_is_not_finite_changes_nothing() -> None:
    server, record = model(1e38), wire.array_record(START)
    weights = server.weights_of(record)
    with np.errstate(over="ignore"):
        assert server.step(folded(server, 1e3, 0.0, 0.0), weights, 1, 10) is None
    assert server.committed == {}
    assert server.weights_of(record) is weights
    assert np.isfinite(weights.flat).all()


def test_it_remembers_when_each_clients_update_counted_last() -> None:
    server, record = model(), wire.array_record(START)
    for number, clients in ((1, "ab"), (4, "bc")):
        step = StepFold.start(server.composition, server.states, {}, 3)
        for client in clients:
            step.take(Update(client, np.ones(3, np.float32), 1.0))
        moved = server.step(step, server.weights_of(record), number, 10)
        assert moved is not None
        record = moved
    assert server.committed == {"a": 1, "b": 4, "c": 4}


def test_the_clients_of_a_partial_sum_count_too() -> None:
    server, record = model(), wire.array_record(START)
    total = FixedPointSum(3)
    total.add(np.ones(3, np.float32), 1.0)
    total.add(np.ones(3, np.float32), 2.0)
    step = StepFold.start(server.composition, server.states, {}, 3)
    step.take(PartialSum(total, {"a": 1.0, "b": 2.0}, {}))
    server.step(step, server.weights_of(record), 3, 10)
    assert server.committed == {"a": 3, "b": 3}
