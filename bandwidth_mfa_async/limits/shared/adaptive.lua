-- One channel of one account, shared by every process that sends for it: report, adapt and lease in one call.
--
-- KEYS[1]  a hash: the state; KEYS[2]  a hash: who waits; nothing else is touched
-- ARGV     adaptive (0 or 1), ceiling (0 for none),
--          want, head, ticket of the interactive lane, then of the bulk lane:
--              weight of all who wait, weight of the first of them, and the slot given before (0 for none)
--          epoch: what the caller knows; accepted: in it; accepted_before: in earlier ones
--          bad: how many were refused, bad_epoch: in which epoch, retry_after: what was asked for (0 for nothing)
--          back: permits that were not used
--          seed: the rate to begin with when there is no hash (0 for none), expires: in milliseconds
--          process: whose report this is
-- returns  granted, ticket and wait of both lanes, epoch, rate (0 for unlimited), pause, half_open; as strings
--
-- Time is Redis's alone. Numbers are kept with %.6f: Lua's own %.14g cuts time stamps short. Nothing is granted ahead
-- of its time: a caller that comes too early is told when its turn is (its ticket), and gets what is there by then.
-- The policy is that of _hold_and_probe.py and _noise.py, with the same numbers.

if redis.replicate_commands then redis.replicate_commands() end  -- Redis 4 asks for it before TIME and a write

local NEVER = 1e15
local HOLD_MESSAGES, HOLD_MIN, HOLD_MAX = 100, 3.8, 100
local CLIMB_MESSAGES, CLIMB_MIN, CLIMB_MAX, CLIMB_POWER = 20, 2.6, 20, 3.5
local BETA, SURGE, PAUSE, PAUSE_MAX = 0.97, 1.6, 0.08, 8
local FIRST_RATE, LEAST_RATE, WINDOW_MESSAGES, FALLEN, STREAK_MOST = 10, 0.05, 20, 0.75, 16
local ENDINGS, ENDINGS_IN_HOLD, LEAST_ACCEPTED, GROWTH, DECLINE, APPROACH, SCATTER = 6, 5, 1.5, 3, 4, 4, 0.45
local GAPS, DRIFT, SURPRISE, SURPRISE_BY_SHARE, LEAP, LAST, ONCE = 32, 1.2, 4, 40, 2.5, 0.2, 8
local TRIAL, DRIFT_ON_TRIAL, SURPRISE_ON_TRIAL, SURPRISE_ON_TRIAL_BY_SHARE, TOLERATED_ON_TRIAL = 8, 1.6, 2, 16, 0.15
local SILENCE, SILENCE_AFTER_CUT = 16, 8
local BATCH_SECONDS, SLACK_SECONDS, PROBE_PATIENCE, LATE, HAIR = 0.05, 0.15, 0.5, 0.005, 1e-5
local RAMP_START, SEED_SHARE = 10, 0.8
local REFUSED_MOST, FORGET_PROCESS = 10, 60

local adaptive, ceiling = ARGV[1] == '1', tonumber(ARGV[2])
local known_epoch, accepted, accepted_before = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local bad, bad_epoch, retry_after = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local back, seed, expires = tonumber(ARGV[15]), tonumber(ARGV[16]), ARGV[17]
local process, waiting_interactive, waiting_bulk = ARGV[18], tonumber(ARGV[3]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if ceiling <= 0 then ceiling = NEVER end

local function clamp(value, least, most)
  return math.max(least, math.min(value, most))
end

-- state -------------------------------------------------------------------------------------------------------------

local s, streak, refused = {}, {}, {}
-- Of the noise: how epochs ended, what was accepted before each refusal, and before those that may be a limit's.
local endings, gaps, doubtful = {}, {}, {}
local function numbers(text)
  local list = {}
  for number in string.gmatch(text, '%-?%d+') do list[#list + 1] = tonumber(number) end
  return list
end
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  if stored[i] == 'endings' then endings = numbers(stored[i + 1])
  elseif stored[i] == 'gaps' then gaps = numbers(stored[i + 1])
  elseif stored[i] == 'doubtful' then doubtful = numbers(stored[i + 1])
  elseif stored[i] == 'streak' then
    for at, count in string.gmatch(stored[i + 1], '([%d.]+):(%d+)') do
      streak[#streak + 1] = {tonumber(at), tonumber(count)}
    end
  elseif stored[i] == 'refused' then
    for entry in string.gmatch(stored[i + 1], '[^,]+') do refused[#refused + 1] = entry end
  else
    s[stored[i]] = tonumber(stored[i + 1])
  end
end
local is_new = s.format ~= 2
if is_new then
  endings, gaps, doubtful, streak, refused = {}, {}, {}, {{now, 0}}, {}
  s = {
    format = 2, epoch = 0, ceiling = ceiling, believed = ceiling, rate = ceiling < NEVER and ceiling or 0, sent = 0,
    window_start = 0, window_end = 0, window_count = 0, window_before = 0, window_before_length = 0,
    window_length = math.max(1, WINDOW_MESSAGES / ceiling),
    accepted = 0, accepted_since_cut = 0, resumed = 0, closed = 0,
    burst_accepted = 0, burst_start = 0,
    noise = 0, noise_most = 1, tolerated = 0, distance = 0, surprise = 0, trial = 0, after_cut = 0, level = 1, stamp = now, pause_until = 0, probe_until = 0,
    slot_interactive = 0, slot_bulk = 0, ramp_start = 0, ramp_opens = 0,
    climbing = 0, regain = 0, heard = now, refused_count = 0, refused_at = 0, pruned = now,
  }
end

local function hold()
  return clamp(HOLD_MESSAGES / s.believed, HOLD_MIN, HOLD_MAX)
end

local function climb()
  return clamp(CLIMB_MESSAGES / s.believed, CLIMB_MIN, CLIMB_MAX)
end

local function update()
  local length, rate = hold(), 0
  if s.sent <= length then
    rate = s.believed * (BETA + (1 - BETA) * s.sent / length)
  else
    rate = s.believed * 2 ^ math.min(((s.sent - length) / climb()) ^ CLIMB_POWER, 40)
  end
  s.rate = clamp(rate, math.min(LEAST_RATE, s.ceiling), math.min(s.ceiling, 1e9))
  if s.regain > 0 and s.rate >= s.regain then
    -- Back where it was before Redis lost it: hold that, as after a refusal.
    s.believed, s.sent, s.regain = s.regain, 0, 0
    s.window_length = math.max(1, WINDOW_MESSAGES / s.believed)
    s.rate = s.believed * BETA
  end
end

local function believe(limit)
  s.believed = clamp(limit, LEAST_RATE, s.ceiling)
  s.sent, s.regain = 0, 0
  s.window_length = math.max(1, WINDOW_MESSAGES / s.believed)
  update()
end

-- what was accepted lately (_window.py) ------------------------------------------------------------------------------

local function clear_window(at)
  s.window_start, s.window_end = at, at + s.window_length
  s.window_count, s.window_before, s.window_before_length = 0, 0, 0
end

local function roll_window()
  if now < s.window_end then return end
  if now >= s.window_end + s.window_length then
    clear_window(now)
  else
    s.window_before, s.window_before_length = s.window_count, s.window_end - s.window_start
    s.window_count = 0
    s.window_start, s.window_end = s.window_end, s.window_end + s.window_length
  end
end

local function accepted_per_second()
  roll_window()
  local seconds = math.max(now - s.window_start + s.window_before_length, s.window_length)
  return (s.window_count + s.window_before) / seconds
end

-- the bucket ---------------------------------------------------------------------------------------------------------

local function settle()
  local elapsed = now - s.stamp
  if elapsed > 0 then
    s.level = math.min(s.level + elapsed * s.rate, math.max(1 + SLACK_SECONDS * s.rate, s.level))
    s.stamp = now
  end
end

local function pause_until(when)
  settle()
  s.level = math.min(s.level, 1)
  s.stamp, s.pause_until = math.max(now, when), when
  -- Slots given before are too early now; who comes with one gets a new one, in the old order.
  s.slot_interactive, s.slot_bulk = when, when
end

local function open_probed_gate()
  if s.probe_until > now and s.pause_until == s.probe_until then pause_until(now) end
  s.probe_until = 0
end

-- the policy (_hold_and_probe.py) ------------------------------------------------------------------------------------

local function begin_streak()
  streak = {{now, s.accepted}}
end

-- What was accepted a second since the first refusal of the streak; anew where it was clearly less lately.
local function measured_since_first()
  local function since(refusal) return (s.accepted - refusal[2]) / math.max(now - refusal[1], 1e-6) end
  if #streak == 0 then begin_streak() end
  local measured = since(streak[1])
  if s.window_length <= 1 then
    local recent = streak[1]
    for _, refusal in ipairs(streak) do
      if refusal[1] <= now - 1 and refusal[1] >= recent[1] then recent = refusal end
    end
    local lately = since(recent)
    if lately < FALLEN * measured then streak, measured = {recent}, lately end
  end
  if #streak >= STREAK_MOST then table.remove(streak, 2) end
  streak[#streak + 1] = {now, s.accepted}
  return measured
end

local function cut()
  if s.rate <= 0 then
    local estimate = accepted_per_second()
    if estimate <= 0 then estimate = FIRST_RATE end
    s.believed = math.min(estimate, s.ceiling)
    s.burst_accepted = s.window_count + s.window_before
    s.burst_start = s.window_start - s.window_before_length
    begin_streak()
  elseif s.epoch > 0 and now - s.resumed < math.max(1, WINDOW_MESSAGES / s.rate) then
    s.believed = clamp(measured_since_first(), 0.7 * s.rate, 0.95 * s.rate)
  else
    local estimate = accepted_per_second()
    if s.rate > SURGE * s.believed then estimate = math.max(estimate, 0.8 * s.rate) end
    s.believed = clamp(estimate, 0.5 * s.rate, s.rate)
    begin_streak()
  end
  believe(s.believed)
end

local function begin_epoch(asked)
  s.epoch, s.accepted_since_cut = s.epoch + 1, 0
  local pause = math.max(asked, math.min(PAUSE * 2 ^ math.min(s.closed, 30), PAUSE_MAX))
  s.resumed = now + pause
  clear_window(s.resumed)
  return pause
end

-- Refusals that no rate would avoid (_noise.py). An ending is what was accepted, below 0 where no limit was being held.

local function take_gaps(list)
  for _, gap in ipairs(list) do gaps[#gaps + 1] = gap end
  while #gaps > GAPS do table.remove(gaps, 1) end
  local total = #gaps
  for _, gap in ipairs(gaps) do total = total + gap end
  s.noise = math.min(#gaps / total, s.noise_most)
  s.tolerated = 3 * s.noise / (1 + 2 * s.noise)
  if s.trial > 0 then s.tolerated = math.max(s.tolerated, TOLERATED_ON_TRIAL) end
end

local function forget_noise()
  s.noise, s.trial, gaps, doubtful = 0, 0, {}, {}
end

local function noise_accepted(count)
  if s.noise <= 0 then return end
  s.distance = s.distance + count
  s.surprise = math.max(0, s.surprise - s.tolerated * count)
  if s.surprise <= 0 and #doubtful > 0 then
    local on_trial = s.trial > 0
    s.trial = math.max(0, s.trial - #doubtful)
    take_gaps(doubtful)
    doubtful = {}
    if on_trial and s.trial <= 0 then s.noise_most = DRIFT * s.noise end
  end
  if s.distance * s.noise > (s.after_cut > 0 and SILENCE_AFTER_CUT or SILENCE) then forget_noise() end
end

local function noise_explains()
  if s.noise <= 0 then return false end
  doubtful[#doubtful + 1] = s.distance
  s.distance = 0
  s.surprise = s.surprise + 1 - s.tolerated
  s.after_cut = 0
  local most = SURPRISE + SURPRISE_BY_SHARE * s.noise
  if s.trial > 0 then most = SURPRISE_ON_TRIAL + SURPRISE_ON_TRIAL_BY_SHARE * s.noise end
  if s.surprise <= most then return true end
  if s.trial > 0 then forget_noise() end
  s.surprise, s.after_cut, doubtful = 0, 1, {}
  return false
end

local function by_chance(counts)
  local earlier, later, most, row = 0, 0, 0, 1
  for i, count in ipairs(counts) do
    if i <= math.floor(#counts / 2) then earlier = earlier + count else later = later + count end
    most = math.max(most, count)
    row = i > 1 and count >= counts[i - 1] and row + 1 or 1
    if row >= APPROACH then return false end
  end
  local every = earlier + later
  return later <= GROWTH * earlier and earlier <= DECLINE * later and counts[#counts] >= LAST * every / #counts
    and most <= ONCE * (every - most) / (#counts - 1)
end

local function found_noise(in_hold, count)
  endings[#endings + 1] = in_hold and count or -1 - count
  while #endings > ENDINGS do table.remove(endings, 1) end
  local counts, measured = {}, {}
  for i, ending in ipairs(endings) do
    counts[i] = ending >= 0 and ending or -1 - ending
    if ending >= 0 then measured[#measured + 1] = ending end
  end
  if not in_hold or #counts < ENDINGS or #measured < ENDINGS_IN_HOLD or not by_chance(counts) then return false end
  table.remove(measured, 1)  -- sent at a limit that may have been right until then
  local total, squares = 0, 0
  for _, ending in ipairs(measured) do total = total + ending end
  local mean = total / #measured
  for _, ending in ipairs(measured) do squares = squares + (ending - mean) ^ 2 end
  if mean < LEAST_ACCEPTED or math.sqrt(squares / #measured) < SCATTER * mean then return false end
  endings = {}
  s.distance, s.surprise, s.trial, s.after_cut, s.noise_most = 0, 0, TRIAL, 0, 1
  take_gaps(measured)
  s.noise_most = DRIFT_ON_TRIAL * s.noise
  return true
end

local function on_429(epoch, asked)
  if epoch ~= s.epoch then
    s.resumed = math.max(s.resumed, now + asked)
    return asked
  end
  local on_trial = s.trial > 0
  if noise_explains() then return asked end
  if on_trial then
    -- It was a limit after all: the one that was held before the leap, or what got through since.
    s.closed = 0
    believe(math.max(s.believed, accepted_per_second()))
    begin_streak()
    return begin_epoch(asked)
  end
  if s.epoch > 0 and s.accepted_since_cut == 0 then
    s.closed = s.closed + 1
    return begin_epoch(asked)
  end
  s.closed = 0
  if found_noise(s.epoch > 0 and s.sent <= hold(), s.accepted_since_cut) then
    s.sent = hold() + climb() * (math.log(LEAP) / math.log(2)) ^ (1 / CLIMB_POWER)
    update()
    return asked
  end
  cut()
  return begin_epoch(asked)
end

local function on_accept(count, epoch)
  -- What left first after the pause is accepted only now: measured from the pause's end, the rate would look low.
  if epoch == s.epoch and s.accepted_since_cut == 0 then clear_window(now) end
  roll_window()
  s.window_count = s.window_count + count
  s.accepted = s.accepted + count
  if s.epoch == 1 and epoch == 0 and adaptive then
    s.burst_accepted = s.burst_accepted + count
    local measured = s.burst_accepted / math.max(now - s.burst_start, 1)
    if s.rate > 0 and measured > s.believed then
      settle()
      s.believed = math.min(measured, s.ceiling)
      s.window_length = math.max(1, WINDOW_MESSAGES / s.believed)
      update()
    end
  end
  if epoch == s.epoch then
    s.accepted_since_cut = s.accepted_since_cut + count
    s.closed = 0
    open_probed_gate()
  end
  noise_accepted(count)
end

-- For people only: the last refusals, those of the same second as one.
local function note_refusals(rate_before)
  if bad <= 0 then return end
  s.refused_count = s.refused_count + bad
  local count, before = bad, rate_before
  if now - s.refused_at < 1 and #refused > 0 then
    local earlier, rate = string.match(table.remove(refused), '^[%d.]+:([%d.]+):([%d.]+):')
    count, before = count + tonumber(earlier), tonumber(rate)
  else
    s.refused_at = now
  end
  refused[#refused + 1] = string.format('%.6f:%d:%.6f:%.6f:%.6f', s.refused_at, count, before, s.rate, retry_after)
  if #refused > REFUSED_MOST then table.remove(refused, 1) end
end

-- report and adapt ---------------------------------------------------------------------------------------------------

if is_new and seed > 0 and adaptive then
  -- Redis lost what was learnt: go on somewhat below it, and with nothing saved up.
  s.epoch, s.level, s.resumed = known_epoch + 1, 0, now
  believe(seed)
  s.sent, s.regain = hold(), seed / SEED_SHARE  -- nothing was refused: climb at once, but no higher than it was
  update()
elseif is_new and s.rate > 0 and known_epoch > 0 then
  s.level = 0
end
if s.ceiling ~= ceiling then
  settle()
  s.ceiling = ceiling
  if s.epoch == 0 then
    s.believed, s.rate = ceiling, ceiling < NEVER and ceiling or 0
    s.level = math.min(s.level, 1)
  elseif s.rate > 0 then
    s.believed = math.min(s.believed, ceiling)
    update()
  elseif ceiling < NEVER then
    s.rate = ceiling
  end
end
if not adaptive then
  s.rate = ceiling < NEVER and ceiling or 0
  if s.ramp_start > 0 then
    local idle = now >= s.ramp_opens + 1 and s.slot_interactive <= now and s.slot_bulk <= now
    if idle or ceiling < NEVER or now > s.ramp_opens + 20 then
      s.ramp_start = 0
    else
      s.rate = s.ramp_start * 2 ^ math.max(0, now - s.ramp_opens)
    end
  end
end
if now - s.heard > math.max(1, WINDOW_MESSAGES / s.rate) then
  -- Nobody asked, or Redis hung: what the service saved up meanwhile would let a climb go far too high.
  s.sent = 0
  if s.rate > 0 and s.epoch > 0 then update() end
end
s.heard = now
settle()
if back > 0 then
  s.level = math.min(s.level + back, math.max(s.level, 1 + SLACK_SECONDS * s.rate))
  open_probed_gate()
end
if accepted > 0 then on_accept(accepted, known_epoch) end
if accepted_before > 0 then on_accept(accepted_before, known_epoch - 1) end
if bad > 0 or retry_after > 0 then
  local was_paced, pause, rate_before = s.rate > 0, retry_after, s.rate
  if adaptive then
    for _ = 1, math.min(bad, 64) do pause = math.max(pause, on_429(bad_epoch, retry_after)) end
  elseif ceiling == NEVER and pause > 0 then
    if s.pause_until <= now or s.ramp_start == 0 then s.ramp_start = math.max(RAMP_START, accepted_per_second()) end
    s.ramp_opens = math.max(now + pause, s.pause_until)
    s.rate = s.ramp_start
  end
  if s.rate > 0 and not was_paced then s.level, s.stamp = 0, now end
  if now + pause > math.max(now, s.pause_until) then pause_until(now + pause) end
  note_refusals(rate_before)
end

-- lease --------------------------------------------------------------------------------------------------------------

local batch = math.max(1, math.floor(s.rate * BATCH_SECONDS))

local function lease(lane, want, head, ticket)
  if want <= 0 then return 0, 0 end
  local open, slot = now >= s.pause_until, 'slot_' .. lane
  if s.rate <= 0 then
    if open then return want, 0 end
    return 0, s.pause_until
  end
  local waited = ticket > 0
  if waited and ticket > now + 0.0005 and ticket < now + 3600 then return 0, ticket end
  local granted = 0
  local undisturbed = s[slot] <= now
  local yields = lane == 'bulk' and s.slot_interactive + LATE > now
  if open and (waited or undisturbed) and not yields and s.level >= 1 - HAIR then
    local most = want
    if not undisturbed then most = math.max(math.min(want, batch), math.floor(s.level - batch)) end
    granted = math.min(want, math.floor(s.level + HAIR), most)
    if s.closed > 0 then granted = head end
    s.level = s.level - granted
    if lane == 'interactive' and ticket == s[slot] then s[slot] = now - 1 end
    if (waited or granted < want) and adaptive and s.epoch > 0 then
      s.sent = s.sent + granted / s.rate
      update()
    end
    if s.closed > 0 then
      s.probe_until = now + PROBE_PATIENCE
      pause_until(s.probe_until)
    end
  end
  if granted >= want then return granted, 0 end
  local share = math.min(want - granted, batch)
  local from = s.slot_interactive
  if lane == 'bulk' then from = math.max(from, s.slot_bulk) end
  local due = math.max(s.stamp + math.max(0, share - s.level) / s.rate, from + share / s.rate, now)
  if now < s.probe_until then return granted, math.min(due, now + 0.1) end
  s[slot] = due
  return granted, due
end

local first, ticket_first = lease('interactive', waiting_interactive, tonumber(ARGV[4]), tonumber(ARGV[5]))
local second, ticket_second = lease('bulk', waiting_bulk, tonumber(ARGV[7]), tonumber(ARGV[8]))

s.climbing = s.sent > hold() and 1 or 0
if now > s.pruned + FORGET_PROCESS then
  -- Processes that died while they waited.
  s.pruned = now
  local lines = redis.call('HGETALL', KEYS[2])
  for i = 1, #lines, 2 do
    if tonumber(string.match(lines[i + 1], '^[%d.]+')) < now - FORGET_PROCESS then redis.call('HDEL', KEYS[2], lines[i]) end
  end
end

-- keep and answer ----------------------------------------------------------------------------------------------------

local fields = {}
for name, value in pairs(s) do
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.6f', value)
end
for name, list in pairs({endings = endings, gaps = gaps, doubtful = doubtful}) do
  local whole = {}
  for i, number in ipairs(list) do whole[i] = string.format('%d', number) end
  fields[#fields + 1] = name
  fields[#fields + 1] = table.concat(whole, ',')
end
local refusals = {}
for i, refusal in ipairs(streak) do refusals[i] = string.format('%.6f:%d', refusal[1], refusal[2]) end
fields[#fields + 1] = 'streak'
fields[#fields + 1] = table.concat(refusals, ',')
fields[#fields + 1] = 'refused'
fields[#fields + 1] = table.concat(refused, ',')
redis.call('HMSET', KEYS[1], unpack(fields))
redis.call('PEXPIRE', KEYS[1], expires)
waiting_interactive, waiting_bulk = waiting_interactive - first, waiting_bulk - second
if waiting_interactive + waiting_bulk > 0 then
  local line = string.format('%.6f:%d:%d', now, waiting_interactive, waiting_bulk)
  redis.call('HSET', KEYS[2], process, line)
  redis.call('PEXPIRE', KEYS[2], FORGET_PROCESS * 1000)
else
  redis.call('HDEL', KEYS[2], process)
end

local function text(value) return string.format('%.6f', value) end
return {
  text(first + second),
  text(ticket_first), text(math.max(0, ticket_first - now)), text(ticket_second), text(math.max(0, ticket_second - now)),
  text(s.epoch), text(s.rate), text(math.max(0, s.pause_until - now)), text(s.closed),
}
