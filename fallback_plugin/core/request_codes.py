"""How providers name what is wrong with a request, or that it was called off."""

from __future__ import annotations

from fallback_plugin.core.code_row import CodeRow
from fallback_plugin.core.failure import Kind

_OPENAI = "platform.openai.com/docs/guides/error-codes"
_ANTHROPIC = "docs.claude.com/en/api/errors"
_GOOGLE = "cloud.google.com/apis/design/errors, google.rpc.Code"
_AWS = "docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html"
_AZURE = "learn.microsoft.com/azure/ai-foundry/openai/reference, quotas-limits"
_QWEN = "help.aliyun.com/zh/model-studio/error-code"
_ARK = "volcengine.com/docs/82379/1299023"
_OPENCODE = "opencode packages/opencode/src/provider/error.ts, session/message-v2.ts"
_COPILOT = "github.com/microsoft/vscode-copilot-chat, chatMLFetcher.ts"
_LITELLM = "docs.litellm.ai/docs/exception_mapping"
_PYTHON = "names of the Python SDKs' exceptions"
_NODE = "nodejs.org/api/errors.html, undici docs/api/Errors.md"
_AI_SDK = "ai-sdk.dev/docs/reference/ai-sdk-errors"

REQUEST_CODES: tuple[CodeRow, ...] = (
    CodeRow(
        kind=Kind.ABORTED,
        source=_OPENCODE,
        codes="MessageAborted MessageAbortedError isAbort",
    ),
    CodeRow(
        kind=Kind.ABORTED,
        source=_NODE,
        codes="AbortError ABORT_ERR ERR_CANCELED ResponseAborted",
    ),
    CodeRow(
        kind=Kind.ABORTED,
        source=_PYTHON,
        codes="""
            CancelledError Cancelled APIUserAbortError UserAborted KeyboardInterrupt request_cancelled
        """,
    ),
    CodeRow(
        kind=Kind.CONTEXT_OVERFLOW,
        source=_OPENAI,
        codes="""
            context_length_exceeded string_above_max_length_context input_too_long prompt_too_long
            model_context_window_exceeded max_context_length_exceeded context_window_exceeded
            context_limit_exceeded input_tokens_exceeded tokens_limit_reached token_limit_exceeded
        """,
    ),
    CodeRow(
        kind=Kind.CONTEXT_OVERFLOW,
        source=_COPILOT,
        codes="model_max_prompt_tokens_exceeded prompt_tokens_exceeded",
    ),
    CodeRow(
        kind=Kind.CONTEXT_OVERFLOW,
        source="ggml-org/llama.cpp tools/server; vLLM",
        codes="exceed_context_size_error exceed_context_size",
    ),
    CodeRow(
        kind=Kind.CONTEXT_OVERFLOW,
        source=_ANTHROPIC,
        codes="request_too_large",
        firm=False,
    ),
    CodeRow(
        kind=Kind.CONTEXT_OVERFLOW,
        source=_OPENCODE + "; " + _LITELLM,
        codes="""
            ContextOverflowError ContextWindowExceededError ContextLengthExceededError
            ContextWindowOverflowException ModelContextLengthExceededError
        """,
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source=_OPENAI,
        codes="""
            content_policy_violation content_policy moderation_blocked policy_violation
            image_content_policy_violation cyber_policy cyber_policy_violation bio_policy_violation
        """,
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source=_AZURE,
        codes="""
            content_filter ResponsibleAIPolicyViolation content_filtered ContentFilterError
            content_filter_error
        """,
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source=_QWEN,
        codes="DataInspectionFailed data_inspection_failed",
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source=_ARK,
        codes="""
            SensitiveContentDetected InputTextSensitiveContentDetected InputImageSensitiveContentDetected
            TextRiskDetection InputTextRiskDetection
        """,
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source=_ARK,
        codes="""
            OutputTextSensitiveContentDetected OutputTextRiskDetection OutputImageSensitiveContentDetected
        """,
        falls_back=True,
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source="ai.google.dev/api/generate-content#FinishReason",
        codes="PROHIBITED_CONTENT BLOCKLIST SPII IMAGE_SAFETY",
    ),
    CodeRow(
        kind=Kind.CONTENT_POLICY,
        source=_LITELLM,
        codes="""
            ContentPolicyViolationError guardrail_violation GuardrailRaisedException
            sensitive_words_detected prompt_blocked safety_violation content_blocked
            violation_of_usage_policy SafetyError
        """,
    ),
    CodeRow(
        kind=Kind.BAD_REQUEST,
        source="console.groq.com/docs/tool-use, /docs/structured-outputs",
        codes="tool_use_failed json_validate_failed output_parse_failed",
        falls_back=True,
    ),
    CodeRow(
        kind=Kind.BAD_REQUEST,
        source=_OPENCODE + "; " + _AI_SDK,
        codes="""
            StructuredOutputError AI_NoObjectGeneratedError NoObjectGeneratedError
            invalid_tool_call_generated MalformedFunctionCall MALFORMED_FUNCTION_CALL
        """,
        falls_back=True,
    ),
    CodeRow(
        kind=Kind.TRUNCATED,
        source=_OPENCODE,
        codes="MessageOutputLengthError MaxTokensReachedException",
    ),
    CodeRow(
        kind=Kind.BAD_REQUEST,
        source=_OPENAI,
        codes="""
            invalid_encrypted_content thinking_signature_invalid unsupported_parameter unsupported_value
            unsupported_file invalid_type missing_required_parameter unknown_parameter
            invalid_function_parameters invalid_json_schema decimal_below_min_value
            decimal_above_max_value integer_below_min_value integer_above_max_value array_above_max_length
            array_below_min_length string_above_max_length string_below_min_length invalid_image_url
            invalid_base64 invalid_image_format image_too_large unsupported_image_media_type
            previous_response_not_found bad_request_body convert_request_failed unsupported_api_for_model
        """,
    ),
    CodeRow(
        kind=Kind.BAD_REQUEST,
        source=_OPENAI,
        codes="""
            invalid_request_error invalid_request invalid_value invalid_parameter invalid_parameter_error
            BadRequestError bad_request UnprocessableEntityError unprocessable_entity validation_error
            invalid_prompt invalid_input unsupported_operation UnsupportedParamsError InvalidRequestError
            bad_request_error request_validation_error method_not_allowed
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.BAD_REQUEST,
        source=_GOOGLE + "; " + _AWS + "; " + _QWEN,
        codes="""
            INVALID_ARGUMENT InvalidArgument FAILED_PRECONDITION OUT_OF_RANGE ValidationException
            ValidationError InvalidParameter InvalidParameter.Data InvalidParameterValue BadRequest
            GatewayInvalidRequestError MissingParameter AI_InvalidPromptError AI_TypeValidationError
            AI_UnsupportedFunctionalityError AI_InvalidArgumentError
        """,
        firm=False,
    ),
)
