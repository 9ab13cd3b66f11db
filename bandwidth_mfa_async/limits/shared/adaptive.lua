-- One channel of one account, shared by every process that sends for it: report, adapt and grant permits in one call.
--
-- KEYS[1]  hash: the state of the channel. KEYS[2]  hash: the waiting processes. The script touches no other key.
-- ARGV     adaptive (0 or 1), ceiling (0 for none),
--          want, head, ticket of the interactive lane, then of the bulk lane:
--              total weight of the waiters, weight of the first one, and the slot assigned earlier (0 for none)
--          epoch: the epoch that the caller knows; accepted: in that epoch; accepted_before: in earlier epochs
--          rejected: number of 429s; rejected_epoch: their epoch; retry_after: requested pause (0 for none)
--          unused: permits that were returned
--          seed: the initial rate when the hash does not exist (0 for none); expires: in milliseconds
--          process: id of the reporting process
--          windows: of a configured rate, "segments:seconds,..."; written: "age:weight:kind,..." since the last report,
--              kind is 1 for a write that was reserved, 0 for another one, 2 for a reservation that is given back;
--              returned: 1 for the first report after an outage
--          texts that are ready to be written, "weight:first:weight:first": total weight and weight of the first one, in
--              the interactive lane and in the bulk lane
-- returns  granted, ticket and wait of both lanes, epoch, rate (0 for unlimited), pause, half_open, processes, the
--          seconds by which Redis's clock was set back since the last call, the weight that may be written now, and the
--          seconds until the rest may ask again; as strings
--
-- With a configured rate a text takes two steps. A permit paces the attempts and is in no window, so that the time
-- between permit and write costs nothing. Once the attempt has a connection it reserves its write, which is in the
-- windows from then on: as held until it is reported, then with the time at which it was written. No window of real
-- writes holds more than its limit. Take the write of a window that was reserved last. When it was reserved, each other
-- one was either held or had been reported with a time not before its real one, less than a window ago. So all were
-- counted, and with this one they were at most the limit.
--
-- All times are Redis's own plus `shift`, which grows when Redis's clock is set back, so that time never goes backwards.
-- Numbers are stored with %.6f because Lua's default, %.14g, truncates time stamps.
-- Permits are never granted ahead of time: a caller that comes too early gets a ticket (the time of its slot) and is
-- granted what is available then.
-- The policy and its numbers are those of _hold_and_probe.py and _random_rejections.py.

if redis.replicate_commands then redis.replicate_commands() end  -- Redis 4 requires it before TIME and a write

local UNLIMITED = 1e15
local HOLD_MESSAGES, HOLD_MIN, HOLD_MAX = 100, 3.8, 100
local CLIMB_MESSAGES, CLIMB_MIN, CLIMB_MAX, CLIMB_POWER = 20, 2.6, 20, 3.5
local BETA, SURGE, PAUSE, PAUSE_MAX = 0.97, 1.6, 0.08, 8
local FIRST_RATE, MIN_RATE, WINDOW_MESSAGES, DROP_THRESHOLD, MAX_STREAK = 10, 0.05, 20, 0.75, 16
local MAX_EPOCH_ENDS, MIN_ENDS_IN_HOLD, MIN_ACCEPTED, MIN_SCATTER = 6, 5, 1.5, 0.45
local MAX_GROWTH, MAX_DECLINE, RISING_RUN, MIN_LAST_SHARE, MAX_OUTLIER = 3, 4, 4, 0.2, 8
local MAX_GAPS, MAX_DRIFT, MAX_EXCESS, MAX_EXCESS_BY_SHARE, LEAP = 32, 1.2, 4, 40, 2.5
local PROBATION, MAX_DRIFT_ON_PROBATION, MIN_TOLERATED_ON_PROBATION = 8, 1.6, 0.15
local MAX_EXCESS_ON_PROBATION, MAX_EXCESS_ON_PROBATION_BY_SHARE = 2, 16
local SILENCE, SILENCE_AFTER_CUT = 16, 8
local BATCH_SECONDS, SLACK_SECONDS, PROBE_TIMEOUT, MAX_LATENESS, TOLERANCE = 0.05, 0.15, 0.5, 0.005, 1e-5
local MIN_RAMP_START, SEED_SHARE = 10, 0.8
local MAX_REJECTION_ENTRIES, PROCESS_TTL = 10, 60
local MARGIN, RESOLUTION, HEADROOM, PERMIT_TTL, SILENT_OUTAGE = 0.001, 0.004, 0.004, 10, 0.5
local MAX_READY_SECONDS = 0.02
local TURN_TTL = 0.5

local adaptive, ceiling = ARGV[1] == '1', tonumber(ARGV[2])
local known_epoch, accepted, accepted_before = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local rejected, rejected_epoch, retry_after = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local unused, seed, expires = tonumber(ARGV[15]), tonumber(ARGV[16]), ARGV[17]
local process, waiting_interactive, waiting_bulk = ARGV[18], tonumber(ARGV[3]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if ceiling <= 0 then ceiling = UNLIMITED end

local function clamp(value, low, high)
  return math.max(low, math.min(value, high))
end

-- state ---------------------------------------------------------------------------------------------------------------

local s, streak, rejections = {}, {}, {}
-- State of the random rejection filter: accepted counts at the ends of epochs, before each random rejection, and before
-- each undecided rejection.
local epoch_ends, gaps, undecided = {}, {}, {}
-- State of a configured rate: for each window its limit, length, written segments, and entries of the time at which a
-- write leaves the window, its segments, and that time for the first write of the entry. `held` are reserved writes that
-- are not reported yet: process, time of the reservation, segments. `turns` is, for each lane, the process whose first text waits
-- for room in the windows, and when that turn ends: no other process takes the room meanwhile.
local strict, windows, held, held_total = ceiling < UNLIMITED and ARGV[19] ~= '', {}, {}, 0
local turns = {}
local function numbers(text)
  local list = {}
  for number in string.gmatch(text, '%-?%d+') do list[#list + 1] = tonumber(number) end
  return list
end
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  if stored[i] == 'endings' then epoch_ends = numbers(stored[i + 1])
  elseif stored[i] == 'gaps' then gaps = numbers(stored[i + 1])
  elseif stored[i] == 'doubtful' then undecided = numbers(stored[i + 1])
  elseif stored[i] == 'streak' then
    for at, count in string.gmatch(stored[i + 1], '([%d.]+):(%d+)') do
      streak[#streak + 1] = {tonumber(at), tonumber(count)}
    end
  elseif stored[i] == 'held' then
    for who, at, count in string.gmatch(stored[i + 1], '(%w+):([%d.]+):(%d+)') do
      held[#held + 1] = {who, tonumber(at), tonumber(count)}
    end
  elseif stored[i] == 'turns' then
    for lane, who, ends in string.gmatch(stored[i + 1], '(%w+):(%w+):([%d.]+)') do turns[lane] = {who, tonumber(ends)} end
  elseif string.sub(stored[i], 1, 7) == 'window:' then
    windows[string.sub(stored[i], 8)] = stored[i + 1]
  elseif stored[i] == 'refused' then
    for entry in string.gmatch(stored[i + 1], '[^,]+') do rejections[#rejections + 1] = entry end
  else
    s[stored[i]] = tonumber(stored[i + 1])
  end
end
local is_new, set_back = s.format ~= 2, 0
if not is_new then
  s.shift = s.shift or 0
  now = now + s.shift
  if now < s.heard then
    set_back = s.heard - now
    s.shift = s.shift + set_back
    now = s.heard
  end
end
if is_new then
  epoch_ends, gaps, undecided, streak, rejections = {}, {}, {}, {{now, 0}}, {}
  s = {
    format = 2, epoch = 0, ceiling = ceiling, believed = ceiling, rate = ceiling < UNLIMITED and ceiling or 0, sent = 0,
    window_start = 0, window_end = 0, window_count = 0, window_before = 0, window_before_length = 0,
    window_length = math.max(1, WINDOW_MESSAGES / ceiling),
    accepted = 0, accepted_since_cut = 0, resumed = 0, closed = 0,
    burst_accepted = 0, burst_start = 0,
    noise = 0, noise_most = 1, tolerated = 0, distance = 0, surprise = 0, trial = 0, after_cut = 0,
    level = 1, stamp = now, pause_until = 0, probe_until = 0,
    slot_interactive = 0, slot_bulk = 0, ramp_start = 0, ramp_opens = 0,
    climbing = 0, regain = 0, heard = now, refused_count = 0, refused_at = 0, pruned = now, demand = 0, shift = 0,
  }
end
s.demand, s.hold = s.demand or 0, s.hold or 0

-- the windows of a configured rate (_write_window.py) -------------------------------------------------------------------

local function parse_windows()
  local stored_windows = windows
  windows = {}
  for limit, seconds in string.gmatch(ARGV[19], '(%d+):([%d.]+)') do
    local window = {name = seconds, limit = tonumber(limit), length = tonumber(seconds) + MARGIN, total = 0}
    for text, count, first in string.gmatch(stored_windows[seconds] or '', '([%d.]+):(%d+):([%d.]+)') do
      local leaves = tonumber(text)
      if leaves > now then
        window[#window + 1] = {leaves, tonumber(count), tonumber(first)}
        window.total = window.total + tonumber(count)
      end
    end
    windows[#windows + 1] = window
  end
  for _, permit in ipairs(held) do held_total = held_total + permit[3] end
end

local function add_written(at, weight)
  for _, window in ipairs(windows) do
    local count = math.min(weight, window.limit)
    local leaves = at + window.length * math.max(1, weight / window.limit)
    local last = window[#window]
    if leaves > now then
      if last and leaves >= last[1] and leaves - last[3] < window.length * RESOLUTION then
        last[1], last[2] = leaves, last[2] + count
      else
        window[#window + 1] = {leaves, count, leaves}
      end
      window.total = window.total + count
    end
  end
end

-- Take reservations of this process from `held`, the oldest first: those that remain then expire later than they need to.
local function end_held(weight)
  for _, permit in ipairs(held) do
    if permit[1] == process and weight > 0 then
      local count = math.min(permit[3], weight)
      permit[3], weight, held_total = permit[3] - count, weight - count, held_total - count
    end
  end
end

local function expire_held()
  local alive = {}
  for _, permit in ipairs(held) do
    if permit[3] > 0 then
      if permit[2] + PERMIT_TTL < now then
        held_total = held_total - permit[3]
        add_written(permit[2] + PERMIT_TTL, permit[3])
      else
        alive[#alive + 1] = permit
      end
    end
  end
  held = alive
end

-- Return how many segments may be reserved now, or -1 if that is less than the first text.
local function room_for(head)
  local room = UNLIMITED
  for _, window in ipairs(windows) do
    local free = window.limit - window.total - held_total
    if free < math.min(head, window.limit) then return -1 end
    room = math.min(room, free)
  end
  return room
end

-- Return when a text may fit, if all reserved writes are reported soon.
local function opens_at(head)
  local opens = now
  for _, window in ipairs(windows) do
    local excess = window.total + held_total + math.min(head, window.limit) - window.limit
    if excess > 0 then
      local entries = {}
      for _, entry in ipairs(window) do entries[#entries + 1] = entry end
      for _, permit in ipairs(held) do
        entries[#entries + 1] = {math.max(permit[2] + window.length, now + MARGIN), permit[3]}
      end
      table.sort(entries, function(one, other) return one[1] < other[1] end)
      for _, entry in ipairs(entries) do
        excess = excess - entry[2]
        if excess <= 0 then
          opens = math.max(opens, entry[1])
          break
        end
      end
    end
  end
  return opens
end

local function fill_second()
  for _, window in ipairs(windows) do
    if window.length <= 1 + MARGIN and window.total < window.limit then
      add_written(now, window.limit - window.total)
      return
    end
  end
end

if strict then
  parse_windows()
  for age, weight, kind in string.gmatch(ARGV[20], '([%d.]+):(%d+):(%d)') do
    if kind ~= '0' then end_held(tonumber(weight)) end
    if kind ~= '2' then add_written(now - tonumber(age), tonumber(weight)) end
  end
  expire_held()
  -- Other processes may still send at their own shares, and what they wrote is not known yet.
  local lost = is_new and seed > 0
  if lost or (ARGV[21] == '1' and (is_new or now - s.heard > SILENT_OUTAGE)) then fill_second() end
end

local function hold_seconds()
  return clamp(HOLD_MESSAGES / s.believed, HOLD_MIN, HOLD_MAX)
end

local function climb_seconds()
  return clamp(CLIMB_MESSAGES / s.believed, CLIMB_MIN, CLIMB_MAX)
end

local function update_rate()
  local length, rate = hold_seconds(), 0
  if s.sent <= length then
    rate = s.believed * (BETA + (1 - BETA) * s.sent / length)
  else
    rate = s.believed * 2 ^ math.min(((s.sent - length) / climb_seconds()) ^ CLIMB_POWER, 40)
  end
  s.rate = clamp(rate, math.min(MIN_RATE, s.ceiling), math.min(s.ceiling, 1e9))
  if s.regain > 0 and s.rate >= s.regain then
    -- Back at the rate that Redis lost: hold it, as after a rejection.
    s.believed, s.sent, s.regain = s.regain, 0, 0
    s.window_length = math.max(1, WINDOW_MESSAGES / s.believed)
    s.rate = s.believed * BETA
  end
end

local function set_estimate(limit)
  s.believed = clamp(limit, MIN_RATE, s.ceiling)
  s.sent, s.regain = 0, 0
  s.window_length = math.max(1, WINDOW_MESSAGES / s.believed)
  update_rate()
end

-- sliding window of accepted messages (_sliding_window.py) ------------------------------------------------------------

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

-- the bucket ----------------------------------------------------------------------------------------------------------

-- A configured rate has no burst after idle time, and stays slightly below its windows.
local function refill()
  local elapsed = now - s.stamp
  if elapsed > 0 then
    local size, speed = 1 + SLACK_SECONDS * s.rate, s.rate
    if strict then
      speed = speed * (1 - HEADROOM)
      if now - s.demand > SLACK_SECONDS + 1 / s.rate then size = 1 end
      s.level = math.min(s.level, size)
    end
    s.level = math.min(s.level + elapsed * speed, math.max(size, s.level))
    s.stamp = now
  end
end

local function pause_until(when)
  refill()
  s.level = math.min(s.level, 1)
  s.stamp, s.pause_until = math.max(now, when), when
  -- Slots assigned earlier are too early now. Their owners get new ones, in the same order.
  s.slot_interactive, s.slot_bulk = when, when
end

local function end_probe_pause()
  if s.probe_until > now and s.pause_until == s.probe_until then pause_until(now) end
  s.probe_until = 0
end

-- the policy (_hold_and_probe.py) -------------------------------------------------------------------------------------

local function begin_streak()
  streak = {{now, s.accepted}}
end

-- Return the accepted messages per second since the first rejection of the streak. Restart the streak when the recent
-- rate is clearly lower.
local function measure_streak()
  local function accept_rate_since(rejection)
    return (s.accepted - rejection[2]) / math.max(now - rejection[1], 1e-6)
  end
  if #streak == 0 then begin_streak() end
  local measured = accept_rate_since(streak[1])
  if s.window_length <= 1 then
    local recent = streak[1]
    for _, rejection in ipairs(streak) do
      if rejection[1] <= now - 1 and rejection[1] >= recent[1] then recent = rejection end
    end
    local lately = accept_rate_since(recent)
    if lately < DROP_THRESHOLD * measured then streak, measured = {recent}, lately end
  end
  if #streak >= MAX_STREAK then table.remove(streak, 2) end
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
    s.believed = clamp(measure_streak(), 0.7 * s.rate, 0.95 * s.rate)
  else
    local estimate = accepted_per_second()
    if s.rate > SURGE * s.believed then estimate = math.max(estimate, 0.8 * s.rate) end
    s.believed = clamp(estimate, 0.5 * s.rate, s.rate)
    begin_streak()
  end
  set_estimate(s.believed)
end

local function begin_epoch(requested_pause)
  s.epoch, s.accepted_since_cut = s.epoch + 1, 0
  local pause = math.max(requested_pause, math.min(PAUSE * 2 ^ math.min(s.closed, 30), PAUSE_MAX))
  s.resumed = now + pause
  clear_window(s.resumed)
  return pause
end

-- random rejections (_random_rejections.py) ---------------------------------------------------------------------------
-- An epoch end is the accepted count: n while a limit was being held, -1 - n otherwise.

local function add_gaps(list)
  for _, gap in ipairs(list) do gaps[#gaps + 1] = gap end
  while #gaps > MAX_GAPS do table.remove(gaps, 1) end
  local total = #gaps
  for _, gap in ipairs(gaps) do total = total + gap end
  s.noise = math.min(#gaps / total, s.noise_most)
  s.tolerated = 3 * s.noise / (1 + 2 * s.noise)
  if s.trial > 0 then s.tolerated = math.max(s.tolerated, MIN_TOLERATED_ON_PROBATION) end
end

local function reset_random_rejections()
  s.noise, s.trial, gaps, undecided = 0, 0, {}, {}
end

local function filter_on_accept(count)
  if s.noise <= 0 then return end
  s.distance = s.distance + count
  s.surprise = math.max(0, s.surprise - s.tolerated * count)
  if s.surprise <= 0 and #undecided > 0 then
    local on_probation = s.trial > 0
    s.trial = math.max(0, s.trial - #undecided)
    add_gaps(undecided)
    undecided = {}
    if on_probation and s.trial <= 0 then s.noise_most = MAX_DRIFT * s.noise end
  end
  if s.distance * s.noise > (s.after_cut > 0 and SILENCE_AFTER_CUT or SILENCE) then reset_random_rejections() end
end

local function absorbs_rejection()
  if s.noise <= 0 then return false end
  undecided[#undecided + 1] = s.distance
  s.distance = 0
  s.surprise = s.surprise + 1 - s.tolerated
  s.after_cut = 0
  local max_excess = MAX_EXCESS + MAX_EXCESS_BY_SHARE * s.noise
  if s.trial > 0 then max_excess = MAX_EXCESS_ON_PROBATION + MAX_EXCESS_ON_PROBATION_BY_SHARE * s.noise end
  if s.surprise <= max_excess then return true end
  if s.trial > 0 then reset_random_rejections() end
  s.surprise, s.after_cut, undecided = 0, 1, {}
  return false
end

local function looks_random(counts)
  local earlier, later, highest, run = 0, 0, 0, 1
  for i, count in ipairs(counts) do
    if i <= math.floor(#counts / 2) then earlier = earlier + count else later = later + count end
    highest = math.max(highest, count)
    run = i > 1 and count >= counts[i - 1] and run + 1 or 1
    if run >= RISING_RUN then return false end
  end
  local total = earlier + later
  return later <= MAX_GROWTH * earlier and earlier <= MAX_DECLINE * later
    and counts[#counts] >= MIN_LAST_SHARE * total / #counts and highest <= MAX_OUTLIER * (total - highest) / (#counts - 1)
end

local function on_epoch_end(in_hold, count)
  epoch_ends[#epoch_ends + 1] = in_hold and count or -1 - count
  while #epoch_ends > MAX_EPOCH_ENDS do table.remove(epoch_ends, 1) end
  local counts, measured = {}, {}
  for i, epoch_end in ipairs(epoch_ends) do
    counts[i] = epoch_end >= 0 and epoch_end or -1 - epoch_end
    if epoch_end >= 0 then measured[#measured + 1] = epoch_end end
  end
  if not in_hold or #counts < MAX_EPOCH_ENDS or #measured < MIN_ENDS_IN_HOLD then return false end
  if not looks_random(counts) then return false end
  table.remove(measured, 1)  -- sent at an estimate that may still have been correct
  local total, squares = 0, 0
  for _, epoch_end in ipairs(measured) do total = total + epoch_end end
  local mean = total / #measured
  for _, epoch_end in ipairs(measured) do squares = squares + (epoch_end - mean) ^ 2 end
  if mean < MIN_ACCEPTED or math.sqrt(squares / #measured) < MIN_SCATTER * mean then return false end
  epoch_ends = {}
  s.distance, s.surprise, s.trial, s.after_cut, s.noise_most = 0, 0, PROBATION, 0, 1
  add_gaps(measured)
  s.noise_most = MAX_DRIFT_ON_PROBATION * s.noise
  return true
end

local function on_429(epoch, requested_pause)
  if epoch ~= s.epoch then
    s.resumed = math.max(s.resumed, now + requested_pause)
    return requested_pause
  end
  local on_probation = s.trial > 0
  if absorbs_rejection() then return requested_pause end
  if on_probation then
    -- It was a limit after all: use the estimate held before the leap, or the rate accepted since if that is higher.
    s.closed = 0
    set_estimate(math.max(s.believed, accepted_per_second()))
    begin_streak()
    return begin_epoch(requested_pause)
  end
  if s.epoch > 0 and s.accepted_since_cut == 0 then
    s.closed = s.closed + 1
    return begin_epoch(requested_pause)
  end
  s.closed = 0
  if on_epoch_end(s.epoch > 0 and s.sent <= hold_seconds(), s.accepted_since_cut) then
    s.sent = hold_seconds() + climb_seconds() * (math.log(LEAP) / math.log(2)) ^ (1 / CLIMB_POWER)
    update_rate()
    return requested_pause
  end
  cut()
  return begin_epoch(requested_pause)
end

local function on_accept(count, epoch)
  -- The first message after the pause is accepted only now. Counting from the end of the pause would give a low rate.
  if epoch == s.epoch and s.accepted_since_cut == 0 then clear_window(now) end
  roll_window()
  s.window_count = s.window_count + count
  s.accepted = s.accepted + count
  if s.epoch == 1 and epoch == 0 and adaptive then
    s.burst_accepted = s.burst_accepted + count
    local measured = s.burst_accepted / math.max(now - s.burst_start, 1)
    if s.rate > 0 and measured > s.believed then
      refill()
      s.believed = math.min(measured, s.ceiling)
      s.window_length = math.max(1, WINDOW_MESSAGES / s.believed)
      update_rate()
    end
  end
  if epoch == s.epoch then
    s.accepted_since_cut = s.accepted_since_cut + count
    s.closed = 0
    end_probe_pause()
  end
  filter_on_accept(count)
end

-- Keep the latest rejections for display. Those within one second form one entry.
local function record_rejections(rate_before)
  if rejected <= 0 then return end
  s.refused_count = s.refused_count + rejected
  local count, before = rejected, rate_before
  if now - s.refused_at < 1 and #rejections > 0 then
    local earlier, rate = string.match(table.remove(rejections), '^[%d.]+:([%d.]+):([%d.]+):')
    count, before = count + tonumber(earlier), tonumber(rate)
  else
    s.refused_at = now
  end
  rejections[#rejections + 1] = string.format('%.6f:%d:%.6f:%.6f:%.6f', s.refused_at, count, before, s.rate, retry_after)
  if #rejections > MAX_REJECTION_ENTRIES then table.remove(rejections, 1) end
end

-- report and adapt ----------------------------------------------------------------------------------------------------

if is_new and seed > 0 and adaptive then
  -- Redis lost the learned rate: start somewhat below it, with an empty bucket.
  s.epoch, s.level, s.resumed = known_epoch + 1, 0, now
  set_estimate(seed)
  -- Nothing was rejected, so climb at once, but no higher than before.
  s.sent, s.regain = hold_seconds(), seed / SEED_SHARE
  update_rate()
elseif is_new and s.rate > 0 and known_epoch > 0 then
  s.level = 0
end
if s.ceiling ~= ceiling then
  refill()
  s.ceiling = ceiling
  if s.epoch == 0 then
    s.believed, s.rate = ceiling, ceiling < UNLIMITED and ceiling or 0
    s.level = math.min(s.level, 1)
  elseif s.rate > 0 then
    s.believed = math.min(s.believed, ceiling)
    update_rate()
  elseif ceiling < UNLIMITED then
    s.rate = ceiling
  end
end
if not adaptive then
  s.rate = ceiling < UNLIMITED and ceiling or 0
  if s.ramp_start > 0 then
    local idle = now >= s.ramp_opens + 1 and s.slot_interactive <= now and s.slot_bulk <= now
    if idle or ceiling < UNLIMITED or now > s.ramp_opens + 20 then
      s.ramp_start = 0
    else
      s.rate = s.ramp_start * 2 ^ math.max(0, now - s.ramp_opens)
    end
  end
end
if now - s.heard > math.max(1, WINDOW_MESSAGES / s.rate) then
  -- No process called, or Redis hung. The service's bucket filled meanwhile, so a climb would go far too high.
  s.sent = 0
  if s.rate > 0 and s.epoch > 0 then update_rate() end
end
s.heard = now
refill()
if unused > 0 then
  s.level = math.min(s.level + unused, math.max(s.level, 1 + SLACK_SECONDS * s.rate))
  end_probe_pause()
end
if accepted > 0 then on_accept(accepted, known_epoch) end
if accepted_before > 0 then on_accept(accepted_before, known_epoch - 1) end
if rejected > 0 or retry_after > 0 then
  local was_limited, pause, rate_before = s.rate > 0, retry_after, s.rate
  if adaptive then
    for _ = 1, math.min(rejected, 64) do pause = math.max(pause, on_429(rejected_epoch, retry_after)) end
  elseif ceiling == UNLIMITED and pause > 0 then
    if s.pause_until <= now or s.ramp_start == 0 then s.ramp_start = math.max(MIN_RAMP_START, accepted_per_second()) end
    s.ramp_opens = math.max(now + pause, s.pause_until)
    s.rate = s.ramp_start
  end
  if s.rate > 0 and not was_limited then s.level, s.stamp = 0, now end
  if now + pause > math.max(now, s.pause_until) then pause_until(now + pause) end
  record_rejections(rate_before)
end

-- grant ---------------------------------------------------------------------------------------------------------------

local batch = math.max(1, math.floor(s.rate * BATCH_SECONDS))

-- Return when the turn of another caller ends that goes before this lane of this process; 0 for none.
local function other_turn_ends(lane)
  local ends = 0
  for turn_lane, turn in pairs(turns) do
    local goes_first = turn_lane == 'interactive' and lane == 'bulk' or turn_lane == lane and turn[1] ~= process
    if goes_first and turn[2] > now then ends = math.max(ends, turn[2]) end
  end
  return ends
end

-- Reserve writes in the windows. Return the weight that may be written now, and when to ask for the rest; 0 for no rest.
local function reserve(lane, want, head)
  if turns[lane] and turns[lane][1] == process then turns[lane] = nil end
  if want <= 0 then return 0, 0 end
  local reserved, due = 0, other_turn_ends(lane)
  if due > 0 then
    due = math.max(due - TURN_TTL, now) + MAX_LATENESS
  else
    local room = room_for(head)
    if room >= 0 then
      reserved = math.min(want, math.max(head, room))
      held[#held + 1], held_total = {process, now, reserved}, held_total + reserved
      head = 1
    end
    if reserved >= want then return reserved, 0 end
    due = math.max(opens_at(head), now + MARGIN)
    -- A heavy text needs room that lighter ones would take, and an interactive one goes before bulk.
    if head > 1 or lane == 'interactive' then turns[lane] = {process, due + TURN_TTL} end
  end
  -- Some that wait keep the windows full when delays vary; more would only wait longer.
  if want - reserved > math.max(1, MAX_READY_SECONDS * s.rate) then s.hold = math.max(s.hold, math.min(due, now + 1)) end
  return reserved, due
end

local function grant(lane, want, head, ticket)
  if want <= 0 then return 0, 0 end
  local open, slot = now >= s.pause_until, 'slot_' .. lane
  if s.rate <= 0 then
    if open then return want, 0 end
    return 0, s.pause_until
  end
  local waited = ticket > 0
  if waited and ticket > now + 0.0005 and ticket < now + 3600 then return 0, ticket end
  local granted = 0
  local is_idle = s[slot] <= now
  local yields = lane == 'bulk' and s.slot_interactive + MAX_LATENESS > now
  if strict and s.hold > now then
    s.demand = now
    return 0, s.hold
  end
  if open and (waited or is_idle) and not yields and s.level >= 1 - TOLERANCE then
    local max_grant = want
    if not is_idle then max_grant = math.max(math.min(want, batch), math.floor(s.level - batch)) end
    granted = math.min(want, math.floor(s.level + TOLERANCE), max_grant)
    if s.closed > 0 then granted = head end
    if strict then granted = math.max(head, granted) end
    s.level = s.level - granted
    if lane == 'interactive' and ticket == s[slot] then s[slot] = now - 1 end
    if (waited or granted < want) and adaptive and s.epoch > 0 then
      s.sent = s.sent + granted / s.rate
      update_rate()
    end
    if s.closed > 0 and granted > 0 then
      s.probe_until = now + PROBE_TIMEOUT
      pause_until(s.probe_until)
    end
  end
  if granted >= want then return granted, 0 end
  s.demand = now
  local speed = strict and s.rate * (1 - HEADROOM) or s.rate
  if strict and waited and granted == 0 and open and not yields then
    return 0, math.max(s.stamp + (1 - s.level) / speed, now + MARGIN)  -- it keeps its slot
  end
  local share = math.min(want - granted, batch)
  local from = s.slot_interactive
  if lane == 'bulk' then from = math.max(from, s.slot_bulk) end
  local due = math.max(s.stamp + math.max(0, share - s.level) / speed, from + share / speed, now)
  if now < s.probe_until then return granted, math.min(due, now + 0.1) end
  s[slot] = due
  return granted, due
end

local writes, writes_due = 0, 0
if strict then
  local weight, head, bulk_weight, bulk_head = string.match(ARGV[22], '^(%d+):(%d+):(%d+):(%d+)$')
  writes, writes_due = reserve('interactive', tonumber(weight), tonumber(head))
  if writes_due == 0 then
    local bulk
    bulk, writes_due = reserve('bulk', tonumber(bulk_weight), tonumber(bulk_head))
    writes = writes + bulk
  end
end
local first, ticket_first = grant('interactive', waiting_interactive, tonumber(ARGV[4]), tonumber(ARGV[5]))
-- A process cannot use permits for bulk before its interactive callers are served.
local bulk_follows = strict and first < waiting_interactive
local second, ticket_second = 0, waiting_bulk > 0 and math.max(ticket_first, tonumber(ARGV[8])) or 0
if not bulk_follows then second, ticket_second = grant('bulk', waiting_bulk, tonumber(ARGV[7]), tonumber(ARGV[8])) end

s.climbing = s.sent > hold_seconds() and 1 or 0
if now > s.pruned + PROCESS_TTL then
  -- Remove processes that died while they waited.
  s.pruned = now
  local lines = redis.call('HGETALL', KEYS[2])
  for i = 1, #lines, 2 do
    if tonumber(string.match(lines[i + 1], '^[%d.]+')) < now - PROCESS_TTL then redis.call('HDEL', KEYS[2], lines[i]) end
  end
end

-- store and answer ----------------------------------------------------------------------------------------------------

local fields = {}
for name, value in pairs(s) do
  fields[#fields + 1] = name
  fields[#fields + 1] = string.format('%.6f', value)
end
for name, list in pairs({endings = epoch_ends, gaps = gaps, doubtful = undecided}) do
  local whole = {}
  for i, number in ipairs(list) do whole[i] = string.format('%d', number) end
  fields[#fields + 1] = name
  fields[#fields + 1] = table.concat(whole, ',')
end
local entries = {}
for i, rejection in ipairs(streak) do entries[i] = string.format('%.6f:%d', rejection[1], rejection[2]) end
fields[#fields + 1] = 'streak'
fields[#fields + 1] = table.concat(entries, ',')
fields[#fields + 1] = 'refused'
fields[#fields + 1] = table.concat(rejections, ',')
if strict then
  local permits = {}
  for i, permit in ipairs(held) do permits[i] = string.format('%s:%.6f:%d', permit[1], permit[2], permit[3]) end
  fields[#fields + 1] = 'held'
  fields[#fields + 1] = table.concat(permits, ',')
  local current = {}
  for lane, turn in pairs(turns) do
    if turn[2] > now then current[#current + 1] = string.format('%s:%s:%.6f', lane, turn[1], turn[2]) end
  end
  fields[#fields + 1] = 'turns'
  fields[#fields + 1] = table.concat(current, ',')
  for _, window in ipairs(windows) do
    local writes = {}
    for i, entry in ipairs(window) do writes[i] = string.format('%.6f:%d:%.6f', entry[1], entry[2], entry[3]) end
    fields[#fields + 1] = 'window:' .. window.name
    fields[#fields + 1] = table.concat(writes, ',')
  end
end
redis.call('HMSET', KEYS[1], unpack(fields))
redis.call('PEXPIRE', KEYS[1], expires)
waiting_interactive, waiting_bulk = waiting_interactive - first, waiting_bulk - second
if strict or waiting_interactive + waiting_bulk > 0 then
  local line = string.format('%.6f:%d:%d', now, waiting_interactive, waiting_bulk)
  redis.call('HSET', KEYS[2], process, line)
  redis.call('PEXPIRE', KEYS[2], PROCESS_TTL * 1000)
else
  redis.call('HDEL', KEYS[2], process)
end

local function text(value) return string.format('%.6f', value) end
return {
  text(first + second),
  text(ticket_first), text(math.max(0, ticket_first - now)), text(ticket_second), text(math.max(0, ticket_second - now)),
  text(s.epoch), text(s.rate), text(math.max(0, s.pause_until - now)), text(s.closed),
  text(strict and #redis.call('HGETALL', KEYS[2]) / 2 or 0), text(set_back),
  text(writes), text(math.max(0, writes_due - now)),
}
