-- Run a batch of operations on single codes. Each code is a hash.
-- KEYS: sorted set of waiting codes, number of the writer's last batch, then the hash of each operation's code.
-- ARGV: number of this batch, operations as a JSON list; each branch names the arguments of its operation.
-- Returns JSON: {reply, text} per operation.
-- Fields of a hash: state, payload, digest, token (fencing token), till (end of the lease, ms), record (outcome),
-- latest (end of the time in which it may be sent, ms).
-- A batch that arrives after a later one of the same writer does nothing; see rows.lua.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[2]) or 0) then return '[]' end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 3600)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local replies = {}
for index, op in ipairs(cjson.decode(ARGV[2])) do
  local kind, key, name = op[1], KEYS[2 + index], op[2]
  local fields = redis.call('HMGET', key, 'state', 'token', 'till', 'record')
  local state, token, till, record = fields[1], fields[2], tonumber(fields[3] or 0), fields[4] or ''
  local reply
  local function settle(new, outcome)
    redis.call('HSET', key, 'state', new, 'record', outcome)
    if new ~= '0' and new ~= '1' then
      redis.call('ZREM', KEYS[1], name)
      redis.call('HDEL', key, 'token', 'till')
      if new == '2' or new == '3' then redis.call('HDEL', key, 'payload') end
    end
  end
  if kind == 'put' then -- name, digest, payload, ms in which it may be sent, retention in s
    if not state then
      redis.call('HSET', key, 'state', '0', 'digest', op[3], 'payload', op[4],
        'latest', string.format('%.0f', now + op[5]))
      redis.call('ZADD', KEYS[1], now, name)
      redis.call('EXPIRE', key, op[6])
      reply = { '0', '' }
    elseif redis.call('HGET', key, 'digest') ~= op[3] then
      reply = { 'D', '' }
    elseif state == '4' or state == '7' then
      redis.call('HSET', key, 'state', '0', 'payload', op[4], 'latest', string.format('%.0f', now + op[5]))
      redis.call('HDEL', key, 'record')
      redis.call('ZADD', KEYS[1], now, name)
      redis.call('EXPIRE', key, op[6])
      reply = { '0', '' }
    else
      reply = { state, record }
    end
  elseif not state then
    reply = { 'G', '' }
  elseif kind == 'read' then
    reply = { state, record }
  elseif kind == 'take' then -- name, token, lease in ms, resends unknown, outcome if interrupted, outcome if expired
    if token and token ~= op[3] and till > now then
      reply = { 'H', '' }
    else
      if state == '1' and token ~= op[3] then
        settle('5', op[6])
        state = '5'
      elseif state == '0' and now > tonumber(redis.call('HGET', key, 'latest')) then
        settle('4', op[7])
        state = '4'
      end
      if state == '0' or state == '1' or (state == '5' and op[5]) then
        redis.call('HSET', key, 'token', op[3], 'till', string.format('%.0f', now + op[4]))
        reply = { 'T', redis.call('HGET', key, 'payload') }
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
  elseif kind == 'intent' then -- name, token, resends unknown
    if token ~= op[3] or till <= now then
      reply = { 'L', '' }
    elseif state == '0' or state == '1' or (state == '5' and op[4]) then
      redis.call('HSET', key, 'state', '1')
      reply = { '1', '' }
    else
      reply = { state, '' }
    end
  elseif kind == 'settle' then -- name, token, state, outcome, resends unknown
    local new, allowed = op[4], false
    if token == op[3] then
      allowed = state ~= '2'
    elseif new == '2' then
      allowed = state ~= '2'
    else
      allowed = state == '5' and new ~= '0' and not op[6]
    end
    if allowed then
      settle(new, op[5])
      state = new
    end
    reply = { state, '' }
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
