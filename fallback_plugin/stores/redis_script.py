"""A script of the Redis store, and what all of them share.

Every key begins with KEYS[1], the prefix with the one hash tag, so that all are in one slot of a cluster.

| key                  | type   | holds                                                                      |
|----------------------|--------|----------------------------------------------------------------------------|
| schema               | string | version of this layout                                                     |
| change               | string | the newest change number                                                   |
| generation           | string | the highest generation that a key without a lease may have had             |
| kinds                | set    | kinds of records                                                           |
| kind:<kind>          | zset   | keys by change                                                             |
| record:<n>:<kind>:<key> | hash | v value, r revision, c change, w wall; no v in a tombstone, which expires |
| stream:<stream>      | list   | "<wall> <length of id, -1 for none> <id><value>"                           |
| ids:<stream>         | hash   | sequences by id                                                            |
| lease:<key>          | hash   | o owner, g generation, e deadline, f following generation; expires later   |
| alias:<old>          | string | where it leads                                                             |
| names:<key>          | set    | what leads there                                                           |
| tombstones, leases, aliases | zset | what `forget` may drop, by its time                                   |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1

TOMBSTONE_KEPT_MS = 7 * 24 * 3600 * 1000
"""A tombstone that nobody forgot goes after a week."""
LEASE_KEPT_MS = 24 * 3600 * 1000
"""A lease that nobody forgot goes a day after its deadline."""

_CONSTANTS = f"local TOMBSTONE_KEPT_MS, LEASE_KEPT_MS = {TOMBSTONE_KEPT_MS}, {LEASE_KEPT_MS}\n"

_COMMON = """
local P, call = KEYS[1], redis.call

local function follow(key, now)
  local target = call('GET', P .. 'alias:' .. key)
  if not target then return key end
  call('ZADD', P .. 'aliases', 'GT', now, key)
  return target
end

local function record_name(kind, key)
  return #kind .. ':' .. kind .. ':' .. key
end

local function read(kind, key)
  local row = call('HMGET', P .. 'record:' .. record_name(kind, key), 'v', 'r', 'c', 'w')
  return row[1], tonumber(row[2] or 0), tonumber(row[3] or 0), row[4]
end

local function write(kind, key, value, revision, wall)
  local name = record_name(kind, key)
  local change = call('INCR', P .. 'change')
  call('HSET', P .. 'record:' .. name, 'r', revision, 'c', change, 'w', wall)
  if value then
    call('HSET', P .. 'record:' .. name, 'v', value)
    call('PERSIST', P .. 'record:' .. name)
    call('ZREM', P .. 'tombstones', name)
  else
    call('HDEL', P .. 'record:' .. name, 'v')
    call('PEXPIRE', P .. 'record:' .. name, TOMBSTONE_KEPT_MS)
    call('ZADD', P .. 'tombstones', wall, name)
  end
  call('ZADD', P .. 'kind:' .. kind, change, key)
  call('SADD', P .. 'kinds', kind)
  return change
end

local function id_of(element)
  local length, start = string.match(element, '^%S+ (%-?%d+) ()')
  length = tonumber(length)
  if length < 0 then return nil end
  return string.sub(element, start, start + length - 1)
end

local function add(stream, element)
  local id = id_of(element)
  local known = id and call('HGET', P .. 'ids:' .. stream, id)
  if known then return tonumber(known) end
  local sequence = call('RPUSH', P .. 'stream:' .. stream, element) - 1
  if id then call('HSET', P .. 'ids:' .. stream, id, sequence) end
  return sequence
end

local function lease(key)
  local row = call('HMGET', P .. 'lease:' .. key, 'o', 'g', 'e', 'f')
  if row[4] then
    return {owner = row[1], generation = tonumber(row[2]), expires = row[3], following = tonumber(row[4])}
  end
  local following = tonumber(call('GET', P .. 'generation') or 0) + 1
  return {owner = false, generation = 0, expires = '0', following = following}
end

local function save_lease(key, row, lasts_ms)
  local name = P .. 'lease:' .. key
  call('HSET', name, 'g', row.generation, 'e', row.expires, 'f', row.following)
  if row.owner then call('HSET', name, 'o', row.owner) else call('HDEL', name, 'o') end
  call('PEXPIRE', name, math.max(0, math.ceil(lasts_ms)) + LEASE_KEPT_MS)
  call('ZADD', P .. 'leases', row.expires, key)
  if row.following - 1 > tonumber(call('GET', P .. 'generation') or 0) then
    call('SET', P .. 'generation', row.following - 1)
  end
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest that the server knows it by."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text.encode()).hexdigest())  # noqa: S324 - Redis names it so


def script(body: str) -> Script:
    return Script(_CONSTANTS + _COMMON + body)
