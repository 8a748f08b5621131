"""What happens in Redis as one step, in Lua: a script runs to its end before anything else does.

The one key that each is given is what all keys begin with, in braces: so all lie in one slot of a cluster. Numbers go
in as Python writes them and stay text, which loses nothing.

===================  =========  ========================================================================
``session:NAME``     hash       a session by its reference; ``call`` and ``secret`` only while it is claimed
``sessions``         sorted     references by when the session was started
``attr`` ``page``    hashes     a fingerprint, or a call's name, to the reference of its session
``code`` ``secret``
``call``
``tokens``           sorted     fingerprints of accepted tokens, by when they may be forgotten
``account:NAME``     hash       an account; ``incarnation`` changes with its password
``accounts``         set        their names
``login:NAME``       hash       a login by its fingerprint; of this incarnation of the account
``calls``            sorted     the records of calls, by arrival
``notes``            hash       sealed notes by name
``turn``             string     whose turn it is to serve, until it lapses; ``turns``: its number
``noted``            hash       the turn and the number of the latest change of them
``audit``            sorted     the entries of the audit trail, by sequence
``audit-ends``       hash       its anchor and its head
``schema``           string     the version of all this
===================  =========  ========================================================================
"""

from __future__ import annotations

PREFIX = "{idbellen}"
SCHEMA_VERSION = 1

# It writes in any case, so that a server that takes no changes is found out.
OPEN = """
redis.call('SET', KEYS[1] .. ':schema', ARGV[1], 'NX')
return redis.call('GET', KEYS[1] .. ':schema')
"""

_SESSIONS = """
local function key(name) return KEYS[1] .. ':' .. name end
local function session(reference) return key('session:' .. reference) end
local function found(reference)
    if not reference then return false end
    local has = redis.call('HMGET', session(reference), 'purpose', 'result', 'language')
    if not has[1] then return false end
    return {reference, has[1], has[2], has[3]}
end
local function release(reference)
    local has = redis.call('HMGET', session(reference), 'call', 'secret')
    redis.call('HDEL', key('call'), has[1])
    redis.call('HDEL', key('secret'), has[2])
    redis.call('HDEL', session(reference), 'call', 'secret')
end
local function delete(reference)
    for _, index in ipairs({'attr', 'page', 'code', 'call', 'secret'}) do
        local value = redis.call('HGET', session(reference), index)
        if value then redis.call('HDEL', key(index), value) end
    end
    redis.call('DEL', session(reference))
    redis.call('ZREM', key('sessions'), reference)
end
local function accept(reference, result, identity, until_when)
    redis.call('ZADD', key('tokens'), until_when, identity)
    redis.call('HSET', session(reference), 'result', result)
end
"""

START = f"""{_SESSIONS}
local reference, purpose, now, language, attr, page, result, identity, until_when = unpack(ARGV)
if redis.call('EXISTS', session(reference)) == 1
    or redis.call('HEXISTS', key('attr'), attr) == 1
    or redis.call('HEXISTS', key('page'), page) == 1
    or redis.call('ZSCORE', key('tokens'), identity) then return 0 end
redis.call('HSET', session(reference), 'purpose', purpose, 'created', now, 'attr', attr, 'page', page)
if language ~= '' then redis.call('HSET', session(reference), 'language', language) end
if result ~= '' then accept(reference, result, identity, until_when) end
redis.call('HSET', key('attr'), attr, reference)
redis.call('HSET', key('page'), page, reference)
redis.call('ZADD', key('sessions'), now, reference)
return 1
"""

ATTACH_RESULT = f"""{_SESSIONS}
local reference, result, identity, until_when = unpack(ARGV)
local has = redis.call('HMGET', session(reference), 'purpose', 'result')
if not has[1] or has[2] then return 'second' end
if redis.call('ZSCORE', key('tokens'), identity) then return 'replayed' end
accept(reference, result, identity, until_when)
return 'kept'
"""

BY_REFERENCE = f"""{_SESSIONS}
return found(ARGV[1])
"""

BY_INDEX = f"""{_SESSIONS}
return found(redis.call('HGET', key(ARGV[1]), ARGV[2]))
"""

OPEN_PAGE = f"""{_SESSIONS}
local reference = redis.call('HGET', key('page'), ARGV[1])
if not reference or redis.call('HSETNX', session(reference), 'opened', 1) == 0 then return false end
return found(reference)
"""

SET_LANGUAGE = f"""{_SESSIONS}
if found(ARGV[1]) then redis.call('HSET', session(ARGV[1]), 'language', ARGV[2]) end
"""

DISCARD = f"""{_SESSIONS}
local was = found(ARGV[1])
if not was or redis.call('HEXISTS', session(ARGV[1]), 'call') == 1 then return false end
delete(ARGV[1])
return was
"""

ISSUE_CODE = f"""{_SESSIONS}
local reference, code, now, until_when = unpack(ARGV)
if not found(reference) then return 0 end
local holder = redis.call('HGET', key('code'), code)
if holder and holder ~= reference then
    local has = redis.call('HMGET', session(holder), 'code_until', 'call')
    if has[2] or tonumber(has[1]) > tonumber(now) then return 0 end
    redis.call('HDEL', session(holder), 'code', 'code_until')
end
local earlier = redis.call('HGET', session(reference), 'code')
if earlier then redis.call('HDEL', key('code'), earlier) end
redis.call('HSET', session(reference), 'code', code, 'code_until', until_when)
redis.call('HSET', key('code'), code, reference)
return 1
"""

CLAIM = f"""{_SESSIONS}
local code, now, call, secret = unpack(ARGV)
local reference = redis.call('HGET', key('code'), code)
if not reference then return false end
local has = redis.call('HMGET', session(reference), 'code_until', 'call', 'secret')
if tonumber(has[1]) <= tonumber(now) then return false end
if has[2] == call and has[3] == secret then return found(reference) end
if has[2] or redis.call('HEXISTS', key('call'), call) == 1 then return false end
redis.call('HSET', session(reference), 'call', call, 'secret', secret)
redis.call('HSET', key('call'), call, reference)
redis.call('HSET', key('secret'), secret, reference)
return found(reference)
"""

RELEASE = f"""{_SESSIONS}
local reference = redis.call('HGET', key('call'), ARGV[1])
if reference then release(reference) end
"""

FINISH = f"""{_SESSIONS}
local reference = redis.call('HGET', key('call'), ARGV[1])
local was = found(reference)
if was then delete(reference) end
return was
"""

RELEASE_OTHERS = f"""{_SESSIONS}
local kept = {{}}
for _, call in ipairs(ARGV) do kept[call] = true end
local released = 0
local claimed = redis.call('HGETALL', key('call'))
for index = 1, #claimed, 2 do
    if not kept[claimed[index]] then
        release(claimed[index + 1])
        released = released + 1
    end
end
return released
"""

KEEP_PURPOSES = f"""{_SESSIONS}
local kept = {{}}
for _, purpose in ipairs(ARGV) do kept[purpose] = true end
local deleted = 0
for _, reference in ipairs(redis.call('ZRANGE', key('sessions'), 0, -1)) do
    if not kept[redis.call('HGET', session(reference), 'purpose')] then
        delete(reference)
        deleted = deleted + 1
    end
end
return deleted
"""

PURGE = f"""{_SESSIONS}
local now, before, long_before = unpack(ARGV)
local deleted = 0
for _, reference in ipairs(redis.call('ZRANGEBYSCORE', key('sessions'), '-inf', '(' .. before)) do
    local has = redis.call('HMGET', session(reference), 'call', 'created')
    if not has[1] or tonumber(has[2]) < tonumber(long_before) then
        delete(reference)
        deleted = deleted + 1
    end
end
redis.call('ZREMRANGEBYSCORE', key('tokens'), '-inf', '(' .. now)
return deleted
"""

_ACCOUNTS = """
local function account(name)
    local key = KEYS[1] .. ':account:' .. name
    local has = redis.call('HMGET', key, 'endpoint', 'hash', 'role', 'queues', 'incarnation')
    if not has[1] then return false end
    return {name, unpack(has)}
end
"""

ADD_ACCOUNT = """
local name, endpoint, hash, role, queues, incarnation = unpack(ARGV)
if redis.call('SADD', KEYS[1] .. ':accounts', name) == 0 then return 0 end
redis.call('HSET', KEYS[1] .. ':account:' .. name,
    'endpoint', endpoint, 'hash', hash, 'role', role, 'queues', queues, 'incarnation', incarnation)
return 1
"""

REMOVE_ACCOUNT = """
redis.call('SREM', KEYS[1] .. ':accounts', ARGV[1])
return redis.call('DEL', KEYS[1] .. ':account:' .. ARGV[1])
"""

ACCOUNTS = f"""{_ACCOUNTS}
local all = {{}}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':accounts')) do all[#all + 1] = account(name) end
return all
"""

ACCOUNT = f"""{_ACCOUNTS}
return account(ARGV[1])
"""

CHANGE_ACCOUNT = f"""{_ACCOUNTS}
local name, endpoint, hash, role, queues, incarnation = unpack(ARGV)
local was = account(name)
if not was then return 0 end
-- Logins are of an incarnation, so those of whoever knew the old password end.
if hash == '' or hash == was[3] then incarnation = '' end
local given = {{endpoint = endpoint, hash = hash, role = role, queues = queues, incarnation = incarnation}}
for field, value in pairs(given) do
    if value ~= '' then redis.call('HSET', KEYS[1] .. ':account:' .. name, field, value) end
end
return 1
"""

LOG_IN = f"""{_ACCOUNTS}
local login, name, now = unpack(ARGV)
local of = account(name)
if of then
    redis.call('HSET', KEYS[1] .. ':login:' .. login, 'name', name, 'created', now, 'seen', now, 'incarnation', of[6])
end
"""

LOGGED_IN = f"""{_ACCOUNTS}
local login, now, idle_since, created_by, idle_milliseconds = unpack(ARGV)
local key = KEYS[1] .. ':login:' .. login
local has = redis.call('HMGET', key, 'name', 'created', 'seen', 'incarnation')
if not has[1] or tonumber(has[3]) <= tonumber(idle_since) or tonumber(has[2]) <= tonumber(created_by) then
    return false
end
local of = account(has[1])
if not of or of[6] ~= has[4] then return false end
redis.call('HSET', key, 'seen', now)
-- Only so that what nobody uses any more does not stay for ever.
redis.call('PEXPIRE', key, idle_milliseconds)
return of
"""

# A record begins with its identity, which is written in one way only, on a line of its own.
KEEP_CALL = """
local arrived, identity, rest = unpack(ARGV)
local calls = KEYS[1] .. ':calls'
for _, record in ipairs(redis.call('ZRANGEBYSCORE', calls, arrived, arrived)) do
    if string.sub(record, 1, #identity) == identity then redis.call('ZREM', calls, record) end
end
redis.call('ZADD', calls, arrived, identity .. rest)
"""

# Those of one turn are numbered: a server that hung runs what was given up after what was sent in its place.
NOTE = """
local turn, number = ARGV[1], tonumber(ARGV[2])
if turn ~= '' then
    local noted = redis.call('HMGET', KEYS[1] .. ':noted', 'turn', 'number')
    if noted[1] == turn and number <= tonumber(noted[2]) then return end
    redis.call('HSET', KEYS[1] .. ':noted', 'turn', turn, 'number', number)
end
for at = 3, #ARGV, 2 do
    if ARGV[at + 1] == '' then
        redis.call('HDEL', KEYS[1] .. ':notes', ARGV[at])
    else
        redis.call('HSET', KEYS[1] .. ':notes', ARGV[at], ARGV[at + 1])
    end
end
"""

# The ends with as many entries from a place on, all of one moment.
AUDIT = """
local ends = redis.call('HMGET', KEYS[1] .. ':audit-ends', 'anchor', 'head')
return {ends[1], ends[2], redis.call('ZRANGE', KEYS[1] .. ':audit', ARGV[1], ARGV[1] + ARGV[2] - 1)}
"""

AUDIT_APPEND = """
local anchor, head, new_anchor, new_head, sequence, entry = unpack(ARGV)
local ends, entries = KEYS[1] .. ':audit-ends', KEYS[1] .. ':audit'
local has = redis.call('HMGET', ends, 'anchor', 'head')
if (has[1] or '') ~= anchor or (has[2] or '') ~= head then return 'changed' end
if redis.call('ZCOUNT', entries, sequence, sequence) > 0 then return 'taken' end
redis.call('ZADD', entries, sequence, entry)
if new_anchor ~= '' then redis.call('HSET', ends, 'anchor', new_anchor) end
redis.call('HSET', ends, 'head', new_head)
return 'appended'
"""

AUDIT_FORGET = """
local anchor, new_anchor, sequence = unpack(ARGV)
if redis.call('HGET', KEYS[1] .. ':audit-ends', 'anchor') ~= anchor then return 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[1] .. ':audit', '-inf', sequence)
redis.call('HSET', KEYS[1] .. ':audit-ends', 'anchor', new_anchor)
return 1
"""

# Turns (:mod:`idbellen.stores.redis_turns`). A number is given out once, also when the turn before has lapsed. It is
# taken until a moment of the server's clock only: a server that hung runs what nobody waits for any more.
TAKE_TURN = """
local turn = KEYS[1] .. ':turn'
local other = redis.call('GET', turn)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if other or now > tonumber(ARGV[3]) then return {0, other or '{}', now} end
local number = redis.call('INCR', KEYS[1] .. ':turns')
redis.call('SET', turn, ARGV[1], 'PX', ARGV[2])
return {number, ARGV[1], now}
"""

# Also when it has lapsed, as long as nobody else had a turn in between.
KEEP_TURN = """
if redis.call('GET', KEYS[1] .. ':turns') ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1] .. ':turn', ARGV[1], 'PX', ARGV[2])
return 1
"""

LEAVE_TURN = """
if redis.call('GET', KEYS[1] .. ':turns') == ARGV[1] then redis.call('DEL', KEYS[1] .. ':turn') end
"""

# Before whatever a process with a turn runs.
FENCED = "FENCED"


def fenced(text: str, number: int) -> str:
    """Give a script that does nothing when another process has had a turn since the one with this number."""
    return f"""
if redis.call('GET', KEYS[1] .. ':turns') ~= '{number}' then return redis.error_reply('{FENCED}') end
{text}"""
