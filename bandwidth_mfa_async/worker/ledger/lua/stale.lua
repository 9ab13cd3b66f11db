-- Single codes that waited too long and that nobody works at; they are not named again before as long has passed.
-- KEYS: the sorted set of those that wait. ARGV: ms, most.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]), 'LIMIT', 0, tonumber(ARGV[2]))
for _, name in ipairs(found) do redis.call('ZADD', KEYS[1], now, name) end
return found
