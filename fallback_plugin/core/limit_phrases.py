"""How providers say that money, a plan, a machine or a bucket is used up."""

from __future__ import annotations

from fallback_plugin.core.failure import Kind
from fallback_plugin.core.phrase import CAP, GONE, WINDOW, PhraseRow
from fallback_plugin.core.wordings import wordings

LIMIT_PHRASES: tuple[PhraseRow, ...] = (
    PhraseRow(
        kind=Kind.RATE_LIMIT,
        label="a burst, answered as an empty upstream account",
        source="XiaomiMiMo/MiMo#99: concurrency on a funded plan answers 402",
        wordings=wordings(
            r"""
            upstream request failed
            """,
        ),
        not_statuses=frozenset({400, 401, 403, 404, 500, 502, 503}),
        providers=("xiaomi", "mimo"),
    ),
    PhraseRow(
        kind=Kind.QUOTA_EXHAUSTED,
        label="the purse is empty",
        source=(
            "Anthropic, DeepSeek, z.ai, xAI, OpenRouter, MiniMax, Moonshot, Vercel, Zen, "
            "SiliconFlow, Hugging Face, litellm"
        ),
        wordings=wordings(
            r"""
            insufficient[ _-](?:\w{1,12} )?(?:balance|credits?|funds?|quota)
            (?:balance|credits?|funds?) (?:is |are |was |were |has been |have been )?(?:too low|\
            insufficient|not (?:enough|sufficient)|exhausted|depleted|used up|empty|negative|zero|expired|\
            run out|over|below|less than)
            (?:low|negative|not enough|no available|zero|exhausted|lack of) (?:account |credit |token )?\
            (?:balance|credits?|funds?)
            (?:out of|not have enough|don'?t have enough|not have any|doesn'?t have any|don'?t have any|\
            ran out of|run out of|no more|no remaining|need more|requires? (?:more|additional|at least|\
            paid)|used all (?:available|of your|your)|exceeded your (?:\w{1,12} ){0,3}|insufficient) \
            (?:\w{1,12} )?credits?
            \bkey (?:\w{1,12} )?limit (?:has been |is |was )?(?:exceeded|reached|hit)
            (?:add|buy|purchase|get) (?:more |additional |some |extra )?(?:credits?|funds)
            purchase (?:those|one) on
            can only afford
            free credits
            credit limit
            (?:spend|spending|budget|cost|usage-based|billing)(?:ing)? (?:hard )?(?:limit|cap)
            budget (?:has been |is |was )?exceeded
            (?:exceeded|over) (?:your |the |its |max )?(?:\w{1,12} )?budget
            (?:please )?(?:recharge|top[ -]?up)\b
            (?:overdue|unpaid|outstanding) (?:payment|balance|invoice|bill)
            payment (?:is )?(?:overdue|failed|past due)
            payment is required
            in arrears|arrearage
            good standing
            billing (?:is |has )?(?:not (?:been )?(?:enabled|active|set up|configured)|disabled|issue|\
            inactive|required)
            (?:enable|requires?|without|set up|activate) (?:a |an )?(?:active )?billing
            account (?:\S{1,40} ){0,4}(?:is |was |has been )?(?:not active|suspended due to)[^.]{0,60}\
            (?:billing|balance|quota|payment)
            free tier of the model has been exhausted
            payment method (?:is )?(?:required|needed|declined)
            余额(?:不足|已|为)
            欠费
            充值
            无可用资源包
            资源包(?:已|不足|用)
            账户.{0,6}(?:不足|冻结)
            """,
        ),
    ),
    PhraseRow(
        kind=Kind.QUOTA_EXHAUSTED,
        label="a plan's window is used up",
        source=("Claude, Codex, Copilot, z.ai, MiniMax, Ollama, Zen, Go, Kimi, Groq and Bedrock per day"),
        wordings=wordings(
            r"""
            (?:usage|spend) (?:limit|cap|allotment|quota|threshold)
            free usage
            (?:token|api|plan|credit|monthly|included|free) usage (?:has been |is |was )?(?:exceeded|\
            exhausted|reached|used up)
            out of (?:extra )?usage
            extra usage
            premium (?:model )?requests?
            allowance
            usage_limit
            <window>[- ](?:\w{1,14}[- ]){0,3}<cap>\b
            <window>(?: \w{1,14}){0,3} rate[- ]?limit
            <cap> (?:\w{1,12} ){0,3}(?:for (?:the |this |today)?|per |this )(?:day|week|month|\
            billing period|\d{1,2} hours?|current (?:period|cycle))\b
            (?:tokens|requests|calls|queries|messages|models|prompts|generations)[- _]\
            (?:\w{1,12}[- ])?per[- _]?(?:day|week|month)
            perday
            per[- ]day
            \((?:tpd|rpd)\)
            (?:hit|reached|exceeded|used up|used all of|exhausted) (?:your|the|its|their)(?: (?:\w{1,14}|\
            [a-z]{1,10}'s|5-hour|free|plan))? (?:limit|limits|usage)\b(?! on| of \d| for requests)\
            (?<!rate limit)(?<!rate limits)(?<!concurrency limit)(?<!request limit)(?<!token limit)\
            (?<!token usage)(?<!tpm limit)(?<!rpm limit)
            limit (?:reached|exhausted|hit|exceeded)[^a-z0-9]{1,6}(?:your limit |it |this )?\
            (?:will )?resets?\b
            limit exhausted
            exceed(?:s|ed)? your account'?s rate limit
            weekly[ /][^.]{0,40}(?:limit|quota)
            weekly rate
            (?:subscription|trial|plan|membership) (?:has |is |was )?(?:been )?(?:expired|ended|inactive|\
            not active|required|cancell?ed|exhausted|finished|suspended)
            (?:no|without an?|requires? an?|need an?)(?: active| valid| paid){0,3} subscription
            not included in (?:your|the)(?: current)? (?:plan|subscription)
            upgrade (?:your (?:plan|subscription|account)|to (?:plus|pro|max|a paid|continue)|for \
            (?:higher|more))
            subscribe to (?:\w{1,12})
            free (?:tier|plan|trial|quota|limit|allocation)s? (?:\w{1,12} ){0,2}(?:exceeded|exhausted|\
            ended|expired|reached|used up|is over|limit|has been)
            daily free allocation
            (?:credentials?|accounts?|keys?|channels?)[^.]{0,80}cooling down
            all (?:\w{1,14} )?accounts? (?:have |has )?(?:reached|exceeded|exhausted)[^.]{0,40}(?:quota|\
            limit)
            capacity on this model\. your quota
            (?:免费)?额度(?:不足|已|用|耗|超)
            套餐.{0,12}(?:到期|过期|用尽|用完|上限|不包含|失效)
            (?:每周|每月|每日|每天|小时|本周|本月|今日|当日|当天).{0,12}(?:上限|限额|额度|用尽|用完|限制)
            (?:使用|用量|调用)(?:量)?(?:已)?(?:达到|达|超).{0,6}(?:上限|限额)
            (?:已)?(?:用尽|用完|耗尽)
            """,
            window=WINDOW,
            cap=CAP,
        ),
    ),
    PhraseRow(
        kind=Kind.QUOTA_EXHAUSTED,
        label="the quota is used up",
        source="OpenAI, Google, Moonshot, Copilot, new-api",
        wordings=wordings(
            r"""
            quotas? (?:limit )?(?:has been |have been |is |are |was |were )?(?:already )?<gone>
            <gone> (?:\w{1,14} ){0,5}quotas?\b
            out of quota
            no (?:remaining |available |more )?quota
            quota will (?:reset|refresh)
            quota threshold
            quota (?:is )?not enough
            quota_exceeded
            exceeds? quota
            not enough quota
            quota limit
            check your plan and billing
            配额(?:不足|已|超|用)
            """,
            gone=GONE,
        ),
        soft_window=True,
    ),
    PhraseRow(
        kind=Kind.OVERLOADED,
        label="the provider is overloaded",
        source=(
            "Anthropic, OpenAI, Google, Azure, Mistral, Groq, Kimi, z.ai, Together, DeepInfra, "
            "Chutes, Ollama, Hugging Face, Codex"
        ),
        wordings=wordings(
            r"""
            overload
            (?:at|over|out of|no|insufficient|exceeded|maximum|limited|reached|full|enough|lack of)\
            (?: \w{1,14}){0,2} capacity
            capacity (?:is |has been |was )?(?:exceeded|exhausted|unavailable|reached|constraint|limit|\
            is full|error)
            (?:don't|not|doesn't|do not) have (?:enough |sufficient )?capacity
            (?:high|heavy|peak|unusual|increased|unprecedented|excessive)(?: \w{1,12})? (?:demand|load|\
            traffic|usage|volume)
            due to (?:high )?(?:demand|traffic|load)
            too busy
            (?:server|service|system|engine|model|backend|upstream|provider|machine)s? (?:is |are )?\
            (?:currently |temporarily )?(?:too )?busy
            \bbusy\b[^.]{0,30}(?:try|retry)
            queue (?:is |was )?(?:full|exceeded|overflow|limit)
            queue_exceeded
            (?:temporarily|currently|momentarily) (?:unavailable|not available|out of service|\
            out of capacity)
            service (?:is )?(?:temporarily |currently )?unavailable
            (?:model|backend|engine|endpoint|server|provider)s? (?:is |are )?(?:temporarily |\
            currently )?unavailable
            slow down
            receiving too many requests
            no (?:\w{1,12} )?(?:instances?|deployments?|workers?|replicas?|servers?|backends?|machines?|\
            providers?|accounts?|auth|healthy upstream)s? (?:is |are )?(?:currently )?(?:available|ready|\
            online|running)
            no (?:available|healthy) (?:\w{1,12} )?(?:instances?|workers?|upstream|servers?|backends?|\
            providers?|accounts?|credentials?|auth|targets?|deployments?)
            no auth available
            auth_unavailable
            (?:is |currently |still )loading(?: model)?
            loading model
            model (?:is )?(?:not ready|warming up|cold|starting)
            (?:under|scheduled|down for) maintenance
            resources? (?:is |are )?(?:limited|insufficient|unavailable)
            not (?:have )?enough (?:resources|compute|gpu)
            too many (?:concurrent )?connections
            繁忙
            过载
            访问量过大
            负载
            高峰
            拥挤
            请求过多.{0,20}稍后
            服务(?:暂)?不可用
            算力不足
            资源(?:不足|紧张)
            """,
        ),
        not_statuses=frozenset({401, 403}),
    ),
    PhraseRow(
        kind=Kind.RATE_LIMIT,
        label="requests are throttled",
        source="everybody",
        wordings=wordings(
            r"""
            rate[- _]?limit(?:ed|ing)?[^a-z0-9]{0,3}(?:\w{1,12} ){0,4}(?:exceed|reach|hit|error|trigger|\
            restrict|for |has|have|is |was |by |\)|try|please)
            (?:exceed|reach|hit|exhaust|over|trigger)\w{0,4} [^.]{0,80}rate[- ]?limit
            rate[- _]limited
            \brate ?limited\b
            rate limit (?:error|exceeded)
            \brate_limit(?:_|\b)
            rate[- ]?limit\w{0,5}[.!:;,)]?$
            speed limited
            requests? rate limit
            too many (?:requests|tokens|concurrent|calls|messages|queries|api)
            throttl(?:ed|ing|e )
            throttlingexception
            (?:requests?|calling|calls) (?:is |are |was |were )?(?:too )(?:frequent|fast|many|often)
            too (?:frequent|fast|quickly)
            rate increased too
            request rate
            concurren(?:cy|t)[^.]{0,60}(?:limit|exceed|reached|too)
            (?:limit|exceed\w{0,3})[^.]{0,30}concurren
            (?:requests|tokens|queries) per (?:minute|second|min)\b[^.]{0,40}(?:exceed|limit|reach)
            (?:exceed|reach)\w{0,4}[^.]{0,60} per[- ]?(?:minute|second|min)\b
            per-minute
            is in cooldown
            burst (?:rate|limit|capacity)
            限流
            频率
            频繁
            并发
            限速
            速率(?:限制|超)
            请求过(?:多|快|于)
            调用过(?:多|快)
            速率
            """,
        ),
    ),
)
