-- Accepts many jobs as `enqueue` accepts one, and does once for all what can be done once.
-- KEYS[1] root
-- ARGV[1] max_length  jobs that a queue may hold ready, all levels; 0 = unbounded
-- ARGV[2] levels      names of all levels, joined by commas (read only when max_length > 0)
-- then, per job:      id, queue, level, envelope, due_ms, delay_ms
--   id        chosen by the client, so that a repeat is a no-op
--   envelope  JSON bytes
--   due_ms    server time at which it may run, ms since the epoch; 0 = now
--   delay_ms  the same as a delay from now, ms; 0 = none
-- Returns a verdict per job: 'ready' | 'scheduled' | 'exists' (this id was accepted before) | 'full'
--         | 'fault: …' (its place has a wrong type: nothing of it was stored)
-- Atomic: a record without a place, or a place without a record, would be a lost job.
-- Uses: names clock tally announce deliver store
local ARGV = ARGV -- a local name is found faster than a global one, and this is asked for six times a job
local max_length, levels = tonumber(ARGV[1]), ARGV[2]
local now = now_ms()
local now_text = as_text(now)
-- Most arguments of one command: Lua's stack bounds them.
local most = 1000
local verdicts, accepted = {}, 0
-- Of this call: ids it took on with the number of their job, queues it named, queues that no worker waits for (with the jobs to be
-- pushed, by level), places left in each.
local mine, named, unmet, room = {}, {}, {}, {}
-- Jobs with an id that came before, and the number of the first with it.
local twins = {}
-- Lanes of ready jobs that no worker waits for, and for each its jobs as positions in ARGV: pushed together at the end.
local lanes, bulk = {}, {}

-- Names of the records, by the number of their job.
local keys = {}
for number = 1, (#ARGV - 2) / 6 do keys[number] = job_key(ARGV[number * 6 - 3]) end
-- False when none of the ids has a record: then one command has answered for all.
local function some_exist()
  return #keys > most or (#keys > 0 and redis.call('EXISTS', unpack(keys)) > 0)
end
local look = some_exist()

-- Takes one place in a queue. Returns nil, or the verdict that refuses the job.
local function refuse(queue)
  if not room[queue] then
    room[queue] = max_length
    for level in string.gmatch(levels, '[^,]+') do
      local length = redis.pcall('LLEN', ready_key(queue .. ':' .. level))
      if type(length) == 'table' then
        -- Thrown, it would be the answer for all jobs of the call, those accepted before it included.
        room[queue] = 'fault: ' .. length.err
        break
      end
      room[queue] = room[queue] - length
    end
  end
  if type(room[queue]) == 'string' then return room[queue] end
  room[queue] = room[queue] - 1
  return room[queue] < 0 and 'full' or nil
end

local function keep(at, state, due)
  store(keys[(at + 3) / 6], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], state, now_text, due)
  accepted = accepted + 1
  return state
end

local function schedule(at, due)
  local added = redis.pcall('ZADD', scheduled_key, due, ARGV[at])
  if type(added) == 'table' then return 'fault: ' .. added.err end
  announce(ARGV[at], due)
  return keep(at, 'scheduled', due)
end

-- Hands a ready job over; one that nobody waits for has no verdict yet.
local function hand_or_keep(at)
  local queue = ARGV[at + 1]
  if not unmet[queue] and hand_over(ARGV[at], queue) then return keep(at, 'ready', ARGV[at + 4]) end
  local level, of_queue = ARGV[at + 2], unmet[queue]
  if not of_queue then
    of_queue = {}
    unmet[queue] = of_queue
  end
  local positions = of_queue[level]
  if not positions then
    positions = {}
    of_queue[level] = positions
    lanes[#lanes + 1] = queue .. ':' .. level
    bulk[#lanes] = positions
  end
  positions[#positions + 1] = at
  return nil
end

local function accept(at)
  local id, queue, due, delay = ARGV[at], ARGV[at + 1], ARGV[at + 4], ARGV[at + 5]
  local number = (at + 3) / 6
  if mine[id] then twins[number] = mine[id] end
  if mine[id] or (look and redis.call('EXISTS', keys[number]) == 1) then return 'exists' end
  local refused = max_length > 0 and refuse(queue)
  if refused then return refused end
  -- The first write is one that a full server refuses; after any other, it would let the rest pass.
  if not named[queue] then
    redis.call('SADD', queues_key, queue)
    named[queue] = true
  end
  mine[id] = number
  if delay ~= '0' then due = now + tonumber(delay) end
  if due ~= '0' and tonumber(due) > now then return schedule(at, due) end
  return hand_or_keep(at)
end

-- Pushes the jobs of one lane, and gives each its verdict.
local function push(lane, positions)
  for first = 1, #positions, most do
    local last, ids = math.min(first + most - 1, #positions), {}
    for i = first, last do ids[#ids + 1] = ARGV[positions[i]] end
    local pushed = redis.pcall('LPUSH', ready_key(lane), unpack(ids))
    for i = first, last do
      local at = positions[i]
      verdicts[(at + 3) / 6] = type(pushed) == 'table' and 'fault: ' .. pushed.err or keep(at, 'ready', ARGV[at + 4])
    end
  end
end

for at = 3, #ARGV, 6 do verdicts[(at + 3) / 6] = accept(at) end
for i, lane in ipairs(lanes) do push(lane, bulk[i]) end
-- Where the first found no place, there is nothing that the other could be a repeat of.
for number, first in pairs(twins) do
  if string.sub(verdicts[first], 1, 6) == 'fault:' then verdicts[number] = verdicts[first] end
end
if accepted > 0 then tally('accepted', as_text(accepted)) end
return verdicts
