"""The steps that the Redis store takes on the server: one Lua script per operation, each atomic."""

from __future__ import annotations

from fallback_plugin.stores.redis_script import script

_OPEN = """
call('SET', P .. 'schema', ARGV[1], 'NX')
return tonumber(call('GET', P .. 'schema'))
"""

_GET = """
local kind, key, now = unpack(ARGV)
key = follow(key, now)
local value, revision, change, wall = read(kind, key)
return value and {key, value, revision, change, wall}
"""

_PUT = """
local kind, key, text, expected, wall = unpack(ARGV)
key = follow(key, wall)
local value, revision = read(kind, key)
if expected ~= '' and tonumber(expected) ~= (value and revision or 0) then return false end
return {key, text, revision + 1, write(kind, key, text, revision + 1, wall), wall}
"""

_DELETE = """
local kind, key, expected, wall = unpack(ARGV)
key = follow(key, wall)
local value, revision = read(kind, key)
if not value or (expected ~= '' and tonumber(expected) ~= revision) then return 0 end
write(kind, key, false, revision + 1, wall)
return 1
"""

_CHANGES = """
local kind, after, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if after > tonumber(call('GET', P .. 'change') or 0) then after = 0 end
local index = P .. 'kind:' .. kind
local found = call('ZRANGEBYSCORE', index, '(' .. string.format('%.0f', after), '+inf', 'LIMIT', 0, limit)
local rows = {#found, after}
for _, key in ipairs(found) do
  local value, revision, change, wall = read(kind, key)
  if revision == 0 then
    call('ZREM', index, key)
  else
    rows[#rows + 1] = {key, value, revision, change, wall}
  end
end
return rows
"""

_APPEND = """
local stream = follow(ARGV[1], ARGV[2])
local sequences = {}
for i = 3, #ARGV do sequences[#sequences + 1] = add(stream, ARGV[i]) end
return {call('LLEN', P .. 'stream:' .. stream), sequences}
"""

_ENTRIES = """
local stream, start, limit = follow(ARGV[1], ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if limit == 0 then return {} end
return call('LRANGE', P .. 'stream:' .. stream, start, limit < 0 and -1 or start + limit - 1)
"""

_TRUNCATE = """
local stream, start = follow(ARGV[1], ARGV[2]), tonumber(ARGV[3])
local dropped = call('LRANGE', P .. 'stream:' .. stream, start, -1)
for _, element in ipairs(dropped) do
  local id = id_of(element)
  if id then call('HDEL', P .. 'ids:' .. stream, id) end
end
if start == 0 then call('DEL', P .. 'stream:' .. stream) else call('LTRIM', P .. 'stream:' .. stream, 0, start - 1) end
return #dropped
"""

_ACQUIRE = """
local key, owner, now, expires = unpack(ARGV)
key = follow(key, now)
local row = lease(key)
if row.owner and tonumber(row.expires) > tonumber(now) then
  if row.owner ~= owner then return false end
else
  row.owner, row.generation, row.following = owner, row.following, row.following + 1
end
row.expires = expires
save_lease(key, row, (expires - now) * 1000)
return {key, row.generation}
"""

_REFRESH = """
local key, owner, generation, now, expires = unpack(ARGV)
key = follow(key, now)
local row = lease(key)
if row.owner ~= owner or row.generation ~= tonumber(generation) or tonumber(row.expires) <= tonumber(now) then
  return false
end
row.expires = expires
save_lease(key, row, (expires - now) * 1000)
return {key, row.generation}
"""

_RELEASE = """
local key, owner, generation, now = unpack(ARGV)
key = follow(key, now)
local row = lease(key)
if row.owner ~= owner or row.generation ~= tonumber(generation) then return 0 end
call('HDEL', P .. 'lease:' .. key, 'o')
return 1
"""

_FORCE_RELEASE = """
local key = follow(ARGV[1], ARGV[2])
local row = lease(key)
row.owner = false
if row.expires == '0' then row.expires = ARGV[2] end
save_lease(key, row, (row.expires - ARGV[2]) * 1000)
return row.following
"""

_HOLDER = """
local key = follow(ARGV[1], ARGV[2])
local row = lease(key)
if not row.owner or tonumber(row.expires) <= tonumber(ARGV[3]) then return false end
return {key, row.owner, row.generation, row.expires}
"""

_ALIAS = """
local wall = ARGV[3]
local old, new = follow(ARGV[1], wall), follow(ARGV[2], wall)
if old == new then return 0 end

for _, kind in ipairs(call('SMEMBERS', P .. 'kinds')) do
  local value, revision, change, written = read(kind, old)
  if value then
    local their_value, their_revision, their_change, their_written = read(kind, new)
    write(kind, old, false, revision + 1, wall)
    if their_revision > 0 then revision = math.max(revision, their_revision) + 1 end
    if their_value and their_change > change then value, written = their_value, their_written end
    write(kind, new, value, revision, written)
  end
end

local ours = P .. 'stream:' .. old
if call('EXISTS', ours) == 1 then
  local theirs = call('LRANGE', P .. 'stream:' .. new, 0, -1)
  call('RENAME', ours, P .. 'stream:' .. new)
  call('DEL', P .. 'ids:' .. new)
  if call('EXISTS', P .. 'ids:' .. old) == 1 then call('RENAME', P .. 'ids:' .. old, P .. 'ids:' .. new) end
  for _, element in ipairs(theirs) do add(new, element) end
end

if call('EXISTS', P .. 'lease:' .. old) == 1 then
  local our_lease, their_lease = lease(old), lease(new)
  local following, goes_on = math.max(our_lease.following, their_lease.following), our_lease
  local later = tonumber(their_lease.expires) > tonumber(our_lease.expires)
  if their_lease.owner and (later or not our_lease.owner) or (later and not our_lease.owner) then
    goes_on = their_lease
  end
  goes_on.following = following
  call('DEL', P .. 'lease:' .. old)
  call('ZREM', P .. 'leases', old)
  save_lease(new, goes_on, (goes_on.expires - wall) * 1000)
end

for _, name in ipairs(call('SMEMBERS', P .. 'names:' .. old)) do
  call('SET', P .. 'alias:' .. name, new)
  call('SADD', P .. 'names:' .. new, name)
end
call('DEL', P .. 'names:' .. old)
call('SET', P .. 'alias:' .. old, new)
call('SADD', P .. 'names:' .. new, old)
call('ZADD', P .. 'aliases', wall, old)
return 1
"""

_RESOLVE = """
return follow(ARGV[1], ARGV[2])
"""

_FORGET = """
local before, limit = ARGV[1], tonumber(ARGV[2])
local dropped, seen = 0, 0
local function old(index)
  local found = call('ZRANGEBYSCORE', P .. index, '-inf', '(' .. before, 'LIMIT', 0, limit)
  seen = seen + #found
  return found
end

for _, name in ipairs(old('tombstones')) do
  local length, start = string.match(name, '^(%d+):()')
  local kind = string.sub(name, start, start + length - 1)
  call('ZREM', P .. 'tombstones', name)
  call('ZREM', P .. 'kind:' .. kind, string.sub(name, start + length + 1))
  dropped = dropped + call('DEL', P .. 'record:' .. name)
end

for _, key in ipairs(old('leases')) do
  call('ZREM', P .. 'leases', key)
  dropped = dropped + call('DEL', P .. 'lease:' .. key)
end

for _, name in ipairs(old('aliases')) do
  local target = call('GET', P .. 'alias:' .. name)
  local row = lease(target)
  if row.owner and tonumber(row.expires) >= tonumber(before) then
    call('ZADD', P .. 'aliases', before, name)
  else
    call('ZREM', P .. 'aliases', name)
    call('SREM', P .. 'names:' .. target, name)
    dropped = dropped + call('DEL', P .. 'alias:' .. name)
  end
end
return {dropped, seen}
"""


OPEN = script(_OPEN)
GET = script(_GET)
PUT = script(_PUT)
DELETE = script(_DELETE)
CHANGES = script(_CHANGES)
APPEND = script(_APPEND)
ENTRIES = script(_ENTRIES)
TRUNCATE = script(_TRUNCATE)
ACQUIRE = script(_ACQUIRE)
REFRESH = script(_REFRESH)
RELEASE = script(_RELEASE)
FORCE_RELEASE = script(_FORCE_RELEASE)
HOLDER = script(_HOLDER)
ALIAS = script(_ALIAS)
RESOLVE = script(_RESOLVE)
FORGET = script(_FORGET)
