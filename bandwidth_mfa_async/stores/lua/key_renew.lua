-- args: token, lease (ms), retention (ms).
local record = records[1]
if not record or record.t ~= args[1] or not record.u then return { 'lost' } end
record.u, record.l, record.e = now + args[2], args[2], now + args[3]
save(1, record)
return { 'renewed' }
