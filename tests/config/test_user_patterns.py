import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.config.patterns import user_pattern


@pytest.mark.parametrize(
    ("source", "text", "hits"),
    [
        ("quota", "Your QUOTA is gone", True),
        ("QUOTA", "your quota is gone", True),
        ("é+", "CAFÉ", True),
        (r"^limit \d+$", "limit 5", True),
        (r"^limit \d+$", "a limit 5", False),
        ("x", "", False),
        ("half", "half \ud800 a pair", True),
    ],
)
def test_a_pattern_matches_anywhere_and_without_case(source, text, hits):
    assert user_pattern(source)(text) is hits


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("(?=x)", "invalid perl operator: (?="),
        ("(?<!x)y", "invalid perl operator: (?<!"),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("(", "missing ): ("),
        ("[z-a]", "invalid character class range: z-a"),
        ("*", "no argument for repetition operator: *"),
        ("a{5000}", "invalid repetition size: {5000}"),
        ("(abcdefghijklmnopqrstuvwxyz", "missing )"),
    ],
)
def test_what_re2_does_not_know_is_refused_in_its_words_and_in_silence(source, reason, capfd):
    with pytest.raises(ValueError) as raised:
        user_pattern(source)

    assert str(raised.value) == reason
    assert capfd.readouterr().err == ""


def test_patterns_of_one_source_are_equal():
    assert user_pattern("a") == user_pattern("a")
    assert user_pattern("a") != user_pattern("b")
    assert hash(user_pattern("a")) == hash(user_pattern("a"))


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_pattern_compiles_or_is_a_value_error(source, text):
    try:
        pattern = user_pattern(source)
    except ValueError:
        return

    assert pattern(text) in (True, False)
