local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
if roles.get('ticket') then return { 'ok', 0 } end
local reason, wait, ticket, observing = admit(roles, a, now)
if reason ~= '' then return { 'refused', reason, wait } end
roles.save('ticket', { s = 'open', j = cjson.encode(ticket), e = now + DAY })
return { 'ok', observing and 1 or 0 }
