"""config-reader.test.ts and index.test.ts, adapted: what is read from the host's own configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.config.host_agents import HostAgent, HostConfig, read_host_config
from fallback_plugin.config.rules import to_rules
from fallback_plugin.config.schema import Settings


def chain(config, agent="build"):
    found = read_host_config(config).agents.get(agent)
    return None if found is None else found.fallback_models


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"fallback_models": ["a/1", "b/2"]}, ("a/1", "b/2")),
        ({"fallback_models": "a/1"}, ("a/1",)),
        ({}, ()),
        ({"fallback_models": []}, ()),
        ({"fallback_models": None}, ()),
        ({"fallback_models": ""}, ()),
        ({"fallback_models": ["a/1", "a/1", "b/2"]}, ("a/1", "b/2")),
        ({"options": {"fallback_models": ["a/1"]}}, ("a/1",)),
        ({"options": {"fallback_models": "a/1"}}, ("a/1",)),
        ({"fallback_models": ["a/1"], "options": {"fallback_models": ["b/2"]}}, ("a/1",)),
        ({"fallback_models": [], "options": {"fallback_models": ["b/2"]}}, ("b/2",)),
        ({"options": []}, ()),
        ({"fallback_models": ["openrouter/x/y:free"]}, ("openrouter/x/y:free",)),
    ],
)
def test_chain_of_an_agent(entry, expected):
    read = read_host_config({"agent": {"build": entry}})
    assert read.agents["build"].fallback_models == expected
    assert read.warnings == ()


@pytest.mark.parametrize(
    ("value", "found"),
    [(5, "5"), (True, "true"), (0, "0"), (False, "false"), ({"a": "b/c"}, "an object"), (1.5, "1.5")],
)
def test_a_chain_of_a_wrong_type_is_left_out_with_a_warning(value, found):
    read = read_host_config({"agent": {"build": {"fallback_models": value}}})
    assert read.agents["build"].fallback_models == ()
    assert read.warnings == (
        (
            'host configuration: agent.build.fallback_models: expected "provider/model" or a list of them, '
            f"found {found}; left out"
        ),
    )


def test_unusable_items_are_left_out_one_by_one_with_warnings():
    read = read_host_config({"agent": {"build": {"fallback_models": ["a/1", 7, None, "gpt-5", [], "b/2"]}}})
    assert read.agents["build"].fallback_models == ("a/1", "b/2")
    place = "host configuration: agent.build.fallback_models"
    assert read.warnings == (
        f'{place}[1]: expected "provider/model", found 7; left out',
        f'{place}[2]: expected "provider/model", found null; left out',
        f'{place}[3]: expected "provider/model", found "gpt-5"; left out',
        f'{place}[4]: expected "provider/model", found a list; left out',
    )


@pytest.mark.parametrize("entry", ["text", 5, ["a/1"], False])
def test_an_agent_that_is_no_object_is_left_out(entry):
    read = read_host_config({"agent": {"build": entry, "plan": {"model": "a/1"}}})
    assert set(read.agents) == {"plan"}
    assert [warning.partition(": expected")[0] for warning in read.warnings] == ["host configuration: agent.build"]


@pytest.mark.parametrize(
    ("config", "agents"),
    [
        ({}, set()),
        ({"agents": None}, set()),
        ({"agent": {"one": {}}}, {"one"}),
        ({"agents": {"many": {}}}, {"many"}),
        ({"agents": {"many": {}}, "agent": {"one": {}}}, {"many"}),
        ({"agents": ["x"], "agent": {"one": {}}}, {"one"}),
        ({"agents": 5}, set()),
        ({"agent": {"gone": None}}, set()),
    ],
)
def test_agents_stand_under_the_plural_else_the_singular_key(config, agents):
    assert set(read_host_config(config).agents) == agents


@pytest.mark.parametrize(("config", "found"), [(None, "null"), ([], "a list"), ("x", '"x"'), (3, "3")])
def test_a_configuration_that_is_no_object_gives_nothing(config, found):
    assert read_host_config(config) == HostConfig(warnings=(f"host configuration: expected an object, found {found}",))


def test_models_are_read_and_unusable_ones_left_out():
    read = read_host_config({"model": "top", "agent": {"build": {"model": "a/1"}, "plan": {"model": {"id": 1}}}})
    assert read.agents["build"] == HostAgent(model="a/1")
    assert read.agents["plan"] == HostAgent()
    assert read.default_model is None
    assert read.warnings == (
        'host configuration: agent.plan.model: expected "provider/model", found an object; left out',
        'host configuration: model: expected "provider/model", found "top"; left out',
    )
    assert read_host_config({"model": "a/b/c"}).default_model == "a/b/c"


def test_a_key_in_the_wrong_place_is_not_repeated_in_a_warning():
    secret = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"
    read = read_host_config({"model": secret, "agent": {secret: 5, "build": {"fallback_models": [secret]}}})
    assert len(read.warnings) == 3
    assert secret not in "".join(read.warnings)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a/b", "a", "", "/"]) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["agent", "agents", "build", "Build", "fallback_models", "options", "model"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON)
def test_whatever_the_host_answers_gives_rules(config):
    read = read_host_config(config)
    rules = to_rules(Settings(fallback_models=("g/1",)), read.agents, read.default_model)
    assert all(policy.chain for policy in rules.agents.values())
    assert all("\n" not in warning for warning in read.warnings)
