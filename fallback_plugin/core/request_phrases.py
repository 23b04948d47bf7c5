"""How providers say that the request itself is at fault, in the order in which rows are tried."""

from __future__ import annotations

from fallback_plugin.core.failure import Kind, Scope
from fallback_plugin.core.phrase import PhraseRow
from fallback_plugin.core.wordings import wordings

REQUEST_PHRASES: tuple[PhraseRow, ...] = (
    PhraseRow(
        kind=Kind.ABORTED,
        label="the request was aborted",
        source="OpenCode MessageAbortedError, DOM AbortError",
        wordings=wordings(
            r"""
            (?:operation|request|run|message|session|stream|generation) (?:was|has been|is) (?:aborted|\
            cancell?ed)
            user (?:has )?(?:aborted|cancell?ed)
            (?:aborted|cancell?ed) by (?:the )?(?:user|client|caller)
            ^(?:message )?aborted\.?$
            \baborterror\b
            isabort[\"']?:\s?true
            """,
        ),
        not_statuses=frozenset({400, 401, 402, 403, 404, 413, 422, 429, 500, 502, 503, 504, 529}),
    ),
    PhraseRow(
        kind=Kind.CONTEXT_OVERFLOW,
        label="the request is larger than the whole rate bucket",
        source="OpenAI, Groq: 'Request too large for … TPM'",
        wordings=wordings(
            r"""
            request too large for .{0,200}(?:per min|\btpm\b|per day|\btpd\b)
            (?:per min|\btpm\b).{0,200}request too large for
            """,
        ),
        falls_back=True,
    ),
    PhraseRow(
        kind=Kind.CONTEXT_OVERFLOW,
        label="the context window is exceeded",
        source=(
            "OpenAI, Anthropic, Google, Mistral, xAI, Cohere, Bedrock, llama.cpp, vLLM, TGI, "
            "Ollama, DashScope, MiniMax, Copilot"
        ),
        wordings=wordings(
            r"""
            (?:maximum|max|model'?s?|available|allowed|supported|input) (?:model )?context (?:length|size|\
            window|limit)
            context[ _](?:length|window|size|limit)(?: is| was| has been)?[ _](?:is )?(?:exceed|overflow|\
            full)
            exceed\w{0,3} (?:the )?(?:\w{1,20}'?s? ){0,4}(?:context|max_model_len|maximum (?:prompt|input|\
            sequence) length)
            context (?:window|length|size) (?:exceed|overflow)
            exceed context (?:limit|window|length)
            (?:larger|longer) than the (?:\w{1,20}'?s? ){0,3}context
            prompt (?:is |was )?too long
            input (?:is |was )?too long
            (?:prompt|input) (?:tokens? )?(?:length|count)[^.]{0,60}exceed
            (?:prompt|input) token count[^.]{0,80}exceed
            (?:input|prompt) tokens? exceed
            maximum (?:prompt|input|sequence) length
            reduce (?:the |your )?(?:length|size) of (?:the |your )?(?:messages?|prompt|input|context|\
            conversation)
            range of input length should be
            exceed\w{0,3} (?:the )?model'?s? (?:maximum )?token limit
            (?:tokens?|input|prompt) .{0,60}exceeds? (?:the )?(?:model'?s? )?(?:maximum|max|limit)\
            (?: of| number of)? (?:input |allowed |context )?(?:tokens?|\d{4,8})
            inputs` tokens \+ `max_new_tokens`
            too large for model with \d{3,8} maximum context
            too many (?:input |prompt )?tokens(?: in)? (?:the )?(?:prompt|input|request|messages)
            too many tokens:
            \d{4,8} tokens? > \d{4,8} maximum
            exceeds? the (?:maximum )?number of tokens allowed
            input length and `?max_tokens
            context length of only \d
            (?:request(?:ed)?|prompt) (?:body |size |payload |entity )?(?:is |exceeds |was )?(?:too large|\
            the maximum size)(?! for model `)
            request_too_large
            上下文(?:长度|窗口)?.{0,12}(?:超|过长)
            超.{0,8}(?:上下文|最大长度|最大输入|模型最大)
            输入(?:内容)?(?:长度)?(?:过长|超)
            (?:prompt|tokens?).{0,12}(?:超长|过长|超过|超出)
            文本过长
            """,
        ),
    ),
    PhraseRow(
        kind=Kind.CONTEXT_OVERFLOW,
        label="the context window is exceeded",
        source="Anthropic, Groq, Cohere; the same words under 429 mean a bucket",
        wordings=wordings(
            r"""
            reduce (?:the |your )(?:prompt|input|context|message)
            total tokens[^.]{0,60}exceed
            (?:exceed|over|above)\w{0,3} (?:the )?(?:maximum )?token limit
            (?:body|prompt|input|message|payload|content)[^.]{0,20}too large
            """,
        ),
        weak=True,
        not_statuses=frozenset({401, 402, 403, 404, 429, 503, 529}),
    ),
    PhraseRow(
        kind=Kind.BAD_REQUEST,
        label="the history holds parts of another provider",
        source="Anthropic thinking signatures, Gemini thought signatures, OpenAI encrypted reasoning",
        wordings=wordings(
            r"""
            (?:invalid|missing|corrupted|expected)[^.]{0,40}signature
            thought[_ ]signature
            signature[^.]{0,60}(?:invalid|missing|could not|not valid|required)
            encrypted[_ ]content
            encrypted reasoning
            of type 'reasoning' was provided without
            without its required
            `?thinking`? (?:or `?redacted_thinking`? )?blocks?
            reasoning_content
            tool_(?:use|result|call)s?`? (?:ids?|blocks?|messages?)
            (?:tool|function) call(?:s|_ids?)?[^.]{0,60}(?:must be followed|did not have|without|missing|\
            not found)
            messages? with role 'tool'
            unexpected `?tool
            """,
        ),
        weak=True,
        not_statuses=frozenset({401, 402, 429, 503, 529}),
    ),
    PhraseRow(
        kind=Kind.BAD_REQUEST,
        label="the model misused its tools or format",
        source="Groq tool_use_failed, json_validate_failed",
        wordings=wordings(
            r"""
            model (?:did not|didn't|failed to) (?:call|use|generate|produce)
            failed to (?:call a function|generate (?:valid )?json|parse (?:the )?(?:tool|model|function))
            failed_generation
            tool call validation failed
            malformed function call
            """,
        ),
        weak=True,
        not_statuses=frozenset({401, 402, 403, 429}),
        falls_back=True,
    ),
    PhraseRow(
        kind=Kind.CONTENT_POLICY,
        label="the account's privacy or guardrail setting excludes the model",
        source="OpenRouter: data policy, guardrail restrictions",
        wordings=wordings(
            r"""
            matching your (?:guardrail|data policy|privacy)
            (?:guardrail|data policy)[^.]{0,30}restrict
            blocked by (?:a |your |the )?guardrail
            guardrail[^.]{0,60}(?:failed|violat|block|interven)
            data policy
            """,
        ),
        scope=Scope.PROVIDER,
    ),
    PhraseRow(
        kind=Kind.CONTENT_POLICY,
        label="the content was refused",
        source=(
            "OpenAI, Azure, Anthropic, Google, DashScope, DeepSeek, MiniMax, z.ai, Moonshot, OpenRouter moderation"
        ),
        wordings=wordings(
            r"""
            content[_ ](?:management )?(?:policy|filter)
            content (?:was |is |has been |be )?(?:blocked|filtered|flagged)
            safety (?:system|filter|settings|reasons?|policy|guidelines|check)
            blocked (?:by|due to|for|because of)[^.]{0,40}(?:safety|content|policy|moderation|prohibited)
            usage polic(?:y|ies)
            acceptable use policy
            violat\w{0,4} [^.]{0,40}(?:polic|guideline|terms)
            (?:input|prompt|output|request|content|message|text) (?:was |has been |is |were )?flagged
            flagged (?:as|for|by)
            requires moderation
            moderation (?:policy|failed|error|blocked)
            responsible ai
            new_sensitive
            sensitive (?:content|word|information|material)
            inappropriate content
            content exists risk
            considered high risk
            prohibited[_ ](?:content|use)
            data inspection
            finish[_ ]?reason[:=\"' ]{1,4}(?:safety|recitation|content_filter)
            harmful content
            敏感
            违规
            不安全
            不当内容
            内容风控
            安全审核
            """,
        ),
        not_statuses=frozenset({401, 402, 404}),
    ),
)
