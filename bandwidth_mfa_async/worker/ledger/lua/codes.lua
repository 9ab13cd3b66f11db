-- Single codes: a hash each, many operations in one call.
-- KEYS: the sorted set of those that wait, the writer's number, then one hash an operation.
-- ARGV: this batch's number, and operations as JSON, by position; see the branches. Answers as JSON: a text or a list an operation.
-- Fields: state, payload, digest, token, till, record, latest (ms until which it may be sent).
-- See rows.lua.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[2]) or 0) then return '[]' end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 3600)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local answers = {}
for index, op in ipairs(cjson.decode(ARGV[2])) do
  local kind, key, name = op[1], KEYS[2 + index], op[2]
  local facts = redis.call('HMGET', key, 'state', 'token', 'till', 'record')
  local state, token, till, record = facts[1], facts[2], tonumber(facts[3] or 0), facts[4] or ''
  local answer
  local function settle(new, told)
    redis.call('HSET', key, 'state', new, 'record', told)
    if new ~= '0' and new ~= '1' then
      redis.call('ZREM', KEYS[1], name)
      redis.call('HDEL', key, 'token', 'till')
      if new == '2' or new == '3' then redis.call('HDEL', key, 'payload') end
    end
  end
  if kind == 'put' then -- name, digest, payload, ms it may wait, seconds to keep
    if not state then
      redis.call('HSET', key, 'state', '0', 'digest', op[3], 'payload', op[4],
        'latest', string.format('%.0f', now + op[5]))
      redis.call('ZADD', KEYS[1], now, name)
      redis.call('EXPIRE', key, op[6])
      answer = { '0', '' }
    elseif redis.call('HGET', key, 'digest') ~= op[3] then
      answer = { 'D', '' }
    elseif state == '4' or state == '7' then
      redis.call('HSET', key, 'state', '0', 'payload', op[4], 'latest', string.format('%.0f', now + op[5]))
      redis.call('HDEL', key, 'record')
      redis.call('ZADD', KEYS[1], now, name)
      redis.call('EXPIRE', key, op[6])
      answer = { '0', '' }
    else
      answer = { state, record }
    end
  elseif not state then
    answer = { 'G', '' }
  elseif kind == 'read' then
    answer = { state, record }
  elseif kind == 'take' then -- name, token, lease in ms, repeats, record of an interrupted one, record of a late one
    if token and token ~= op[3] and till > now then
      answer = { 'H', '' }
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
        answer = { 'T', redis.call('HGET', key, 'payload') }
      else
        answer = { state, '' }
      end
    end
  elseif kind == 'renew' then -- name, token, lease in ms
    if token == op[3] then
      redis.call('HSET', key, 'till', string.format('%.0f', now + op[4]))
      answer = { 'K', '' }
    else
      answer = { 'L', '' }
    end
  elseif kind == 'intent' then -- name, token, repeats
    if token ~= op[3] or till <= now then
      answer = { 'L', '' }
    elseif state == '0' or state == '1' or (state == '5' and op[4]) then
      redis.call('HSET', key, 'state', '1')
      answer = { '1', '' }
    else
      answer = { state, '' }
    end
  elseif kind == 'settle' then -- name, token, state, record, repeats
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
    answer = { state, '' }
  elseif kind == 'withdraw' then -- name, record
    if state == '0' and not (token and till > now) then
      settle('4', op[3])
      answer = { '4', op[3] }
    else
      answer = { state, record }
    end
  end
  answers[index] = answer
end
return cjson.encode(answers)
