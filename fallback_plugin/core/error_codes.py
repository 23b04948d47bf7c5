"""Provider error codes, types and error names: what each means and where that is written.

A code is looked up without case and separators, and without a trailing "error" or "exception", so that
`rate_limit_error`, `RateLimitError` and `RATE-LIMIT` are one entry. *Firm* codes decide. *Loose* codes name only
a family, which providers use for several failures (a 429 `rate_limit_error` may be an empty plan, an
`invalid_request_error` an empty purse); error text is read first and they decide if it says nothing.
Numeric codes mean different things to different providers and are kept apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from fallback_plugin.core.failure import Kind, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRow:
    """One meaning and the codes that have it.

    Attributes:
        kind: what the codes mean.
        codes: the codes, separated by blanks, in their folded form or as providers write them.
        source: where that is documented.
        firm: whether they decide before error text is read.
        falls_back: overrides what the kind says; None leaves it.
        scope: overrides what the kind says; None leaves it.
    """

    kind: Kind
    codes: str
    source: str
    firm: bool = True
    falls_back: bool | None = None
    scope: Scope | None = None


_OPENAI = "platform.openai.com/docs/guides/error-codes"
_ANTHROPIC = "docs.claude.com/en/api/errors"
_GOOGLE = "cloud.google.com/apis/design/errors, google.rpc.Code"
_AWS = "docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html"
_AZURE = "learn.microsoft.com/azure/ai-foundry/openai/reference, quotas-limits"
_QWEN = "help.aliyun.com/zh/model-studio/error-code"
_ARK = "volcengine.com/docs/82379/1299023"
_KIMI = "platform.moonshot.ai/docs/api/chat#error-codes"
_OPENCODE = "opencode packages/opencode/src/provider/error.ts, session/message-v2.ts"
_ZEN = "opencode packages/console/app/src/routes/zen/util/error.ts"
_COPILOT = "github.com/microsoft/vscode-copilot-chat, chatMLFetcher.ts"
_CODEX = "openai/codex codex-rs/core/src/error.rs"
_NEW_API = "QuantumNous/new-api types/error.go"
_LITELLM = "docs.litellm.ai/docs/exception_mapping"
_PYTHON = "names of the SDKs' exceptions; hosts.md section 3"
_NODE = "nodejs.org/api/errors.html, undici docs/api/Errors.md"
_AI_SDK = "ai-sdk.dev/docs/reference/ai-sdk-errors"

CODE_ROWS: tuple[CodeRow, ...] = (
    CodeRow(kind=Kind.ABORTED, source=_OPENCODE, codes="MessageAborted MessageAbortedError isAbort"),
    CodeRow(kind=Kind.ABORTED, source=_NODE, codes="AbortError ABORT_ERR ERR_CANCELED ResponseAborted"),
    CodeRow(kind=Kind.ABORTED, source=_PYTHON, codes="CancelledError Cancelled APIUserAbortError UserAborted KeyboardInterrupt request_cancelled"),
    # quota and billing
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_OPENAI, codes="insufficient_quota billing_hard_limit_reached billing_not_active account_deactivated_billing access_terminated_billing"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_CODEX, codes="usage_limit_reached usage_limit_exceeded usage_not_included workspace_owner_credits_depleted workspace_member_credits_depleted workspace_owner_usage_limit_reached workspace_member_usage_limit_reached QuotaExceeded"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_ANTHROPIC, codes="billing_error credit_balance_too_low"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_ZEN, codes="CreditsError FreeUsageLimitError GoUsageLimitError SubscriptionUsageLimitError MonthlyLimitError UserLimitError BlackUsageLimitError SubscriptionError"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_KIMI, codes="exceeded_current_quota_error exceeded_current_quota"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_COPILOT, codes="quota_exceeded free_quota_exceeded premium_quota_exceeded overage_limit_reached user_weekly_rate_limited user_monthly_rate_limited user_daily_rate_limited billing_not_configured additional_spend_limit_reached premium_models_weekly_rate_limited"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_QWEN, codes="Arrearage Throttling.AllocationQuota.FreeTierOnly AllocationQuota.FreeTierOnly FreeTierOnly PrepaidBillOverdue PostpaidBillOverdue CommodityNotPurchased"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_ARK, codes="AccountOverdueError AccountOverdue InsufficientBalance SetLimitExceeded QuotaExceeded FreeQuotaExhausted ResourcePackExhausted AccountQuotaExceeded"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_AWS, codes="ServiceQuotaExceededException"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_NEW_API, codes="insufficient_user_quota pre_consume_token_quota_failed quota_not_enough token_quota_exhausted"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source=_LITELLM, codes="budget_exceeded BudgetExceededError ExceededBudget ExceededTokenBudget"),
    CodeRow(kind=Kind.QUOTA_EXHAUSTED, source="vercel.com/docs/ai-gateway; docs.x.ai; siliconflow docs; common", codes="insufficient_balance insufficient_balance_error insufficient_funds insufficient_credits insufficient_credit not_enough_credits no_credits out_of_credits credits_exhausted credit_exhausted payment_required payment_required_error PaymentRequired customer_verification_required spending_limit_exceeded monthly_limit_exceeded daily_limit_exceeded weekly_limit_exceeded QUOTA_EXHAUSTED quota_exhausted exceed_quota token_quota_exceeded usage_cap_exceeded plan_limit_reached subscription_required subscription_expired trial_expired ModelQuotaExceededError model_cooldown RESOURCE_EXHAUSTED_DAILY dailyLimitExceeded quotaExceeded_daily"),
    # overload
    CodeRow(kind=Kind.OVERLOADED, source=_ANTHROPIC, codes="overloaded_error overloaded"),
    CodeRow(kind=Kind.OVERLOADED, source=_OPENAI, codes="server_is_overloaded server_overloaded slow_down engine_overloaded"),
    CodeRow(kind=Kind.OVERLOADED, source=_KIMI, codes="engine_overloaded_error"),
    CodeRow(kind=Kind.OVERLOADED, source="google-gemini/gemini-cli packages/core/src/utils/googleErrors.ts", codes="MODEL_CAPACITY_EXHAUSTED capacity_exhausted"),
    CodeRow(kind=Kind.OVERLOADED, source="console.groq.com/docs/errors; docs.mistral.ai; together.ai docs", codes="capacity_exceeded service_tier_capacity_exceeded over_capacity flex_tier_capacity_exceeded model_overloaded insufficient_capacity no_capacity queue_full queue_exceeded too_busy server_busy engine_busy"),
    CodeRow(kind=Kind.OVERLOADED, source=_AWS, codes="ServiceUnavailableException ModelNotReadyException"),
    CodeRow(kind=Kind.OVERLOADED, source=_ARK, codes="ServerOverloaded ModelServingOverload EngineOverloaded ModelLoadingError"),
    CodeRow(kind=Kind.OVERLOADED, source=_QWEN, codes="ServiceUnavailable ModelServingError ModelUnavailable system_busy"),
    CodeRow(kind=Kind.OVERLOADED, source=_PYTHON, codes="OverloadedError ModelOverloadedError ModelUnavailableError"),
    CodeRow(kind=Kind.OVERLOADED, source="CLIProxyAPI sdk/cliproxy/auth; new-api", codes="auth_unavailable no_available_account no_available_accounts channel:no_available_key", scope=Scope.PROVIDER),
    CodeRow(kind=Kind.OVERLOADED, source=_GOOGLE, codes="UNAVAILABLE service_unavailable service_unavailable_error ServiceUnavailableError unavailable_error temporarily_unavailable", firm=False),
    # throttling
    CodeRow(kind=Kind.RATE_LIMIT, source=_OPENAI, codes="rate_limit_exceeded rate_limit_reached rate_limit tokens requests too_many_requests too_many_request", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_ANTHROPIC, codes="rate_limit_error acceleration_limit_exceeded", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_GOOGLE, codes="RESOURCE_EXHAUSTED ResourceExhausted rateLimitExceeded userRateLimitExceeded", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_AWS, codes="ThrottlingException Throttling ThrottledException TooManyRequestsException RequestLimitExceeded ProvisionedThroughputExceededException", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_KIMI, codes="rate_limit_reached_error", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_COPILOT, codes="rate_limited user_model_rate_limited model_rate_limited integration_rate_limited agent_mode_limit_exceeded upstream_provider_rate_limit extension_blocked user_global_rate_limited", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_QWEN, codes="Throttling.RateQuota Throttling.BurstRate Throttling.User Throttling.Api limit_requests limit_burst_rate LimitRequests", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_QWEN + ": tokens per minute, in spite of the name", codes="Throttling.AllocationQuota"),
    CodeRow(kind=Kind.RATE_LIMIT, source=_ARK, codes="RateLimitExceeded.EndpointRPMExceeded RateLimitExceeded.EndpointTPMExceeded ModelAccountRpmRateLimitExceeded ModelAccountTpmRateLimitExceeded APIAccountRpmRateLimitExceeded ModelAccountIpmRateLimitExceeded AccountRateLimitExceeded RequestBurstTooFast", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source="cloud.tencent.com/document/product/1729; cloud.baidu.com", codes="LimitExceeded RequestLimitExceeded RequestLimitExceeded.UinLimitExceeded tpm_rate_limit_exceeded rpm_rate_limit_exceeded preemptible_rate_limit_exceeded user_rate_limit_exceeded cluster_rate_limit_exceeded", firm=False),
    CodeRow(kind=Kind.RATE_LIMIT, source=_PYTHON, codes="RateLimitError ModelRateLimitError ModelThrottledException TooManyRequests TooManyRequestsError request_rate_too_large concurrency_limit_exceeded concurrent_limit_exceeded max_concurrency_exceeded", firm=False),
    # context
    CodeRow(kind=Kind.CONTEXT_OVERFLOW, source=_OPENAI, codes="context_length_exceeded string_above_max_length_context input_too_long prompt_too_long max_context_length_exceeded context_window_exceeded context_limit_exceeded input_tokens_exceeded tokens_limit_reached token_limit_exceeded"),
    CodeRow(kind=Kind.CONTEXT_OVERFLOW, source=_COPILOT, codes="model_max_prompt_tokens_exceeded prompt_tokens_exceeded"),
    CodeRow(kind=Kind.CONTEXT_OVERFLOW, source="ggml-org/llama.cpp tools/server; vLLM", codes="exceed_context_size_error exceed_context_size"),
    CodeRow(kind=Kind.CONTEXT_OVERFLOW, source=_ANTHROPIC, codes="request_too_large", firm=False),
    CodeRow(kind=Kind.CONTEXT_OVERFLOW, source=_OPENCODE + "; " + _LITELLM, codes="ContextOverflowError ContextWindowExceededError ContextLengthExceededError ContextWindowOverflowException ModelContextLengthExceededError"),
    # content
    CodeRow(kind=Kind.CONTENT_POLICY, source=_OPENAI, codes="content_policy_violation content_policy moderation_blocked policy_violation image_content_policy_violation cyber_policy cyber_policy_violation bio_policy_violation"),
    CodeRow(kind=Kind.CONTENT_POLICY, source=_AZURE, codes="content_filter ResponsibleAIPolicyViolation content_filtered ContentFilterError content_filter_error"),
    CodeRow(kind=Kind.CONTENT_POLICY, source=_QWEN, codes="DataInspectionFailed data_inspection_failed"),
    CodeRow(kind=Kind.CONTENT_POLICY, source=_ARK, codes="SensitiveContentDetected InputTextSensitiveContentDetected InputImageSensitiveContentDetected TextRiskDetection InputTextRiskDetection"),
    CodeRow(kind=Kind.CONTENT_POLICY, source=_ARK, codes="OutputTextSensitiveContentDetected OutputTextRiskDetection OutputImageSensitiveContentDetected", falls_back=True),
    CodeRow(kind=Kind.CONTENT_POLICY, source="ai.google.dev/api/generate-content#FinishReason", codes="PROHIBITED_CONTENT BLOCKLIST SPII IMAGE_SAFETY"),
    CodeRow(kind=Kind.CONTENT_POLICY, source=_LITELLM, codes="ContentPolicyViolationError guardrail_violation GuardrailRaisedException sensitive_words_detected prompt_blocked safety_violation content_blocked violation_of_usage_policy SafetyError"),
    # models
    CodeRow(kind=Kind.MODEL_NOT_FOUND, source=_OPENAI, codes="model_not_found model_not_available unsupported_model invalid_model model_deprecated model_decommissioned model_not_supported model_not_exist model_does_not_exist unknown_model model_retired model_terms_required"),
    CodeRow(kind=Kind.MODEL_NOT_FOUND, source=_AZURE, codes="DeploymentNotFound DeploymentModelNotSupported unavailable_model unknown_model OperationNotSupported ModelDeprecated"),
    CodeRow(kind=Kind.MODEL_NOT_FOUND, source=_QWEN + "; " + _ARK, codes="ModelNotFound ModelNotOpen InvalidEndpointOrModel.NotFound InvalidEndpointOrModel.ModelIDAccessDisabled ModelNotSupported AccessDenied.Unpurchased InvalidEndpoint.ClosedEndpoint InvalidEndpoint.NotFound ModelAccessDenied Model.AccessDenied model_access_denied UnsupportedModel invalid_model_id"),
    CodeRow(kind=Kind.MODEL_NOT_FOUND, source=_OPENCODE + "; " + _AI_SDK, codes="ProviderModelNotFoundError AI_NoSuchModelError NoSuchModelError AI_NoSuchProviderError ProviderInitError ProviderNotFoundError GatewayModelNotFoundError"),
    CodeRow(kind=Kind.MODEL_NOT_FOUND, source=_NEW_API, codes="get_channel_failed channel_not_found no_available_channel model_price_error"),
    CodeRow(kind=Kind.MODEL_NOT_FOUND, source=_ANTHROPIC, codes="not_found_error not_found NotFoundError ResourceNotFoundException resource_not_found resource_not_found_error ModelNotFoundError NOT_FOUND gone", firm=False),
    # credentials
    CodeRow(kind=Kind.MISSING_API_KEY, source=_AI_SDK + "; " + _OPENCODE, codes="AI_LoadAPIKeyError LoadAPIKeyError missing_api_key no_api_key api_key_missing api_key_required MissingApiKey missing_credentials"),
    CodeRow(kind=Kind.AUTH, source=_OPENAI, codes="invalid_api_key incorrect_api_key api_key_invalid invalid_authentication account_deactivated token_expired token_revoked token_invalidated refresh_token_expired refresh_token_reused invalid_token expired_token invalid_organization organization_deactivated unsupported_country_region_territory ip_not_authorized"),
    CodeRow(kind=Kind.AUTH, source=_GOOGLE, codes="UNAUTHENTICATED API_KEY_INVALID ACCESS_TOKEN_EXPIRED SERVICE_DISABLED CONSUMER_SUSPENDED API_KEY_SERVICE_BLOCKED"),
    CodeRow(kind=Kind.AUTH, source=_AWS, codes="UnrecognizedClientException ExpiredTokenException InvalidSignatureException MissingAuthenticationToken MissingAuthenticationTokenException IncompleteSignature InvalidClientTokenId NotAuthorizedException ExpiredToken CredentialsProviderError"),
    CodeRow(kind=Kind.AUTH, source=_OPENCODE + "; " + _ZEN, codes="ProviderAuthError AuthError GatewayAuthenticationError"),
    CodeRow(kind=Kind.AUTH, source=_KIMI + "; " + _QWEN, codes="invalid_authentication_error incorrect_api_key_error InvalidApiKey InvalidAccessToken AuthFailure AuthFailure.SecretIdNotFound SignatureDoesNotMatch InvalidAccessKeyId"),
    CodeRow(kind=Kind.AUTH, source=_ANTHROPIC, codes="authentication_error AuthenticationError authentication permission_error permission_denied permission_denied_error PermissionDenied PermissionDeniedError PERMISSION_DENIED AccessDeniedException AccessDenied access_denied unauthorized forbidden auth_error access_terminated_error ModelProviderAuthError login_required not_authorized no_auth", firm=False),
    # behaviour of the model, answered as a 400
    CodeRow(kind=Kind.BAD_REQUEST, source="console.groq.com/docs/tool-use, /docs/structured-outputs", codes="tool_use_failed json_validate_failed output_parse_failed", falls_back=True),
    CodeRow(kind=Kind.BAD_REQUEST, source=_OPENCODE + "; " + _AI_SDK, codes="StructuredOutputError AI_NoObjectGeneratedError NoObjectGeneratedError invalid_tool_call_generated MalformedFunctionCall MALFORMED_FUNCTION_CALL", falls_back=True),
    CodeRow(kind=Kind.TRUNCATED, source=_OPENCODE, codes="MessageOutputLengthError MaxTokensReachedException"),
    CodeRow(kind=Kind.BAD_REQUEST, source=_OPENAI, codes="invalid_encrypted_content thinking_signature_invalid unsupported_parameter unsupported_value unsupported_file invalid_type missing_required_parameter unknown_parameter invalid_function_parameters invalid_json_schema decimal_below_min_value decimal_above_max_value integer_below_min_value integer_above_max_value array_above_max_length array_below_min_length string_above_max_length string_below_min_length invalid_image_url invalid_base64 invalid_image_format image_too_large unsupported_image_media_type previous_response_not_found bad_request_body convert_request_failed unsupported_api_for_model"),
    CodeRow(kind=Kind.BAD_REQUEST, source=_OPENAI, codes="invalid_request_error invalid_request invalid_value invalid_parameter invalid_parameter_error BadRequestError bad_request UnprocessableEntityError unprocessable_entity validation_error invalid_prompt invalid_input unsupported_operation UnsupportedParamsError InvalidRequestError bad_request_error request_validation_error method_not_allowed", firm=False),
    CodeRow(kind=Kind.BAD_REQUEST, source=_GOOGLE + "; " + _AWS + "; " + _QWEN, codes="INVALID_ARGUMENT InvalidArgument FAILED_PRECONDITION OUT_OF_RANGE ValidationException ValidationError InvalidParameter InvalidParameter.Data InvalidParameterValue BadRequest GatewayInvalidRequestError MissingParameter AI_InvalidPromptError AI_TypeValidationError AI_UnsupportedFunctionalityError AI_InvalidArgumentError", firm=False),
    # time and wire
    CodeRow(kind=Kind.TIMEOUT, source=_GOOGLE, codes="DEADLINE_EXCEEDED DeadlineExceeded"),
    CodeRow(kind=Kind.TIMEOUT, source=_AWS + "; " + _ANTHROPIC, codes="ModelTimeoutException timeout_error RequestTimeout RequestTimeOut request_timeout timeout gateway_timeout RequestTimeoutError ResponseTimeout"),
    CodeRow(kind=Kind.TIMEOUT, source=_NODE, codes="ETIMEDOUT ESOCKETTIMEDOUT UND_ERR_HEADERS_TIMEOUT UND_ERR_BODY_TIMEOUT UND_ERR_CONNECT_TIMEOUT HeadersTimeoutError BodyTimeoutError ConnectTimeoutError"),
    CodeRow(kind=Kind.TIMEOUT, source=_PYTHON, codes="APITimeoutError TimeoutError TimeoutException ReadTimeout ConnectTimeout PoolTimeout WriteTimeout ReadTimeoutError ConnectTimeoutError GatewayTimeoutError GatewayTimeout ModelTimeoutError ServerTimeoutError SocketTimeoutError"),
    CodeRow(kind=Kind.NETWORK, source=_NODE, codes="ECONNRESET ECONNREFUSED ECONNABORTED ENOTFOUND EAI_AGAIN EPIPE ENETUNREACH EHOSTUNREACH ENETDOWN UND_ERR_SOCKET SocketError ConnectionRefused ConnectionClosed FailedToOpenSocket ERR_SOCKET_CLOSED ERR_STREAM_PREMATURE_CLOSE CERT_HAS_EXPIRED DEPTH_ZERO_SELF_SIGNED_CERT UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
    CodeRow(kind=Kind.NETWORK, source=_PYTHON, codes="APIConnectionError ConnectError ReadError WriteError CloseError NetworkError ProtocolError RemoteProtocolError LocalProtocolError ConnectionError ConnectionResetError ConnectionRefusedError ConnectionAbortedError BrokenPipeError ClientConnectorError ClientConnectionError ServerDisconnectedError ClientPayloadError ClientOSError EndpointConnectionError IncompleteRead ChunkedEncodingError gaierror SSLError ProxyError connection_error network_error upstream_connection_error stream_disconnected", firm=False),
    # everything that broke over there
    CodeRow(kind=Kind.SERVER_ERROR, source=_OPENAI + "; " + _ANTHROPIC, codes="server_error internal_server_error internal_error InternalServerError InternalError InternalFailure api_error_internal bad_gateway BadGatewayError BadGateway upstream_error bad_response bad_response_status_code do_request_failed bad_response_body read_response_body_failed empty_response", firm=False),
    CodeRow(kind=Kind.SERVER_ERROR, source=_GOOGLE + "; " + _AWS, codes="INTERNAL DATA_LOSS InternalServerException ModelErrorException ModelStreamErrorException GatewayInternalServerError GatewayResponseError InternalServiceError InternalError.Algo InternalError.Timeout ServiceError AI_EmptyResponseBodyError AI_NoOutputGeneratedError AI_NoContentGeneratedError UnexpectedModelBehavior ModelServerError InternalServiceException", firm=False),
)  # fmt: skip


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
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_ZAI, codes=("1113", "1308", "1310", "1316", "1317", "1318", "1319"), source=_ZAI_SOURCE, anywhere=True),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_ZAI, codes=("1304", "1309"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.MODEL_NOT_FOUND, family=_ZAI, codes=("1211", "1221", "1222", "1311"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.RATE_LIMIT, family=_ZAI, codes=("1302", "1303", "1313", "1314", "1315"), source=_ZAI_SOURCE, anywhere=True),
    NumberRow(kind=Kind.OVERLOADED, family=_ZAI, codes=("1305", "1312"), source=_ZAI_SOURCE, anywhere=True),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_ZAI, codes=("1300", "1301"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.CONTEXT_OVERFLOW, family=_ZAI, codes=("1261",), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.AUTH, family=_ZAI, codes=("1000", "1001", "1002", "1003", "1004", "1100", "1110", "1111", "1112", "1120", "1121", "1220"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.BAD_REQUEST, family=_ZAI, codes=("1210", "1212", "1213", "1214", "1215", "1231"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.SERVER_ERROR, family=_ZAI, codes=("1200", "1230"), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.NETWORK, family=_ZAI, codes=("1234",), source=_ZAI_SOURCE),
    NumberRow(kind=Kind.QUOTA_EXHAUSTED, family=_MINIMAX, codes=("1008", "1028", "1030", "2056"), source=_MINIMAX_SOURCE, anywhere=True),
    NumberRow(kind=Kind.RATE_LIMIT, family=_MINIMAX, codes=("1002", "1039", "1041", "2045"), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.TIMEOUT, family=_MINIMAX, codes=("1001",), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.AUTH, family=_MINIMAX, codes=("1004", "2049", "1043"), source=_MINIMAX_SOURCE),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_MINIMAX, codes=("1026",), source=_MINIMAX_SOURCE, anywhere=True),
    NumberRow(kind=Kind.CONTENT_POLICY, family=_MINIMAX, codes=("1027",), source=_MINIMAX_SOURCE + "; output blocked: another model writes another answer", anywhere=True, falls_back=True),
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
)  # fmt: skip


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
    StatusRow(kind=Kind.BAD_REQUEST, statuses=(400, 405, 406, 409, 411, 412, 414, 415, 416, 417, 422, 431), source=_RFC),
    StatusRow(kind=Kind.AUTH, statuses=(401, 403, 407), source=_RFC),
    StatusRow(kind=Kind.QUOTA_EXHAUSTED, statuses=(402,), source=_RFC + "; api-docs.deepseek.com/quick_start/error_codes"),
    StatusRow(kind=Kind.MODEL_NOT_FOUND, statuses=(404, 410), source=_RFC + "; retired models answer 410"),
    StatusRow(kind=Kind.TIMEOUT, statuses=(408, 504, 522, 524, 598), source=_RFC + "; " + _EDGE),
    StatusRow(kind=Kind.CONTEXT_OVERFLOW, statuses=(413,), source=_RFC + "; docs.claude.com/en/api/errors"),
    StatusRow(kind=Kind.SERVER_ERROR, statuses=(424,), source=_AWS + ", ModelErrorException"),
    StatusRow(kind=Kind.RATE_LIMIT, statuses=(425, 429), source="RFC 6585, 8470"),
    StatusRow(kind=Kind.CONTENT_POLICY, statuses=(451,), source="RFC 7725"),
    StatusRow(kind=Kind.OVERLOADED, statuses=(498, 503, 529), source=_RFC + "; console.groq.com/docs/errors; docs.claude.com/en/api/errors"),
    StatusRow(kind=Kind.ABORTED, statuses=(499,), source="console.groq.com/docs/errors"),
    StatusRow(kind=Kind.NETWORK, statuses=(521, 523, 525, 526, 530), source=_EDGE),
)  # fmt: skip
