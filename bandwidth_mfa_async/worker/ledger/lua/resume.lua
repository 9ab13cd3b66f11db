-- Resume a job: clear its stop, and open again the chunks with items that were not sent.
-- KEYS: job, states, leases, open chunks, done chunks, chunks to resume, digests, unknown items.
-- ARGV: prefixes of the keys of a chunk's requests and results.
-- Returns the number of chunks opened again, -1 if there is no such job, or {'version', version}.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return -1 end
if version ~= '1' and version ~= '2' then return { 'version', version } end
redis.call('HSET', KEYS[1], 'stopped', '')
redis.call('HINCRBY', KEYS[1], 'resumed', 1)
redis.call('HDEL', KEYS[1], 'ended')
for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
local count = 0
local chunk = redis.call('SPOP', KEYS[6])
while chunk do
  local has_requests = redis.call('EXISTS', ARGV[1] .. chunk) == 1
  if has_requests and redis.call('GETBIT', KEYS[5], chunk) == 1 then
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
