local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local flow = roles.get('flow')
if not flow then return { 'expired' } end
local texts = load(flow, 'm')
local text = texts[a.token]
if not text or text.s ~= 'sending' then return reply_of(flow, now, false) end
if a.outcome ~= 'not sent' then
  text.s = a.outcome
  flow.m = cjson.encode(texts)
  roles.save('flow', flow)
  return reply_of(flow, now, false)
end
release(roles, a, text, now)
texts[a.token] = nil
flow.m = cjson.encode(texts)
if flow.s == 'open' then
  if next(texts) == nil then
    roles.delete('flow')
    roles.delete('key')
    return { 'expired' }
  end
  local number, last = roles.get('number') or {}, 0
  for _, each in pairs(texts) do last = math.max(last, each.t) end
  set_times(flow, a, last, (number.l or 0) + next_cooldown(a.cooldown, number.c or 0))
end
roles.save('flow', flow)
return reply_of(flow, now, false)
