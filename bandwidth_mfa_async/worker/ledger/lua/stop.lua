-- Stop a job: no more attempts begin. A stop whose reason is older than the last resume has no effect.
-- KEYS: job. ARGV: reason, number of resumes when the reason was found ('' for an unconditional stop).
if ARGV[2] == '' or (redis.call('HGET', KEYS[1], 'resumed') or '0') == ARGV[2] then
  redis.call('HSET', KEYS[1], 'stopped', ARGV[1])
  return 1
end
return 0
