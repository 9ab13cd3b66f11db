-- What the coordinator is to put into the queue: new chunks up to the window, and old ones nobody works at.
-- KEYS: job, leases, open.
-- ARGV: token, lease in ms, window, ms after which what nobody works at is put into the queue again.
-- Answers {word, chunk...}; words: gone, held (another coordinates), stopped, ended, going.
local facts = redis.call('HMGET', KEYS[1], 'version', 'stopped', 'coordinator', 'next', 'chunks', 'chunks_done', 'closed')
if not facts[1] then return { 'gone' } end
if facts[1] ~= '1' then return { 'version', facts[1] } end
if facts[7] == '1' and tonumber(facts[6]) >= tonumber(facts[5]) then return { 'ended' } end
if facts[2] and facts[2] ~= '' then return { 'stopped' } end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local owner, till = string.match(facts[3] or '', '^(%S+) (%d+)$')
if owner and owner ~= ARGV[1] and tonumber(till) > now then return { 'held' } end
redis.call('HSET', KEYS[1], 'coordinator', ARGV[1] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[2])))
local answer = { 'going' }
local window = tonumber(ARGV[3])
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, window)) do
  local lease_till = string.match(redis.call('HGET', KEYS[2], chunk) or '', ' (%d+)$')
  if not lease_till or tonumber(lease_till) <= now then answer[#answer + 1] = tonumber(chunk) end
  redis.call('ZADD', KEYS[3], now, chunk)
end
local waiting = redis.call('ZCARD', KEYS[3])
local following, chunks = tonumber(facts[4]), tonumber(facts[5])
while waiting < window and following < chunks do
  redis.call('ZADD', KEYS[3], now, following)
  answer[#answer + 1] = following
  following = following + 1
  waiting = waiting + 1
end
redis.call('HSET', KEYS[1], 'next', following)
return answer
