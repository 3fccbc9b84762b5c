"""What Redis runs for quotas, each as one step, by its own clock."""

from __future__ import annotations

_METER = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local function level(key, per_minute)
  local kept = redis.call('HMGET', key, 'level', 'at', 'rate')
  local before = tonumber(kept[1] or '0') or 0
  local at = tonumber(kept[2] or now) or now
  local rate = tonumber(kept[3] or per_minute or '0') or 0
  return math.max(0, before - (now - at) * rate / 60)
end
local function keep(key, amount, per_minute)
  local rate = per_minute or tonumber(redis.call('HGET', key, 'rate') or '0') or 0
  if rate <= 0 then return end
  redis.call('HSET', key, 'level', string.format('%.6f', amount), 'at', string.format('%.6f', now), 'rate', rate)
  redis.call('PEXPIRE', key, math.ceil(amount * 60000 / rate) + 60000)
end
"""

# The tokens of an account (see token_window): "<second>" fields of what ended turns used, and what is known of its turns.
# What open turns are expected to use is by turn in a hash of its own.
_WINDOW = """
local function expected(key, most)
  local known = redis.call('HMGET', key, 'turns', 'mean', 'square')
  if not known[1] then return math.min(2000, most / 20) end
  local mean = tonumber(known[2])
  return math.min(mean + math.sqrt(math.max(0, tonumber(known[3]) - mean * mean)), most)
end
local function wait_for(key, most)
  local fields = redis.call('HGETALL', key)
  local used, seconds, at = 0, {}, {}
  for i = 1, #fields, 2 do
    local second, amount = tonumber(fields[i]), tonumber(fields[i + 1])
    if second and second < math.floor(now) - 60 then
      redis.call('HDEL', key, fields[i])
    elseif second then
      seconds[#seconds + 1] = second
      at[second] = amount
      used = used + amount
    elseif fields[i] == 'reserved' then
      used = used + math.max(0, amount)
    end
  end
  local over = used + expected(key, most) - most
  if over <= 0 or used <= 0.001 then return 0 end
  local wait = 1
  table.sort(seconds)
  for _, second in ipairs(seconds) do
    wait = second + 61 - now
    over = over - at[second]
    if over <= 0 then break end
  end
  return wait
end
local function reserve(key, turns, turn, amount)
  redis.call('HSET', turns, turn, string.format('%.3f %.3f', amount, now))
  redis.call('HINCRBYFLOAT', key, 'reserved', string.format('%.3f', amount))
  redis.call('PEXPIRE', turns, 86400000)
  redis.call('PEXPIRE', key, 86400000)
end
local function release(key, turns, turn)
  local reserved = redis.call('HGET', turns, turn)
  if not reserved then return now end
  local amount, since = string.match(reserved, '(%S+) (%S+)')
  redis.call('HDEL', turns, turn)
  redis.call('HINCRBYFLOAT', key, 'reserved', '-' .. amount)
  return tonumber(since)
end
local function add(key, tokens, since)
  if tokens <= 0 or redis.call('HEXISTS', key, 'reserved') == 0 then return end
  local second = math.floor(math.max((since + now) / 2, now - 10))
  redis.call('HINCRBYFLOAT', key, string.format('%d', second), tokens)
  local known = redis.call('HMGET', key, 'mean', 'square')
  local mean, square = tonumber(known[1] or '0'), tonumber(known[2] or '0')
  local weight = 1 / math.min(redis.call('HINCRBY', key, 'turns', 1), 10)
  mean = mean + weight * (tokens - mean)
  square = square + weight * (tokens * tokens - square)
  redis.call('HSET', key, 'mean', string.format('%.3f', mean), 'square', string.format('%.3f', square))
end
local function expire(open, key, turns)
  for _, turn in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now)) do release(key, turns, turn) end
  redis.call('ZREMRANGEBYSCORE', open, '-inf', now)
end
"""

# KEYS: open of all, of the user, of the tenant, then turns and tokens of the user, turns and tokens of the tenant,
# last what open turns have reserved of the user's tokens and of the tenant's.
# ARGV: turn, for_s, max_open, then concurrent, turns and tokens a minute of the user, the same of the tenant; 0 is no limit.
# Last: the turn that ends for this one, or nothing.
OPEN = (
    _METER
    + _WINDOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for side = 0, 1 do expire(KEYS[2 + side], KEYS[5 + side * 2], KEYS[8 + side]) end
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {'', 0, '0'} end
local ending = redis.call('ZSCORE', KEYS[2], ARGV[10]) and 1 or 0
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return {'open', 0, '0'} end
for side = 0, 1 do
  local most, turns, tokens = tonumber(ARGV[4 + side * 3]), tonumber(ARGV[5 + side * 3]), tonumber(ARGV[6 + side * 3])
  if most > 0 and redis.call('ZCARD', KEYS[2 + side]) - ending >= most then return {'concurrent', side, '0'} end
  if turns > 0 then
    local over = level(KEYS[4 + side * 2], turns) + 1 - turns
    if over > 0 then return {'turns', side, tostring(over * 60 / turns)} end
  end
  if tokens > 0 then
    local wait = wait_for(KEYS[5 + side * 2], tokens)
    if wait > 0 then return {'tokens', side, tostring(wait)} end
  end
end
for side = 0, 1 do
  local turns = tonumber(ARGV[5 + side * 3])
  if turns > 0 then keep(KEYS[4 + side * 2], level(KEYS[4 + side * 2], turns) + 1, turns) end
  local tokens, key = tonumber(ARGV[6 + side * 3]), KEYS[5 + side * 2]
  if tokens > 0 then reserve(key, KEYS[8 + side], ARGV[1], expected(key, tokens)) end
end
for i = 1, 3 do
  redis.call('ZADD', KEYS[i], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[i], 86400000)
end
return {'', 0, '0'}
"""
)

# KEYS as above. ARGV: turn, for_s (below 0: closed), tokens, turns to give back.
TELL = (
    _METER
    + _WINDOW
    + """
if tonumber(ARGV[2]) >= 0 then
  if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    for side = 0, 1 do
      local key = KEYS[5 + side * 2]
      local mean = redis.call('HGET', key, 'mean')
      if redis.call('HEXISTS', key, 'reserved') == 1 then reserve(key, KEYS[8 + side], ARGV[1], mean or 2000) end
    end
  end
  for i = 1, 3 do
    redis.call('ZADD', KEYS[i], now + tonumber(ARGV[2]), ARGV[1])
    redis.call('PEXPIRE', KEYS[i], 86400000)
  end
  return 1
end
local was = redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local since = {}
for side = 0, 1 do since[side] = release(KEYS[5 + side * 2], KEYS[8 + side], ARGV[1]) end
if was == 0 then return 0 end
for side = 0, 1 do
  add(KEYS[5 + side * 2], tonumber(ARGV[3]), since[side])
  if tonumber(ARGV[4]) > 0 then
    keep(KEYS[4 + side * 2], math.max(0, level(KEYS[4 + side * 2]) - tonumber(ARGV[4])))
  end
end
return 1
"""
)

# KEYS: requests of the account. ARGV: a minute, count, returned.
TAKE = (
    _METER
    + """
local most = tonumber(ARGV[1])
local used = math.max(0, level(KEYS[1], most) - tonumber(ARGV[3]))
local granted = math.max(0, math.min(tonumber(ARGV[2]), math.floor(most - used)))
keep(KEYS[1], used + granted, most)
return {granted, tostring((used + 1 - most) * 60 / most)}
"""
)
