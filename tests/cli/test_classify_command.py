"""`fallback-plugin classify`."""

import io
import json

import pytest
import typer
from typer.testing import CliRunner

from fallback_plugin.cli.classify import classify_command, classify_lines
from fallback_plugin.core.failure import Kind
from fallback_plugin.core.policy import ClassifierRules, ErrorRule

WALL = 1_795_247_821.0


def run(*lines, rules=None):
    out = io.StringIO()
    code = classify_lines(list(lines), out, rules=rules or ClassifierRules(), wall=WALL)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def line(**fields):
    return json.dumps(fields) + "\n"


def test_a_line_in_a_line_out():
    code, (answer,) = run(
        line(
            provider="openai", http_status=429, headers={"retry-after": "7"}, body={"error": {"code": "rate_limited"}},
            host_error_name=None, message=None,
        )
    )  # fmt: skip
    assert code == 0
    assert set(answer) == {"kind", "scope", "should_fallback", "retry_after_s", "reason"}
    assert answer["kind"] == "rate_limit"
    assert answer["scope"] == "model"
    assert answer["should_fallback"] is True
    assert answer["retry_after_s"] == 7
    assert answer["reason"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{nope", "not JSON"),
        ("[1]", "expected a JSON object"),
        ("7", "expected a JSON object"),
        ('{"http_status": "many"}', "http_status"),
        ('{"http_status": true}', "http_status"),
        ('{"headers": 5}', "headers"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_answered_in_its_place_and_the_rest_goes_on(bad, why):
    code, answers = run(line(http_status=500), bad + "\n", line(http_status=401))
    assert code == 1
    assert [answer.get("kind") for answer in answers] == ["server_error", None, "auth"]
    assert why in answers[1]["error"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "bad_request"),
        ({"http_status": "429"}, "rate_limit"),
        ({"http_status": 429.0}, "rate_limit"),
        ({"http_status": None, "message": {"code": "insufficient_quota"}}, "quota_exhausted"),
        ({"headers": [["retry-after", "5"], "odd"], "http_status": 503}, "overloaded"),
        ({"provider": 5, "http_status": 500, "headers": None}, "server_error"),
        ({"surplus": 1, "http_status": 402}, "quota_exhausted"),
    ],
)
def test_missing_null_and_odd_values(fields, kind):
    code, (answer,) = run(line(**fields))
    assert (code, answer["kind"]) == (0, kind)


def test_blank_lines_are_passed_over():
    assert run("\n", "  \n", line(http_status=500))[1][0]["kind"] == "server_error"
    assert run("\n") == (0, [])


def test_the_users_rules_hold():
    rules = ClassifierRules(error_rules=(ErrorRule(status=418, kind=Kind.OVERLOADED, cooldown_seconds=30),))
    _, (answer,) = run(line(http_status=418), rules=rules)
    assert (answer["kind"], answer["retry_after_s"], answer["should_fallback"]) == ("overloaded", 30, True)


def app():
    one = typer.Typer()
    one.command()(classify_command)
    return one


def test_the_command_reads_and_writes_and_says_so_by_its_exit_code():
    good = CliRunner().invoke(app(), [], input=line(http_status=429))
    assert good.exit_code == 0
    assert json.loads(good.stdout)["kind"] == "rate_limit"
    bad = CliRunner().invoke(app(), [], input=b"\xff\xfe\n" + line(http_status=429).encode())
    assert bad.exit_code == 1
    assert [("error" in json.loads(answer)) for answer in bad.stdout.splitlines()] == [True, False]


def test_a_configuration_that_is_not_there(tmp_path):
    result = CliRunner().invoke(app(), ["--config", str(tmp_path / "none.json")], input="")
    assert result.exit_code == 2
    assert "none.json" in result.stderr


def test_a_configuration_brings_its_rules(tmp_path):
    path = tmp_path / "fallback.json"
    path.write_text(json.dumps({"retry_on_errors": [400, 429]}), "utf-8")
    result = CliRunner().invoke(app(), ["--config", str(path)], input=line(http_status=400) + line(http_status=500))
    assert [json.loads(answer)["should_fallback"] for answer in result.stdout.splitlines()] == [True, False]
