-- The guard's decisions; means the same as _admission.py.
local STREAK, MAX_WRONG = 15 * 60000, 100
local VERIFIED_FOR, REGION_KEPT, META_KEPT = 90 * DAY, (DAYS_KEPT + 2) * DAY, 3650 * DAY

local function roles_of(records, save, delete, indexes)
  local roles = {}
  function roles.has(role) return indexes[role] ~= nil end
  function roles.get(role)
    for _, index in ipairs(indexes[role] or {}) do
      if records[index + 1] then return records[index + 1] end
    end
    return nil
  end
  function roles.save(role, record)
    for place, index in ipairs(indexes[role]) do
      if place == 1 then
        save(index + 1, record)
      elseif records[index + 1] then
        delete(index + 1)
      end
    end
  end
  function roles.delete(role)
    for _, index in ipairs(indexes[role] or {}) do delete(index + 1) end
  end
  return roles
end

local function next_cooldown(cooldown, streak)
  if #cooldown == 0 or streak <= 0 then return 0 end
  return cooldown[math.min(streak, #cooldown)]
end

local function observes(a, reason)
  for _, each in ipairs(a.observe) do
    if each == reason then return true end
  end
  return false
end

local function keep_until(record, till) record.e = math.max(record.e or 0, till) end

local function is_observing(roles, a, now)
  if a.observe_ms == 0 then return false end
  local meta = roles.get('meta') or {}
  if not meta.b then
    meta.b, meta.e = now, now + META_KEPT
    roles.save('meta', meta)
  end
  return now < meta.b + a.observe_ms
end

local function budget_for(roles, role, a, now)
  local record, hourly, daily = roles.get(role)
  if role == 'region' then
    hourly, daily = region_thresholds(record, a.expected, now)
  else
    hourly, daily = visitor_thresholds(record, now)
  end
  return budget_of(record, hourly, daily, now)
end

local function fill(roles, which, a, texts, now)
  for _, role in ipairs(which) do
    if roles.has(role) then
      local record = roles.get(role) or {}
      record.b = budget_filled(budget_for(roles, role, a, now), texts, now)
      keep_until(record, now + (role == 'region' and REGION_KEPT or 2 * DAY))
      roles.save(role, record)
    end
  end
end

local ALL, VISITOR, NO_REGION = { 'visitor', 'prefix', 'region' }, { 'visitor' }, { 'visitor', 'prefix' }

local function buckets_of(ticket)
  if ticket.f == 1 then return VISITOR end
  return ticket.r == 1 and ALL or NO_REGION
end

local function counts_for_region(roles, a, now)
  if a.budget ~= 1 or not roles.has('prefix') then return 0 end
  return budget_for(roles, 'prefix', a, now)[2][2] < TEXT and 1 or 0
end

local function count_in_region(roles, a, column, n, at, now)
  local record = roles.get('region') or {}
  if not record.n then
    record.n = a.region
    local meta = roles.get('meta') or {}
    local regions = load(meta, 'r')
    if not regions[a.region] then
      regions[a.region] = 1
      meta.r, meta.e = cjson.encode(regions), now + META_KEPT
      roles.save('meta', meta)
    end
  end
  local hours, hour = pruned(load(record, 'h'), math.floor(now / HOUR), HOURS_KEPT), text_of(math.floor(at / HOUR))
  local counts = hours[hour] or { 0, 0, 0 }
  counts[column + 1] = math.max(0, counts[column + 1] + n)
  hours[hour] = counts
  record.h = cjson.encode(hours)
  if column == 1 then
    local days, day = pruned(load(record, 'd'), math.floor(now / DAY), DAYS_KEPT), text_of(math.floor(at / DAY))
    days[day] = (days[day] or 0) + n
    record.d = cjson.encode(days)
  end
  record.e = now + REGION_KEPT
  roles.save('region', record)
end

local function count_refused(roles, a, now)
  if a.budget == 1 then fill(roles, VISITOR, a, 1, now) end
  count_in_region(roles, a, 2, 1, now, now)
end

local function save_number(roles, number, a, now)
  local kept = math.max(2 * longest(a.per_number), 2 * STREAK)
  if number.g or number.f then kept = math.max(kept, VERIFIED_FOR) end
  keep_until(number, now + kept)
  roles.save('number', number)
end

local function add(record, name, rules, at, n, now)
  local windows = load(record, name)
  window_add(windows, rules, at, n, now)
  record[name] = cjson.encode(windows)
end

local function add_to_window(roles, role, rules, at, n, now)
  if roles.has(role) and #rules > 0 then
    local record = roles.get(role) or {}
    add(record, 'w', rules, at, n, now)
    keep_until(record, now + math.max(2 * longest(rules), 2 * DAY))
    roles.save(role, record)
  end
end

local function failed_checks(roles, a, number, now)
  local failed = {}
  local function check(reason, wait)
    if wait ~= 0 then failed[#failed + 1] = { reason, math.max(0, wait), observes(a, reason) } end
  end
  if a.static ~= '' then check(a.static, -1) end
  check('number', window_wait(load(number, a.cleared == 1 and 'x' or 'w'), a.per_number, now))
  if (number.f or 0) >= MAX_WRONG and a.cleared ~= 1 then check('number', -1) end
  check('visitor', window_wait(load(roles.get('visitor'), 'w'), a.per_visitor, now))
  check('total', window_wait(load(roles.get('total'), 'w'), a.total, now))
  local observing = a.budget == 1 and is_observing(roles, a, now)
  if a.budget == 1 and not observing then
    local exempt = a.cleared == 1 or (number.g or 0) + VERIFIED_FOR > now
    for _, role in ipairs(exempt and VISITOR or ALL) do
      if roles.has(role) then check('unverified', budget_wait(budget_for(roles, role, a, now))) end
    end
  end
  return failed, observing
end

local function admit(roles, a, now)
  local number = roles.get('number') or {}
  local last = number.l or 0
  local streak = (-STREAK < now - last and now - last < STREAK) and (number.c or 0) or 0
  local gap = next_cooldown(a.cooldown, streak)
  local left = last + gap - now
  if 0 < left and left <= gap then return 'cooldown', left, nil, false end
  local failed, observing = failed_checks(roles, a, number, now)
  for _, each in ipairs(failed) do
    if not each[3] then
      count_refused(roles, a, now)
      return each[1], each[2], nil, observing
    end
  end
  local ticket = { t = now, l = last, c = streak, x = a.cleared, o = #failed > 0 and 1 or 0, f = a.fake }
  ticket.r = counts_for_region(roles, a, now)
  number.l, number.c = now, streak + 1
  if #failed > 0 then
    count_refused(roles, a, now)
    save_number(roles, number, a, now)
    return '', 0, ticket, observing
  end
  add(number, a.cleared == 1 and 'x' or 'w', a.per_number, now, 1, now)
  save_number(roles, number, a, now)
  add_to_window(roles, 'visitor', a.per_visitor, now, 1, now)
  add_to_window(roles, 'total', a.total, now, 1, now)
  if a.budget == 1 then fill(roles, buckets_of(ticket), a, 1, now) end
  if a.fake ~= 1 then count_in_region(roles, a, 0, 1, now, now) end
  return '', 0, ticket, observing
end

local function release(roles, a, ticket, now)
  local number = roles.get('number') or {}
  if number.l == ticket.t then number.l, number.c = ticket.l, ticket.c end
  if ticket.o ~= 1 then add(number, ticket.x == 1 and 'x' or 'w', a.per_number, ticket.t, -1, now) end
  save_number(roles, number, a, now)
  if ticket.o == 1 then return end
  add_to_window(roles, 'visitor', a.per_visitor, ticket.t, -1, now)
  add_to_window(roles, 'total', a.total, ticket.t, -1, now)
  if a.budget == 1 then fill(roles, buckets_of(ticket), a, -1, now) end
  if ticket.f ~= 1 then count_in_region(roles, a, 0, -1, ticket.t, now) end
end

local function drain(roles, a, tickets, now, verified)
  local count, last, in_region = 0, 0, 0
  for _, ticket in pairs(tickets) do
    if ticket.o ~= 1 and ticket.f ~= 1 then
      count, last, in_region = count + 1, math.max(last, ticket.t), in_region + ticket.r
      add_to_window(roles, 'visitor', a.per_visitor, ticket.t, -1, now)
    end
  end
  if verified then
    local number = roles.get('number') or {}
    number.c, number.f = 0, 0
    if count > 0 then number.g = now end
    save_number(roles, number, a, now)
  end
  if count == 0 then return end
  if a.budget == 1 then
    fill(roles, NO_REGION, a, -count, now)
    if in_region > 0 then fill(roles, { 'region' }, a, -in_region, now) end
  end
  if not verified then return end
  if a.budget == 1 then
    for _, role in ipairs({ 'visitor', 'prefix' }) do
      if roles.has(role) then
        local record = roles.get(role) or {}
        local hours, hour = pruned(load(record, 'g'), math.floor(now / HOUR), 24), text_of(math.floor(last / HOUR))
        hours[hour] = (hours[hour] or 0) + 1
        record.g = cjson.encode(hours)
        keep_until(record, now + 2 * DAY)
        roles.save(role, record)
      end
    end
  end
  count_in_region(roles, a, 1, 1, last, now)
end

local function count_wrong(roles, a, now)
  local number = roles.get('number') or {}
  number.f = (number.f or 0) + 1
  save_number(roles, number, a, now)
end
