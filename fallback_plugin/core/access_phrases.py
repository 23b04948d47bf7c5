"""How providers say that a model, a key or the way to them is missing."""

from __future__ import annotations

from fallback_plugin.core.failure import Kind
from fallback_plugin.core.phrase import MODEL, REQUEST_STATUSES, PhraseRow
from fallback_plugin.core.wordings import wordings

ACCESS_PHRASES: tuple[PhraseRow, ...] = (
    PhraseRow(
        kind=Kind.MODEL_NOT_FOUND,
        label="the model is not there, retired or not open to this account",
        source="OpenCode, new-api, Google, Bedrock, OpenRouter, Ollama, Azure, Copilot, Codex",
        wordings=wordings(
            r"""
            model[_ ]not[_ ](?:found|available|supported|exist)
            models?/\S{1,80} is not found
            is not found for api version
            not found for model
            (?:no|no such) (?:available )?(?:channel|distributor|provider|deployment|endpoint)s? \
            (?:available )?(?:found )?for (?:the )?(?:model|group)
            no endpoints (?:found|available)
            no allowed providers
            all providers have been ignored
            model identifier is invalid
            on-demand throughput (?:isn't|is not|isn t|not) supported
            inference profile
            is not a valid model
            not a valid model id
            publisher model
            model `[^`]{1,100}` (?:does not exist|not found|is not)
            (?:does not|don't|do not|doesn't|not) have access to (?:the |this |any )?model
            no such model
            unknown model:?[ ]
            model '[^']{1,100}' not found
            try pulling it first
            deployment for this resource does not exist
            when using codex with a chatgpt account
            model has (?:been )?(?:deprecated|retired|decommissioned|discontinued|reached (?:its|the) end)
            model (?:version )?has reached the end of (?:its )?life
            has been (?:decommissioned|retired|sunset)
            resource is denied|not found for account
            marked by provider as legacy
            use case details
            channel not found
            模型不存在
            无可用渠道
            模型.{0,20}(?:不存在|未开通|已下线|不支持|无权)
            (?:没有|无)权限.{0,8}模型
            """,
        ),
        not_statuses=frozenset({429}),
    ),
    PhraseRow(
        kind=Kind.MODEL_NOT_FOUND,
        label="the model is not there, retired or not open to this account",
        source="OpenAI, Azure, DeepSeek, Mistral, Copilot, Perplexity, xAI, Cohere",
        wordings=wordings(
            r"""
            model:? (?:id |name |version |code )?(?:<model> )?(?:specified )?(?:was |is |has been |could |\
            does |do |are |you requested )?(?:currently )?(?:not (?:be )?(?:found|available|exist|\
            supported|valid|enabled|accessible|allowed|permitted|active)|unavailable in|invalid|unknown|\
            unsupported|no longer|deprecated|retired|decommissioned|discontinued|doesn't exist)
            (?:invalid|unknown|unsupported|unrecognized|nonexistent|deprecated|retired) \
            (?:\w{1,12} )?model\b
            model not exist
            ^model: \S{1,100}$
            model[^.]{0,80}(?:does not exist|is not found|not found|is not supported|isn't supported|\
            was not found|no longer (?:available|supported)|is deprecated|has been (?:deprecated|removed|\
            retired|discontinued|disabled|decommissioned)|end of life|end-of-life|is not (?:available|\
            accessible|enabled|allowed)|access (?:is )?denied|not allowed)
            access to (?:the |this )?model[^.]{0,60}(?:denied|not|requires)
            (?:not authorized|not allowed|permission|not permitted|no access|cannot access|\
            can't access)[^.]{0,40}\bmodel\b
            (?:deployment|engine)[^.]{0,60}(?:does not exist|not found)
            requested entity was not found
            can only access models
            not available in your (?:region|country|plan)
            """,
            model=MODEL,
        ),
        weak=True,
        not_statuses=frozenset({402, 429}),
    ),
    PhraseRow(
        kind=Kind.MISSING_API_KEY,
        label="no API key is set",
        source="AI SDK, OpenAI, Anthropic, OpenRouter SDKs",
        wordings=wordings(
            r"""
            api[ _-]?key is missing\. pass it
            missing (?:the )?(?:required )?(?:\w{1,14} )?api[ _-]?key
            (?:set|provide|export|define|through|or) (?:the )?(?:an? )?`?[a-z0-9_]{2,40}_api_key
            didn't provide an api[ _-]?key
            did not provide an api[ _-]?key
            no api[ _-]?key (?:was |is )?(?:provided|found|set|configured|available|for)
            api_key client option must be set
            missing credentials
            no auth credentials found
            x-api-key header (?:is )?(?:required|missing)
            api[ _-]?key (?:not (?:set|found|configured|provided)|is not (?:set|configured)|\
            was not provided)
            could not resolve authentication method
            no credentials (?:found|configured|provided|available)
            unable to locate credentials
            could not load credentials
            """,
        ),
        not_statuses=frozenset({404, 429}),
    ),
    PhraseRow(
        kind=Kind.MISSING_API_KEY,
        label="no API key is set",
        source="common",
        wordings=wordings(
            r"""
            api[ _-]?key (?:is |was )?(?:missing|required|empty|absent|needed|must be)
            requires? an api[ _-]?key
            missing api
            """,
        ),
        weak=True,
        not_statuses=frozenset({404, 429}),
    ),
    PhraseRow(
        kind=Kind.AUTH,
        label="the credential was refused",
        source="OpenAI, Anthropic, Google, xAI, DeepSeek, OpenCode host texts, z.ai",
        wordings=wordings(
            r"""
            (?:invalid|incorrect|expired|revoked|wrong|bad|malformed|disabled|unknown|deactivated) \
            (?:\w{1,14} ){0,2}(?:api[ _-]?keys?|x-api-key|access token|bearer token|token\b|credentials?|\
            authentication|authorization)
            api[ _-]?key (?:is |was |has been |you provided |provided )?(?:is |was |has been )?\
            (?:not valid|invalid|incorrect|expired|revoked|disabled|blocked|leaked|inactive|deactivated|\
            reported|unauthorized)
            (?:access|oauth|auth|authentication|bearer|refresh|security|session|your) token \
            (?:\w{1,12} ){0,3}(?:expired|invalid|revoked|missing|not valid|has expired|is expired|could not)
            token (?:has |is |was )?(?:been )?(?:expired|revoked|invalidated)
            authenticat(?:ion|e) (?:\w{1,12} ){0,2}(?:fail|error|required|invalid|denied)
            (?:failed to|cannot|could not|unable to) authenticate
            not authenticated
            (?:re-?authenticate|sign in again|log in again|please (?:log|sign) in|please run /login|\
            re-?login)
            user not found
            country, region,? or territory not supported
            (?:location|region|country) is not supported
            not (?:available|supported) in your (?:country|region|location)
            organization has been disabled
            account (?:has been |is |was )(?:deactivated|disabled|suspended|banned|locked|terminated|\
            blocked)
            can only be used (?:from )?(?:within|with|by|in|through)
            only (?:authorized|available) for use with
            oauth authentication is currently not
            suspected (?:abuse|leak)
            key has been (?:disabled|revoked|leaked)
            api[ _-]?key[ _](?:revoked|deactivated|deleted)
            (?:could not|cannot|unable to|failed to) validate (?:the )?credentials
            missing scopes?
            insufficient (?:permissions?|scopes?|privileges)
            认证失败
            鉴权(?:失败|错误)
            (?:无效|过期|错误)的?(?:令牌|密钥|api)
            (?:令牌|密钥|token|key).{0,8}(?:无效|过期|失效|错误|不正确|不存在)
            身份验证
            没有权限
            无权(?:限|访问)
            未授权
            """,
        ),
        not_statuses=frozenset({404, 408, 429, 500, 502, 503, 504, 529}),
    ),
    PhraseRow(
        kind=Kind.AUTH,
        label="the credential was refused",
        source="RFC 9110 wording",
        wordings=wordings(
            r"""
            \bunauthori[sz]ed\b
            permission[- _]denied
            access (?:is |was )?(?:denied|forbidden|revoked)
            \bforbidden\b
            not authorized
            """,
        ),
        not_statuses=frozenset({400, 404, 408, 422, 429, 500, 502, 503, 504, 529}),
    ),
    PhraseRow(
        kind=Kind.TIMEOUT,
        label="it took too long",
        source="nodejs, undici, httpx, Cloudflare, Claude Code, gRPC",
        wordings=wordings(
            r"""
            timed[ -]?out
            etimedout
            deadline[ _]exceeded
            (?:request|connection|connect|read|stream|idle|gateway|response|socket|headers?|body|upstream|\
            api|network|operation|header|first token|inactivity|server)[ -]?(?:idle )?time-?out
            timeout (?:error|occurred|exceeded|reached|expired|waiting|while|after|of \d|was reached|\
            awaiting)
            a timeout occurred
            time-?out (?:error|has occurred)
            und_err_\w{1,10}_timeout
            no (?:response|data|tokens?|chunks?)(?: was)? (?:received )?(?:from|within|for|after|in)\b
            (?:exceeded|over) (?:the )?(?:\w{1,10} )?time limit
            \btimeouterror\b
            stream (?:has )?stalled
            \btimeout\.?$
            超时
            """,
        ),
        not_statuses=REQUEST_STATUSES,
    ),
    PhraseRow(
        kind=Kind.NETWORK,
        label="the connection failed",
        source="nodejs errno, Bun, undici, httpx, requests, Codex, OpenCode host texts",
        wordings=wordings(
            r"""
            econn(?:reset|refused|aborted)
            enotfound
            eai_again
            epipe
            enetunreach
            ehostunreach
            enetdown|enetreset|ehostdown
            und_err_socket
            socket hang ?up
            fetch failed
            failed to fetch
            load failed
            socket (?:connection )?(?:was |has been |is )?(?:closed|reset|disconnected|error|ended)
            \b(?:connection|stream|socket) (?:was |has been |is |got )?(?:unexpectedly |forcibly |\
            prematurely )?(?:reset|refused|closed|lost|aborted|dropped|terminated|interrupted|\
            disconnected|broken|severed|error|failed|failure)
            (?:cannot|can't|could not|couldn't|unable to|failed to) (?:\w{1,12} )?(?:connect|reach|\
            establish)
            network (?:\w{1,10} )?(?:error|failure|issue|problem|is unreachable|unreachable|changed|lost|\
            timeout|request failed)
            getaddrinfo
            (?:dns|name) (?:\w{1,12} )?(?:fail|error|not known|not resolved|resolution|lookup)
            premature (?:close|end)
            ^(?:typeerror: )?terminated$
            (?:server|peer|remote end|other side|remote host|upstream) (?:\w{1,14} )?(?:disconnected|\
            closed|reset|hung up)
            incomplete (?:chunked )?(?:read|response|message)
            (?:stream )?disconnected before completion
            error sending request
            error decoding response body
            (?:certificate|ssl|tls) (?:\w{1,14} ){0,3}(?:fail|error|expired|verif|unable|invalid)
            self[- ]signed certificate
            unable to verify the first certificate
            (?:host|network) (?:is )?unreachable
            upstream connect error
            broken pipe
            ended (?:prematurely|unexpectedly|before|without)
            (?:stop|finish)_? ?reason:? network_error
            connectionrefused|connectionreset|connectionclosed
            网络(?:错误|异常|连接)
            连接(?:失败|超时|被|断开|重置)
            """,
        ),
        not_statuses=REQUEST_STATUSES,
    ),
    PhraseRow(
        kind=Kind.SERVER_ERROR,
        label="the provider failed",
        source="OpenAI, Anthropic, Google, Azure, Cohere; a host's report of an empty answer",
        wordings=wordings(
            r"""
            server (?:had an|has an|encountered an?|experienced an?) (?:\w{1,14} )?error
            internal (?:server )?(?:error|failure)
            (?:an? )?internal error
            server[ _]error
            an error occurred while processing your request
            bad gateway
            (?:returned|received|produced|got|with) an? empty (?:response|answer|message|completion|\
            output|stream|body|content)
            empty (?:response|answer|completion|stream|reply) (?:from|received|returned|twice)
            upstream (?:request |service |server |provider )?(?:error|failed|failure)
            (?:unexpected|unknown) (?:server|internal|upstream) error
            (?:no|without) (?:output|content|response) (?:was )?(?:generated|returned|produced)
            something went wrong
            服务(?:器)?(?:内部)?(?:错误|异常)
            内部错误
            系统(?:错误|异常)
            """,
        ),
        not_statuses=frozenset({401, 402, 403, 404, 429}),
    ),
)
