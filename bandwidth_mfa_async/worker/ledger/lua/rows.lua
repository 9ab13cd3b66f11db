-- Run a batch of operations on the items of a job: renew a lease, store an intent, settle an outcome.
-- KEYS: job, states, leases, chunks to resume, number of the writer's last batch, then the results of the chunks that
-- operations name.
-- ARGV: number of this batch, operations as a JSON list of
-- {kind, chunk, fencing token, index, state, position of the results key, record, resends unknown}.
-- Returns one character per operation: the item's state after it, or L (the lease is lost), X (the job is stopped),
-- G (there is no such item), K (the lease is renewed).
-- A batch that timed out was sent again. If the first copy arrives later, on its old connection, it does nothing:
-- it would overwrite what later batches wrote.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[5]) or 0) then return 'late' end
redis.call('SET', KEYS[5], ARGV[1], 'EX', 3600)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local stopped = redis.call('HGET', KEYS[1], 'stopped')
stopped = stopped and stopped ~= ''
local leases, delta, replies = {}, {}, {}

local function lease_of(chunk)
  local lease = leases[chunk]
  if lease == nil then
    local text = redis.call('HGET', KEYS[3], chunk)
    local token, till = string.match(text or '', '^(%S+) (%d+)$')
    lease = { token = token, till = tonumber(till or 0) }
    leases[chunk] = lease
  end
  return lease
end

local function change(item, old, new)
  if old ~= new then
    redis.call('SETRANGE', KEYS[2], item, new)
    delta[old] = (delta[old] or 0) - 1
    delta[new] = (delta[new] or 0) + 1
  end
end

for index, op in ipairs(cjson.decode(ARGV[2])) do
  local kind, chunk, token = op[1], op[2], op[3]
  local lease = lease_of(chunk)
  local is_holder = lease.token == token
  local reply
  if kind == 'renew' then
    -- An expired lease that no other worker has claimed can be renewed.
    if is_holder then
      lease.till = now + op[4]
      redis.call('HSET', KEYS[3], chunk, token .. ' ' .. string.format('%.0f', lease.till))
      reply = stopped and 'X' or 'K'
    else
      reply = 'L'
    end
  else
    local item = op[4]
    local old = redis.call('GETRANGE', KEYS[2], item, item)
    if old == '' then
      reply = 'G'
    elseif kind == 'intent' then
      if not is_holder or lease.till <= now then
        reply = 'L'
      elseif stopped then
        reply = 'X'
      elseif old == '0' or old == '1' or old == '4' or old == '7' or (old == '5' and op[8]) then
        -- A 1 is this worker's: an intent whose reply was lost, or an earlier attempt.
        change(item, old, '1')
        reply = '1'
      else
        reply = old
      end
    else
      local new = op[5]
      local allowed
      if is_holder then
        allowed = old == '1' or (new ~= '0' and (old == '0' or old == '4' or old == '5' or old == '7'))
      elseif new == '2' then
        -- A late acceptance settles an item that a later claim made unknown. Accepted is final.
        allowed = old ~= '2' and old ~= '6' and old ~= '8'
      else
        -- A late rejection counts only if unknown items are not sent again: no other attempt can have been made.
        allowed = old == '5' and new ~= '0' and not op[8]
      end
      if allowed then
        change(item, old, new)
        if op[6] > 0 then redis.call('APPEND', KEYS[5 + op[6]], op[7]) end
        if not is_holder and (new == '4' or new == '7') then redis.call('SADD', KEYS[4], chunk) end
        reply = new
      else
        reply = old
      end
    end
  end
  replies[index] = reply
end
for state, count in pairs(delta) do
  if state ~= '0' and count ~= 0 then redis.call('HINCRBY', KEYS[1], 's' .. state, count) end
end
return table.concat(replies)
