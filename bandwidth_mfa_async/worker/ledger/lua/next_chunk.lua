-- Return an open chunk that no worker holds, or -1.
-- KEYS: job, leases, open chunks.
local stopped = redis.call('HGET', KEYS[1], 'stopped')
if stopped and stopped ~= '' then return -1 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local longest = tonumber(redis.call('HGET', KEYS[1], 'lease') or 0)
for _, chunk in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local till = string.match(redis.call('HGET', KEYS[2], chunk) or '', ' (%d+)$')
  till = tonumber(till or 0)
  -- A lease from before Redis's clock was set back is over; see claim_chunk.lua.
  if till <= now or (longest > 0 and till > now + longest) then return tonumber(chunk) end
end
return -1
