-- Release a chunk. It is done if no item is pending or sending; otherwise another worker may claim it.
-- KEYS: job, states, leases, open chunks, done chunks, chunks to resume, the chunk's requests, its results, digests,
-- unknown items.
-- ARGV: chunk, fencing token, what replaces the requests once no item can be sent again ('' for nothing),
-- retention in s.
-- Returns done, left (items remain), or lost (the chunk is not held under this fencing token).
local text = redis.call('HGET', KEYS[3], ARGV[1])
local owner = string.match(text or '', '^(%S+) ')
if owner ~= ARGV[2] then return 'lost' end
redis.call('HDEL', KEYS[3], ARGV[1])
local chunk = tonumber(ARGV[1])
local size = tonumber(redis.call('HGET', KEYS[1], 'chunk'))
local states = redis.call('GETRANGE', KEYS[2], chunk * size, chunk * size + size - 1)
if string.find(states, '[019]') then
  redis.call('ZADD', KEYS[4], 0, ARGV[1])
  return 'left'
end
redis.call('SETBIT', KEYS[5], chunk, 1)
redis.call('ZREM', KEYS[4], ARGV[1])
local retention = tonumber(ARGV[4])
if string.find(states, '[47]') then redis.call('SADD', KEYS[6], ARGV[1]) end
if not string.find(states, '[457]') then
  -- No item can be sent again, so the numbers are deleted.
  if ARGV[3] == '' then redis.call('DEL', KEYS[7]) else redis.call('SET', KEYS[7], ARGV[3]) end
end
redis.call('EXPIRE', KEYS[7], retention)
redis.call('EXPIRE', KEYS[8], retention)
local done = redis.call('HINCRBY', KEYS[1], 'chunks_done', 1)
local facts = redis.call('HMGET', KEYS[1], 'closed', 'chunks')
if facts[1] == '1' and done >= tonumber(facts[2]) then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'ended', now[1])
  for _, index in ipairs({ 1, 2, 3, 4, 5, 6, 9, 10 }) do redis.call('EXPIRE', KEYS[index], retention) end
end
return 'done'
