-- args: digest, token, lease (ms), retention (ms), begin, whether an unknown key is sent again, the number
-- of the attempt.
local digest, token, lease, retention = args[1], args[2], args[3], args[4]
local begins, resends_unknown = args[5] == 1, args[6] == 1
local record = observe(records, now)
if not record then
  record = { v = 1, s = '0', d = digest }
elseif record.d ~= digest then
  return { 'other' }
end
local state, live, is_mine = record.s, is_live(record, now), record.t == token
if ACCEPTED[state] or (state == '5' and not resends_unknown) then return { state, record.o or '' } end
if live and not is_mine then return state_of(record, now) end
if is_mine and not live and state ~= '0' then return { 'lost' } end
local maybe_delivered = state == '5' or state == '9' or record.m ~= nil
if FAILED[state] then record.s, record.o = '0', nil end
if begins then begin(record, maybe_delivered, args[7]) end
record.t, record.u, record.l, record.a, record.e = token, now + lease, lease, now, now + retention
save(1, record)
return { 'claimed', maybe_delivered and 1 or 0 }
