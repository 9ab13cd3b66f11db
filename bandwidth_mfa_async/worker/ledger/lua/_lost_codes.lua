if rewound then
  -- What waits now may have been sent before Redis lost that. ARGV[3] is the outcome.
  for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local key = string.sub(KEYS[1], 1, -8) .. name
    local state = redis.call('HGET', key, 'state')
    if state == '0' or state == '1' then redis.call('HSET', key, 'state', '5', 'record', ARGV[3]) end
    redis.call('HDEL', key, 'token', 'till', 'origin')
  end
  redis.call('DEL', KEYS[1])
end
