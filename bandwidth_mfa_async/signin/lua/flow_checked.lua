local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local flow = roles.get('flow')
if not flow or flow.s == 'ended' then return { 'expired', 0 } end
local checks = load(flow, 'r')
if checks[a.token] ~= 'asked' then
  return { checks[a.token] or 'expired', math.max(0, a.max_checks - flow.k) }
end
local outcome = a.outcome
if outcome == 'valid' and flow.s ~= 'open' then outcome = flow.s == 'used' and 'used' or 'expired' end
if outcome == 'back' then
  flow.k = flow.k - 1
  local kept, given_back = {}, 0
  for token, state in pairs(checks) do
    if state == 'back' then given_back = given_back + 1 else kept[token] = state end
  end
  if given_back >= MAX_GIVEN_BACK then checks = kept end
end
checks[a.token] = outcome
flow.r = cjson.encode(checks)
local asked = false
for _, state in pairs(checks) do asked = asked or state == 'asked' end
if outcome == 'valid' then
  drain(roles, a, load(flow, 'm'), now, true)
  end_flow(flow, 'used', now)
elseif flow.s == 'open' and flow.k >= a.max_checks and not asked then
  end_flow(flow, 'exhausted', now)
end
if outcome == 'wrong' then count_wrong(roles, a, now) end
roles.save('flow', flow)
return { outcome, math.max(0, a.max_checks - flow.k) }
