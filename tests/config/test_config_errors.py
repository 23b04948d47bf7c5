"""Every error of a configuration, by its whole text."""

import time

import pytest

from fallback_plugin.config import load
from fallback_plugin.config.faults import key_path, nearest, shown
from fallback_plugin.config.load import parse
from fallback_plugin.config.schema import Limits, Settings
from fallback_plugin.errors import ConfigurationError

GLOBAL_KEYS = (
    "enabled, retry_on_errors, retryable_error_patterns, max_fallback_attempts, cooldown_seconds, timeout_seconds, "
    "stall_timeout_seconds, self_abort_window_seconds, on_unattributed_abort, host_retries_before_fallback, "
    "min_hop_interval_seconds, notify_on_fallback, fallback_models, error_rules, content_policy_fallback, "
    "overflow_route"
)


def errors(text, *, is_toml=False, overrides=None):
    with pytest.raises(ConfigurationError) as raised:
        parse(text, name="f", is_toml=is_toml, overrides=overrides or {})

    assert raised.value.__cause__ is None
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # types
        ('{"enabled": "yes"}', 'f:1:13: enabled: expected true or false, found "yes"'),
        ('{"enabled": 1}', "f:1:13: enabled: expected true or false, found 1"),
        ('{"enabled": null}', "f:1:13: enabled: expected true or false, found null"),
        ('{"timeout_seconds": "30"}', 'f:1:21: timeout_seconds: expected a number, found "30"'),
        ('{"timeout_seconds": true}', "f:1:21: timeout_seconds: expected a number, found true"),
        ('{"timeout_seconds": [1]}', "f:1:21: timeout_seconds: expected a number, found a list"),
        ('{"max_fallback_attempts": 1.5}', "f:1:27: max_fallback_attempts: expected a whole number, found 1.5"),
        ('{"max_fallback_attempts": "1"}', 'f:1:27: max_fallback_attempts: expected a whole number, found "1"'),
        ('{"max_fallback_attempts": false}', "f:1:27: max_fallback_attempts: expected a whole number, found false"),
        ('{"retry_on_errors": 429}', "f:1:21: retry_on_errors: expected a list, found 429"),
        ('{"retry_on_errors": {"a": 1}}', "f:1:21: retry_on_errors: expected a list, found an object"),
        ('{"retry_on_errors": [429, "500"]}', 'f:1:27: retry_on_errors[1]: expected a whole number, found "500"'),
        ('{"retryable_error_patterns": "x"}', 'f:1:30: retryable_error_patterns: expected a list, found "x"'),
        ('{"error_rules": {}}', "f:1:17: error_rules: expected a list, found an object"),
        ('{"error_rules": [5]}', "f:1:18: error_rules[0]: expected an object, found 5"),
        ('{"agents": []}', "f:1:12: agents: expected an object, found a list"),
        ('{"agents": {"build": "a/b"}}', 'f:1:22: agents.build: expected an object, found "a/b"'),
        ('{"$schema": 1}', "f:1:13: $schema: expected text, found 1"),
        # bounds
        ('{"timeout_seconds": -1}', "f:1:21: timeout_seconds: expected a number of at least 0, found -1"),
        ('{"timeout_seconds": 86401}', "f:1:21: timeout_seconds: expected a number of at most 86400, found 86401"),
        (
            '{"stall_timeout_seconds": -0.1}',
            "f:1:27: stall_timeout_seconds: expected a number of at least 0, found -0.1",
        ),
        ('{"cooldown_seconds": NaN}', "f:1:22: cooldown_seconds: expected a finite number, found nan"),
        ('{"cooldown_seconds": -Infinity}', "f:1:22: cooldown_seconds: expected a finite number, found -inf"),
        ('{"cooldown_seconds": 1e999}', "f:1:22: cooldown_seconds: expected a finite number, found inf"),
        (
            '{"cooldown_seconds": 2678401}',
            "f:1:22: cooldown_seconds: expected a number of at most 2.6784e+06, found 2678401",
        ),
        (
            '{"self_abort_window_seconds": 61}',
            "f:1:31: self_abort_window_seconds: expected a number of at most 60, found 61",
        ),
        (
            '{"min_hop_interval_seconds": -1}',
            "f:1:30: min_hop_interval_seconds: expected a number of at least 0, found -1",
        ),
        (
            '{"max_fallback_attempts": 101}',
            "f:1:27: max_fallback_attempts: expected a number of at most 100, found 101",
        ),
        (
            '{"host_retries_before_fallback": -1}',
            "f:1:34: host_retries_before_fallback: expected a number of at least 0, found -1",
        ),
        ('{"retry_on_errors": [99]}', "f:1:22: retry_on_errors[0]: expected a number of at least 100, found 99"),
        ('{"retry_on_errors": [600]}', "f:1:22: retry_on_errors[0]: expected a number of at most 599, found 600"),
        (
            '{"max_fallback_attempts": ' + "9" * 40 + "}",
            "f:1:27: max_fallback_attempts: expected a number of at most 100, found a huge number",
        ),
        (
            '{"max_fallback_attempts": ' + "9" * 5000 + "}",
            "f:1:27: max_fallback_attempts: expected a whole number, found inf",
        ),
        # routes
        ('{"fallback_models": "gpt-5"}', 'f:1:21: fallback_models: expected "provider/model", found "gpt-5"'),
        ('{"fallback_models": ""}', 'f:1:21: fallback_models: expected "provider/model", found ""'),
        ('{"fallback_models": 5}', 'f:1:21: fallback_models: expected "provider/model" or a list of them, found 5'),
        (
            '{"fallback_models": null}',
            'f:1:21: fallback_models: expected "provider/model" or a list of them, found null',
        ),
        (
            '{"fallback_models": {}}',
            'f:1:21: fallback_models: expected "provider/model" or a list of them, found an object',
        ),
        ('{"fallback_models": ["a/b", 5]}', "f:1:29: fallback_models[1]: expected text, found 5"),
        ('{"fallback_models": ["/b"]}', 'f:1:22: fallback_models[0]: expected "provider/model", found "/b"'),
        ('{"fallback_models": ["a/"]}', 'f:1:22: fallback_models[0]: expected "provider/model", found "a/"'),
        ('{"fallback_models": ["x://h/b"]}', 'f:1:22: fallback_models[0]: expected "provider/model", found "x://h/b"'),
        ('{"fallback_models": [" a/b"]}', 'f:1:22: fallback_models[0]: expected "provider/model", found " a/b"'),
        (
            '{"agents": {"build": {\n  "fallback_models": ["a/b",\n    "gpt-5"]}}}',
            'f:3:5: agents.build.fallback_models[1]: expected "provider/model", found "gpt-5"',
        ),
        ('{"overflow_route": "x"}', 'f:1:20: overflow_route: expected "provider/model", found "x"'),
        (
            '{"fallback_models": "a/' + "b" * 500 + '"}',
            "f:1:21: fallback_models: expected at most 500 characters, found text of 502 characters",
        ),
        # patterns
        (
            '{"retryable_error_patterns": ["ok", "(?=x)"]}',
            'f:1:37: retryable_error_patterns[1]: expected an RE2 pattern (invalid perl operator: (?=), found "(?=x)"',
        ),
        (
            '{"error_rules": [{"text": "(a)\\\\1", "kind": "timeout"}]}',
            'f:1:27: error_rules[0].text: expected an RE2 pattern (invalid escape sequence: \\1), found "(a)\\\\1"',
        ),
        (
            '{"retryable_error_patterns": [""]}',
            'f:1:31: retryable_error_patterns[0]: expected text that is not empty, found ""',
        ),
        (
            '{"retryable_error_patterns": ["' + "x" * 1001 + '"]}',
            "f:1:31: retryable_error_patterns[0]: expected at most 1000 characters, found text of 1001 characters",
        ),
        (
            '{"retryable_error_patterns": ["\\ud800"]}',
            'f:1:31: retryable_error_patterns[0]: expected text in whole Unicode characters, found "\\ud800"',
        ),
        # choices
        (
            '{"on_unattributed_abort": "Stop!"}',
            'f:1:27: on_unattributed_abort: expected one of "advance", "stop", found "Stop!"; did you mean "stop"?',
        ),
        ('{"on_unattributed_abort": 1}', 'f:1:27: on_unattributed_abort: expected one of "advance", "stop", found 1'),
        (
            '{"error_rules": [{"status": 400, "scope": "models"}]}',
            (
                'f:1:43: error_rules[0].scope: expected one of "model", "provider", "credential", "upstream", '
                'found "models"; did you mean "model"?'
            ),
        ),
        (
            '{"error_rules": [{"status": 400, "kind": "quota"}]}',
            (
                'f:1:42: error_rules[0].kind: expected one of "rate_limit", "quota_exhausted", "overloaded", "server_error", '
                '"timeout", "network", "auth", "missing_api_key", "model_not_found", "context_overflow", "content_policy", '
                '"bad_request", "truncated", "empty", "aborted", found "quota"; did you mean "quota_exhausted"?'
            ),
        ),
        # rules
        (
            '{"error_rules": [{"kind": "timeout"}]}',
            "f:1:18: error_rules[0]: expected a rule with at least one of provider, status, code, text",
        ),
        (
            '{"error_rules": [{"status": 400}]}',
            "f:1:18: error_rules[0]: expected a rule that sets at least one of kind, scope, cooldown_seconds",
        ),
        (
            '{"error_rules": [{"code": "", "kind": "auth"}]}',
            'f:1:27: error_rules[0].code: expected text that is not empty, found ""',
        ),
        (
            '{"error_rules": [{"status": 400, "cooldown_seconds": -1}]}',
            "f:1:54: error_rules[0].cooldown_seconds: expected a number of at least 0, found -1",
        ),
        # keys
        (
            '{"timeoutSeconds": 1}',
            'f:1:2: timeoutSeconds: unknown key "timeoutSeconds"; did you mean "timeout_seconds"?',
        ),
        (
            '{"fallback_model": []}',
            'f:1:2: fallback_model: unknown key "fallback_model"; did you mean "fallback_models"?',
        ),
        ('{"agent": {}}', 'f:1:2: agent: unknown key "agent"; did you mean "agents"?'),
        (
            '{"agents": {"build": {"cooldown": 5}}}',
            'f:1:23: agents.build.cooldown: unknown key "cooldown"; did you mean "cooldown_seconds"?',
        ),
        (
            '{"agents": {"build": {"agents": {}}}}',
            f'f:1:23: agents.build.agents: unknown key "agents"; known keys are {GLOBAL_KEYS}',
        ),
        ('{"colour": 1}', f'f:1:2: colour: unknown key "colour"; known keys are {GLOBAL_KEYS}, $schema, store, agents'),
        (
            '{"stored": "redis://u:p@h"}',
            'f:1:2: stored: unknown key "stored"; did you mean "store"?',
        ),
        ('{"schema_url": "x"}', 'f:1:2: schema_url: unknown key "schema_url"; did you mean "$schema"?'),
        (
            '{"error_rules": [{"Provider_": "x", "kind": "auth", "status": 400}]}',
            'f:1:19: error_rules[0].Provider_: unknown key "Provider_"; did you mean "provider"?',
        ),
        (
            '{"agents": {"a b": {"error_rules": [{"status": 400, "kinds": "auth", "kind": "auth"}]}}}',
            'f:1:53: agents."a b".error_rules[0].kinds: unknown key "kinds"; did you mean "kind"?',
        ),
        (
            '{"agents": {" x": {}}}',
            """f:1:13: agents." x": expected an agent's name without blanks around it, found " x\"""",
        ),
        ('{"agents": {"": {}}}', 'f:1:13: agents."": expected an agent\'s name without blanks around it, found ""'),
        ('{"enabled": true, "enabled": false}', "f:1:19: enabled: the key is written twice; keep one of them"),
        (
            '{"agents": {"b": {}, "b": {}}}',
            "f:1:22: agents.b: the key is written twice; keep one of them",
        ),
    ],
)
def test_wrong_values_in_json(text, expected):
    assert errors(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f:1:1: the file is empty; {} in JSON says the defaults"),
        (" \n\t", "f:1:1: the file is empty; {} in JSON says the defaults"),
        ("null", "f:1:1: expected an object, found null"),
        ("// c\n  null", "f:2:3: expected an object, found null"),
        ("[]", "f:1:1: expected an object, found a list"),
        ("5", "f:1:1: expected an object, found 5"),
        ('"x"', 'f:1:1: expected an object, found "x"'),
        ("{", "f:1:2: expected a key in double quotes, found the end of the file"),
        ("{a: 1}", 'f:1:2: expected a key in double quotes, found "a"'),
        ("{'a': 1}", 'f:1:2: expected a key in double quotes, found "\'"'),
        ('{"a" 1}', 'f:1:6: expected ":" after the key, found "1"'),
        ('{"a": 1 "b": 2}', 'f:1:9: expected "," or a closing bracket, found "\\""'),
        ('{"a": }', 'f:1:7: expected a value, found "}"'),
        ('{"a": 1} x', 'f:1:10: expected the end of the file, found "x"'),
        ('{"a": 1,,}', 'f:1:9: expected a key in double quotes, found ","'),
        ('{"a": "x', "f:1:7: unterminated string starting"),
        ('{"a": "x\n"}', "f:1:9: invalid control character"),
        ('{"a": "\\x"}', "f:1:8: invalid \\escape"),
        ('{"a": 1 /* x }', "f:1:9: a comment that is not closed"),
        ("{} /*/", "f:1:4: a comment that is not closed"),
        # A comment and a trailing comma before the fault must not move it.
        ('{ // one\n  /* two\n */ "a": [1,\n ],\n  "b": tru\n}', 'f:5:8: expected a value, found "t"'),
        ("[" * 100_000, "f:1:1: nested too deeply"),
    ],
)
def test_wrong_json(text, expected):
    assert errors(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f:1:1: the file is empty; {} in JSON says the defaults"),
        ("enabled = yes", "f:1:11: invalid value"),
        ("enabled = true\nenabled = false\n# end\n", "f:2:16: cannot overwrite a value"),
        ("[agents\nx = 1", "f:1:8: expected ']' at the end of a table declaration"),
        ("enabled =", "f:1:10: invalid value"),
        ("timeout_seconds = " + "9" * 5000, "f:1:19: a number or date that can't be read"),
        ("\nx = 1979-02-30", "f:2:5: invalid date or datetime"),
        ("x = " + "[" * 100_000, "f:1:1: nested too deeply"),
        ("timeout_seconds = inf", "f:1:19: timeout_seconds: expected a finite number, found inf"),
        ("enabled = 1979-05-27", "f:1:11: enabled: expected true or false, found a date or time"),
        (
            "\n[agents.build]\n  timeoutSeconds = 1",
            'f:3:3: agents.build.timeoutSeconds: unknown key "timeoutSeconds"; did you mean "timeout_seconds"?',
        ),
        (
            '[agents]\nbuild.fallback_models = [\n  "a/b", # c\n  "c" ]',
            'f:4:3: agents.build.fallback_models[1]: expected "provider/model", found "c"',
        ),
        (
            '[[error_rules]]\nstatus = 400\nkind = "auth"\n[[error_rules]]\nkind = "auth"',
            "f:4:1: error_rules[1]: expected a rule with at least one of provider, status, code, text",
        ),
        (
            "[fallback_models.x]\ny = 1",
            'f:1:2: fallback_models: expected "provider/model" or a list of them, found an object',
        ),
        ("agents = 5", "f:1:10: agents: expected an object, found 5"),
    ],
)
def test_wrong_toml(text, expected):
    assert errors(text, is_toml=True) == expected


def test_all_errors_are_told_at_once_in_the_order_of_the_file():
    text = """{
      "agents": {"build": {"timeout": 1, "fallback_models": ["x"]}},
      "enabled": 0,
      "enabled": 1,
      "colours": [],
      "cooldown_seconds": -1
    }"""
    assert [line.split(": ")[0:2] for line in errors(text).splitlines()] == [
        ["f:2:28", "agents.build.timeout"],
        ["f:2:62", "agents.build.fallback_models[0]"],
        ["f:4:7", "enabled"],
        ["f:4:18", "enabled"],
        ["f:5:7", "colours"],
        ["f:6:27", "cooldown_seconds"],
    ]


def test_more_errors_than_a_person_reads_are_counted():
    lines = errors('{"fallback_models": [' + ",".join(["1"] * 80) + "]}").splitlines()
    assert len(lines) == load.MAX_FAULTS_SHOWN + 1
    assert lines[-1] == "f: 30 more"


def test_a_file_of_nothing_but_errors_and_one_of_repeats_are_told_without_delay():
    began = time.process_time()
    unknown = "".join(f'"timeout_{number}": 1, ' for number in range(40_000))
    assert len(errors("{" + unknown + "}").splitlines()) == load.MAX_FAULTS_SHOWN + 1
    assert len(errors('{"fallback_models": [' + "1," * 300_000 + "]}").splitlines()) == load.MAX_FAULTS_SHOWN + 1

    settings, warnings = parse('{"fallback_models": [' + '"a/b",' * 100_000 + "]}", name="f", is_toml=False)
    assert (settings.fallback_models, len(warnings)) == (("a/b",), load.MAX_FAULTS_SHOWN)
    # Minutes, if each of them were put into words.
    assert time.process_time() - began < 30


def test_an_override_that_is_wrong_is_told_as_such():
    assert errors('{"timeout_seconds": "x"}', overrides={"timeout_seconds": -5, "colour": 1}).splitlines() == [
        "override: timeout_seconds: expected a number of at least 0, found -5",
        f'override: colour: unknown key "colour"; known keys are {GLOBAL_KEYS}, $schema, store, agents',
    ]


SECRETS = [
    "sk-ant-api03-AAAAbbbbCCCCdddd",
    "sk-proj-1234",
    "AIzaSyA-1234567890",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "Bearer abc",
    "eyJhbGciOiJIUzI1NiJ9.e30.x",
    "https://user:hunter2@example.org/v1",
    "0b6e3d2c-1f4a-4c58-9d43-0123456789ab",
    "a1b2c3d4e5f6a7b8c9d0e1f2",
    "correct horse battery staple " * 3,
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "text",
    [
        '{"overflow_route": "%s"}',
        '{"fallback_models": ["%s"]}',
        '{"timeout_seconds": "%s"}',
        '{"%s": 1}',
        '{"agents": {"%s": 5}}',
        '{"apikey": "%s"}',
        '{"on_unattributed_abort": "%s"}',
        '{"retryable_error_patterns": ["(%s"]}',
    ],
)
def test_what_looks_like_a_credential_is_never_repeated(text, secret):
    assert secret not in errors(text % secret)


@pytest.mark.parametrize(
    "name", ["claude-sonnet-4-5-20250929", "gpt-5.1-codex-max", "deepseek-r1-distill-llama-70b", "o3"]
)
def test_the_names_of_models_are_repeated(name):
    assert errors(f'{{"fallback_models": ["{name}"]}}').endswith(f'found "{name}"')


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\x1b[31m\nb", '"a\\u001b[31m\\nb"'),
        ("\u202e", '"\\u202e"'),
        ("é", '"é"'),
        ("x" * 61, "text of 61 characters"),
        (-(10**15), "a huge number"),
        ((1,), "a list"),
    ],
)
def test_shown(value, expected):
    assert shown(value) == expected


def test_key_path_quotes_what_is_no_word():
    assert key_path(("agents", "my agent", "error_rules", 0, "a.b", "$schema")) == (
        'agents."my agent".error_rules[0]."a.b".$schema'
    )


@pytest.mark.parametrize("key", [*Limits.model_fields, "agents"])
def test_a_key_in_camel_case_or_with_a_slip_is_recognised(key):
    first, *rest = key.split("_")
    assert nearest(first + "".join(map(str.title, rest)), Settings.model_fields) == key
    assert nearest(key[:-1], Settings.model_fields) == key
    assert nearest(key.replace("_", "-"), Settings.model_fields) == key


def test_nothing_like_a_key_is_near_none():
    assert nearest("zzz", Settings.model_fields) is None
