"""Numeric provider codes and HTTP statuses, and what each means.

Numbers mean different things to different providers (1002 is a bad token at z.ai and a rate limit at MiniMax), so
each row names the family that speaks it. A few are unmistakable and hold whoever quotes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from fallback_plugin.core.failure import Kind, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRow:
    """Numeric codes of one family of providers.

    Attributes:
        kind: what they mean.
        family: parts of provider ids (or words of the error text) that speak this dialect.
        codes: the numbers.
        source: where that is documented.
        anywhere: whether the numbers are unmistakable whoever sends them (gateways quote them).
        falls_back: overrides what the kind says.
        scope: overrides what the kind says.
    """

    kind: Kind
    family: tuple[str, ...]
    codes: tuple[str, ...]
    source: str
    anywhere: bool = False
    falls_back: bool | None = None
    scope: Scope | None = None


_ZAI = ("zai", "z.ai", "z-ai", "zhipu", "bigmodel", "glm")
_ZAI_SOURCE = "docs.z.ai/api-reference/api-code"
_MINIMAX = ("minimax", "minimaxi", "hailuo")
_MINIMAX_SOURCE = "platform.minimax.io/docs/api-reference/errorcode"
_MISTRAL = ("mistral", "codestral")
_MISTRAL_SOURCE = "docs.mistral.ai; error bodies {object: error, code}"
_BAIDU = ("baidu", "qianfan", "wenxin", "ernie")
_BAIDU_SOURCE = "cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh"
_SPARK = ("xfyun", "spark", "iflytek")
_SPARK_SOURCE = "xfyun.cn/doc/spark/接口说明"
_SILICON = ("siliconflow", "silicon")
_SILICON_SOURCE = "docs.siliconflow.cn/faqs/error-code"
_CLOUDFLARE = ("cloudflare", "workers-ai")
_CLOUDFLARE_SOURCE = "developers.cloudflare.com/workers-ai/platform/errors"

NUMBER_ROWS: tuple[NumberRow, ...] = (
    NumberRow(
        kind=Kind.QUOTA_EXHAUSTED,
        family=_ZAI,
        codes=("1113", "1308", "1310", "1316", "1317", "1318", "1319"),
        source=_ZAI_SOURCE,
        anywhere=True,
    ),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_ZAI, codes=("1304", "1309"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.MODEL_NOT_FOUND, family=_ZAI, codes=("1211", "1221", "1222", "1311"), source=_ZAI_SOURCE),
    NumberRow(
        kind=Kind.RATE_LIMIT,
        family=_ZAI,
        codes=("1302", "1303", "1313", "1314", "1315"),
        source=_ZAI_SOURCE,
        anywhere=True,
    ),
    NumberRow(kind=Kind.OVERLOADED, family=_ZAI, codes=("1305", "1312"), source=_ZAI_SOURCE, anywhere=True),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_ZAI, codes=("1300", "1301"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.CONTEXT_OVERFLOW, family=_ZAI, codes=("1261",), source=_ZAI_SOURCE),
    NumberRow(
        kind=Kind.AUTH,
        family=_ZAI,
        codes=("1000", "1001", "1002", "1003", "1004", "1100", "1110", "1111", "1112", "1120", "1121", "1220"),
        source=_ZAI_SOURCE,
    ),
    NumberRow(
        kind=Kind.BAD_REQUEST, family=_ZAI, codes=("1210", "1212", "1213", "1214", "1215", "1231"), source=_ZAI_SOURCE
    ),
    NumberRow(kind=Kind.SERVER_ERROR, family=_ZAI, codes=("1200", "1230"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.NETWORK, family=_ZAI, codes=("1234",), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_MINIMAX, codes=("2056",), source=_MINIMAX_SOURCE, anywhere=True),
    # 1008 is also how WebSockets say "policy violation", so only MiniMax may say it
    NumberRow(
        kind=Kind.QUOTA_EXHAUSTED,
        family=_MINIMAX,
        codes=("1008", "1028", "1030"),
        source=_MINIMAX_SOURCE,
    ),
    NumberRow(kind=Kind.RATE_LIMIT, family=_MINIMAX, codes=("1002", "1039", "1041", "2045"), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.TIMEOUT, family=_MINIMAX, codes=("1001",), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.AUTH, family=_MINIMAX, codes=("1004", "2049", "1043"), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_MINIMAX, codes=("1026",), source=_MINIMAX_SOURCE, anywhere=True),
    NumberRow(
        kind=Kind.CONTENT_POLICY,
        family=_MINIMAX,
        codes=("1027",),
        source=_MINIMAX_SOURCE + "; output blocked: another model writes another answer",
        anywhere=True,
        falls_back=True,
    ),
    NumberRow(kind=Kind.OVERLOADED, family=_MINIMAX, codes=("2064",), source=_MINIMAX_SOURCE, anywhere=True),
    NumberRow(kind=Kind.SERVER_ERROR, family=_MINIMAX, codes=("1000", "1013", "1024", "1033"), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.MODEL_NOT_FOUND, family=_MINIMAX, codes=("2061",), source=_MINIMAX_SOURCE, anywhere=True),
    NumberRow(kind=Kind.RATE_LIMIT, family=_MISTRAL, codes=("1300",), source=_MISTRAL_SOURCE),
    NumberRow(kind=Kind.OVERLOADED, family=_MISTRAL, codes=("3505", "1302"), source=_MISTRAL_SOURCE),
    NumberRow(kind=Kind.MODEL_NOT_FOUND, family=_MISTRAL, codes=("1500", "1501"), source=_MISTRAL_SOURCE),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_BAIDU, codes=("4", "17", "19"), source=_BAIDU_SOURCE),
    NumberRow(kind=Kind.RATE_LIMIT, family=_BAIDU, codes=("18", "336501", "336502"), source=_BAIDU_SOURCE),
    NumberRow(kind=Kind.OVERLOADED, family=_BAIDU, codes=("2", "336100"), source=_BAIDU_SOURCE),
    NumberRow(kind=Kind.AUTH, family=_BAIDU, codes=("6", "13", "14", "15", "100", "110", "111"), source=_BAIDU_SOURCE),
    NumberRow(kind=Kind.CONTEXT_OVERFLOW, family=_BAIDU, codes=("336007", "336103"), source=_BAIDU_SOURCE),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_BAIDU, codes=("336104", "17001"), source=_BAIDU_SOURCE),
    NumberRow(kind=Kind.RATE_LIMIT, family=_SPARK, codes=("10007", "11202", "11203"), source=_SPARK_SOURCE),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_SPARK, codes=("11200", "11201"), source=_SPARK_SOURCE),
    NumberRow(kind=Kind.OVERLOADED, family=_SPARK, codes=("10008", "10110"), source=_SPARK_SOURCE),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_SPARK, codes=("10013", "10014", "10019"), source=_SPARK_SOURCE),
    NumberRow(kind=Kind.CONTEXT_OVERFLOW, family=_SPARK, codes=("10907",), source=_SPARK_SOURCE),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_SILICON, codes=("30001", "30011"), source=_SILICON_SOURCE),
    NumberRow(kind=Kind.MODEL_NOT_FOUND, family=_SILICON, codes=("20012", "30003"), source=_SILICON_SOURCE),
    NumberRow(kind=Kind.OVERLOADED, family=_SILICON, codes=("50501", "50505", "50508"), source=_SILICON_SOURCE),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_CLOUDFLARE, codes=("3036", "4006"), source=_CLOUDFLARE_SOURCE),
    NumberRow(kind=Kind.OVERLOADED, family=_CLOUDFLARE, codes=("3040",), source=_CLOUDFLARE_SOURCE),
    NumberRow(kind=Kind.TIMEOUT, family=_CLOUDFLARE, codes=("3007", "3046"), source=_CLOUDFLARE_SOURCE),
    NumberRow(kind=Kind.MODEL_NOT_FOUND, family=_CLOUDFLARE, codes=("5007", "5016", "3042"), source=_CLOUDFLARE_SOURCE),
    NumberRow(kind=Kind.AUTH, family=_CLOUDFLARE, codes=("10000", "3023", "9109"), source=_CLOUDFLARE_SOURCE),
    NumberRow(kind=Kind.CONTEXT_OVERFLOW, family=_CLOUDFLARE, codes=("5021",), source=_CLOUDFLARE_SOURCE),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRow:
    """What a bare HTTP status means when nothing else speaks."""

    kind: Kind
    statuses: tuple[int, ...]
    source: str
    falls_back: bool | None = None


_RFC = "RFC 9110"
_EDGE = "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors"

STATUS_ROWS: tuple[StatusRow, ...] = (
    StatusRow(
        kind=Kind.BAD_REQUEST, statuses=(400, 405, 406, 409, 411, 412, 414, 415, 416, 417, 422, 431), source=_RFC
    ),
    StatusRow(kind=Kind.AUTH, statuses=(401, 403, 407), source=_RFC),
    StatusRow(
        kind=Kind.QUOTA_EXHAUSTED, statuses=(402,), source=_RFC + "; api-docs.deepseek.com/quick_start/error_codes"
    ),
    StatusRow(kind=Kind.MODEL_NOT_FOUND, statuses=(404, 410), source=_RFC + "; retired models answer 410"),
    StatusRow(kind=Kind.TIMEOUT, statuses=(408, 504, 522, 524, 598), source=_RFC + "; " + _EDGE),
    StatusRow(kind=Kind.CONTEXT_OVERFLOW, statuses=(413,), source=_RFC + "; docs.claude.com/en/api/errors"),
    StatusRow(kind=Kind.SERVER_ERROR, statuses=(424,), source="Bedrock ModelErrorException"),
    StatusRow(kind=Kind.RATE_LIMIT, statuses=(425, 429), source="RFC 6585, 8470"),
    StatusRow(kind=Kind.CONTENT_POLICY, statuses=(451,), source="RFC 7725"),
    StatusRow(
        kind=Kind.OVERLOADED,
        statuses=(498, 503, 529),
        source=_RFC + "; console.groq.com/docs/errors; docs.claude.com/en/api/errors",
    ),
    StatusRow(kind=Kind.ABORTED, statuses=(499,), source="console.groq.com/docs/errors"),
    StatusRow(kind=Kind.NETWORK, statuses=(521, 523, 525, 526, 530), source=_EDGE),
)
