"""How providers name what is missing on the way: models, credentials, time and wire."""

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
_KIMI = "platform.moonshot.ai/docs/api/chat#error-codes"
_OPENCODE = "opencode packages/opencode/src/provider/error.ts, session/message-v2.ts"
_ZEN = "opencode packages/console/app/src/routes/zen/util/error.ts"
_NEW_API = "QuantumNous/new-api types/error.go"
_PYTHON = "names of the Python SDKs' exceptions"
_NODE = "nodejs.org/api/errors.html, undici docs/api/Errors.md"
_AI_SDK = "ai-sdk.dev/docs/reference/ai-sdk-errors"

ACCESS_CODES: tuple[CodeRow, ...] = (
    CodeRow(
        kind=Kind.MODEL_NOT_FOUND,
        source=_OPENAI,
        codes="""
            model_not_found model_not_available unsupported_model invalid_model model_deprecated
            model_decommissioned model_not_supported model_not_exist model_does_not_exist unknown_model
            model_retired model_terms_required
        """,
    ),
    CodeRow(
        kind=Kind.MODEL_NOT_FOUND,
        source=_AZURE,
        codes="""
            DeploymentNotFound DeploymentModelNotSupported unavailable_model unknown_model
            OperationNotSupported ModelDeprecated
        """,
    ),
    CodeRow(
        kind=Kind.MODEL_NOT_FOUND,
        source=_QWEN + "; " + _ARK,
        codes="""
            ModelNotFound ModelNotOpen InvalidEndpointOrModel.NotFound
            InvalidEndpointOrModel.ModelIDAccessDisabled ModelNotSupported AccessDenied.Unpurchased
            InvalidEndpoint.ClosedEndpoint InvalidEndpoint.NotFound ModelAccessDenied Model.AccessDenied
            model_access_denied UnsupportedModel invalid_model_id
        """,
    ),
    CodeRow(
        kind=Kind.MODEL_NOT_FOUND,
        source=_OPENCODE + "; " + _AI_SDK,
        codes="""
            ProviderModelNotFoundError AI_NoSuchModelError NoSuchModelError AI_NoSuchProviderError
            ProviderInitError ProviderNotFoundError GatewayModelNotFoundError
        """,
    ),
    CodeRow(
        kind=Kind.MODEL_NOT_FOUND,
        source=_NEW_API,
        codes="get_channel_failed channel_not_found no_available_channel model_price_error",
    ),
    CodeRow(
        kind=Kind.MODEL_NOT_FOUND,
        source=_ANTHROPIC,
        codes="""
            not_found_error not_found NotFoundError ResourceNotFoundException resource_not_found
            resource_not_found_error ModelNotFoundError NOT_FOUND gone
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.MISSING_API_KEY,
        source=_AI_SDK + "; " + _OPENCODE,
        codes="""
            AI_LoadAPIKeyError LoadAPIKeyError missing_api_key no_api_key api_key_missing api_key_required
            MissingApiKey missing_credentials
        """,
    ),
    CodeRow(
        kind=Kind.AUTH,
        source=_OPENAI,
        codes="""
            invalid_api_key incorrect_api_key api_key_invalid invalid_authentication account_deactivated
            deactivated_workspace api_key_revoked api_key_deleted token_expired token_revoked
            token_invalidated refresh_token_expired refresh_token_reused invalid_token expired_token
            invalid_organization organization_deactivated unsupported_country_region_territory
            ip_not_authorized
        """,
    ),
    CodeRow(
        kind=Kind.AUTH,
        source=_GOOGLE,
        codes="""
            UNAUTHENTICATED API_KEY_INVALID ACCESS_TOKEN_EXPIRED SERVICE_DISABLED CONSUMER_SUSPENDED
            API_KEY_SERVICE_BLOCKED
        """,
    ),
    CodeRow(
        kind=Kind.AUTH,
        source=_AWS,
        codes="""
            UnrecognizedClientException ExpiredTokenException InvalidSignatureException
            MissingAuthenticationToken MissingAuthenticationTokenException IncompleteSignature
            InvalidClientTokenId NotAuthorizedException ExpiredToken CredentialsProviderError
        """,
    ),
    CodeRow(
        kind=Kind.AUTH,
        source=_OPENCODE + "; " + _ZEN,
        codes="ProviderAuthError AuthError GatewayAuthenticationError",
    ),
    CodeRow(
        kind=Kind.AUTH,
        source=_KIMI + "; " + _QWEN,
        codes="""
            invalid_authentication_error incorrect_api_key_error InvalidApiKey InvalidAccessToken
            AuthFailure AuthFailure.SecretIdNotFound SignatureDoesNotMatch InvalidAccessKeyId
        """,
    ),
    CodeRow(
        kind=Kind.AUTH,
        source=_ANTHROPIC,
        codes="""
            authentication_error AuthenticationError authentication permission_error permission_denied
            permission_denied_error PermissionDenied PermissionDeniedError PERMISSION_DENIED
            AccessDeniedException AccessDenied access_denied unauthorized forbidden auth_error
            access_terminated_error ModelProviderAuthError login_required not_authorized no_auth
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.TIMEOUT,
        source=_GOOGLE,
        codes="DEADLINE_EXCEEDED DeadlineExceeded",
    ),
    CodeRow(
        kind=Kind.TIMEOUT,
        source=_AWS + "; " + _ANTHROPIC,
        codes="""
            ModelTimeoutException timeout_error RequestTimeout RequestTimeOut request_timeout timeout
            gateway_timeout RequestTimeoutError ResponseTimeout
        """,
    ),
    CodeRow(
        kind=Kind.TIMEOUT,
        source=_NODE,
        codes="""
            ETIMEDOUT ESOCKETTIMEDOUT UND_ERR_HEADERS_TIMEOUT UND_ERR_BODY_TIMEOUT UND_ERR_CONNECT_TIMEOUT
            HeadersTimeoutError BodyTimeoutError ConnectTimeoutError
        """,
    ),
    CodeRow(
        kind=Kind.TIMEOUT,
        source=_PYTHON,
        codes="""
            APITimeoutError TimeoutError TimeoutException ReadTimeout ConnectTimeout PoolTimeout
            WriteTimeout ReadTimeoutError ConnectTimeoutError GatewayTimeoutError GatewayTimeout
            ModelTimeoutError ServerTimeoutError SocketTimeoutError
        """,
    ),
    CodeRow(
        kind=Kind.NETWORK,
        source=_NODE,
        codes="""
            ECONNRESET ECONNREFUSED ECONNABORTED ENOTFOUND EAI_AGAIN EPIPE ENETUNREACH EHOSTUNREACH
            ENETDOWN ENETRESET EHOSTDOWN UND_ERR_SOCKET SocketError ConnectionRefused ConnectionClosed
            FailedToOpenSocket ERR_SOCKET_CLOSED ERR_STREAM_PREMATURE_CLOSE CERT_HAS_EXPIRED
            DEPTH_ZERO_SELF_SIGNED_CERT UNABLE_TO_VERIFY_LEAF_SIGNATURE
        """,
    ),
    CodeRow(
        kind=Kind.NETWORK,
        source=_PYTHON,
        codes="""
            APIConnectionError ConnectError ReadError WriteError CloseError NetworkError ProtocolError
            RemoteProtocolError LocalProtocolError ConnectionError ConnectionResetError
            ConnectionRefusedError ConnectionAbortedError BrokenPipeError ClientConnectorError
            ClientConnectionError ServerDisconnectedError ClientPayloadError ClientOSError
            EndpointConnectionError IncompleteRead ChunkedEncodingError gaierror SSLError ProxyError
            connection_error network_error upstream_connection_error stream_disconnected
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.SERVER_ERROR,
        source=_OPENAI + "; " + _ANTHROPIC,
        codes="""
            server_error internal_server_error internal_error InternalServerError InternalError
            InternalFailure api_error_internal bad_gateway BadGatewayError BadGateway upstream_error
            bad_response bad_response_status_code do_request_failed bad_response_body
            read_response_body_failed empty_response
        """,
        firm=False,
    ),
    CodeRow(
        kind=Kind.SERVER_ERROR,
        source=_GOOGLE + "; " + _AWS,
        codes="""
            INTERNAL DATA_LOSS InternalServerException ModelErrorException ModelStreamErrorException
            GatewayInternalServerError GatewayResponseError InternalServiceError InternalError.Algo
            InternalError.Timeout ServiceError AI_EmptyResponseBodyError AI_NoOutputGeneratedError
            AI_NoContentGeneratedError UnexpectedModelBehavior ModelServerError InternalServiceException
        """,
        firm=False,
    ),
)
