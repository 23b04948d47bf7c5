"""How providers name what is used up: codes of money, plans, machines and buckets."""

from __future__ import annotations

from fallback_plugin.core.code_row import CodeRow
from fallback_plugin.core.failure import Kind, Scope

_OPENAI = "platform.openai.com/docs/guides/error-codes"
_ANTHROPIC = "docs.claude.com/en/api/errors"
_GOOGLE = "cloud.google.com/apis/design/errors, google.rpc.Code"
_AWS = "docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html"
_QWEN = "help.aliyun.com/zh/model-studio/error-code"
_ARK = "volcengine.com/docs/82379/1299023"
_KIMI = "platform.moonshot.ai/docs/api/chat#error-codes"
_ZEN = "opencode packages/console/app/src/routes/zen/util/error.ts"
_COPILOT = "github.com/microsoft/vscode-copilot-chat, chatMLFetcher.ts"
_CODEX = "openai/codex codex-rs/core/src/error.rs"
_NEW_API = "QuantumNous/new-api types/error.go"
_LITELLM = "docs.litellm.ai/docs/exception_mapping"
_PYTHON = "names of the Python SDKs' exceptions"

LIMIT_CODES: tuple[CodeRow, ...] = (
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_OPENAI,
        codes="""
            insufficient_quota billing_hard_limit_reached billing_not_active account_deactivated_billing
            access_terminated_billing
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_CODEX,
        codes="""
            usage_limit_reached usage_limit_exceeded usage_not_included workspace_owner_credits_depleted
            workspace_member_credits_depleted workspace_owner_usage_limit_reached
            workspace_member_usage_limit_reached QuotaExceeded
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_ANTHROPIC,
        codes="billing_error credit_balance_too_low",
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_ZEN,
        codes="""
            CreditsError FreeUsageLimitError GoUsageLimitError SubscriptionUsageLimitError
            MonthlyLimitError UserLimitError BlackUsageLimitError SubscriptionError
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_KIMI,
        codes="exceeded_current_quota_error exceeded_current_quota",
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_COPILOT,
        codes="""
            quota_exceeded free_quota_exceeded premium_quota_exceeded overage_limit_reached
            user_weekly_rate_limited user_monthly_rate_limited user_daily_rate_limited
            billing_not_configured additional_spend_limit_reached premium_models_weekly_rate_limited
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_QWEN,
        codes="""
            Arrearage Throttling.AllocationQuota.FreeTierOnly AllocationQuota.FreeTierOnly FreeTierOnly
            PrepaidBillOverdue PostpaidBillOverdue CommodityNotPurchased
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_ARK,
        codes="""
            AccountOverdueError AccountOverdue InsufficientBalance SetLimitExceeded QuotaExceeded
            FreeQuotaExhausted ResourcePackExhausted AccountQuotaExceeded
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_AWS,
        codes="ServiceQuotaExceededException",
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_NEW_API,
        codes="""
            insufficient_user_quota pre_consume_token_quota_failed quota_not_enough token_quota_exhausted
        """,
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source=_LITELLM,
        codes="budget_exceeded BudgetExceededError ExceededBudget ExceededTokenBudget",
    ),
    CodeRow(
        kind=Kind.QUOTA_EXHAUSTED,
        source="vercel.com/docs/ai-gateway; docs.x.ai; siliconflow docs; common",
        codes="""
            insufficient_balance insufficient_balance_error insufficient_funds insufficient_credits
            insufficient_credit not_enough_credits no_credits out_of_credits credits_exhausted
            credit_exhausted payment_required payment_required_error PaymentRequired
            customer_verification_required spending_limit_exceeded monthly_limit_exceeded
            daily_limit_exceeded weekly_limit_exceeded QUOTA_EXHAUSTED quota_exhausted exceed_quota
            token_quota_exceeded usage_cap_exceeded plan_limit_reached subscription_required
            subscription_expired trial_expired ModelQuotaExceededError model_cooldown
            RESOURCE_EXHAUSTED_DAILY dailyLimitExceeded quotaExceeded_daily
        """,
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_ANTHROPIC,
        codes="overloaded_error overloaded",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_OPENAI,
        codes="server_is_overloaded server_overloaded slow_down engine_overloaded",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_KIMI,
        codes="engine_overloaded_error",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source="google-gemini/gemini-cli packages/core/src/utils/googleErrors.ts",
        codes="MODEL_CAPACITY_EXHAUSTED capacity_exhausted",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source="console.groq.com/docs/errors; docs.mistral.ai; together.ai docs",
        codes="""
            capacity_exceeded service_tier_capacity_exceeded over_capacity flex_tier_capacity_exceeded
            model_overloaded insufficient_capacity no_capacity queue_full queue_exceeded too_busy
            server_busy engine_busy
        """,
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_AWS,
        codes="ServiceUnavailableException ModelNotReadyException",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_ARK,
        codes="ServerOverloaded ModelServingOverload EngineOverloaded ModelLoadingError",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_QWEN,
        codes="ServiceUnavailable ModelServingError ModelUnavailable system_busy",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_PYTHON,
        codes="OverloadedError ModelOverloadedError ModelUnavailableError",
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source="CLIProxyAPI sdk/cliproxy/auth; new-api",
        codes="auth_unavailable no_available_account no_available_accounts channel:no_available_key",
        scope=Scope.PROVIDER,
    ),
    CodeRow(
        kind=Kind.OVERLOADED,
        source=_GOOGLE,
        codes="""
            UNAVAILABLE service_unavailable service_unavailable_error ServiceUnavailableError
            unavailable_error temporarily_unavailable
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_OPENAI,
        codes="""
            rate_limit_exceeded rate_limit_reached rate_limit tokens requests too_many_requests
            too_many_request
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_ANTHROPIC,
        codes="rate_limit_error acceleration_limit_exceeded",
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_GOOGLE,
        codes="RESOURCE_EXHAUSTED ResourceExhausted rateLimitExceeded userRateLimitExceeded",
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_AWS,
        codes="""
            ThrottlingException Throttling ThrottledException TooManyRequestsException
            RequestLimitExceeded ProvisionedThroughputExceededException
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_KIMI,
        codes="rate_limit_reached_error",
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_COPILOT,
        codes="""
            rate_limited user_model_rate_limited model_rate_limited integration_rate_limited
            agent_mode_limit_exceeded upstream_provider_rate_limit extension_blocked
            user_global_rate_limited
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_QWEN,
        codes="""
            Throttling.RateQuota Throttling.BurstRate Throttling.User Throttling.Api limit_requests
            limit_burst_rate LimitRequests
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_QWEN + ": tokens per minute, in spite of the name",
        codes="Throttling.AllocationQuota",
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_ARK,
        codes="""
            RateLimitExceeded.EndpointRPMExceeded RateLimitExceeded.EndpointTPMExceeded
            ModelAccountRpmRateLimitExceeded ModelAccountTpmRateLimitExceeded
            APIAccountRpmRateLimitExceeded ModelAccountIpmRateLimitExceeded AccountRateLimitExceeded
            RequestBurstTooFast
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source="cloud.tencent.com/document/product/1729; cloud.baidu.com",
        codes="""
            LimitExceeded RequestLimitExceeded RequestLimitExceeded.UinLimitExceeded
            tpm_rate_limit_exceeded rpm_rate_limit_exceeded preemptible_rate_limit_exceeded
            user_rate_limit_exceeded cluster_rate_limit_exceeded
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.RATE_LIMIT,
        source=_PYTHON,
        codes="""
            RateLimitError ModelRateLimitError ModelThrottledException TooManyRequests
            TooManyRequestsError request_rate_too_large concurrency_limit_exceeded
            concurrent_limit_exceeded max_concurrency_exceeded
        """,
        firm=False,
    ),
)
