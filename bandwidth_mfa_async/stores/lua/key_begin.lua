-- args: token, lease (ms), retention (ms), whether an unknown key is sent again, whether the call may be delivered,
-- the number of the attempt.
local token, lease, retention, resends_unknown, maybe_delivered = args[1], args[2], args[3], args[4] == 1, args[5] == 1
local record = records[1]
if not record or record.t ~= token or not is_live(record, now) then return { 'lost' } end
local is_unknown = record.s == '5' or record.s == '9' or record.m ~= nil
if record.s == '5' and not resends_unknown then return { 'lost' } end
if record.s == '0' and record.a < rewound_at then return { 'lost' } end
begin(record, is_unknown or maybe_delivered, args[6])
record.u, record.l, record.a, record.e = now + lease, lease, now, now + retention
save(1, record)
return { 'begun' }
