-- Return an open chunk that no worker holds, or -1.
-- KEYS: job, leases, open chunks.
local stopped = redis.call('HGET', KEYS[1], 'stopped')
if stopped and stopped ~= '' then return -1 end
for _, chunk in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local till = string.match(redis.call('HGET', KEYS[2], chunk) or '', ' (%d+)$')
  if not till or tonumber(till) <= now then return tonumber(chunk) end
end
return -1
