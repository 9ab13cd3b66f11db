local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local flow = roles.get('flow')
if not flow or flow.s == 'used' or flow.s == 'ended' then return { 'expired' } end
if a.drain == 1 then drain(roles, a, load(flow, 'm'), now, false) end
end_flow(flow, 'ended', now)
roles.save('flow', flow)
return { 'ok' }
