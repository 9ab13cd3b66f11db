-- Let no more attempts of a job begin; a stop for what was seen before a resume is out of date.
-- KEYS: job. ARGV: why, how often the job had been resumed then ('' for a stop that holds anyway).
if ARGV[2] == '' or (redis.call('HGET', KEYS[1], 'resumed') or '0') == ARGV[2] then
  redis.call('HSET', KEYS[1], 'stopped', ARGV[1])
  return 1
end
return 0
