-- Create a job, add a chunk to it, or close its input. Submitting the same again changes nothing.
-- KEYS: job, states, digests, the chunk's requests, its results.
-- ARGV: 'open', facts as JSON, chunk size, channel | 'add', chunk, states, requests, digest, records
--       | 'close', chunks.
-- Returns {reply, ...}; reply: made, added, closed, known (with the facts, for 'open'), other, gone, or version.
local version = redis.call('HGET', KEYS[1], 'version')
if version and version ~= '1' and version ~= '2' then return { 'version', version } end
if not version and redis.call('EXISTS', KEYS[1]) == 1 then return { 'version', '' } end
if ARGV[1] == 'open' then
  if version then return { 'known', redis.call('HGET', KEYS[1], 'facts') } end
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'version', 2, 'facts', ARGV[2], 'chunk', ARGV[3], 'channel', ARGV[4], 'created', now[1],
    'total', 0, 'chunks', 0, 'chunks_done', 0, 'next', 0, 'closed', 0, 'stopped', '')
  return { 'made' }
end
if not version then return { 'gone' } end
local chunks = tonumber(redis.call('HGET', KEYS[1], 'chunks'))
local closed = redis.call('HGET', KEYS[1], 'closed') == '1'
if ARGV[1] == 'close' then
  if chunks ~= tonumber(ARGV[2]) then return { 'other' } end
  redis.call('HSET', KEYS[1], 'closed', 1)
  return { 'closed' }
end
local chunk = tonumber(ARGV[2])
if chunk < chunks then
  if redis.call('GETRANGE', KEYS[3], chunk * 8, chunk * 8 + 7) == ARGV[5] then return { 'known' } end
  return { 'other' }
end
if chunk > chunks or closed then return { 'other' } end
local size = tonumber(redis.call('HGET', KEYS[1], 'chunk'))
redis.call('SETRANGE', KEYS[3], chunk * 8, ARGV[5])
redis.call('SETRANGE', KEYS[2], chunk * size, ARGV[3])
redis.call('SET', KEYS[4], ARGV[4])
if ARGV[6] ~= '' then redis.call('APPEND', KEYS[5], ARGV[6]) end
for _, state in ipairs({ '6', '8' }) do
  local _, count = string.gsub(ARGV[3], state, state)
  if count > 0 then redis.call('HINCRBY', KEYS[1], 's' .. state, count) end
end
redis.call('HINCRBY', KEYS[1], 'total', #ARGV[3])
redis.call('HINCRBY', KEYS[1], 'chunks', 1)
return { 'added' }
