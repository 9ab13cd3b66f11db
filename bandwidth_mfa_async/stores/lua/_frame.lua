-- The frame of every step: runs a batch of steps. See `Step` for what a step's file may use.
-- KEYS: the records of the first operation, of the second one, ..., and last the clock.
-- ARGV: operations as JSON, each {step, number of records, latest time in ms at which it may run, or 0, {arguments}};
-- the time in ms to use instead of Redis's, or ''; what the caller knows of the clock: "<created> <heard>", or ''.
-- The clock is a hash: reader (the oldest format whose code may use the store), created (ms), heard (ms, the time of the last call), ahead (ms by which Redis's clock was
-- ever set back), rewound (ms, when Redis was last seen to have lost writes).
-- Returns JSON: {created, heard, whether Redis lost writes, ahead, {reply, ...}}; the reply of an operation that is too
-- late is {"late"}, and the replies are empty if the store has a newer format.
-- `now` continues from the last call if Redis's clock is set back, so it only decreases if Redis lost writes.
local clock = KEYS[#KEYS]
local fields = redis.call('HMGET', clock, 'created', 'heard', 'ahead', 'rewound', 'reader')
local created, heard, ahead = fields[1], tonumber(fields[2] or 0), tonumber(fields[3] or 0)
local rewound_at, lost = tonumber(fields[4] or 0), false
if fields[5] and tonumber(fields[5]) > %FORMAT% then
  return cjson.encode({ created or '', heard, false, ahead, {} })
end
local time = redis.call('TIME')
local real = tonumber(ARGV[2]) or time[1] * 1000 + math.floor(time[2] / 1000)
local now = real + ahead
if not created then
  created = string.format('%.0f-%s', now, time[2])
  redis.call('HSET', clock, 'created', created, 'reader', '%FORMAT%')
end
do
  local seen_created, seen_heard = string.match(ARGV[3], '^(%S+) (%d+)$')
  local seen = tonumber(seen_heard or 0)
  lost = seen > 0 and (seen_created ~= created or heard < seen)
  if seen_created == created then heard = math.max(heard, seen) end
  if now < heard then
    ahead, now = ahead + heard - now, heard
    redis.call('HSET', clock, 'ahead', string.format('%.0f', ahead))
  end
  heard = now
  redis.call('HSET', clock, 'heard', string.format('%.0f', heard))
  if lost then
    rewound_at = now
    redis.call('HSET', clock, 'rewound', string.format('%.0f', now))
  end
end

local steps = {}
%STEPS%

local replies, first = {}, 0
for index, op in ipairs(cjson.decode(ARGV[1])) do
  local count, latest, args = op[2], op[3], op[4]
  if latest > 0 and now > latest then
    replies[index] = { 'late' }
  else
    local base, records = first, {}
    for each = 1, count do
      local text = redis.call('GET', KEYS[base + each])
      local record = text and cjson.decode(text)
      if record and record.e > now then records[each] = record end
    end
    local function save(each, record)
      records[each] = record
      redis.call('SET', KEYS[base + each], cjson.encode(record), 'PX', string.format('%.0f', math.max(1, record.e - now)))
    end
    local function delete(each)
      records[each] = nil
      redis.call('DEL', KEYS[base + each])
    end
    replies[index] = steps[op[1]](records, args, now, save, delete)
  end
  first = first + count
end
return cjson.encode({ created, heard, lost, ahead, replies })
