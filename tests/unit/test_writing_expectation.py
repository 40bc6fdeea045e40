"""The score of a writing model is a mean over everything it might have written."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vqmon.writing.expectation import END, Tokens, expect


class Model:
    """Writes whole numbers of given chances, token by token."""

    def __init__(self, numbers: Mapping[tuple[str, ...], float]) -> None:
        self.numbers = {(*tokens, END): chance for tokens, chance in numbers.items()}
        self.asked: list[list[Tokens]] = []

    def __call__(self, beginnings: Sequence[Tokens]) -> list[dict[str, float]]:
        self.asked.append(list(beginnings))
        return [self._next(tokens) for tokens in beginnings]

    def _next(self, tokens: Tokens) -> dict[str, float]:
        fit = {n: p for n, p in self.numbers.items() if n[: len(tokens)] == tokens}
        total, found = sum(fit.values()), dict[str, float]()
        for number, chance in fit.items():
            token = number[len(tokens)]
            found[token] = found.get(token, 0.0) + chance / total
        return found


def spelled(**numbers: float) -> Model:
    """Single characters as tokens: n3_10=.5 is 3.10."""
    return Model({tuple(n[1:].replace("_", ".")): chance for n, chance in numbers.items()})


def test_a_model_that_means_either_2_9_or_3_1_means_3_00() -> None:
    """Multiplying along the likeliest path would say 2.9 or 3.1, and flip between runs."""
    expected = expect(spelled(n2_90=0.5, n3_10=0.5))

    assert expected.rating == 3.0
    assert expected.deviation == pytest.approx(0.1)
    assert expected.lost == 0
    assert expected.chances == {290: 0.5, 310: 0.5}


def test_numbers_of_any_length_count() -> None:
    expected = expect(spelled(n3=0.25, n3_5=0.25, n3_25=0.5))

    assert expected.rating == pytest.approx((0.25 * 300 + 0.25 * 350 + 0.5 * 325) / 100)


def test_a_point_without_decimals_is_a_whole_number() -> None:
    assert expect(Model({("4", "."): 1.0})).rating == 4.0


@pytest.mark.parametrize("end", ["}", "}\n", ",", " ", "\n", '"', "</answer>", "```", "<|im_end|>"])
def test_what_may_stand_behind_a_number_ends_it(end: str) -> None:
    assert expect(Model({("3", end): 1.0})).rating == 3.0
    assert expect(Model({("3" + end,): 1.0})).rating == 3.0


@pytest.mark.parametrize("junk", ["x", "-", "%", "e5", ".5.1", "/5"])
def test_anything_else_makes_it_no_number(junk: str) -> None:
    """ "3x" is not a poor way to say three; "4/5" is not four."""
    expected = expect(Model({("3", junk): 0.5, ("4", END): 0.5}))

    assert (expected.rating, expected.lost) == (4.0, 0.5)


def test_a_server_that_tells_no_more_leaves_the_middle() -> None:
    """One call per beginning; those that failed count as the middle of what they may become."""
    known: dict[Tokens, dict[str, float]] = {
        (): {"2": 0.5, "4": 0.5},
        ("2",): {".": 1.0},
        ("2", "."): {"0": 1.0},
        ("2", ".", "0"): {"0": 1.0},
    }

    expected = expect(lambda beginnings: [known.get(tokens) for tokens in beginnings])

    assert expected.rating == (2.0 + 4.495) / 2
    assert expected.unfollowed == 0.5


def test_decimals_beyond_the_second_are_not_asked_for() -> None:
    model = spelled(n3_149=0.5, n3_142=0.5)

    assert expect(model).rating == 3.14
    assert max(len(tokens) for asked in model.asked for tokens in asked) == 3


@pytest.mark.parametrize(
    "number", ["n0_50", "n0_99", "n5_01", "n6_00", "n9", "n10", "n45", "nA", "n"]
)
def test_what_is_no_rating_is_lost_and_the_rest_renormalised(number: str) -> None:
    model = spelled(n4_00=0.75, **{number: 0.25})

    expected = expect(model)

    assert expected.rating == 4.0
    assert expected.lost == pytest.approx(0.25)


def test_the_ends_of_the_scale_count() -> None:
    expected = expect(spelled(n5_00=0.5, n1_00=0.25, n5=0.25))

    assert expected.rating == pytest.approx(4.0)
    assert expected.lost == 0


def test_beginnings_outside_the_scale_are_not_followed() -> None:
    """Each is a call to a server, or a row of the batch."""
    model = spelled(n4_00=0.5, n7_00=0.3, n0_10=0.2)

    expect(model)

    assert {tokens[0] for asked in model.asked for tokens in asked if tokens} == {"4"}


def test_a_model_that_writes_no_number_has_no_rating() -> None:
    expected = expect(lambda beginnings: [{"good": 1.0} for _ in beginnings])

    assert (expected.rating, expected.deviation, expected.lost) == (None, None, 1.0)


def test_a_model_that_never_stops_writing_spaces_is_left() -> None:
    expected = expect(lambda beginnings: [{" ": 1.0} for _ in beginnings])

    assert expected.rating is None


@pytest.mark.parametrize(
    "tokens",
    [
        ("3", ".", "5", "0"),
        ("3", ".5"),
        ("3.", "50"),
        ("3.50",),
        (" ", "3.5"),
        (" 3", ".5"),
        ("3.5}",),
    ],
    ids=repr,
)
def test_tokens_may_hold_several_characters(tokens: tuple[str, ...]) -> None:
    """Other tokenizers write two or three digits at once, with the space or the end attached."""
    assert expect(Model({tokens: 0.5, ("2", ".", "5"): 0.5})).rating == 3.0


def test_first_digits_go_as_one_batch_and_so_does_each_length() -> None:
    """A model on a GPU answers fifty short continuations about as fast as one."""
    model = spelled(**{f"n{a}_{b}5": 0.02 for a in range(1, 5) for b in range(10)}, n5_00=0.2)

    expect(model)

    assert [len(asked) for asked in model.asked] == [1, 5, 5, 41]


def test_unlikely_beginnings_are_not_followed_but_count() -> None:
    """With a server, every beginning is a call: leave out what cannot move the mean."""
    model = spelled(n4_00=0.97, n2_55=0.02, n3_10=0.01)

    expected = expect(model, least=0.05)

    assert len(model.asked) == 4
    assert expected.unfollowed == pytest.approx(0.03)
    assert expected.lost == pytest.approx(0)
    assert expected.rating == pytest.approx(0.97 * 4 + 0.02 * 2.495 + 0.01 * 3.495)


@given(
    chances=some.dictionaries(
        some.integers(100, 500), some.floats(0.01, 1.0), min_size=1, max_size=20
    )
)
def test_the_tree_gives_the_plain_mean(chances: dict[int, float]) -> None:
    total = sum(chances.values())
    numbers = {tuple(f"{n / 100:.2f}"): p / total for n, p in chances.items()}

    expected = expect(Model(numbers), least=0.0)

    mean = sum(n * p for n, p in chances.items()) / total
    variance = sum(p * (n - mean) ** 2 for n, p in chances.items()) / total
    assert expected.rating == pytest.approx(mean / 100, abs=1e-9)
    assert expected.deviation == pytest.approx(variance**0.5 / 100, abs=1e-6)
