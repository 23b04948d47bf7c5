"""Which store a URL means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import platformdirs

from fallback_plugin.errors import ConfigurationError
from fallback_plugin.stores.base import Store
from fallback_plugin.stores.memory import MemoryStore
from fallback_plugin.stores.redis import RedisStore
from fallback_plugin.stores.sqlite import SqliteStore

HOME_VARIABLE = "FALLBACK_PLUGIN_HOME"
"""Names the directory of everything that the plugin keeps, instead of the user's state directory."""
FILE_NAME = "state.db"

_REDIS_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_NOT_ROOTED = re.compile(r"^/(~|[A-Za-z]:)")
_FIX = "write memory://, sqlite:///path/to/file, a path, redis://host:port/0 or rediss://host:port/0"


def state_directory() -> Path:
    """The directory of everything that the plugin keeps: the user's state directory, or $FALLBACK_PLUGIN_HOME."""
    home = os.environ.get(HOME_VARIABLE)
    directory = Path(home).expanduser() if home else platformdirs.user_state_path("fallback-plugin", appauthor=False)
    return directory.absolute()


def default_url() -> str:
    """The store of a user who named none: a SQLite file in the state directory."""
    return f"sqlite://{quote((state_directory() / FILE_NAME).as_posix())}"


def open_store(url: str) -> Store:
    """The store that a URL names; `Store.open` connects it.

    Args:
        url: memory://, sqlite:///path (an absolute one, or ~ for the user's home), a bare path, redis://, rediss://,
            valkey:// or valkeys://. The query ?namespace=name keeps users of one Redis server apart.

    Raises:
        ConfigurationError: the URL is none of these.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _sqlite(url)

    match scheme.lower():
        case "memory" if not rest:
            return MemoryStore()
        case "sqlite" if rest.startswith("/"):
            return _sqlite(_NOT_ROOTED.sub(r"\1", unquote(rest)))
        case name if name in _REDIS_SCHEMES and rest:
            return _redis(url)
        case _:
            # Never the URL itself: it may hold a password.
            raise ConfigurationError(f"no store is known by a URL that begins with {scheme[:20]!r}://: {_FIX}")


def _sqlite(path: str) -> SqliteStore:
    if not path.strip(" /") or "\0" in path:
        raise ConfigurationError(f"the store's URL names no file: {_FIX}")

    try:
        return SqliteStore(Path(path).expanduser())
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"the store's path can't be used: {_FIX}") from error


def _redis(url: str) -> RedisStore:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"the store's URL can't be read: {_FIX}") from error

    query = dict(parse_qsl(parts.query))
    namespace = query.pop("namespace", "main")
    if not namespace or set("{}") & set(namespace):
        raise ConfigurationError("the store's namespace must not hold { or }: rename it")

    plain = parts._replace(scheme=_REDIS_SCHEMES[parts.scheme], query=urlencode(query))
    return RedisStore(urlunsplit(plain), namespace=namespace)
