"""The wording of failures: rows tried in order on squeezed error text, first match wins.

Text is the last resort, yet providers hide what matters in it: an empty purse in a 400, a full machine in a
429, a context overflow in a 502. So the rows are ordered from the unmistakable to the general, quota before
overload before throttling before credentials (W33). Each row lists marks, one of which must occur before its
pattern is tried at all; that keeps a long text cheap. Patterns use bounded repeats only.

*Weak* rows describe what an assistant might also write in prose ("the model gpt-5 does not exist"); they are
tried only where a status, a name or an error object shows that this is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fallback_plugin.core.failure import Kind, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class PhraseRow:
    """One way of saying one kind of failure.

    Attributes:
        kind: what it means.
        label: the rule in words, for the reason.
        marks: cheap substrings, one of which every match contains.
        pattern: the wording itself.
        source: who writes so.
        weak: whether prose may say it too.
        not_statuses: statuses that contradict it.
        falls_back: overrides what the kind says.
        scope: overrides what the kind says.
        soft_window: a named minute window turns it into throttling.
        providers: parts of provider ids that say it; empty for everybody.
    """

    kind: Kind
    label: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    source: str
    weak: bool = False
    not_statuses: frozenset[int] = frozenset()
    falls_back: bool | None = None
    scope: Scope | None = None
    soft_window: bool = False
    providers: tuple[str, ...] = ()


def _any(*wordings: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{wording})" for wording in wordings))


_WINDOW = r"(?:hourly|daily|weekly|monthly|annual|\d{1,2}[- ]?(?:hours?|hr|h|days?)|five[- ]hour|session|weekly/monthly|plan|subscription|billing[- ]cycle)"
_CAP = r"(?:limits?|quota|cap|allowance|allotment|budget)"
_GONE = r"(?:exceeded|exhausted|reached|depleted|used up|hit|consumed|expired|insufficient|over)"
_WIRE = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
_REFUSED = frozenset({400, 422})
_MODEL_ID = r"[\"'`]?[a-z0-9][a-z0-9_.:/@\-]{1,80}[\"'`]?"

MINUTE_WINDOW = _any(
    r"per[- _]?(?:minute|min|second|sec)\b", r"perminute", r"persecond", r"\b(?:rpm|tpm|qps|rps|tps|qpm|ipm)\b", r"/\s?(?:minute|min|second|sec|s)\b", "每分钟", "每秒"
)
"""A quota over a minute or less is a throttle, whatever it is called (Gemini quotaId, Groq TPM, Ark RPM)."""

DAY_WINDOW = _any(r"/\s?(?:day|week|month)\b", r"byday\b", r"\btoday'?s?\b", r"per[- _]?(?:day|week|month)\b", r"perday", r"permonth", r"\b(?:rpd|tpd)\b", r"\b(?:daily|weekly|monthly)\b", "每日", "每天", "每周", "每月")
"""A throttle over a day or more is a quota, whatever it is called."""

THIS_MODEL = _any(r"this model'?s", r"(?:on|for) (?:this|the selected|the requested) model", r"per[- _]?model", r"for (?:the )?model\b", r"free-models")
"""Only this model's limit is meant, not the account's."""

OUTPUT_SIDE = _any(
    r"\boutputs?\b(?! or )", r"\bgenerated (?:text|content|response|output)", r"\bcompletion\b", r"\bresponse was (?:blocked|filtered|flagged|stopped)(?! due to the prompt)", "输出", r"\bmodel'?s (?:response|answer)"
)
"""The answer, not the prompt, was refused: another model writes another answer."""

INPUT_SIDE = _any(r"\binputs?\b", r"\bprompt", r"\byour (?:request|message|content)", "输入")
REQUESTED_OVER_LIMIT = re.compile(r"limit:? (\d{1,12}),? (?:used:? \d{1,12},? )?requested:? (\d{1,12})")
"""OpenAI and Groq say both numbers; a request larger than the whole bucket never fits it."""

PHRASES: tuple[PhraseRow, ...] = (
    PhraseRow(
        kind=Kind.RATE_LIMIT, label="a burst, answered as an empty upstream account", source="XiaomiMiMo/MiMo#99: concurrency on a funded plan answers 402", marks=("upstream request failed",),
        pattern=_any(r"upstream request failed"), providers=("xiaomi", "mimo"), not_statuses=frozenset({400, 401, 403, 404, 500, 502, 503}),
    ),
    PhraseRow(
        kind=Kind.ABORTED, label="the request was aborted", source="OpenCode MessageAbortedError, DOM AbortError", marks=("abort", "cancel"),
        not_statuses=_WIRE | {500, 502, 503, 504, 529},
        pattern=_any(
            r"(?:operation|request|run|message|session|stream|generation) (?:was|has been|is) (?:aborted|cancell?ed)", r"user (?:has )?(?:aborted|cancell?ed)",
            r"(?:aborted|cancell?ed) by (?:the )?(?:user|client|caller)", r"^(?:message )?aborted\.?$", r"\baborterror\b", r"isabort[\"']?:\s?true",
        ),
    ),
    PhraseRow(
        kind=Kind.CONTEXT_OVERFLOW, label="the request is larger than the whole rate bucket", source="OpenAI, Groq: 'Request too large for … TPM'", marks=("too large for",),
        falls_back=True,
        pattern=_any(
            r"request too large for .{0,200}(?:per min|\btpm\b|per day|\btpd\b)",
            r"(?:per min|\btpm\b).{0,200}request too large for",
        ),
    ),
    PhraseRow(
        kind=Kind.CONTEXT_OVERFLOW, label="the context window is exceeded", source="OpenAI, Anthropic, Google, Mistral, xAI, Cohere, Bedrock, llama.cpp, vLLM, TGI, Ollama, DashScope, MiniMax, Copilot",
        marks=("context", "too long", "token", "prompt", "input length", "too large", "reduce", "超", "长度", "过长"),
        pattern=_any(
            r"(?:maximum|max|model'?s?|available|allowed|supported|input) (?:model )?context (?:length|size|window|limit)", r"context[ _](?:length|window|size|limit)(?: is| was| has been)? (?:is )?(?:exceed|overflow|full|too)",
            r"exceed\w{0,3} (?:the )?(?:\w{1,20}'?s? ){0,4}(?:context|max_model_len|maximum (?:prompt|input|sequence) length)", r"context (?:window|length|size) (?:exceed|overflow)", r"exceed context (?:limit|window|length)", r"(?:larger|longer) than the (?:\w{1,20}'?s? ){0,3}context",
            r"prompt (?:is |was )?too long", r"input (?:is |was )?too long", r"(?:prompt|input) (?:tokens? )?(?:length|count)[^.]{0,60}exceed", r"(?:prompt|input) token count[^.]{0,80}exceed", r"(?:input|prompt) tokens? exceed",
            r"maximum (?:prompt|input|sequence) length", r"reduce (?:the |your )?(?:length|size) of (?:the |your )?(?:messages?|prompt|input|context|conversation)",
            r"range of input length should be", r"exceed\w{0,3} (?:the )?model'?s? (?:maximum )?token limit", r"(?:tokens?|input|prompt) .{0,60}exceeds? (?:the )?(?:model'?s? )?(?:maximum|max|limit)(?: of| number of)? (?:input |allowed |context )?(?:tokens?|\d{4,8})", r"inputs` tokens \+ `max_new_tokens`",
            r"too large for model with \d{3,8} maximum context", r"too many (?:input |prompt )?tokens(?: in)? (?:the )?(?:prompt|input|request|messages)", r"too many tokens: ", r"\d{4,8} tokens? > \d{4,8} maximum", r"exceeds? the (?:maximum )?number of tokens allowed", 
            r"input length and `?max_tokens", r"context length of only \d", r"request(?:ed)? (?:body |size |payload )?(?:is |exceeds )(?:too large|the maximum size)", r"request_too_large",
            "上下文(?:长度|窗口)?.{0,12}超", "超.{0,8}(?:上下文|最大长度|最大输入|模型最大)", "输入(?:内容)?(?:长度)?(?:过长|超)", "(?:prompt|tokens?).{0,12}(?:超长|过长|超过|超出)", "文本过长",
        ),
    ),
    PhraseRow(
        kind=Kind.CONTEXT_OVERFLOW, label="the context window is exceeded", source="Anthropic, Groq, Cohere; the same words under 429 mean a bucket", marks=("reduce", "total tokens", "token limit", "too large"), weak=True,
        not_statuses=frozenset({401, 402, 403, 404, 429, 503, 529}),
        pattern=_any(r"reduce (?:the |your )(?:prompt|input|context|message)", r"total tokens[^.]{0,60}exceed", r"(?:exceed|over|above)\w{0,3} (?:the )?(?:maximum )?token limit", r"(?:body|prompt|input|message|payload|content)[^.]{0,20}too large"),
    ),
    PhraseRow(
        kind=Kind.BAD_REQUEST, label="the history holds parts of another provider", source="Anthropic thinking signatures, Gemini thought signatures, OpenAI encrypted reasoning",
        marks=("signature", "encrypted", "reasoning", "tool_", "tool ", "thinking"), not_statuses=frozenset({401, 402, 429, 503, 529}), weak=True,
        pattern=_any(
            r"(?:invalid|missing|corrupted|expected)[^.]{0,40}signature", r"thought[_ ]signature", r"signature[^.]{0,60}(?:invalid|missing|could not|not valid|required)", r"encrypted[_ ]content", r"encrypted reasoning",
            r"of type 'reasoning' was provided without", r"without its required", r"`?thinking`? (?:or `?redacted_thinking`? )?blocks?", r"reasoning_content", r"tool_(?:use|result|call)s?`? (?:ids?|blocks?|messages?)",
            r"(?:tool|function) call(?:s|_ids?)?[^.]{0,60}(?:must be followed|did not have|without|missing|not found)", r"messages? with role 'tool'", r"unexpected `?tool",
        ),
    ),
    PhraseRow(
        kind=Kind.BAD_REQUEST, label="the model misused its tools or format", source="Groq tool_use_failed, json_validate_failed", falls_back=True, weak=True,
        marks=("tool", "function", "json", "generat"), not_statuses=frozenset({401, 402, 403, 429}),
        pattern=_any(
            r"model (?:did not|didn't|failed to) (?:call|use|generate|produce)", r"failed to (?:call a function|generate (?:valid )?json|parse (?:the )?(?:tool|model|function))", r"failed_generation", r"tool call validation failed", r"malformed function call",
        ),
    ),
    PhraseRow(
        kind=Kind.CONTENT_POLICY, label="the account's privacy or guardrail setting excludes the model", source="OpenRouter: data policy, guardrail restrictions", marks=("data policy", "guardrail", "privacy"),
        scope=Scope.PROVIDER,
        pattern=_any(r"matching your (?:guardrail|data policy|privacy)", r"(?:guardrail|data policy)[^.]{0,30}restrict", r"blocked by (?:a |your |the )?guardrail", r"guardrail[^.]{0,60}(?:failed|violat|block|interven)", r"data policy"),
    ),
    PhraseRow(
        kind=Kind.CONTENT_POLICY, label="the content was refused", source="OpenAI, Azure, Anthropic, Google, DashScope, DeepSeek, MiniMax, z.ai, Moonshot, OpenRouter moderation",
        marks=("policy", "policies", "safety", "filter", "moderation", "flagged", "sensitive", "inappropriate", "high risk", "content", "prohibited", "敏感", "违规", "不安全", "不当", "风控", "recitation", "harm"),
        not_statuses=frozenset({401, 402, 404}),
        pattern=_any(
            r"content[_ ](?:management )?(?:policy|filter)", r"content (?:was |is |has been |be )?(?:blocked|filtered|flagged)", r"safety (?:system|filter|settings|reasons?|policy|guidelines|check)", r"blocked (?:by|due to|for|because of)[^.]{0,40}(?:safety|content|policy|moderation|prohibited)",
            r"usage polic(?:y|ies)", r"acceptable use policy", r"violat\w{0,4} [^.]{0,40}(?:polic|guideline|terms)", r"(?:input|prompt|output|request|content|message|text) (?:was |has been |is |were )?flagged", r"flagged (?:as|for|by)", r"requires moderation", r"moderation (?:policy|failed|error|blocked)", r"responsible ai",
            r"new_sensitive", r"sensitive (?:content|word|information|material)", r"inappropriate content", r"content exists risk", r"considered high risk", r"prohibited[_ ](?:content|use)", r"data inspection", r"finish[_ ]?reason[:=\"' ]{1,4}(?:safety|recitation|content_filter)", r"harmful content",
            "敏感", "违规", "不安全", "不当内容", "内容风控", "安全审核",
        ),
    ),
    # quota, unmistakable
    PhraseRow(
        kind=Kind.QUOTA_EXHAUSTED, label="the purse is empty", source="Anthropic, DeepSeek, z.ai, xAI, OpenRouter, MiniMax, Moonshot, Vercel, Zen, SiliconFlow, Hugging Face, litellm",
        marks=("key", "limit", "balance", "credit", "fund", "afford", "spend", "budget", "billing", "payment", "recharge", "top up", "top-up", "topup", "overdue", "arrear", "good standing", "unpaid", "余额", "欠费", "充值", "资源包", "账户", "purchase"),
        pattern=_any(
            r"insufficient[ _-](?:\w{1,12} )?(?:balance|credits?|funds?|quota)", r"(?:balance|credits?|funds?) (?:is |are |was |were |has been |have been )?(?:too low|insufficient|not (?:enough|sufficient)|exhausted|depleted|used up|empty|negative|zero|expired|run out|over|below|less than)",
            r"(?:low|negative|not enough|no available|zero|exhausted|lack of) (?:account |credit |token )?(?:balance|credits?|funds?)", r"(?:out of|not have enough|don'?t have enough|not have any|doesn'?t have any|don'?t have any|ran out of|run out of|no more|no remaining|need more|requires? (?:more|additional|at least|paid)|used all (?:available|of your|your)|exceeded your (?:\w{1,12} ){0,3}|insufficient) (?:\w{1,12} )?credits?",
            r"\bkey (?:\w{1,12} )?limit (?:has been |is |was )?(?:exceeded|reached|hit)", r"(?:add|buy|purchase|get) (?:more |additional |some |extra )?(?:credits?|funds)", r"purchase (?:those|one) on", r"can only afford", r"free credits", r"credit limit", r"(?:spend|spending|budget|cost|usage-based|billing)(?:ing)? (?:hard )?(?:limit|cap)", r"budget (?:has been |is |was )?exceeded", r"(?:exceeded|over) (?:your |the |its |max )?(?:\w{1,12} )?budget",
            r"(?:please )?(?:recharge|top[ -]?up)\b", r"(?:overdue|unpaid|outstanding) (?:payment|balance|invoice|bill)", r"payment (?:is )?(?:required|overdue|failed|past due)", r"in arrears|arrearage", r"good standing", r"billing (?:is |has )?(?:not (?:been )?(?:enabled|active|set up|configured)|disabled|issue|inactive|required)", r"(?:enable|requires?|without|set up|activate) (?:a |an )?(?:active )?billing",
            r"account (?:\S{1,40} ){0,4}(?:is |was |has been )?(?:not active|suspended due to)[^.]{0,60}(?:billing|balance|quota|payment)", r"free tier of the model has been exhausted", r"payment method (?:is )?(?:required|needed|declined)",
            "余额(?:不足|已|为)", "欠费", "充值", "无可用资源包", "资源包(?:已|不足|用)", "账户.{0,6}(?:不足|冻结)",
        ),
    ),
    PhraseRow(
        kind=Kind.QUOTA_EXHAUSTED, label="a plan's window is used up", source="Claude, Codex, Copilot, z.ai, MiniMax, Ollama, Zen, Go, Kimi, Groq and Bedrock per day",
        marks=("limit", "usage", "quota", "subscri", "trial", "allowance", "premium", "per day", "per week", "per month", "perday", "per-day", "free tier", "free plan", "cooling", "额度", "套餐", "上限", "限额", "用尽", "用完", "耗尽", "tier", "plan", "capacity"),
        pattern=_any(
            r"(?:usage|spend) (?:limit|cap|allotment|quota|threshold)", r"free usage", r"(?:token|api|plan|credit|monthly|included|free) usage (?:has been |is |was )?(?:exceeded|exhausted|reached|used up)", r"out of (?:extra )?usage", r"extra usage", r"premium (?:model )?requests?", r"allowance", r"usage_limit",
            rf"{_WINDOW}[- ](?:\w{{1,14}}[- ]){{0,3}}{_CAP}\b", rf"{_WINDOW}(?: \w{{1,14}}){{0,3}} rate[- ]?limit", rf"{_CAP} (?:\w{{1,12}} ){{0,3}}(?:for (?:the |this |today)?|per |this )(?:day|week|month|billing period|\d{{1,2}} hours?|current (?:period|cycle))\b", r"(?:tokens|requests|calls|queries|messages|models|prompts|generations)[- _](?:\w{1,12}[- ])?per[- _]?(?:day|week|month)", r"perday", r"per[- ]day", r"\((?:tpd|rpd)\)",
            r"(?:hit|reached|exceeded|used up|used all of|exhausted) (?:your|the|its|their)(?: (?:\w{1,14}|[a-z]{1,10}'s|5-hour|free|plan))? (?:limit|limits|usage)\b(?! on| of \d| for requests)(?<!rate limit)(?<!rate limits)(?<!concurrency limit)(?<!request limit)(?<!token limit)(?<!token usage)(?<!tpm limit)(?<!rpm limit)", r"limit (?:reached|exhausted|hit|exceeded)[^a-z0-9]{1,6}(?:your limit |it |this )?(?:will )?resets?\b", r"limit exhausted",
            r"exceed(?:s|ed)? your account'?s rate limit", r"weekly[ /][^.]{0,40}(?:limit|quota)", r"weekly rate", r"(?:subscription|trial|plan|membership) (?:has |is |was )?(?:been )?(?:expired|ended|inactive|not active|required|cancell?ed|exhausted|finished|suspended)", r"(?:no|without an?|requires? an?|need an?)(?: active| valid| paid)* subscription",
            r"not included in (?:your|the)(?: current)? (?:plan|subscription)", r"upgrade (?:your (?:plan|subscription|account)|to (?:plus|pro|max|a paid|continue)|for (?:higher|more))", r"subscribe to (?:\w{1,12})", r"free (?:tier|plan|trial|quota|limit|allocation)s? (?:\w{1,12} ){0,2}(?:exceeded|exhausted|ended|expired|reached|used up|is over|limit|has been)", r"daily free allocation",
            r"(?:credentials?|accounts?|keys?|channels?)[^.]{0,80}cooling down", r"all (?:\w{1,14} )?accounts? (?:have |has )?(?:reached|exceeded|exhausted)[^.]{0,40}(?:quota|limit)", r"capacity on this model\. your quota",
            "(?:免费)?额度(?:不足|已|用|耗|超)", "套餐.{0,12}(?:到期|过期|用尽|用完|上限|不包含|失效)", "(?:每周|每月|每日|每天|小时|本周|本月|今日|当日|当天).{0,12}(?:上限|限额|额度|用尽|用完|限制)", "(?:使用|用量|调用)(?:量)?(?:已)?(?:达到|达|超).{0,6}(?:上限|限额)", "(?:已)?(?:用尽|用完|耗尽)",
        ),
    ),
    PhraseRow(
        kind=Kind.QUOTA_EXHAUSTED, label="the quota is used up", source="OpenAI, Google, Moonshot, Copilot, new-api", marks=("quota", "配额", "billing"), soft_window=True,
        pattern=_any(
            rf"quotas? (?:limit )?(?:has been |have been |is |are |was |were )?(?:already )?{_GONE}", rf"{_GONE} (?:\w{{1,14}} ){{0,5}}quotas?\b", r"out of quota", r"no (?:remaining |available |more )?quota", r"quota will (?:reset|refresh)", r"quota threshold", r"quota (?:is )?not enough", r"quota_exceeded", r"exceeds? quota", r"not enough quota", r"quota limit", r"check your plan and billing", "配额(?:不足|已|超|用)",
        ),
    ),
    # overload
    PhraseRow(
        kind=Kind.OVERLOADED, label="the provider is overloaded", source="Anthropic, OpenAI, Google, Azure, Mistral, Groq, Kimi, z.ai, Together, DeepInfra, Chutes, Ollama, Hugging Face, Codex",
        marks=("overload", "capacity", "demand", "busy", "queue", "load", "traffic", "unavailable", "slow down", "receiving too many", "instances", "healthy", "warming", "cold", "maintenance", "繁忙", "过载", "访问量", "负载", "高峰", "拥挤", "high volume", "resources", "no auth available", "no deployments", "starting up", "ready"),
        pattern=_any(
            r"overload", r"(?:at|over|out of|no|insufficient|exceeded|maximum|limited|reached|full|enough|lack of)(?: \w{1,14}){0,2} capacity", r"capacity (?:is |has been |was )?(?:exceeded|exhausted|unavailable|reached|constraint|limit|is full|error)", r"(?:don't|not|doesn't|do not) have (?:enough |sufficient )?capacity", r"(?:high|heavy|peak|unusual|increased|unprecedented|excessive)(?: \w{1,12})? (?:demand|load|traffic|usage|volume)", r"due to (?:high )?(?:demand|traffic|load)", r"too busy", r"(?:server|service|system|engine|model|backend|upstream|provider|machine)s? (?:is |are )?(?:currently |temporarily )?(?:too )?busy", r"\bbusy\b[^.]{0,30}(?:try|retry)",
            r"queue (?:is |was )?(?:full|exceeded|overflow|limit)", r"queue_exceeded", r"(?:temporarily|currently|momentarily) (?:unavailable|not available|out of service|out of capacity)", r"service (?:is )?(?:temporarily |currently )?unavailable", r"(?:model|backend|engine|endpoint|server|provider)s? (?:is |are )?(?:temporarily |currently )?unavailable", r"slow down", r"receiving too many requests", r"no (?:\w{1,12} )?(?:instances?|deployments?|workers?|replicas?|servers?|backends?|machines?|providers?|accounts?|auth|healthy upstream)s? (?:is |are )?(?:currently )?(?:available|ready|online|running)", r"no (?:available|healthy) (?:\w{1,12} )?(?:instances?|workers?|upstream|servers?|backends?|providers?|accounts?|credentials?|auth|targets?|deployments?)", r"no auth available", r"auth_unavailable",
            r"(?:is |currently |still )loading(?: model)?", r"loading model", r"model (?:is )?(?:not ready|warming up|cold|starting)", r"(?:under|scheduled|down for) maintenance", r"resources? (?:is |are )?(?:limited|insufficient|unavailable)", r"not (?:have )?enough (?:resources|compute|gpu)", r"too many (?:concurrent )?connections",
            "繁忙", "过载", "访问量过大", "负载", "高峰", "拥挤", "请求过多.{0,20}稍后", "服务(?:暂)?不可用", "算力不足", "资源(?:不足|紧张)",
        ),
        not_statuses=frozenset({401, 403}),
    ),
    # throttling
    PhraseRow(
        kind=Kind.RATE_LIMIT, label="requests are throttled", source="everybody", marks=("rate", "too many", "throttl", "frequen", "too fast", "too quickly", "concurren", "per minute", "per second", "per min", "burst", "speed", "频", "限流", "并发", "限速", "速率", "过快"),
        pattern=_any(
            r"rate[- _]?limit(?:ed|ing)?[^a-z0-9]{0,3}(?:\w{1,12} ){0,4}(?:exceed|reach|hit|error|trigger|restrict|for |has|have|is |was |by |\)|try|please)", r"(?:exceed|reach|hit|exhaust|over|trigger)\w{0,4} [^.]{0,80}rate[- ]?limit", r"rate[- _]limited", r"\brate ?limited\b", r"rate limit (?:error|exceeded)", r"\brate_limit(?:_|\b)", r"rate[- ]?limit\w{0,5}[.!:;,)]?$", r"speed limited", r"requests? rate limit",
            r"too many (?:requests|tokens|concurrent|calls|messages|queries|api)", r"throttl(?:ed|ing|e )", r"throttlingexception", r"(?:requests?|calling|calls) (?:is |are |was |were )?(?:too )(?:frequent|fast|many|often)", r"too (?:frequent|fast|quickly)", r"rate increased too", r"request rate", r"concurren(?:cy|t)[^.]{0,60}(?:limit|exceed|reached|too)", r"(?:limit|exceed\w{0,3})[^.]{0,30}concurren", r"(?:requests|tokens|queries) per (?:minute|second|min)\b[^.]{0,40}(?:exceed|limit|reach)", r"(?:exceed|reach)\w{0,4}[^.]{0,60} per[- ]?(?:minute|second|min)\b", r"per-minute", r"is in cooldown", r"burst (?:rate|limit|capacity)",
            "限流", "频率", "频繁", "并发", "限速", "速率(?:限制|超)", "请求过(?:多|快|于)", "调用过(?:多|快)", "速率",
        ),
    ),
    # models
    PhraseRow(
        kind=Kind.MODEL_NOT_FOUND, label="the model is not there, retired or not open to this account", source="OpenCode, new-api, Google, Bedrock, OpenRouter, Ollama, Azure, Copilot, Codex",
        marks=("model", "endpoint", "deployment", "inference profile", "channel", "throughput", "渠道", "模型", "not found for account", "use case", "allowed providers"), not_statuses=frozenset({429}),
        pattern=_any(
            r"model[_ ]not[_ ](?:found|available|supported|exist)", r"models?/\S{1,80} is not found", r"is not found for api version", r"not found for model", r"(?:no|no such) (?:available )?(?:channel|distributor|provider|deployment|endpoint)s? (?:available )?(?:found )?for (?:the )?(?:model|group)", r"no endpoints (?:found|available)", r"no allowed providers", r"all providers have been ignored", r"model identifier is invalid", r"on-demand throughput (?:isn't|is not|isn t|not) supported", r"inference profile", r"is not a valid model", r"not a valid model id", r"publisher model", r"model `[^`]{1,100}` (?:does not exist|not found|is not)", r"(?:does not|don't|do not|doesn't|not) have access to (?:the |this |any )?model", r"no such model", r"unknown model:? ", r"model '[^']{1,100}' not found", r"try pulling it first", r"deployment for this resource does not exist", r"when using codex with a chatgpt account", r"model has (?:been )?(?:deprecated|retired|decommissioned|discontinued|reached (?:its|the) end)", r"model (?:version )?has reached the end of (?:its )?life", r"has been (?:decommissioned|retired|sunset)", r"resource is denied|not found for account", r"marked by provider as legacy", r"use case details", r"channel not found",
            "模型不存在", "无可用渠道", "模型.{0,20}(?:不存在|未开通|已下线|不支持|无权)", "(?:没有|无)权限.{0,8}模型",
        ),
    ),
    PhraseRow(
        kind=Kind.MODEL_NOT_FOUND, label="the model is not there, retired or not open to this account", source="OpenAI, Azure, DeepSeek, Mistral, Copilot, Perplexity, xAI, Cohere", weak=True,
        marks=("model", "endpoint", "deployment", "engine", "entity", "retired", "decommission"), not_statuses=frozenset({402, 429}),
        pattern=_any(
            rf"model:? (?:id |name |version |code )?(?:{_MODEL_ID} )?(?:specified )?(?:was |is |has been |could |does |do |are |you requested )?(?:currently )?(?:not (?:be )?(?:found|available|exist|supported|valid|enabled|accessible|allowed|permitted|active)|unavailable in|invalid|unknown|unsupported|no longer|deprecated|retired|decommissioned|discontinued|doesn't exist)",
            rf"(?:invalid|unknown|unsupported|unrecognized|nonexistent|deprecated|retired) (?:\w{{1,12}} )?model\b", r"model not exist", r"^model: \S{1,100}$", r"model[^.]{0,80}(?:does not exist|is not found|not found|is not supported|isn't supported|was not found|no longer (?:available|supported)|is deprecated|has been (?:deprecated|removed|retired|discontinued|disabled|decommissioned)|end of life|end-of-life|is not (?:available|accessible|enabled|allowed)|access (?:is )?denied|not allowed)", r"access to (?:the |this )?model[^.]{0,60}(?:denied|not|requires)", r"(?:not authorized|not allowed|permission|not permitted|no access|cannot access|can't access)[^.]{0,40}\bmodel\b", r"(?:deployment|engine)[^.]{0,60}(?:does not exist|not found)", r"requested entity was not found", r"can only access models", r"not available in your (?:region|country|plan)",
        ),
    ),
    # credentials
    PhraseRow(
        kind=Kind.MISSING_API_KEY, label="no API key is set", source="AI SDK, OpenAI, Anthropic, OpenRouter SDKs", marks=("key", "credential", "token"), not_statuses=frozenset({404, 429}),
        pattern=_any(
            r"api[ _-]?key is missing\. pass it", r"missing (?:the )?(?:required )?(?:\w{1,14} )?api[ _-]?key", r"(?:set|provide|export|define|through|or) (?:the )?(?:an? )?`?[a-z0-9_]{2,40}_api_key", r"didn't provide an api[ _-]?key", r"did not provide an api[ _-]?key", r"no api[ _-]?key (?:was |is )?(?:provided|found|set|configured|available|for)", r"api_key client option must be set", r"missing credentials", r"no auth credentials found", r"api[ _-]?key (?:not (?:set|found|configured|provided)|is not (?:set|configured)|was not provided)", r"could not resolve authentication method", r"no credentials (?:found|configured|provided|available)", r"unable to locate credentials", r"could not load credentials",
        ),
    ),
    PhraseRow(
        kind=Kind.MISSING_API_KEY, label="no API key is set", source="common", weak=True, marks=("key",), not_statuses=frozenset({404, 429}),
        pattern=_any(r"api[ _-]?key (?:is |was )?(?:missing|required|empty|absent|needed|must be)", r"requires? an api[ _-]?key", r"missing api", r"x-api-key header (?:is )?(?:required|missing)"),
    ),
    PhraseRow(
        kind=Kind.AUTH, label="the credential was refused", source="OpenAI, Anthropic, Google, xAI, DeepSeek, OpenCode host texts, z.ai", marks=("key", "token", "auth", "credential", "forbidden", "sign in", "log in", "login", "permission", "denied", "not supported", "only be used", "认证", "鉴权", "令牌", "密钥", "身份", "权限", "organization"),
        not_statuses=frozenset({404, 408, 429, 500, 502, 503, 504, 529}),
        pattern=_any(
            r"(?:invalid|incorrect|expired|revoked|wrong|bad|malformed|disabled|unknown|deactivated) (?:\w{1,14} ){0,2}(?:api[ _-]?keys?|x-api-key|access token|bearer token|token\b|credentials?|authentication|authorization)", r"api[ _-]?key (?:is |was |has been |you provided |provided )?(?:is |was |has been )?(?:not valid|invalid|incorrect|expired|revoked|disabled|blocked|leaked|inactive|deactivated|reported|unauthorized)", r"(?:access|oauth|auth|authentication|bearer|refresh|security|session|your) token (?:\w{1,12} ){0,3}(?:expired|invalid|revoked|missing|not valid|has expired|is expired|could not)", r"token (?:has |is |was )?(?:been )?(?:expired|revoked|invalidated)", r"authenticat(?:ion|e) (?:\w{1,12} ){0,2}(?:fail|error|required|invalid|denied)", r"(?:failed to|cannot|could not|unable to) authenticate", r"not authenticated", r"(?:re-?authenticate|sign in again|log in again|please (?:log|sign) in|please run /login|re-?login)", r"user not found", r"country, region,? or territory not supported", r"(?:location|region|country) is not supported", r"not (?:available|supported) in your (?:country|region|location)", r"organization has been disabled", r"account (?:has been |is |was )(?:deactivated|disabled|suspended|banned|locked|terminated|blocked)", r"can only be used (?:from )?(?:within|with|by|in|through)", r"only (?:authorized|available) for use with", r"oauth authentication is currently not", r"suspected (?:abuse|leak)", r"key has been (?:disabled|revoked|leaked)",
            "认证失败", "鉴权(?:失败|错误)", "(?:无效|过期|错误)的?(?:令牌|密钥|api)", "(?:令牌|密钥|token|key).{0,8}(?:无效|过期|失效|错误|不正确|不存在)", "身份验证", "没有权限", "无权(?:限|访问)", "未授权",
        ),
    ),
    PhraseRow(
        kind=Kind.AUTH, label="the credential was refused", source="RFC 9110 wording", marks=("permission", "denied", "forbidden", "authori", "access"), not_statuses=frozenset({400, 404, 408, 422, 429, 500, 502, 503, 504, 529}),
        pattern=_any(r"\bunauthori[sz]ed\b", r"permission[- _]denied", r"access (?:is |was )?(?:denied|forbidden|revoked)", r"\bforbidden\b", r"not authorized"),
    ),
    # time and wire
    PhraseRow(
        kind=Kind.TIMEOUT, label="it took too long", source="nodejs, undici, httpx, Cloudflare, Claude Code, gRPC", marks=("timed out", "timeout", "timedout", "time-out", "deadline", "no response", "超时", "time out", "time limit", "stalled"),
        not_statuses=_WIRE,
        pattern=_any(
            r"timed[ -]?out", r"etimedout", r"deadline[ _]exceeded", r"(?:request|connection|connect|read|stream|idle|gateway|response|socket|headers?|body|upstream|api|network|operation|header|first token|inactivity|server)[ -]?(?:idle )?time-?out", r"timeout (?:error|occurred|exceeded|reached|expired|waiting|while|after|of \d|was reached|awaiting)", r"a timeout occurred", r"time-?out (?:error|has occurred)", r"und_err_\w{1,10}_timeout", r"no (?:response|data|tokens?|chunks?)(?: was)? (?:received )?(?:from|within|for|after|in) ", r"(?:exceeded|over) (?:the )?(?:\w{1,10} )?time limit", r"\btimeouterror\b", r"stream (?:has )?stalled", r"\btimeout\.?$", "超时",
        ),
    ),
    PhraseRow(
        kind=Kind.NETWORK, label="the connection failed", source="nodejs errno, Bun, undici, httpx, requests, Codex, OpenCode host texts",
        marks=("econn", "enotfound", "eai_again", "epipe", "enet", "ehost", "socket", "fetch failed", "failed to fetch", "connect", "network", "getaddrinfo", "dns", "premature", "terminated", "disconnect", "certificate", "ssl", "tls", "closed", "chunked", "sending request", "unreachable", "und_err", "other side", "网络", "连接"),
        not_statuses=_WIRE,
        pattern=_any(
            r"econn(?:reset|refused|aborted)", r"enotfound", r"eai_again", r"epipe", r"enetunreach", r"ehostunreach", r"enetdown", r"und_err_socket", r"socket hang ?up", r"fetch failed", r"failed to fetch", r"load failed", r"socket (?:connection )?(?:was |has been |is )?(?:closed|reset|disconnected|error|ended)", r"(?:connection|stream|socket) (?:was |has been |is |got )?(?:unexpectedly |forcibly |prematurely )?(?:reset|refused|closed|lost|aborted|dropped|terminated|interrupted|disconnected|broken|severed|error|failed|failure)", r"(?:cannot|can't|could not|couldn't|unable to|failed to) (?:\w{1,12} )?(?:connect|reach|establish)", r"network (?:\w{1,10} )?(?:error|failure|issue|problem|is unreachable|unreachable|changed|lost|timeout|request failed)", r"getaddrinfo", r"(?:dns|name) (?:\w{1,12} )?(?:fail|error|not known|not resolved|resolution|lookup)", r"premature (?:close|end)", r"^(?:typeerror: )?terminated$", r"(?:server|peer|remote end|other side|remote host|upstream) (?:\w{1,14} )?(?:disconnected|closed|reset|hung up)", r"incomplete (?:chunked )?(?:read|response|message)", r"(?:stream )?disconnected before completion", r"error sending request", r"error decoding response body", r"(?:certificate|ssl|tls) (?:\w{1,14} ){0,3}(?:fail|error|expired|verif|unable|invalid)", r"self[- ]signed certificate", r"unable to verify the first certificate", r"(?:host|network) (?:is )?unreachable", r"upstream connect error", r"broken pipe", r"ended (?:prematurely|unexpectedly|before)", r"connectionrefused|connectionreset|connectionclosed",
            "网络(?:错误|异常|连接)", "连接(?:失败|超时|被|断开|重置)",
        ),
    ),
    # the rest of what breaks over there
    PhraseRow(
        kind=Kind.SERVER_ERROR, label="the provider failed", source="OpenAI, Anthropic, Google, Azure, Cohere; a host's report of an empty answer",
        marks=("server", "internal", "empty", "bad gateway", "upstream", "unexpected", "went wrong", "服务", "内部", "processing your request", "no output", "no response", "provider returned"), not_statuses=frozenset({401, 402, 403, 404, 429}),
        pattern=_any(
            r"server (?:had an|has an|encountered an?|experienced an?) (?:\w{1,14} )?error", r"internal (?:server )?(?:error|failure)", r"(?:an? )?internal error", r"server[ _]error", r"an error occurred while processing your request", r"bad gateway", r"(?:returned|received|produced|got|with) an? empty (?:response|answer|message|completion|output|stream|body|content)", r"empty (?:response|answer|completion|stream|reply) (?:from|received|returned|twice)", r"upstream (?:request |service |server |provider )?(?:error|failed|failure)", r"(?:unexpected|unknown) (?:server|internal|upstream) error", r"(?:no|without) (?:output|content|response) (?:was )?(?:generated|returned|produced)", r"something went wrong",
            "服务(?:器)?(?:内部)?(?:错误|异常)", "内部错误", "系统(?:错误|异常)",
        ),
    ),
)  # fmt: skip
