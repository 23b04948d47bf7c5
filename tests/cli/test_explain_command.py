"""`fallback-plugin explain`."""

import json

import pytest
import typer
from typer.testing import CliRunner

from fallback_plugin.cli import explain
from fallback_plugin.cli.explain import explain_command, explain_text
from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.policy import ClassifierRules

WALL = 1_795_247_821.0


def test_a_text():
    said = explain_text("quota exceeded [retrying in 10h 7m attempt #1]", wall=WALL)
    assert said.splitlines() == [
        "quota exhausted: A quota, plan or purse is used up.",
        "The plugin falls back to the next model.",
        "It concerns every model of this provider account, for the next 10 h 7 min.",
        "Rule: text: the quota is used up.",
    ]


def test_the_json_of_a_body():
    said = explain_text('{"error": {"code": "invalid_api_key"}}', wall=WALL)
    assert "auth: The credential was refused." in said
    assert "everything that uses this credential, until the configured cooldown has passed" in said


def test_a_record_as_classify_takes_it():
    record = {"provider": "openrouter", "http_status": 400, "body": {"error": {"message": "Param Incorrect"}}}
    said = explain_text(json.dumps(record), wall=WALL)
    assert "The plugin does not fall back." in said
    assert "It concerns" not in said


def test_a_record_that_can_not_be_one_is_read_as_a_body():
    said = explain_text('{"http_status": "x", "error": {"code": "overloaded_error"}}', wall=WALL)
    assert said.startswith("overloaded")


@pytest.mark.parametrize(
    ("wait", "words"),
    [("0.2s", "1 s"), ("90s", "1 min 30 s"), ("25 hours", "1 d 1 h"), ("3600s", "1 h"), ("60 days", "31 d")],
)
def test_lengths(wait, words):
    assert f"for the next {words}." in explain_text(f"429 Too Many Requests, retry in {wait}", wall=WALL)


def test_the_error_itself_is_not_repeated():
    assert "sk-secret" not in explain_text("Incorrect API key provided: sk-secret", wall=WALL)


def test_the_users_rules_hold():
    rules = ClassifierRules(retryable_patterns=(lambda text: "gremlin" in text,))
    assert "falls back to" in explain_text("a gremlin", rules=rules, wall=WALL)


def test_every_kind_has_its_sentence():
    assert set(explain._MEANINGS) == set(Kind)
    assert set(explain._REACHES) == set(Scope)


def test_the_command():
    one = typer.Typer()
    one.command()(explain_command)
    assert "overloaded" in CliRunner().invoke(one, ["Overloaded"]).stdout
    assert "timeout" in CliRunner().invoke(one, ["-"], input="Request timed out").stdout
    number = '{"error":{"code":"1211"}}'
    assert "model not found" in CliRunner().invoke(one, ["--provider", "zai", number]).stdout
    assert "model not found" not in CliRunner().invoke(one, [number]).stdout
