-- Coordinate a job: return the chunks that need a wake-up message, new ones and open ones that no worker holds.
-- KEYS: job, leases, open chunks (the score is the time of the last wake-up message).
-- ARGV: fencing token, lease in ms, maximum of open chunks, ms after which a chunk without a worker is queued again.
-- Returns {reply, chunk...}; reply: going, gone, held (another process coordinates), stopped, ended, or version.
local fields = redis.call('HMGET', KEYS[1], 'version', 'stopped', 'coordinator', 'next', 'chunks', 'chunks_done', 'closed')
if not fields[1] then return { 'gone' } end
if fields[1] ~= '1' and fields[1] ~= '2' then return { 'version', fields[1] } end
if fields[7] == '1' and tonumber(fields[6]) >= tonumber(fields[5]) then return { 'ended' } end
if fields[2] and fields[2] ~= '' then return { 'stopped' } end
local owner, till = string.match(fields[3] or '', '^(%S+) (%d+)$')
if owner and owner ~= ARGV[1] and tonumber(till) > now then return { 'held' } end
redis.call('HSET', KEYS[1], 'coordinator', ARGV[1] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[2])))
local reply = { 'going' }
local max_open = tonumber(ARGV[3])
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, max_open)) do
  local lease_till = string.match(redis.call('HGET', KEYS[2], chunk) or '', ' (%d+)$')
  if not lease_till or tonumber(lease_till) <= now then reply[#reply + 1] = tonumber(chunk) end
  redis.call('ZADD', KEYS[3], now, chunk)
end
local open = redis.call('ZCARD', KEYS[3])
local following, chunks = tonumber(fields[4]), tonumber(fields[5])
while open < max_open and following < chunks do
  redis.call('ZADD', KEYS[3], now, following)
  reply[#reply + 1] = following
  following = following + 1
  open = open + 1
end
redis.call('HSET', KEYS[1], 'next', following)
return reply
