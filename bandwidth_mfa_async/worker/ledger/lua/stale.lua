-- Return the names of single codes that have waited for at least so many ms. Each is returned once in that time.
-- KEYS: sorted set of waiting codes, the clock. ARGV: ms, limit, the outcome of codes that Redis may have lost.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, tonumber(ARGV[2]))
for _, name in ipairs(found) do redis.call('ZADD', KEYS[1], now, name) end
return found
