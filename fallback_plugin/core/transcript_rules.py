"""What each family of providers accepts, as tables.

Sources. OpenAI: chat completions reference; ids of at most 40 characters (vercel/ai #5171). Anthropic: messages
reference, "Handle tool calls", "Extended thinking"; ids `^[a-zA-Z0-9_-]+$` (maximhq/bifrost #5097), no blank text
blocks (home-assistant/core #175637), no assistant that ends in thinking (NousResearch/hermes-agent #13010), no prefill
on newer models (vybestack/llxprt-code #3695). Gemini: generateContent reference and "Thought signatures"; a content has
at least one part, roles alternate (hermes-agent #55623), function responses stand alone in their content
(anomalyco/opencode #43479, decolua/9router #3055), a request doesn't end with the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fallback_plugin.core.transcript import Endpoint, Family, Reasoning, Signature
from fallback_plugin.core.transcript_json import encodable, load_object

_OPAQUE = re.compile(r"[\x21-\x7e]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}")
_BAD_IN_NAME = re.compile(r"[^A-Za-z0-9_\-]")
_BAD_IN_GEMINI_NAME = re.compile(r"[^A-Za-z0-9_.:\-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRules:
    """The rules of one family.

    Attributes:
        call_id: what a call's id must look like.
        call_id_required: whether a call may go without one.
        bad_in_name: characters that a tool's name may not have.
        name_length: characters of a tool's name at most.
        name_starts_with_letter: whether a digit or a dash may not come first.
        system_apart: whether system text has a place of its own outside the messages.
        joins_users: whether users side by side become one.
        opens_with_user: whether the first message must be a user's.
        results_stand_alone: whether a user may not speak right after a tool result.
        may_prefill: whether the last message may be an assistant's at all.
    """

    call_id: re.Pattern[str]
    call_id_required: bool = True
    bad_in_name: re.Pattern[str] = _BAD_IN_NAME
    name_length: int = 64
    name_starts_with_letter: bool = False
    system_apart: bool = True
    joins_users: bool = True
    opens_with_user: bool = True
    results_stand_alone: bool = False
    may_prefill: bool = True


RULES: Mapping[Family, FamilyRules] = MappingProxyType(
    {
        Family.OPENAI: FamilyRules(
            call_id=re.compile(r"[A-Za-z0-9_\-]{1,40}"),
            system_apart=False,
            joins_users=False,
            opens_with_user=False,
        ),
        Family.ANTHROPIC: FamilyRules(call_id=re.compile(r"[A-Za-z0-9_\-]{1,64}"), name_length=128),
        Family.GEMINI: FamilyRules(
            call_id=re.compile(r"[A-Za-z0-9_\-]{1,64}"),
            call_id_required=False,
            bad_in_name=_BAD_IN_GEMINI_NAME,
            name_starts_with_letter=True,
            results_stand_alone=True,
            may_prefill=False,
        ),
    },
)


def tool_name(name: str, rules: FamilyRules) -> str:
    """The nearest name of a tool that a family accepts."""
    accepted = rules.bad_in_name.sub("_", name)
    if rules.name_starts_with_letter and accepted and not (accepted[0].isalpha() or accepted[0] == "_"):
        accepted = f"_{accepted}"

    return accepted[: rules.name_length] or "unknown"


def kept_signature(signature: Signature | None, target: Endpoint, *, of_call: bool) -> Signature | None:
    """The signature if it can go to the target: its own, whole, and in a place that the shape has for it."""
    if signature is None or signature.origin != target:
        return None

    if target.family is not Family.GEMINI and not (of_call and target.family is Family.OPENAI):
        return None

    return signature if _BASE64.fullmatch(signature.value) else None


def is_sendable(thought: Reasoning, target: Endpoint) -> bool:
    """Whether a thought can go back to the endpoint that it came from."""
    if thought.origin != target or encodable(thought.text) != thought.text:
        return False

    if target.family is Family.ANTHROPIC:
        return bool(_OPAQUE.fullmatch(thought.signature or thought.encrypted))

    if target.family is Family.GEMINI:
        return _BASE64.fullmatch(thought.signature) is not None if thought.signature else bool(thought.text)

    if thought.form == "reasoning_details":
        return load_object(thought.wire) is not None and encodable(thought.wire) == thought.wire

    return thought.form in {"reasoning", "reasoning_content"} and bool(thought.text)
