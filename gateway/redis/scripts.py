"""
What runs inside Redis, in Lua: all limits of a request in one call, on the server's own clock.

    <prefix>user:1:requests   a rate: hash of `at` (microseconds since the epoch) and `debt` (microseconds)
    <prefix>user:1:models     a window: sorted set of tickets by the time of their admission
    <prefix>user:1:parallel   places: sorted set of tickets by the time at which they are free without a sign of life

A ticket is one admitted request. The debt of a rate is how far its theoretical arrival time (GCRA) lies behind `at`:
two numbers, because their sum, in one double, would be exact to a quarter of a microsecond only, and a thousand
requests would add up a thousand of these. Every key expires when it says nothing any more.

The server's clock may be set back. What then lies in the future is not waited for: debts are paid from now on, and
tickets of windows and places are dropped.
"""

CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function debt_of(key)
  local found = redis.call('HMGET', key, 'at', 'debt')
  if not found[1] then return 0 end
  return math.max(0, found[2] - math.max(0, now - found[1]))
end

local function owe(key, debt)
  redis.call('HSET', key, 'at', string.format('%.0f', now), 'debt', string.format('%.17g', debt))
  redis.call('PEXPIRE', key, math.ceil(debt / 1000) + 1)
end
"""

ADMIT = (
    CLOCK
    + """
-- KEYS: what is counted. ARGV: the ticket, the lease of a place; then for each key what it is, its limit, its period
-- (a rate's interval between two requests and a window's length follow from it) and its cost. Times in microseconds.
-- Returns 1 if the request is counted, else 0; then for each key the wait, what remains, and when it is whole again.
local SLACK = 1000000
local ticket, lease = ARGV[1], tonumber(ARGV[2])
local passed = true
local checks = {}

local function rate(check)
  check.debt = debt_of(check.key)
  check.wait = check.debt + math.max(1, check.cost) * check.period / check.limit - check.period
end

local function window(check)
  redis.call('ZREMRANGEBYSCORE', check.key, '-inf', string.format('%.0f', now - check.period))
  redis.call('ZREMRANGEBYSCORE', check.key, string.format('%.0f', now + SLACK), '+inf')
  check.used = redis.call('ZCARD', check.key)
  check.wait = 0
  if check.used >= check.limit then
    local leaves = check.used - check.limit
    check.wait = redis.call('ZRANGE', check.key, leaves, leaves, 'WITHSCORES')[2] + check.period - now
  end
end

local function places(check)
  redis.call('ZREMRANGEBYSCORE', check.key, '-inf', string.format('%.0f', now))
  redis.call('ZREMRANGEBYSCORE', check.key, string.format('%.0f', now + lease + SLACK), '+inf')
  check.used = redis.call('ZCARD', check.key)
  check.wait = check.used >= check.limit and SLACK or 0
end

local look = {rate = rate, window = window, places = places}
for i, key in ipairs(KEYS) do
  local at = 4 * i - 1
  local check = {key = key, kind = ARGV[at], limit = tonumber(ARGV[at + 1])}
  check.period, check.cost = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  look[check.kind](check)
  -- A thousandth of a microsecond is what sums of doubles may be off.
  if check.wait > 0.001 then passed = false else check.wait = 0 end
  checks[i] = check
end

local taking = passed and 1 or 0
local answer = {taking}
for _, check in ipairs(checks) do
  local remaining, reset
  if check.kind == 'rate' then
    local interval = check.period / check.limit
    reset = check.debt + taking * check.cost * interval
    remaining = (check.period - reset) / interval + 0.000001
    if taking * check.cost > 0 then owe(check.key, reset) end
  else
    remaining = check.limit - check.used - taking
    reset = 0
    if passed then
      local score = check.kind == 'window' and now or now + lease
      redis.call('ZADD', check.key, string.format('%.0f', score), ticket)
      redis.call('PEXPIRE', check.key, math.ceil((check.kind == 'window' and check.period or lease) / 1000) + 1)
    end
    if check.kind == 'window' then
      local newest = redis.call('ZRANGE', check.key, -1, -1, 'WITHSCORES')[2]
      if newest then reset = newest + check.period - now end
    end
  end
  answer[#answer + 1] = math.ceil(check.wait)
  answer[#answer + 1] = math.max(0, math.floor(remaining))
  answer[#answer + 1] = math.ceil(reset)
end
return answer
"""
)

CHARGE = (
    CLOCK
    + """
-- KEYS: rates. ARGV: for each of them, how much longer its debt becomes, in microseconds.
for i, key in ipairs(KEYS) do owe(key, debt_of(key) + ARGV[i]) end
"""
)

REFRESH = (
    CLOCK
    + """
-- KEYS: places. ARGV: the lease of a place, in microseconds; then for each key the ticket that still holds it.
local free = string.format('%.0f', now + ARGV[1])
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, free, ARGV[i + 1])
  redis.call('PEXPIRE', key, math.ceil(ARGV[1] / 1000) + 1)
end
"""
)
