local a = cjson.decode(args[1])
local flow = roles_of(records, save, delete, a.roles).get('flow')
if not flow then return { 'expired' } end
return reply_of(flow, now, false)
