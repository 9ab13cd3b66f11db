-- args: token, digest, retention (ms), state, outcome.
local token, digest, retention, new, outcome = args[1], args[2], args[3], args[4], args[5]
local record = records[1]
if not record then
  -- Lost, expired or never claimed. Stored again is what forbids to send.
  if new == '0' or FAILED[new] then return { 'open' } end
  record = { v = 1, s = '1', d = digest, t = token, u = now }
end
if record.d ~= digest then return { 'other' } end
local old = record.s
local is_holder, made_unknown = record.t == token and record.u ~= nil, old == '5' and record.g == token
if ACCEPTED[old] then
  if not ACCEPTED[new] or record.o == outcome then return { old, record.o or '' } end
  record.s = 'b'
elseif ACCEPTED[new] then
  local other = record.m or (old == '5' and not made_unknown) or (IN_FLIGHT[old] and not is_holder)
  record.s, record.o = other and 'b' or new, outcome
  release(record)
  record.t = token
else
  local state
  if made_unknown then
    state = new == '0' and '4' or new
  elseif is_holder then
    if old == '1' then state = record.m and '5' or new
    elseif old == '9' then state = '5'
    elseif old ~= '5' or new == '5' then state = new end
  end
  if not state then return { old, record.o or '' } end
  record.s = state
  if state ~= '0' then
    if outcome ~= '' or state ~= '5' then record.o = outcome end
    release(record)
  end
end
record.a, record.e = now, now + retention
save(1, record)
return { record.s, record.o or '' }
