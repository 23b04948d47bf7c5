"""Chains and limits per agent; config-reader.test.ts, adapted to the order of issue A."""

import dataclasses

import pytest

from fallback_plugin.config.host_agents import HostAgent
from fallback_plugin.config.load import parse
from fallback_plugin.config.patterns import user_pattern
from fallback_plugin.config.rules import to_rules
from fallback_plugin.config.schema import AgentSettings, Limits, Settings
from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.policy import ClassifierRules, ErrorRule, Policy, Rules


def settings(text):
    return parse(text, name="test.json", is_toml=False)[0]


@pytest.mark.parametrize(
    ("own", "host", "everybody", "expected"),
    [
        # this file's agent > host's agent > global > none
        (["own/1"], ["host/1"], ["all/1"], ("own/1",)),
        ([], ["host/1"], ["all/1"], ("host/1",)),
        ([], [], ["all/1"], ("all/1",)),
        ([], [], [], ()),
        (["own/1"], [], [], ("own/1",)),
        ([], ["host/1"], [], ("host/1",)),
        (["own/1"], ["host/1"], [], ("own/1",)),
        (["own/1"], [], ["all/1"], ("own/1",)),
    ],
)
def test_order_of_chains(own, host, everybody, expected):
    config = Settings(fallback_models=tuple(everybody), agents={"build": AgentSettings(fallback_models=tuple(own))})
    rules = to_rules(config, {"build": HostAgent(fallback_models=tuple(host))})
    assert rules.policy("build").chain == expected
    assert rules.policy("plan").chain == rules.policy(None).chain == tuple(everybody)


@pytest.mark.parametrize(
    ("own", "host", "default", "expected"),
    [
        (["a/1"], HostAgent(model="m/1"), "d/1", ("m/1", "a/1")),
        (["a/1"], HostAgent(), "d/1", ("d/1", "a/1")),
        (["a/1"], HostAgent(), None, ("a/1",)),
        (["a/1", "m/1"], HostAgent(model="m/1"), None, ("a/1", "m/1")),
        ([], HostAgent(model="m/1", fallback_models=("h/1",)), None, ("m/1", "h/1")),
        # The primary is never put before the global chain, nor makes a chain by itself.
        ([], HostAgent(model="m/1"), "d/1", ("all/1",)),
    ],
)
def test_the_primary_heads_a_chain_of_the_agents_own(own, host, default, expected):
    config = Settings(fallback_models=("all/1",), agents={"build": AgentSettings(fallback_models=tuple(own))})
    assert to_rules(config, {"build": host}, default).policy("build").chain == expected


def test_the_primary_alone_makes_no_chain():
    assert to_rules(Settings(), {"build": HostAgent(model="m/1")}, "d/1").policy("build").chain == ()


def test_the_default_model_heads_the_chain_of_an_agent_that_the_host_does_not_list():
    config = Settings(agents={"build": AgentSettings(fallback_models=("a/1",))})
    assert to_rules(config, {}, "d/1").policy("build").chain == ("d/1", "a/1")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Build", "a/1"),
        ("build", "a/1"),
        ("BUILD", "a/1"),
        ("Plan", "b/1"),
        ("plan", "b/2"),
        ("PLAN", "b/2"),
        ("x", "g/1"),
    ],
)
def test_names_match_as_written_then_without_case(asked, expected):
    config = settings(
        """{"fallback_models": "g/1", "agents": {"Build": {"fallback_models": "a/1"},
            "Plan": {"fallback_models": "b/1"}, "plan": {"fallback_models": "b/2"}}}"""
    )
    assert to_rules(config).policy(asked).chain == (expected,)


def test_the_file_and_the_host_may_write_a_name_in_different_cases():
    config = Settings(agents={"build": AgentSettings(timeout_seconds=5)})
    rules = to_rules(config, {"Build": HostAgent(fallback_models=("h/1",))})
    for name in ("build", "Build", "BUILD"):
        assert rules.policy(name).chain == ("h/1",)
        assert rules.policy(name).timeout_seconds == 5


OVERRIDES = {
    "enabled": False,
    "retry_on_errors": frozenset({418}),
    "retryable_error_patterns": ("own",),
    "max_fallback_attempts": 1,
    "cooldown_seconds": 1.0,
    "timeout_seconds": 2.0,
    "stall_timeout_seconds": 3.0,
    "self_abort_window_seconds": 4.0,
    "on_unattributed_abort": "stop",
    "host_retries_before_fallback": 5,
    "min_hop_interval_seconds": 6.0,
    "notify_on_fallback": False,
    "fallback_models": ("own/1",),
    "error_rules": ({"status": 418, "kind": "timeout"},),
    "content_policy_fallback": True,
    "overflow_route": "own/large",
}


def test_the_table_of_overrides_holds_every_limit():
    assert set(OVERRIDES) == set(Limits.model_fields) == set(AgentSettings.model_fields)


@pytest.mark.parametrize("key", OVERRIDES)
def test_one_override_changes_what_it_names_and_nothing_else(key):
    said = {key: OVERRIDES[key]}
    everybody = to_rules(Settings.model_validate(said)).default
    rules = to_rules(Settings.model_validate({"agents": {"build": said}}))

    assert everybody != Policy()
    assert rules.default == Policy()
    assert rules.policy("build") == everybody


def test_an_agents_default_value_counts_when_it_is_written():
    config = settings('{"timeout_seconds": 90, "agents": {"build": {"timeout_seconds": 30}, "plan": {}}}')
    rules = to_rules(config)
    assert rules.policy("build").timeout_seconds == 30
    assert rules.policy("plan").timeout_seconds == 90


def test_null_takes_an_agents_overflow_route_away():
    rules = to_rules(settings('{"overflow_route": "a/large", "agents": {"build": {"overflow_route": null}}}'))
    assert rules.default.overflow_route == "a/large"
    assert rules.default.classifier.overflow_falls_back is True
    assert rules.policy("build").overflow_route is None
    assert rules.policy("build").classifier.overflow_falls_back is False


def test_nothing_said_gives_the_policy_of_the_core():
    assert to_rules(Settings()) == Rules()
    assert to_rules(settings("{}")).default == Policy()
    assert {408, 429, 529} <= Policy().classifier.retry_on_errors


def test_the_classifiers_rules():
    config = settings(
        """{"retry_on_errors": [429, 418], "retryable_error_patterns": ["tea ?pot"], "content_policy_fallback": true,
            "error_rules": [
              {"provider": "x", "status": 400, "code": "c", "text": "used up", "kind": "quota_exhausted",
               "scope": "provider", "cooldown_seconds": 5},
              {"code": "c", "scope": "model"}]}"""
    )
    assert to_rules(config).default.classifier == ClassifierRules(
        retry_on_errors=frozenset({418, 429}),
        retryable_patterns=(user_pattern("tea ?pot"),),
        error_rules=(
            ErrorRule(
                provider="x",
                status=400,
                code="c",
                text=user_pattern("used up"),
                kind=Kind.QUOTA_EXHAUSTED,
                scope=Scope.PROVIDER,
                cooldown_seconds=5,
            ),
            ErrorRule(code="c", scope=Scope.MODEL),
        ),
        content_policy_falls_back=True,
    )
    assert to_rules(config).default.classifier.retryable_patterns[0]("I'm a TEAPOT") is True


def test_rules_are_frozen():
    rules = to_rules(Settings(agents={"build": AgentSettings()}))
    with pytest.raises(TypeError):
        rules.agents["x"] = Policy()

    with pytest.raises(dataclasses.FrozenInstanceError):
        rules.policy("build").enabled = False
