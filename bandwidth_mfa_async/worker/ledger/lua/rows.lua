-- What a worker's attempts come to, many operations in one call.
-- KEYS: job, rows, leases, again, the writer's number, then the chunks' result texts that operations name.
-- ARGV: this batch's number, and operations as JSON: {kind, chunk, token, row, state, text, record, repeats}, by position.
-- Answers one character an operation: the row's state after it, or L (no such lease), X (the job is stopped), G (gone).
-- A batch that was given up, sent again, and then came late on its old connection would undo what came after it.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[5]) or 0) then return 'late' end
redis.call('SET', KEYS[5], ARGV[1], 'EX', 3600)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local stopped = redis.call('HGET', KEYS[1], 'stopped')
stopped = stopped and stopped ~= ''
local leases, delta, answers = {}, {}, {}

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

local function change(row, old, new)
  if old ~= new then
    redis.call('SETRANGE', KEYS[2], row, new)
    delta[old] = (delta[old] or 0) - 1
    delta[new] = (delta[new] or 0) + 1
  end
end

for index, op in ipairs(cjson.decode(ARGV[2])) do
  local kind, chunk, token = op[1], op[2], op[3]
  local lease = lease_of(chunk)
  local ours = lease.token == token
  local answer
  if kind == 'renew' then
    -- One that has run out and that nobody took is ours still.
    if ours then
      lease.till = now + op[4]
      redis.call('HSET', KEYS[3], chunk, token .. ' ' .. string.format('%.0f', lease.till))
      answer = stopped and 'X' or 'K'
    else
      answer = 'L'
    end
  else
    local row = op[4]
    local old = redis.call('GETRANGE', KEYS[2], row, row)
    if old == '' then
      answer = 'G'
    elseif kind == 'intent' then
      if not ours or lease.till <= now then
        answer = 'L'
      elseif stopped then
        answer = 'X'
      elseif old == '0' or old == '1' or old == '4' or old == '7' or (old == '5' and op[8]) then
        -- A 1 is our own: a claim whose answer was lost, or an attempt before this one.
        change(row, old, '1')
        answer = '1'
      else
        answer = old
      end
    else
      local new = op[5]
      local allowed
      if ours then
        allowed = old == '1' or (new ~= '0' and (old == '0' or old == '4' or old == '5' or old == '7'))
      elseif new == '2' then
        -- A late answer settles what a takeover called unknown; nothing leaves accepted.
        allowed = old ~= '2' and old ~= '6' and old ~= '8'
      else
        -- A late no is about an attempt that nobody has repeated, or it says nothing.
        allowed = old == '5' and new ~= '0' and not op[8]
      end
      if allowed then
        change(row, old, new)
        if op[6] > 0 then redis.call('APPEND', KEYS[5 + op[6]], op[7]) end
        if not ours and (new == '4' or new == '7') then redis.call('SADD', KEYS[4], chunk) end
        answer = new
      else
        answer = old
      end
    end
  end
  answers[index] = answer
end
for state, count in pairs(delta) do
  if state ~= '0' and count ~= 0 then redis.call('HINCRBY', KEYS[1], 's' .. state, count) end
end
return table.concat(answers)
