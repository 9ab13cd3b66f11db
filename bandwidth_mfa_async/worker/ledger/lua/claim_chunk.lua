-- Claim a chunk under a lease. Items in flight under an expired lease of another worker become unknown.
-- KEYS: job, states, leases, open chunks, done chunks, chunks to resume, the chunk's requests, its results.
-- ARGV: chunk, fencing token, lease in ms, the record of an interrupted item.
-- Returns {'taken', states, requests, chunk size, channel, number of resumes}, or {reply}: gone, stopped, done, held,
-- or {'version', version}.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return { 'gone' } end
if version ~= '1' then return { 'version', version } end
local stopped = redis.call('HGET', KEYS[1], 'stopped')
if stopped and stopped ~= '' then return { 'stopped' } end
local chunk = tonumber(ARGV[1])
if redis.call('GETBIT', KEYS[5], chunk) == 1 then
  redis.call('ZREM', KEYS[4], ARGV[1])
  return { 'done' }
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local text = redis.call('HGET', KEYS[3], ARGV[1])
local owner, till = string.match(text or '', '^(%S+) (%d+)$')
if owner and owner ~= ARGV[2] and tonumber(till) > now then return { 'held' } end
local size = tonumber(redis.call('HGET', KEYS[1], 'chunk'))
local first = chunk * size
local states = redis.call('GETRANGE', KEYS[2], first, first + size - 1)
local requests = redis.call('GET', KEYS[7])
if states == '' or not requests then
  redis.call('ZREM', KEYS[4], ARGV[1])
  return { 'gone' }
end
if owner ~= ARGV[2] and string.find(states, '1', 1, true) then
  -- In flight when the lease of their worker expired: they may have been sent.
  local count = 0
  local records = {}
  for position = 1, #states do
    if string.sub(states, position, position) == '1' then
      count = count + 1
      records[count] = (first + position - 1) .. ARGV[4]
    end
  end
  states = string.gsub(states, '1', '5')
  redis.call('SETRANGE', KEYS[2], first, states)
  redis.call('APPEND', KEYS[8], table.concat(records))
  redis.call('HINCRBY', KEYS[1], 's1', -count)
  redis.call('HINCRBY', KEYS[1], 's5', count)
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('HINCRBY', KEYS[1], 'runs', 1)
local fields = redis.call('HMGET', KEYS[1], 'channel', 'resumed')
return { 'taken', states, requests, size, fields[1], fields[2] or '0' }
