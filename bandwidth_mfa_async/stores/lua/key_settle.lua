-- args: token, digest, retention (ms), state, outcome, the number of the attempt.
local token, digest, retention, new, outcome = args[1], args[2], args[3], args[4], args[5]
local record = records[1]
if not record and new ~= '0' and not FAILED[new] then
  -- Lost, or expired. Stored again is what forbids to send.
  record = { v = 1, s = '1', d = digest, t = token, u = now }
end
if not record or record.d ~= digest or (new == '0' and record.n ~= args[6]) then return get(records, digest, now) end
local old, is_changed = record.s, true
local holds, made_unknown = record.t == token and record.u ~= nil, record.s == '5' and record.g == token

-- Apply an outcome that is no acceptance; return whether it changes anything.
local function settle_failure()
  local state
  if made_unknown then
    state = new == '0' and '4' or new
  elseif not holds or (old == '5' and new ~= '5') then
    return false
  else
    state = (old == '9' or record.m) and '5' or new
  end
  if record.u and not holds then
    record.s, record.g = state == '5' and '5' or '0', nil
    return true
  end
  record.s = state
  if new ~= '0' or not holds then -- otherwise the call goes on, and keeps its lease
    if outcome ~= '' or state ~= '5' then record.o = outcome end
    release(record)
  end
  return true
end

if not ACCEPTED[new] then
  is_changed = not ACCEPTED[old] and settle_failure()
elseif ACCEPTED[old] then
  is_changed, record.s = record.o ~= outcome, 'b'
else
  local other = record.m or (old == '5' and not made_unknown) or (IN_FLIGHT[old] and not holds)
  record.s, record.o, record.t = other and 'b' or new, outcome, token
  release(record)
end
if is_changed then
  record.a, record.e = now, now + retention
  save(1, record)
end
return get(records, digest, now)
