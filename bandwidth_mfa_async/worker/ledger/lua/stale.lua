-- Return the names of single codes that have waited for at least so many ms. Each is returned once in that time.
-- KEYS: sorted set of waiting codes. ARGV: ms, limit.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, tonumber(ARGV[2]))
-- Those from before Redis's clock was set back may have waited for long.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now + 1, '+inf', 'LIMIT', 0, tonumber(ARGV[2]))) do
  found[#found + 1] = name
end
for _, name in ipairs(found) do redis.call('ZADD', KEYS[1], now, name) end
return found
