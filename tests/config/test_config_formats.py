"""One configuration written as JSON, JSONC and TOML is one configuration."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fallback_plugin.config.load import parse
from fallback_plugin.config.rules import to_rules
from fallback_plugin.core.failure import Kind, Scope

WORDS = st.text(st.sampled_from("abXY019-_."), min_size=1, max_size=8)
ROUTES = st.builds("{}/{}".format, WORDS, st.one_of(WORDS, st.builds("{}/{}:free".format, WORDS, WORDS)))
PATTERNS = st.sampled_from(["quota", r"limit \d+", 'say "no"', "é", "a # b", "// x", "/* y"])
SECONDS = st.integers(0, 60) | st.floats(0, 60, allow_nan=False)
STATUSES = st.integers(100, 599)
RULES = st.fixed_dictionaries(
    {"status": STATUSES, "cooldown_seconds": SECONDS},
    optional={
        "provider": WORDS,
        "code": WORDS,
        "text": PATTERNS,
        "kind": st.sampled_from([kind.value for kind in Kind]),
        "scope": st.sampled_from([scope.value for scope in Scope]),
    },
)
LIMITS = {
    "enabled": st.booleans(),
    "retry_on_errors": st.lists(STATUSES, max_size=4),
    "retryable_error_patterns": st.lists(PATTERNS, max_size=2),
    "max_fallback_attempts": st.integers(0, 100),
    "cooldown_seconds": SECONDS,
    "timeout_seconds": SECONDS,
    "stall_timeout_seconds": SECONDS,
    "self_abort_window_seconds": SECONDS,
    "on_unattributed_abort": st.sampled_from(["advance", "stop"]),
    "host_retries_before_fallback": st.integers(0, 100),
    "min_hop_interval_seconds": SECONDS,
    "notify_on_fallback": st.booleans(),
    "fallback_models": ROUTES | st.lists(ROUTES, max_size=4),
    "error_rules": st.lists(RULES, max_size=2),
    "content_policy_fallback": st.booleans(),
    "overflow_route": ROUTES,
}
AGENTS = st.dictionaries(
    st.sampled_from(["build", "Plan", "my agent", "a.b"]), st.fixed_dictionaries({}, optional=LIMITS)
)
FILES = st.fixed_dictionaries({}, optional={**LIMITS, "agents": AGENTS, "$schema": WORDS})


def jsonc_text(value):
    return "// a file\n" + json.dumps(value, indent=1).replace("\n]", ",\n] /* end */").replace(",\n", ", // next\n")


def toml_text(value):
    def inline(each):
        if isinstance(each, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {inline(one)}" for key, one in each.items()) + "}"

        return "[" + ", ".join(map(inline, each)) + "]" if isinstance(each, list) else json.dumps(each)

    lines = ["# a file", *(f"{json.dumps(key)} = {inline(each)}" for key, each in value.items() if key != "agents")]
    lines += ["[agents]"] if "agents" in value else []
    for name, agent in value.get("agents", {}).items():
        lines += [f"[agents.{json.dumps(name)}]", *(f"{key} = {inline(each)}" for key, each in agent.items())]

    return "\n".join(lines)


@given(FILES)
def test_the_three_formats_say_the_same(value):
    plain, _ = parse(json.dumps(value), name="f", is_toml=False)
    others = [
        parse(jsonc_text(value), name="f", is_toml=False)[0],
        parse(toml_text(value), name="f", is_toml=True)[0],
    ]

    for other in others:
        assert other.model_dump(exclude_unset=True) == plain.model_dump(exclude_unset=True)
        assert to_rules(other) == to_rules(plain)


@given(FILES)
def test_what_was_read_can_be_written_and_read_again(value):
    once, _ = parse(json.dumps(value), name="f", is_toml=False)
    said = once.model_dump_json(exclude_unset=True, by_alias=True)
    again, warnings = parse(said, name="f", is_toml=False)
    assert again.model_dump(exclude_unset=True) == once.model_dump(exclude_unset=True)
    assert warnings == ()
