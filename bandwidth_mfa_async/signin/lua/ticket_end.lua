local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local record = roles.get('ticket')
if not record or record.s ~= 'open' then return { 'ended' } end
local ticket = load(record, 'j')
if a.outcome == 'verified' then
  drain(roles, a, { ticket }, now, true)
else
  release(roles, a, ticket, now)
end
record.s = a.outcome
roles.save('ticket', record)
return { 'ok' }
