"""Provider error codes, types and error names: what each means and where that is written.

A code is looked up without case and separators, and without a trailing "error" or "exception", so that
`rate_limit_error`, `RateLimitError` and `RATE-LIMIT` are one entry. *Firm* codes decide. *Loose* codes name only
a family, which providers use for several failures (a 429 `rate_limit_error` may be an empty plan, an
`invalid_request_error` an empty purse); error text is read first and they decide if it says nothing.
Numeric codes are in `error_numbers`.
"""

from __future__ import annotations

from fallback_plugin.core.access_codes import ACCESS_CODES
from fallback_plugin.core.limit_codes import LIMIT_CODES
from fallback_plugin.core.request_codes import REQUEST_CODES

CODE_ROWS = (*REQUEST_CODES, *LIMIT_CODES, *ACCESS_CODES)
