local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local flow = roles.get('flow')
if not is_open(flow, now) then return { 'expired' } end
local texts, count = load(flow, 'm'), 0
if texts[a.token] then return reply_of(flow, now, false) end
for _ in pairs(texts) do count = count + 1 end
if count >= a.max_sends then return { 'refused', 'sends', 0 } end
local reason, wait, ticket, observing = admit(roles, a, now)
if reason ~= '' then return { 'refused', reason, wait } end
add_text(roles, flow, a, ticket, now)
return reply_of(flow, now, observing)
