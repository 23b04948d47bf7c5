"""The configuration file: its keys, types, bounds and defaults.

Names, meanings and defaults of the TypeScript plugin's keys are kept (issue A); types are strict, so that
`"30"` or `true` never passes for a number, and unknown keys are errors. Defaults are those of `core.policy`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from fallback_plugin.config.patterns import MAX_PATTERN_LENGTH, user_pattern
from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.policy import DEFAULT_RETRY_STATUSES, Policy

DAY_SECONDS = 86_400.0
MAX_COOLDOWN_SECONDS = 31 * DAY_SECONDS
"""No wait is longer than the longest billing window (issue B, retry hints)."""

MAX_COUNT = 100
_DEFAULTS = Policy()


def is_route(text: str) -> bool:
    """Whether `text` is "provider/model": the first slash splits, the model may hold more of them.

    The model starts with none, so that an address pasted in by mistake is no route.
    """
    provider, _, model = text.partition("/")
    return bool(provider and model) and not model.startswith("/") and not any(character.isspace() for character in text)


def _route(text: str) -> str:
    if not is_route(text):
        raise PydanticCustomError("route", '"provider/model"')

    return text


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [value]

    if not isinstance(value, list | tuple):
        raise PydanticCustomError("chain", '"provider/model" or a list of them')

    return value  # pyright: ignore[reportUnknownVariableType] - its items are checked next


def _without_repeats(chain: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain))


def _pattern(source: str) -> str:
    try:
        user_pattern(source)
    except ValueError as error:
        raise PydanticCustomError("pattern", "an RE2 pattern ({reason})", {"reason": str(error)}) from None

    return source


def _agent_name(name: str) -> str:
    if not name or name != name.strip():
        raise PydanticCustomError("agent_name", "an agent's name without blanks around it")

    return name


Route = Annotated[str, Field(max_length=500), AfterValidator(_route)]
Chain = Annotated[tuple[Route, ...], Field(strict=False), BeforeValidator(_as_list), AfterValidator(_without_repeats)]
Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN_LENGTH), AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Field(strict=False)]
Status = Annotated[int, Field(ge=100, le=599)]
Statuses = Annotated[frozenset[Status], Field(strict=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Cooldown = Annotated[float, Field(ge=0, le=MAX_COOLDOWN_SECONDS, allow_inf_nan=False)]
Timeout = Annotated[float, Field(ge=0, le=DAY_SECONDS, allow_inf_nan=False)]
Minute = Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class ErrorRuleSettings(_Strict):
    """One of `error_rules` (issue B): every condition given must hold; the first matching rule wins.

    Conditions are provider, status, code and text (a pattern); kind, scope and cooldown_seconds are set.
    """

    provider: Name | None = None
    status: Status | None = None
    code: Name | None = None
    text: Pattern | None = None
    kind: Annotated[Kind, Field(strict=False)] | None = None
    scope: Annotated[Scope, Field(strict=False)] | None = None
    cooldown_seconds: Cooldown | None = None

    @model_validator(mode="after")
    def _says_something(self) -> ErrorRuleSettings:
        if not self.model_fields_set & {"provider", "status", "code", "text"}:
            raise PydanticCustomError("rule", "a rule with at least one of provider, status, code, text")

        if not self.model_fields_set & {"kind", "scope", "cooldown_seconds"}:
            raise PydanticCustomError("rule", "a rule that sets at least one of kind, scope, cooldown_seconds")

        return self


class Limits(_Strict):
    """What holds for everybody and may be said again for one agent. Durations are seconds."""

    enabled: bool = _DEFAULTS.enabled
    retry_on_errors: Statuses = DEFAULT_RETRY_STATUSES
    retryable_error_patterns: Patterns = ()
    max_fallback_attempts: Count = _DEFAULTS.max_fallback_attempts
    cooldown_seconds: Cooldown = _DEFAULTS.cooldown_seconds
    timeout_seconds: Timeout = _DEFAULTS.timeout_seconds
    stall_timeout_seconds: Timeout = _DEFAULTS.stall_timeout_seconds
    self_abort_window_seconds: Minute = _DEFAULTS.self_abort_window_seconds
    on_unattributed_abort: Literal["advance", "stop"] = _DEFAULTS.on_unattributed_abort
    host_retries_before_fallback: Count = _DEFAULTS.host_retries_before_fallback
    min_hop_interval_seconds: Minute = _DEFAULTS.min_hop_interval_seconds
    notify_on_fallback: bool = _DEFAULTS.notify_on_fallback
    fallback_models: Chain = ()
    error_rules: Annotated[tuple[ErrorRuleSettings, ...], Field(strict=False)] = ()
    content_policy_fallback: bool = False
    overflow_route: Route | None = None


class AgentSettings(Limits):
    """What one agent has of its own; a key that is not written takes the global value."""


class Settings(Limits):
    """A whole configuration file."""

    schema_url: Annotated[str, Field(alias="$schema")] = ""
    store: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    agents: dict[Annotated[str, AfterValidator(_agent_name)], AgentSettings] = Field(
        default_factory=dict[str, AgentSettings]
    )


def known_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that the object at `path` may hold; empty where any key may stand."""
    below_agent = path[2:] if path[:1] == ("agents",) else path
    if len(below_agent) == 2 and below_agent[0] == "error_rules":
        return tuple(ErrorRuleSettings.model_fields)

    if path == ():
        return tuple(field.alias or name for name, field in Settings.model_fields.items())

    return tuple(AgentSettings.model_fields) if len(path) == 2 and path[0] == "agents" else ()
