"""The wording of failures: rows tried in order on squeezed error text, first match wins.

Text is the last resort, yet providers hide what matters in it: an empty purse in a 400, a full machine in a
429, a context overflow in a 502. So the rows go from the unmistakable to the general: what is wrong with the
request, then quota before overload before throttling, then models, credentials and the wire (W33).

*Weak* rows describe what an assistant might also write in prose ("the model gpt-5 does not exist"); they are
tried only where a status, a name or an error object shows that this is an error.
"""

from __future__ import annotations

from fallback_plugin.core.access_phrases import ACCESS_PHRASES
from fallback_plugin.core.limit_phrases import LIMIT_PHRASES
from fallback_plugin.core.request_phrases import REQUEST_PHRASES

PHRASES = (*REQUEST_PHRASES, *LIMIT_PHRASES, *ACCESS_PHRASES)
