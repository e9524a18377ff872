"""The soak's runner: what it tries, what it says, and how it ends."""

import pytest

from tests.soak import __main__ as soak
from tests.soak.turns import Part, Turn, Untried


async def holds(turn: Turn) -> None:
    for _ in turn.seeds():
        turn.count(kills=2)


async def fails(turn: Turn) -> None:
    for seed in turn.seeds():
        raise AssertionError(f"a row was lost with seed {seed}")


async def cannot(turn: Turn) -> None:
    raise Untried("only root may cut the power")


@pytest.fixture
def try_parts(monkeypatch, capsys):
    def run(*given: str, **parts) -> tuple[int, str]:
        known = {name: Part(name, "nothing is lost", part) for name, part in parts.items()}
        monkeypatch.setattr(soak, "parts", lambda: known)
        return soak.main(given), capsys.readouterr().out

    return run


def test_every_module_with_a_part_is_found():
    assert {"kills", "matrix", "power"} <= soak.parts().keys()


def test_it_says_what_was_tried_and_from_which_seed(try_parts):
    code, said = try_parts("--cases", "3", "--seed", "7", kills=holds)
    assert code == 0
    assert "kills (seed 7)" in said
    assert "6 kills, 3 cases" in said


def test_a_failure_ends_it_and_names_the_command_that_replays_the_case(try_parts):
    code, said = try_parts("--seed", "7", kills=fails, later=holds)
    assert code == 1
    assert "later" not in said
    case = said.split("AssertionError: a row was lost with seed ")[1].split()[0]
    assert f'make soak ARGS="kills --replay {case}"' in said
    code, said = try_parts("kills", "--replay", case, kills=fails)
    assert code == 1 and f"with seed {case}" in said


def test_what_this_machine_cannot_try_is_said_and_counted(try_parts):
    code, said = try_parts("--cases", "1", power=cannot, kills=holds)
    assert code == 0
    assert "NOT TRIED: only root may cut the power" in said
    assert "1 parts held, 1 NOT TRIED." in said


def test_a_part_that_does_not_exist_is_refused(try_parts, capsys):
    with pytest.raises(SystemExit):
        try_parts("kill", kills=holds)
    assert "there is no part kill" in capsys.readouterr().err
