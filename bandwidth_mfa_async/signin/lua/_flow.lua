-- The decisions of a sign-in flow; means the same as _flow.py, which names the fields of the record.
local TOMBSTONE, GRACE, MAX_AGE, MAX_GIVEN_BACK = 20 * 60000, 60000, 15 * 60000, 20

-- A flow that was stored before Redis lost writes may have been used since.
local function is_live(flow, now) return now < flow.x and flow.x <= now + MAX_AGE + 1000 and flow.t > rewound_at end

local function is_open(flow, now) return flow ~= nil and flow.s == 'open' and is_live(flow, now) end

local function reply_of(flow, now, observing)
  local last, count, outcome = nil, 0, 'accepted'
  for _, text in pairs(load(flow, 'm')) do
    count = count + 1
    if not last or text.q > last.q then last = text end
  end
  if last then
    outcome = last.s
    if outcome == 'sending' and now >= last.u then outcome = 'unknown' end
  end
  local open = is_open(flow, now)
  local state = (open or flow.s ~= 'open') and flow.s or 'ended'
  return {
    'ok', state, open and math.max(0, flow.x - now) or 0, math.max(0, flow.w - now), count, flow.k, outcome,
    flow.p or '', flow.o, flow.g, flow.f, observing and 1 or 0,
  }
end

local function set_times(flow, a, last, next_text)
  flow.x = math.min(last + a.lifetime, flow.t + MAX_AGE)
  flow.w = next_text
  flow.e = flow.x + GRACE
end

local function add_text(roles, flow, a, ticket, now)
  local texts, place = load(flow, 'm'), 1
  for _, text in pairs(texts) do place = math.max(place, text.q + 1) end
  ticket.s, ticket.u, ticket.q = 'sending', now + a.in_flight_ms, place
  texts[a.token] = ticket
  flow.m = cjson.encode(texts)
  set_times(flow, a, now, now + next_cooldown(a.cooldown, ticket.c + 1))
  roles.save('flow', flow)
end

local function end_flow(flow, state, now)
  flow.s, flow.e = state, now + TOMBSTONE
  if state ~= 'exhausted' then flow.p = nil end -- flow_end can still drain the budgets
end
