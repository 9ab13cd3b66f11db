-- Windows and buckets; means the same as _counters.py.
local HOUR, DAY, TEXT, PER_MILLE = 3600000, 86400000, 1000, 200
local EXACT_LIMIT, HOURS_KEPT, DAYS_KEPT = 64, 48, 14

local function text_of(number) return string.format('%.0f', number) end

local function load(record, name)
  local text = record and record[name]
  if text and text ~= '' then return cjson.decode(text) end
  return {}
end

local function quantum_of(limit, period) return limit <= EXACT_LIMIT and 1 or math.ceil(period / 60) end

local function slot_of(limit, period, at)
  local quantum = quantum_of(limit, period)
  return math.ceil(at / quantum) * quantum
end

local function window_wait(windows, rules, now)
  local wait = 0
  for _, rule in ipairs(rules) do
    local limit, period = rule[1], rule[2]
    local slots, excess = {}, -limit
    for key, n in pairs(windows[text_of(period)] or {}) do
      local at = tonumber(key)
      if now - period < at and at <= now + quantum_of(limit, period) then
        slots[#slots + 1] = { at, n }
        excess = excess + n
      end
    end
    table.sort(slots, function(a, b) return a[1] < b[1] end)
    for _, slot in ipairs(slots) do
      if excess < 0 then break end
      excess = excess - slot[2]
      wait = math.max(wait, slot[1] + period - now)
    end
  end
  return wait
end

local function window_add(windows, rules, at, n, now)
  for _, rule in ipairs(rules) do
    local limit, period = rule[1], rule[2]
    local slots, kept = windows[text_of(period)] or {}, {}
    for key, count in pairs(slots) do
      local each = tonumber(key)
      if now - period < each and each <= now + quantum_of(limit, period) then kept[key] = count end
    end
    local slot = text_of(slot_of(limit, period, at))
    if n > 0 or kept[slot] then
      local count = (kept[slot] or 0) + n
      kept[slot] = count > 0 and count or nil
    end
    windows[text_of(period)] = kept
  end
end

local function longest(rules)
  local found = 0
  for _, rule in ipairs(rules) do found = math.max(found, rule[2]) end
  return found
end

local function level(bucket, threshold, period, now)
  if not bucket then return 0 end
  local held, elapsed = math.min(bucket[1], threshold), math.min(now - bucket[2], period)
  if elapsed < 0 then elapsed = -elapsed > period and period or 0 end
  return math.max(0, held - math.floor(elapsed * threshold / period))
end

local function budget_of(record, hourly, daily, now)
  local stored = load(record, 'b')
  return {
    { 'h', level(stored.h, hourly, HOUR, now), hourly, HOUR },
    { 'd', level(stored.d, daily, DAY, now), daily, DAY },
  }
end

local function budget_wait(budget)
  local wait = 0
  for _, each in ipairs(budget) do
    local over = each[2] + TEXT - each[3]
    if over > 0 then wait = math.max(wait, math.ceil(over * each[4] / each[3])) end
  end
  return wait
end

local function budget_filled(budget, texts, now)
  local filled = {}
  for _, each in ipairs(budget) do filled[each[1]] = { math.max(0, each[2] + TEXT * texts), now } end
  return cjson.encode(filled)
end

local function recent(counts, index, span)
  local sum = 0
  for key, n in pairs(counts) do
    local each = tonumber(key)
    if index - span < each and each <= index then sum = sum + n end
  end
  return sum
end

local function pruned(counts, index, span)
  local kept = {}
  for key, n in pairs(counts) do
    if tonumber(key) > index - span then kept[key] = n end
  end
  return kept
end

local function visitor_thresholds(record, now)
  local share = recent(load(record, 'g'), math.floor(now / HOUR), 24) * PER_MILLE
  return math.max(5 * TEXT, math.floor(share / 6)), math.max(10 * TEXT, share)
end

local function region_thresholds(record, expected, now)
  local verified, best, today = {}, expected, math.floor(now / DAY)
  for key, counts in pairs(load(record, 'h')) do verified[key] = counts[2] end
  for key, n in pairs(load(record, 'd')) do
    local day = tonumber(key)
    if today - DAYS_KEPT < day and day <= today then best = math.max(best, n) end
  end
  local hour = math.floor(now / HOUR)
  local daily = math.max(20 * TEXT, best * PER_MILLE, recent(verified, hour, 24) * PER_MILLE)
  return math.max(3 * TEXT, math.floor(daily / 6), recent(verified, hour, 2) * PER_MILLE), daily
end
