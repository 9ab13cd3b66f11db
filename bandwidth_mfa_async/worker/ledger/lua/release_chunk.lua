-- Give a chunk back: done when no row of it is pending or sending, and to be taken again by the next otherwise.
-- KEYS: job, rows, leases, open, done, again, the chunk's requests, its result text, the job's input digests.
-- ARGV: chunk, token, what to keep of its requests when all is final ('' for nothing), seconds to keep.
local text = redis.call('HGET', KEYS[3], ARGV[1])
local owner = string.match(text or '', '^(%S+) ')
if owner ~= ARGV[2] then return 'lost' end
redis.call('HDEL', KEYS[3], ARGV[1])
local chunk = tonumber(ARGV[1])
local size = tonumber(redis.call('HGET', KEYS[1], 'chunk'))
local rows = redis.call('GETRANGE', KEYS[2], chunk * size, chunk * size + size - 1)
if string.find(rows, '[01]') then
  redis.call('ZADD', KEYS[4], 0, ARGV[1])
  return 'left'
end
redis.call('SETBIT', KEYS[5], chunk, 1)
redis.call('ZREM', KEYS[4], ARGV[1])
local keep = tonumber(ARGV[4])
if string.find(rows, '[47]') then redis.call('SADD', KEYS[6], ARGV[1]) end
if not string.find(rows, '[457]') then
  -- Nothing of it can be sent again, so no number is needed any more.
  if ARGV[3] == '' then redis.call('DEL', KEYS[7]) else redis.call('SET', KEYS[7], ARGV[3]) end
end
redis.call('EXPIRE', KEYS[7], keep)
redis.call('EXPIRE', KEYS[8], keep)
local done = redis.call('HINCRBY', KEYS[1], 'chunks_done', 1)
local facts = redis.call('HMGET', KEYS[1], 'closed', 'chunks')
if facts[1] == '1' and done >= tonumber(facts[2]) then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'ended', now[1])
  for _, index in ipairs({ 1, 2, 3, 4, 5, 6, 9 }) do redis.call('EXPIRE', KEYS[index], keep) end
end
return 'done'
