"""What a model writes is other people's text: read it once, in one way, or say why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vqmon.domain import DEGRADATIONS, SEVERITY_WORDS
from vqmon.writing.answers import CLASSES, PREFERENCES, TASKS, Task, parse, phrase


def answered(inner: str, think: str = "It is soft.") -> str:
    return f"<think>\n{think}\n</think>\n<answer>\n{inner}\n</answer>"


def test_a_rating_of_five_steps_becomes_a_quality_of_a_hundred() -> None:
    answer = parse("score", answered('{"rating": 4.25}'))

    assert answer.readable
    assert answer.tidy
    assert (answer.quality, answer.rating, answer.think) == (81.25, 4.25, "It is soft.")
    assert answer.levels is None
    assert answer.preference is None


@pytest.mark.parametrize("rating", [1, 5, 3.14, "2.50"])
def test_ratings_are_numbers_from_one_to_five(rating: object) -> None:
    text = f'"{rating}"' if isinstance(rating, str) else str(rating)

    assert parse("score", answered(f'{{"rating": {text}}}')).quality == (float(rating) - 1) * 25  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (answered('{"rating": 0.99}'), "not within 1 to 5"),
        (answered('{"rating": 81}'), "not within 1 to 5"),
        (answered('{"rating": NaN}'), "no number"),
        (answered('{"rating": "good"}'), "no number"),
        (answered('{"rating": true}'), "no number"),
        (answered('{"rating": [4]}'), "no number"),
        (answered('{"rating": 4, "rating": 2}'), "twice"),
        (answered('{"score": 4}'), "lacks rating"),
        (answered('{"rating": 4'), "no JSON"),
        (answered("4.2"), "no JSON object"),
        (answered('{"rating": 4}') + "<answer>{}</answer>", "2 answers"),
        ("I would say 4.", "no <answer>"),
        ('{"rating": 4} or rather {"rating": 2}', "2 objects"),
        ('{"rating": 4', "no <answer>"),
        ("", "no <answer>"),
        ("<think>so far", "no <answer>"),
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(text: str, why: str) -> None:
    """A guessed score would be stored, alerted on and trained on like a real one."""
    answer = parse("score", text)

    assert not answer.readable
    assert not answer.tidy
    assert answer.quality is None
    assert why in (answer.why_unreadable or "")


@pytest.mark.parametrize(
    "text",
    [
        '<think>soft</think><answer>{"rating": 2.5}</answer>',
        '<think>soft</think>\n<answer>```json\n{"rating": 2.5}\n```</answer>',
        '<think>soft</think><answer>{ "Rating" : "2.5" }',
        'soft</think><answer>{"rating": 2.5}</answer>',
        '<think>soft</think><answer>{"rating": 2.5}</answer> That is all.',
        '{"think": "soft", "rating": 2.5}',
        'My answer:\n```json\n{"think": "soft", "rating": 2.5}\n```\nDone.',
    ],
    ids=["one line", "fenced", "cut off", "opened", "chatty", "only JSON", "untrained"],
)
def test_layout_is_forgiven(text: str) -> None:
    answer = parse("score", text)

    assert (answer.quality, answer.think) == (37.5, "soft")


def test_an_answer_named_in_the_reasoning_is_not_the_answer() -> None:
    text = answered('{"rating": 2}', think='I could say <answer>{"rating": 5}</answer>, but no.')

    assert parse("score", text).rating == 2


def test_forgiven_layout_is_not_tidy() -> None:
    """Training rewards the form that was asked for, so it must tell the two apart."""
    assert parse("score", '<think>a</think><answer>{"rating": 2}</answer>').tidy
    assert not parse("score", '{"rating": 2}').tidy
    assert not parse("score", '<answer>{"rating": 2}</answer>').tidy
    assert not parse("score", '<think>a</think><answer>{"rating": 2}</answer> Bye.').tidy


def test_a_named_degradation_says_that_the_others_asked_for_are_absent() -> None:
    answer = parse("degradation", answered('{"distortion_class": "darken", "severity": "serious"}'))

    assert answer.levels == {"noise": 0, "compression": 0, "blur": 0, "underexposed": 4}


@pytest.mark.parametrize("nothing", ['"null"', "null", '"None"'])
def test_a_clean_picture_has_none_of_what_was_asked_for(nothing: str) -> None:
    text = answered(f'{{"distortion_class": {nothing}, "severity": {nothing}}}')

    assert parse("degradation", text).levels == dict.fromkeys(CLASSES.values(), 0)


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ('{"distortion_class": "rain", "severity": "slight"}', "'rain' is not known"),
        ('{"distortion_class": "blur", "severity": "very"}', "'very' is not known"),
        ('{"distortion_class": "blur", "severity": "null"}', "'null' is not known"),
        ('{"distortion_class": "null", "severity": "slight"}', "finds nothing, but slight"),
        ('{"distortion_class": "blur"}', "lacks severity"),
    ],
)
def test_a_degradation_that_contradicts_itself_is_not_read(inner: str, why: str) -> None:
    answer = parse("degradation", answered(inner))

    assert answer.levels is None
    assert why in (answer.why_unreadable or "")


def test_other_words_for_the_same_are_known() -> None:
    text = answered('{"distortion_class": "JPEG compression", "severity": "Slight"}')

    levels = parse("degradation", text).levels

    assert levels is not None
    assert levels["compression"] == 1


def test_prompts_may_name_other_degradations() -> None:
    text = answered('{"distortion_class": "bands", "severity": "slight"}')

    assert parse("degradation", text, {"bands": "banding"}).levels == {"banding": 1}
    assert not parse("degradation", text).readable


@pytest.mark.parametrize(
    ("words", "preference"),
    [("Image A", 1), ("image b.", -1), ("Similar", 0), ('{"better": "Image B"}', -1), ("B", -1)],
)
def test_a_comparison_is_one_of_three_words(words: str, preference: int) -> None:
    assert parse("comparison", answered(words)).preference == preference


@pytest.mark.parametrize("words", ["Image A, but B is close", "both", "", '{"A": 1, "B": 2}'])
def test_a_comparison_that_hedges_is_not_read(words: str) -> None:
    answer = parse("comparison", answered(words))

    assert not answer.readable
    assert answer.preference is None


def test_what_is_written_is_read_back() -> None:
    """Supervised warm-up teaches with `phrase`; rewards and serving read with `parse`."""
    for name in CLASSES.values():
        for level in range(1, len(SEVERITY_WORDS) + 1):
            text = phrase("degradation", think="x", degradation=name, level=level)
            answer = parse("degradation", text)
            assert answer.tidy
            assert answer.levels == dict.fromkeys(CLASSES.values(), 0) | {name: level}
    for preference in PREFERENCES.values():
        assert parse("comparison", phrase("comparison", think="x", preference=preference)).tidy
    clean = parse("degradation", phrase("degradation", think="x"))
    assert set((clean.levels or {}).values()) == {0}


@given(quality=some.floats(0, 100))
def test_two_decimals_of_a_rating_keep_the_quality_to_an_eighth_of_a_point(quality: float) -> None:
    answer = parse("score", phrase("score", think="x", quality=quality))

    assert answer.quality == pytest.approx(quality, abs=0.126)


@pytest.mark.parametrize(
    "values", [{}, {"degradation": "banding", "level": 1}, {"degradation": "blur", "level": 6}]
)
@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_written_that_has_no_word(task: Task, values: dict[str, object]) -> None:
    if task == "degradation" and not values:
        return

    with pytest.raises(ValueError, match=r"needs|no word"):
        phrase(task, think="x", **values)  # type: ignore[arg-type]


@given(text=some.text(alphabet='<>/think answer{}":,.0123456789AB\n`', max_size=80))
def test_any_text_at_all_is_read_or_refused(text: str) -> None:
    """Random weights and attackers write anything."""
    for task in TASKS:
        answer = parse(task, text)
        assert answer.readable == (answer.why_unreadable is None)
        assert set(answer.levels or {}) <= set(DEGRADATIONS)
        assert answer.quality is None or 0 <= answer.quality <= 100
