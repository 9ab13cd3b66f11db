-- Let a job go on: no longer stopped, and what was not sent is to be tried again.
-- KEYS: job, rows, leases, open, done, again, digests. ARGV: what the keys of a chunk's requests and results begin with.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return -1 end
if version ~= '1' then return { 'version', version } end
redis.call('HSET', KEYS[1], 'stopped', '')
redis.call('HINCRBY', KEYS[1], 'resumed', 1)
redis.call('HDEL', KEYS[1], 'ended')
for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
local count = 0
local chunk = redis.call('SPOP', KEYS[6])
while chunk do
  local there = redis.call('EXISTS', ARGV[1] .. chunk) == 1
  if there and redis.call('GETBIT', KEYS[5], chunk) == 1 then
    redis.call('PERSIST', ARGV[1] .. chunk)
    redis.call('PERSIST', ARGV[2] .. chunk)
    redis.call('SETBIT', KEYS[5], chunk, 0)
    redis.call('HINCRBY', KEYS[1], 'chunks_done', -1)
    redis.call('ZADD', KEYS[4], 0, chunk)
    count = count + 1
  end
  chunk = redis.call('SPOP', KEYS[6])
end
return count
