-- The frame of every script that reads the time: the script below it becomes `run`.
-- CLOCK: the key of the hash with the time: the job, or the last key of a script for single codes. IS_JOB: true or false.
-- Nothing is written to a job that is gone or that another version made.
-- The last ARGV: what the caller knows of this clock, as its reply said: "<created> <heard> <over>", or ''.
-- Returns {created, heard, 1 if Redis lost writes, ms by which its clock was ever set back, the script's own reply}.
-- `now` is Redis's time in ms, plus `ahead`: if its clock is set back, time continues from the last call. So `heard`, the
-- time of the last call, never decreases, unless Redis itself went back to older data.
local clock, is_job, now, rewound = %CLOCK%, %IS_JOB%, 0, false
local created, heard, ahead
do
  local fields = redis.call('HMGET', clock, 'created', 'heard', 'ahead', 'version')
  created, heard, ahead = fields[1] or '', tonumber(fields[2] or 0), tonumber(fields[3] or 0)
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000) + ahead
  if not is_job and created == '' then
    created = string.format('%.0f', now)
    redis.call('HSET', clock, 'created', created)
  end
  if not is_job or fields[4] == '1' or fields[4] == '2' then
    local seen_created, seen_heard, over = string.match(ARGV[#ARGV], '^(%S*) (%d+) ([01])$')
    local seen = tonumber(seen_heard or 0)
    if seen > 0 then
      if seen_created == created then rewound = heard < seen else rewound = over == '0' end
    end
    if seen_created == created then heard = math.max(heard, seen) end
    if now < heard then
      ahead, now = ahead + heard - now, heard
      redis.call('HSET', clock, 'ahead', string.format('%.0f', ahead))
    end
    heard = now
    redis.call('HSET', clock, 'heard', string.format('%.0f', heard))
    if rewound and is_job then redis.call('HSET', clock, 'stopped', 'RedisWentBack') end
  else
    heard = 0
  end
end
local function run()
%SCRIPT%
end
local reply = run()
return { created, string.format('%.0f', heard), rewound and 1 or 0, string.format('%.0f', ahead), reply }
