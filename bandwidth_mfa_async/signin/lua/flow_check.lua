local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local flow = roles.get('flow')
if not flow or flow.s == 'ended' then return { 'expired' } end
if flow.s ~= 'open' then return { flow.s } end
if not is_live(flow, now) then return { 'expired' } end
local checks = load(flow, 'r')
if not checks[a.token] then
  if not string.find(flow.d, a.length, 1, true) then return { 'malformed', math.max(0, a.max_checks - flow.k) } end
  if flow.k >= a.max_checks then return { 'exhausted' } end
  flow.k = flow.k + 1
  checks[a.token] = 'asked'
  flow.r = cjson.encode(checks)
  roles.save('flow', flow)
end
return { 'ask', flow.p, flow.o, now - flow.t, flow.f }
