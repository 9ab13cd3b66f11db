-- Claim a chunk under a lease. Items in flight under an expired lease of another worker become unknown.
-- KEYS: job, states, leases, open chunks, done chunks, chunks to resume, the chunk's requests, its results, unknown items.
-- ARGV: chunk, fencing token, lease in ms, the record of an interrupted item.
-- Returns {'taken', states, requests, chunk size, channel, number of resumes}, or {reply}: gone, stopped, done, held,
-- or {'version', version}.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return { 'gone' } end
if version ~= '1' and version ~= '2' then return { 'version', version } end
local stopped = redis.call('HGET', KEYS[1], 'stopped')
if stopped and stopped ~= '' then return { 'stopped' } end
local chunk = tonumber(ARGV[1])
if redis.call('GETBIT', KEYS[5], chunk) == 1 then
  redis.call('ZREM', KEYS[4], ARGV[1])
  return { 'done' }
end
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
if owner ~= ARGV[2] and string.find(states, '[19]') then
  -- In flight when the lease of their worker expired: they may have been sent. Of a 9 an earlier attempt is unknown, so
  -- the late answer of the last one does not settle it.
  local count = { ['1'] = 0, ['9'] = 0 }
  local records = {}
  for position = 1, #states do
    local state = string.sub(states, position, position)
    if count[state] then
      local item = first + position - 1
      count[state] = count[state] + 1
      records[#records + 1] = item .. ARGV[4]
      if state == '1' and owner then redis.call('HSET', KEYS[9], item, owner) end
    end
  end
  states = string.gsub(states, '[19]', '5')
  redis.call('SETRANGE', KEYS[2], first, states)
  redis.call('APPEND', KEYS[8], table.concat(records))
  redis.call('HINCRBY', KEYS[1], 's1', 0 - count['1'])
  redis.call('HINCRBY', KEYS[1], 's9', 0 - count['9'])
  redis.call('HINCRBY', KEYS[1], 's5', #records)
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[3])))
redis.call('HINCRBY', KEYS[1], 'runs', 1)
if version == '1' then redis.call('HSET', KEYS[1], 'version', 2) end
local fields = redis.call('HMGET', KEYS[1], 'channel', 'resumed')
return { 'taken', states, requests, size, fields[1], fields[2] or '0' }
