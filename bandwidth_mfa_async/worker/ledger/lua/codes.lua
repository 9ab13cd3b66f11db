-- Run a batch of operations on single codes. Each code is a hash.
-- Runs inside _clock.lua, as does every script that reads the time.
-- KEYS: sorted set of waiting codes, number of the writer's last batch, then the hash of each operation's code, and the
-- clock.
-- ARGV: number of this batch, operations as a JSON list (each branch names the arguments of its operation), the outcome
-- of an interrupted code, and that of one that was not sent in time.
-- Returns JSON: {reply, text, flag} per operation; the flag of an accepted code says whether it
-- is a possible duplicate ('' if it is not recorded), that of a claimed one whether it is unknown,
-- and its secret follows.
-- Fields of a hash: state, payload, secret (by which a store's record of the same key knows the request), digest, token (fencing token), till (end of the lease, ms), record (outcome),
-- latest (end of the time in which it may be sent, ms), duplicate ('1' or '0' once it is accepted),
-- earlier ('1' once it was sent again, or is sent again, after an unknown attempt),
-- origin (the fencing token of the attempt that was in flight when its lease expired, if no earlier one is unknown).
-- Unknown is sticky: see settled().
-- A batch that arrives after a later one of the same writer does nothing; see rows.lua.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[2]) or 0) then return '[]' end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 3600)
local replies = {}

-- Return the state of a code after an outcome; nil if the outcome changes nothing.
-- is_holder: the writer holds the code; made_unknown: the code is unknown because of the writer's attempt;
-- earlier: an earlier attempt than the last one is unknown.
local function settled(old, new, is_holder, made_unknown, earlier)
  -- An acceptance by any worker, however late, settles everything but another acceptance.
  if old == '2' then return nil end
  if new == '2' then return new end
  -- No other attempt is unknown, so the outcome of this one is the code's. Not pending: others may have read unknown.
  if made_unknown then return new == '0' and '4' or new end
  if not is_holder then return nil end
  if old == '1' then return earlier and '5' or new end
  if old == '5' then return new == '5' and new or nil end
  return old == '0' and new ~= '0' and new or nil
end

for index, op in ipairs(cjson.decode(ARGV[2])) do
  local kind, key, name = op[1], KEYS[2 + index], op[2]
  local fields = redis.call('HMGET', key, 'state', 'token', 'till', 'record', 'earlier', 'origin', 'duplicate')
  local state, token, till, record = fields[1], fields[2], tonumber(fields[3] or 0), fields[4] or ''
  local earlier, origin, duplicate = fields[5] == '1', fields[6], fields[7] or ''
  -- A worker of an older version does not know that unknown is sticky.
  if earlier and state and string.find('0347', state, 1, true) then state = '5' end
  local reply
  local function settle(new, outcome)
    redis.call('HSET', key, 'state', new)
    -- Put back without an outcome, an unknown code keeps the one that it has.
    if new ~= '5' or outcome ~= '' then redis.call('HSET', key, 'record', outcome) end
    if new ~= '0' and new ~= '1' then
      redis.call('ZREM', KEYS[1], name)
      redis.call('HDEL', key, 'token', 'till', 'origin')
      if new == '2' or new == '3' then redis.call('HDEL', key, 'payload', 'secret') end
    end
  end
  if kind == 'put' then -- name, digest, payload, ms in which it may be sent, retention in s, the same as Redis's time, secret
    local latest = now + op[5]
    if op[7] > 0 then latest = math.min(latest, op[7]) end
    if now >= latest and (not state or state == '4' or state == '7') then
      reply = { 'E', '' }
    elseif not state then
      redis.call('HSET', key, 'state', '0', 'digest', op[3], 'payload', op[4], 'secret', op[8] or '',
        'latest', string.format('%.0f', latest))
      redis.call('ZADD', KEYS[1], now, name)
      redis.call('EXPIRE', key, op[6])
      reply = { '0', '' }
    elseif redis.call('HGET', key, 'digest') ~= op[3] then
      reply = { 'D', '' }
    elseif state == '4' or state == '7' then
      redis.call('HSET', key, 'state', '0', 'payload', op[4], 'secret', op[8] or '',
        'latest', string.format('%.0f', latest))
      redis.call('HDEL', key, 'record')
      redis.call('ZADD', KEYS[1], now, name)
      redis.call('EXPIRE', key, op[6])
      reply = { '0', '' }
    else
      reply = { state, record, duplicate }
    end
  elseif not state then
    reply = { 'G', '' }
  elseif kind == 'read' then
    reply = { state, record, duplicate }
  elseif kind == 'take' then -- name, token, lease in ms, resends unknown, outcome if interrupted, outcome if expired
    if token and token ~= op[3] and till > now then
      reply = { 'H', '' }
    else
      if state == '1' and token ~= op[3] then
        settle('5', op[6])
        if token and not earlier then redis.call('HSET', key, 'origin', token) end
        state = '5'
      elseif state == '0' and now > tonumber(redis.call('HGET', key, 'latest')) then
        settle('4', op[7])
        state = '4'
      end
      if state == '0' or state == '1' or (state == '5' and op[5]) then
        redis.call('HSET', key, 'token', op[3], 'till', string.format('%.0f', now + op[4]))
        local sent = redis.call('HMGET', key, 'payload', 'secret')
        reply = { 'T', sent[1], (earlier or state == '5') and '1' or '0', sent[2] or '' }
      else
        reply = { state, '' }
      end
    end
  elseif kind == 'renew' then -- name, token, lease in ms
    if token == op[3] then
      redis.call('HSET', key, 'till', string.format('%.0f', now + op[4]))
      reply = { 'K', '' }
    else
      reply = { 'L', '' }
    end
  elseif kind == 'intent' then -- name, token, resends unknown, maybe delivered
    if token ~= op[3] or till <= now then
      reply = { 'L', '' }
    elseif (state == '0' or state == '1' or state == '5')
      and now > tonumber(redis.call('HGET', key, 'latest')) then
      -- Asked for too long ago. An attempt that is in flight may have been sent.
      if state == '0' then settle('4', ARGV[4]) elseif state == '1' then settle('5', ARGV[3]) end
      reply = { redis.call('HGET', key, 'state'), '' }
    elseif state == '0' or state == '1' or (state == '5' and op[4]) then
      redis.call('HSET', key, 'state', '1')
      if state == '5' or op[5] then redis.call('HSET', key, 'earlier', '1') end
      redis.call('HDEL', key, 'origin')
      reply = { '1', '' }
    else
      reply = { state, '' }
    end
  elseif kind == 'settle' then -- name, token, state, outcome, possible duplicate
    local is_holder, made_unknown = token == op[3], state == '5' and origin == op[3]
    local new = settled(state, op[4], is_holder, made_unknown, earlier)
    if new then
      settle(new, op[5])
      if new == '2' then
        local other = earlier or (state == '5' and not made_unknown) or (state == '1' and not is_holder)
        redis.call('HSET', key, 'duplicate', (op[6] or other) and '1' or '0')
      end
    end
    reply = { new or state, '' }
  elseif kind == 'withdraw' then -- name, outcome
    if state == '0' and not (token and till > now) then
      settle('4', op[3])
      reply = { '4', op[3] }
    else
      reply = { state, record }
    end
  end
  replies[index] = reply
end
return cjson.encode(replies)
