-- Run a batch of operations on the items of a job: renew a lease, store an intent, settle an outcome.
-- KEYS: job, states, leases, chunks to resume, number of the writer's last batch, unknown items, then the results of the
-- chunks that operations name.
-- ARGV: number of this batch, operations as a JSON list of
-- {'renew', chunk, fencing token, ms} | {'intent', chunk, fencing token, item, resends unknown, maybe delivered} |
-- {'settle', chunk, fencing token, item, state, position of the results key, record}.
-- Returns one character per operation: the item's state after it, or L (the lease is lost), X (the job is stopped),
-- G (there is no such item), K (the lease is renewed).
-- A batch that timed out was sent again. If the first copy arrives later, on its old connection, it does nothing:
-- it would overwrite what later batches wrote.
-- Unknown is sticky: see settled(). The hash of unknown items holds the fencing token of the attempt that was in flight
-- when its lease expired, if no earlier attempt of the item is unknown.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[5]) or 0) then return 'late' end
redis.call('SET', KEYS[5], ARGV[1], 'EX', 3600)
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

-- Return the state of an item after an outcome; nil if the outcome changes nothing.
-- is_holder: the writer holds the chunk; made_unknown: the item is unknown because of the writer's attempt.
local function settled(old, new, is_holder, made_unknown)
  if new == 'a' or new == 'b' then
    -- An acceptance by any worker, however late, settles everything but another acceptance.
    if string.find('2ab68', old, 1, true) then return nil end
    local other_attempt = old == '9' or (old == '5' and not made_unknown) or (old == '1' and not is_holder)
    return other_attempt and 'b' or new
  end
  -- An earlier attempt is unknown, whatever the outcome of this one.
  if old == '9' then return is_holder and '5' or nil end
  if old == '5' then
    -- No other attempt is unknown, so the outcome of this one is the item's. Not pending: others may have read unknown.
    if made_unknown then return new == '0' and '4' or new end
    return is_holder and new == '5' and new or nil
  end
  if not is_holder then return nil end
  if old == '1' then return new end
  return new ~= '0' and string.find('047', old, 1, true) and new or nil
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
      elseif old == '9' or (old == '1' and op[6]) or (old == '5' and op[5]) then
        -- A 1 or 9 is this worker's: an intent whose reply was lost, or an earlier attempt.
        if old == '5' then redis.call('HDEL', KEYS[6], item) end
        change(item, old, '9')
        reply = '9'
      elseif old == '0' or old == '1' or old == '4' or old == '7' then
        change(item, old, '1')
        reply = '1'
      else
        reply = old
      end
    else
      local made_unknown = old == '5' and redis.call('HGET', KEYS[6], item) == token
      local new = settled(old, op[5], is_holder, made_unknown)
      if new then
        if old == '5' then redis.call('HDEL', KEYS[6], item) end
        change(item, old, new)
        if op[6] > 0 then redis.call('APPEND', KEYS[6 + op[6]], item .. ',' .. new .. ',' .. op[7] .. '\n') end
        if not is_holder and (new == '4' or new == '7') then redis.call('SADD', KEYS[4], chunk) end
      end
      reply = new or old
    end
  end
  replies[index] = reply
end
for state, count in pairs(delta) do
  if state ~= '0' and count ~= 0 then redis.call('HINCRBY', KEYS[1], 's' .. state, count) end
end
return table.concat(replies)
