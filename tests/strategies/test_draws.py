"""The order of draws: cohorts one after the other, without those at work, and an end where nobody is left."""

from collections import Counter
from collections.abc import Sequence

from scipy.stats import chisquare

from simulation.inline import InlineGrid
from strategies.draws import MOST_SKIPS, Draws
from strategies.population import ClientInfo, Population
from strategies.samplers import UniformSampler
from tests.strategies.scripted_world import ScriptedWorld
from tests.strategies.toy_federation import app

PEOPLE = Population([ClientInfo(str(number)) for number in range(6)], [1])
GRID = InlineGrid.of(app(), 1)


def cohorts(count: int, size: int) -> list[tuple[str, int]]:
    sampler = UniformSampler(size)
    return [(client, round) for round in range(1, count + 1) for client in sampler.sample(round, PEOPLE.clients, 5)]


def test_cohorts_follow_one_another_however_many_are_taken_at_a_time() -> None:
    expected = cohorts(4, 3)
    for step in (1, 2, 3):
        draws, drawn = Draws(UniformSampler(3), 5), []
        while len(drawn) < 12:
            drawn.extend(draws.next(step, GRID, PEOPLE, []).items())
        assert drawn == expected


def test_who_is_at_work_or_drawn_already_is_skipped_and_not_drawn_later_for_it() -> None:
    draws = Draws(UniformSampler(3), 5)
    stream = [client for client, _ in cohorts(30, 3)]
    expected = []
    for client in stream:
        if client != "2" and client not in expected:
            expected.append(client)
    assert list(draws.next(5, GRID, PEOPLE, ["2"])) == expected[:5]


def test_where_all_are_at_work_nobody_is_drawn_and_no_cohort_is_used_up() -> None:
    draws = Draws(UniformSampler(3), 5)
    assert draws.next(3, GRID, PEOPLE, list(PEOPLE.ids)) == {} and draws.cohort == 0
    assert sorted(draws.next(9, GRID, PEOPLE, [])) == list(PEOPLE.ids)


def test_only_who_is_online_is_drawn_also_where_the_cohort_is_older() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: now >= 1 and client in "024")
    draws = Draws(UniformSampler(0), 5)
    assert draws.next(1, world, PEOPLE, []) == {"0": 1}
    world.time = 1.0
    assert draws.next(2, world, PEOPLE, ["0"]) == {"1": 1, "3": 1}
    assert draws.next(9, world, PEOPLE, ["0", "1", "3"]) == {"5": 1}
    assert draws.next(9, world, PEOPLE, ["1", "3", "5"]) == {}


def test_clients_that_are_gone_are_passed_over() -> None:
    draws = Draws(UniformSampler(0), 5)
    draws.next(1, GRID, PEOPLE, [])
    left = Population([ClientInfo("4"), ClientInfo("5")], [1])
    assert draws.next(9, GRID, left, []) == {"4": 1, "5": 1}
    assert draws.next(9, GRID, Population([], []), []) == {}


def test_the_banned_are_passed_over_also_in_a_cohort_that_was_drawn_before() -> None:
    draws = Draws(UniformSampler(0), 5)
    assert draws.next(1, GRID, PEOPLE, []) == {"0": 1}
    assert draws.next(2, GRID, PEOPLE, [], {"1", "3"}) == {"2": 1, "4": 1}
    assert draws.next(9, GRID, PEOPLE, [], {"1", "3"}) == {"5": 1, "0": 2, "2": 2, "4": 2}
    assert draws.next(9, GRID, PEOPLE, ["0", "2", "4"], {"1", "3", "5"}) == {}
    assert draws.next(9, GRID, PEOPLE, [], set(PEOPLE.ids)) == {}


def test_in_a_world_draws_wait_past_the_banned() -> None:
    world = ScriptedWorld.with_nodes(away=lambda client, now: client != "0" and now < 5)
    assert Draws(UniformSampler(2), 5).next(1, world, PEOPLE, [], {"0"}) and world.time == 5.0


def test_every_client_is_drawn_as_often_in_the_long_run() -> None:
    draws, counts = Draws(UniformSampler(2), 8), Counter[str]()
    for _ in range(3000):
        counts.update(list(draws.next(1, GRID, PEOPLE, [])))
    assert chisquare([counts[client] for client in PEOPLE.ids]).pvalue > 1e-4  # fails one right sampler in 10,000


def test_a_sampler_with_nobody_else_to_offer_ends_the_search() -> None:
    class Favourite(UniformSampler):
        def sample(self, round: int, clients: Sequence[ClientInfo], seed: int) -> list[str]:
            return ["3"] if round % 2 else []

    draws = Draws(Favourite(), 0)
    assert draws.next(2, GRID, PEOPLE, []) == {"3": 1}
    assert draws.cohort == MOST_SKIPS + 1
