local a = cjson.decode(args[1])
local roles = roles_of(records, save, delete, a.roles)
local flow = roles.get('flow')
if flow then return reply_of(flow, now, false) end
if a.key_digest ~= '' then
  local known = roles.get('key')
  if known then
    if known.h == a.key_digest then return { 'known', known.i } end
    return { 'other' }
  end
end
local reason, wait, ticket, observing = admit(roles, a, now)
if reason ~= '' then return { 'refused', reason, wait } end
flow = { s = 'open', p = a.sealed, o = a.scope, g = a.language, d = a.lengths, f = a.fake, t = now, k = 0, r = '{}', m = '{}' }
add_text(roles, flow, a, ticket, now)
if a.key_digest ~= '' then
  roles.save('key', { h = a.key_digest, i = a.sealed_id, e = now + MAX_AGE + TOMBSTONE })
end
return reply_of(flow, now, observing)
