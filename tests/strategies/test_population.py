"""The population: who can run where, longest first, the same for any order in which nodes and clients were learnt."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.errors import StrategyError
from strategies.population import ClientInfo, Population


def people(**sizes: int | None) -> list[ClientInfo]:
    return [ClientInfo(name, size) for name, size in sizes.items()]


def test_clients_are_sorted_by_id() -> None:
    population = Population(people(b=1, a=2), [5])
    assert [client.id for client in population.clients] == ["a", "b"]
    assert len(population) == 2
    assert population["a"].num_examples == 2
    with pytest.raises(StrategyError, match="no client 'c'"):
        population["c"]


def test_longest_first_by_hand() -> None:
    population = Population(people(a=7, b=6, c=5, d=4, e=3), [10, 20])
    # a -> 10 (7), b -> 20 (6), c -> 20 (11), d -> 10 (11), e: a tie, the smaller node id
    assert population.assign(["e", "d", "c", "b", "a"]) == {10: ["a", "d", "e"], 20: ["b", "c"]}


def test_clients_run_where_they_are_hosted_and_free_ones_fill_up() -> None:
    population = Population(people(a=9, b=1, c=1, d=8), [1, 2], {"a": [2], "b": [2], "d": [1, 2]})
    # bound: a -> 2 (9), d -> 1 (8), b -> 2 (10); free: c -> 1 (9)
    assert population.assign(["a", "b", "c", "d"]) == {1: ["d", "c"], 2: ["a", "b"]}


def test_nodes_without_work_do_not_appear() -> None:
    assert Population(people(a=1), [1, 2, 3]).assign(["a"]) == {1: ["a"]}
    assert Population(people(a=1), [1]).assign([]) == {}


def test_unknown_sizes_count_as_the_average() -> None:
    population = Population(people(a=10, b=None, c=4), [1, 2])
    # a 10 -> 1, b (7) -> 2, c 4 -> 2
    assert population.assign(["a", "b", "c"]) == {1: ["a"], 2: ["b", "c"]}
    nothing_known = Population(people(a=None, b=None), [1, 2])
    assert nothing_known.assign(["a", "b"]) == {1: ["a"], 2: ["b"]}


def test_nodes_that_have_work_already_get_less() -> None:
    population = Population(people(a=5, b=5, c=5), [1, 2])
    # a 5 -> 2 (5 < 12), b -> 2 (5 < 12), c -> 2 (10 < 12)
    assert population.assign(["a", "b", "c"], {1: 12.0}) == {2: ["a", "b", "c"]}
    assert population.assign(["a"], {1: 1.0, 7: 0.0}) == {2: ["a"]}  # node 7 is gone


def test_what_clients_said_to_have() -> None:
    population = Population(people(a=10, b=None, c=0), [1])
    assert population.described(["b", "a", "c"]) == {"a": 10, "c": 0}
    assert population.loads(["b", "a"]) == {"b": 10.0, "a": 10.0}
    assert population.ids == ("a", "b", "c")
    assert "a" in population and "z" not in population


def test_messages_hold_at_most_so_many_clients() -> None:
    population = Population(people(a=5, b=4, c=3, d=2, e=1), [1])
    cohort = ["a", "b", "c", "d", "e"]
    assert population.messages(cohort, 2) == [(1, ["a", "b"]), (1, ["c", "d"]), (1, ["e"])]
    assert population.messages(cohort) == [(1, cohort)]
    assert len(population.messages(cohort, 1)) == 5
    with pytest.raises(StrategyError, match="'clients-per-message' is -1"):
        population.messages(cohort, -1)


@pytest.mark.parametrize(
    ("clients", "nodes", "hosts", "sentence"),
    [
        (people(a=1) * 2, [1], {}, "'a' is given twice"),
        (people(a=1), [], {}, "1 clients but no node"),
        (people(a=1), [1], {"a": [2]}, "'a' must be hosted by some of the connected nodes"),
        (people(a=1), [1], {"a": []}, "'a' must be hosted by some of the connected nodes"),
    ],
)
def test_impossible_populations_are_refused(clients: list, nodes: list, hosts: dict, sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        Population(clients, nodes, hosts)


def test_a_cohort_holds_each_known_client_once() -> None:
    population = Population(people(a=1), [1])
    with pytest.raises(StrategyError, match="each client once"):
        population.assign(["a", "a"])
    with pytest.raises(StrategyError, match="no client 'z'"):
        population.assign(["z"])


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 50), min_size=1, max_size=12),
    st.sets(st.integers(-5, 5), min_size=1, max_size=4),
    st.data(),
)
def test_every_client_is_placed_once_where_it_can_run(sizes: dict, nodes: set, data: st.DataObject) -> None:
    clients = [ClientInfo(name, size) for name, size in sizes.items()]
    hosts = data.draw(
        st.dictionaries(st.sampled_from(sorted(sizes)), st.sets(st.sampled_from(sorted(nodes)), min_size=1))
    )
    population = Population(clients, nodes, {name: list(on) for name, on in hosts.items()})
    assignment = population.assign(list(sizes))
    assert sorted(client for part in assignment.values() for client in part) == sorted(sizes)
    assert all(node in hosts.get(client, nodes) for node, part in assignment.items() for client in part)
    again = Population(data.draw(st.permutations(clients)), sorted(nodes, reverse=True), hosts)
    assert again.assign(data.draw(st.permutations(sorted(sizes)))) == assignment


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 3))
def test_free_clients_end_within_four_thirds_of_the_best_schedule(sizes: list[int], num_nodes: int) -> None:
    population = Population([ClientInfo(str(i), size) for i, size in enumerate(sizes)], range(num_nodes))
    assignment = population.assign([str(i) for i in range(len(sizes))])
    makespan = max(sum(sizes[int(client)] for client in part) for part in assignment.values())
    best = min(  # brute force
        max(sum(size for size, at in zip(sizes, places, strict=True) if at == node) for node in range(num_nodes))
        for places in product(range(num_nodes), repeat=len(sizes))
    )
    assert makespan <= (4 / 3 - 1 / (3 * num_nodes)) * best + 1e-9  # Graham 1969, theorem 2
