"""Positions are checked against the decoders themselves: what stands at an offset is what was decoded."""

import json
import tomllib

import jsonc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.config.positions import (
    MAX_DEPTH,
    json_places,
    line_and_column,
    plain_json,
    toml_places,
)

TEXTS = st.text(st.sampled_from("ab_ /*,:\"\\'[]{}#=.\n\té😀"), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
FILLERS = st.sampled_from(["", "", " ", "\n", "\r\n", "\t", '// a, "b": {[\n', "/* c,\n } */", "/**/", "/***/"])


@st.composite
def commented(draw, values=VALUES):
    """A value and a JSONC text of it, with comments, odd spacing and trailing commas."""

    def write(value):
        if isinstance(value, dict):
            items = [f"{fill()}{json.dumps(key)}{fill()}:{write(each)}" for key, each in value.items()]
            return fill() + "{" + ",".join(items) + trail(items) + "}" + fill()

        if isinstance(value, list):
            items = [write(each) for each in value]
            return fill() + "[" + ",".join(items) + trail(items) + "]" + fill()

        return fill() + json.dumps(value, ensure_ascii=draw(st.booleans())) + fill()

    def fill():
        return draw(FILLERS)

    def trail(items):
        return draw(st.sampled_from(["", ","])) + fill() if items else fill()

    value = draw(values)
    return value, write(value)


def paths(value, path=()):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from paths(each, (*path, key))


@given(commented())
def test_plain_json_keeps_offsets_and_means_what_the_jsonc_library_reads(case):
    value, text = case
    plain = plain_json(text)

    assert len(plain) == len(text)
    assert [at for at, each in enumerate(plain) if each == "\n"] == [at for at, e in enumerate(text) if e == "\n"]
    assert json.loads(plain) == value == jsonc.loads(text)


@given(commented())
def test_every_json_value_and_key_is_found_where_it_stands(case):
    value, text = case
    places, plain, decoder = json_places(text), plain_json(text), json.JSONDecoder()

    expected = dict(paths(value))
    assert set(places.values) == set(expected)
    assert set(places.keys) == set(expected) - {()}
    assert places.repeated == ()
    for path, each in expected.items():
        assert decoder.raw_decode(plain, places.values[path])[0] == each
        if path and isinstance(path[-1], str):
            assert decoder.raw_decode(plain, places.keys[path])[0] == path[-1]
        elif path:
            assert places.keys[path] == places.values[path]


@given(st.text(st.sampled_from('{}[],:"\\/*\n 1at'), max_size=60) | st.text(max_size=30))
def test_no_text_breaks_the_json_scanner_and_valid_json_passes_unchanged(text):
    places = json_places(text)
    assert all(0 <= offset < len(text) for offset in (*places.keys.values(), *places.values.values()))
    assert len(plain_json(text)) == len(text)

    try:
        value = json.loads(text)
    except ValueError:
        return

    # As text, because NaN is not equal to itself.
    assert repr(json.loads(plain_json(text))) == repr(value)


BARE_KEYS = st.text(st.sampled_from("ab-_1"), min_size=1, max_size=3)
KEYS = BARE_KEYS | TEXTS
TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-9, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def basic(text):
    return json.dumps(text).replace("\\ud83d\\ude00", "\\U0001f600")


@st.composite
def tomls(draw):
    """A table and a TOML text of it: headers, lists of tables, dotted keys, inline tables, all strings."""

    def key(word):
        plain = word.isascii() and word.replace("-", "").replace("_", "").isalnum() and draw(st.booleans())
        return word if plain else basic(word)

    def blank():
        return draw(st.sampled_from(["", " ", "\t"]))

    def line():
        return draw(st.sampled_from(["", " ", "\n", "# a = [1]\n"]))

    def string(text):
        if draw(st.booleans()):
            return basic(text)

        if "'" not in text and "\n" not in text and "\t" not in text and draw(st.booleans()):
            return f"'{text}'"

        # A line break right after the opening quotes is not part of the text.
        return '"""\n' + basic(text)[1:-1].replace("\\n", "\n") + '"""'

    def value(each):
        if isinstance(each, dict):
            pairs = (f"{blank()}{key(k)}{blank()}={blank()}{value(v)}{blank()}" for k, v in each.items())
            return "{" + ",".join(pairs) + "}"

        if isinstance(each, list):
            items = [line() + value(item) + line() for item in each]
            return "[" + ",".join(items) + (draw(st.sampled_from(["", ","])) if items else "") + line() + "]"

        return string(each) if isinstance(each, str) else json.dumps(each)

    def header(path):
        return f"{blank()}.{blank()}".join(key(part) for part in path)

    def table(entries, path):
        later, lines = [], []
        for word, each in entries.items():
            is_tables = isinstance(each, list) and each and all(isinstance(item, dict) for item in each)
            if isinstance(each, dict) and draw(st.booleans()):
                later.append((f"[{blank()}{header((*path, word))}{blank()}]", each, (*path, word)))
            elif is_tables and draw(st.booleans()):
                later += [(f"[[{header((*path, word))}]]", item, (*path, word)) for item in each]
            elif isinstance(each, dict) and each and draw(st.booleans()):
                lines += [f"{key(word)}{blank()}.{key(k)} = {value(v)}" for k, v in each.items()]
            else:
                lines.append(f"{key(word)}{blank()}={blank()}{value(each)}{blank()}# end")

        for head, each, at in later:
            lines += [head, *table(each, at)]

        return lines

    whole = draw(st.dictionaries(KEYS, TOML_VALUES, max_size=4))
    newline = draw(st.sampled_from(["\n", "\n\n", "\n # = [ '\n"]))
    return whole, newline.join(table(whole, ())) + draw(st.sampled_from(["", "\n"]))


@given(tomls())
def test_every_toml_key_and_value_is_found_where_it_stands(case):
    whole, text = case
    assert tomllib.loads(text) == whole

    places = toml_places(text)
    expected = dict(paths(whole))
    assert set(places.values) == set(expected)
    for path, each in expected.items():
        if path and isinstance(path[-1], str):
            written = text[places.keys[path] :]
            assert written.startswith((path[-1] or '""', basic(path[-1])))

        if isinstance(each, bool | int):
            assert text.startswith(json.dumps(each), places.values[path])
        elif isinstance(each, str):
            assert text[places.values[path]] in "\"'"


@given(st.text(st.sampled_from("ab=.[]{},#\"'\\\n \r1"), max_size=60) | st.text(max_size=30))
def test_no_text_breaks_the_toml_scanner(text):
    places = toml_places(text)
    assert all(0 <= offset <= len(text) for offset in (*places.keys.values(), *places.values.values()))

    try:
        value = tomllib.loads(text)
    except ValueError:
        return

    assert {path for path, _ in paths(value)} == set(places.values)


@pytest.mark.parametrize("scan", [json_places, toml_places])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, 'x={"a":' * 50_000, "x=" + "[" * 100_000, "{a=" * 50_000, "a." * 50_000]
)
def test_depth_is_bounded(scan, text):
    assert max(map(len, scan(text).values), default=0) <= 2 * MAX_DEPTH + 2


@pytest.mark.parametrize(
    ("text", "path", "key", "value"),
    [
        ('{"a": 1, "a": 2}', ("a",), 9, 14),
        ('{"a": {"b": [1, {"c": 2}]}}', ("a", "b", 1, "c"), 17, 22),
        ('// x\n{"\\u0061": 1}', ("a",), 6, 16),
        (" null", (), None, 1),
        ('{"a": "\\"}", "b": 3}', ("b",), 13, 18),
    ],
)
def test_json_places(text, path, key, value):
    places = json_places(text)
    assert places.keys.get(path) == key
    assert places.values[path] == value


def test_a_repeated_json_key_is_told_with_its_later_place():
    assert json_places('{"a": 1, "b": {"a": 2, "a": 3}}').repeated == ((("b", "a"), 23),)


@pytest.mark.parametrize(
    ("text", "path", "key", "value"),
    [
        ("a.b = 1", ("a", "b"), 2, 6),
        ("[a.'b c']\nd = [1,\n 2]", ("a", "b c", "d", 1), 19, 19),
        ("[[a]]\nb=1\n[[a]]\nb=2\n[a.c]\nd=3", ("a", 1, "c", "d"), 26, 28),
        ("[[a]]\nb=1\n[[a]]\nb=2", ("a", 0, "b"), 6, 8),
        ("a = {b = {c = 1}, d = 'x'}", ("a", "d"), 18, 22),
        ('a = """x\n"" """ # "\nb = 1', ("b",), 20, 24),
        ("a = '''x''''\nb = 1", ("b",), 13, 17),
        ("a = 1979-05-27 07:32:00\nb = 1", ("b",), 24, 28),
    ],
)
def test_toml_places(text, path, key, value):
    places = toml_places(text)
    assert set(places.values) == {each for each, _ in paths(tomllib.loads(text))}
    assert (places.keys[path], places.values[path]) == (key, value)


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        ("", 0, (1, 1)),
        ("ab", 1, (1, 2)),
        ("a\nb", 2, (2, 1)),
        ("a\r\nbc", 4, (2, 2)),
        ("é😀x", 2, (1, 3)),
        ("a\n", 2, (2, 1)),
    ],
)
def test_line_and_column(text, offset, expected):
    assert line_and_column(text, offset) == expected
