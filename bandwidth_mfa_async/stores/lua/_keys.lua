-- What the steps of keys share; the fields of a record and the rules are in _transitions.py.
local ACCEPTED = { a = true, b = true, ['2'] = true }
local IN_FLIGHT = { ['1'] = true, ['9'] = true }
local FAILED = { ['3'] = true, ['7'] = true, ['4'] = true }

local function is_live(record, now)
  local till = record.u or 0
  return now < till and till <= now + (record.l or 0) + 1000
end

local function release(record)
  record.u, record.l, record.g = nil, nil, nil
end

local function begin(record, maybe_delivered, attempt)
  record.n = attempt
  record.s = maybe_delivered and '9' or '1'
  if maybe_delivered then record.m = 1 end
  record.g = nil
end

-- Return the record; one whose lease expired while an attempt was in flight is unknown, and so is an open one that was
-- stored before Redis lost writes: it may have been sent since.
local function observe(records, now)
  local record = records[1]
  if not record then return nil end
  if IN_FLIGHT[record.s] and not is_live(record, now) then
    local origin = not record.m and record.t or nil
    release(record)
    record.s, record.o, record.g = '5', '', origin
  elseif record.a < rewound_at and (record.s == '0' or FAILED[record.s]) then
    release(record)
    record.s, record.o = '5', ''
  end
  return record
end

local function state_of(record, now)
  if is_live(record, now) then return { IN_FLIGHT[record.s] and 'sending' or 'held', record.u - now } end
  if record.s == '0' then return { 'open' } end
  return { record.s, record.o or '' }
end

local function get(records, digest, now)
  local record = observe(records, now)
  if not record then return { 'absent' } end
  if record.d ~= digest then return { 'other' } end
  return state_of(record, now)
end
