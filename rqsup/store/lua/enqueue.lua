-- Accepts one job: stores its record and puts its id in exactly one place.
-- KEYS[1] root
-- ARGV[1] id          chosen by the client, so that a repeat is a no-op
-- ARGV[2] queue
-- ARGV[3] level       name of the priority level
-- ARGV[4] envelope    JSON bytes
-- ARGV[5] due_ms      server time at which it may run, ms since the epoch; 0 = now
-- ARGV[6] delay_ms    the same as a delay from now, ms; 0 = none
-- ARGV[7] max_length  jobs that the queue may hold ready, all levels; 0 = unbounded
-- ARGV[8] levels      names of all levels, joined by commas (read only when max_length > 0)
-- Returns 'ready' | 'scheduled' | 'exists' (this id was accepted before) | 'full' | 'fault: …' (its
--         place has a wrong type: nothing of it was stored)
-- Atomic: a record without a place, or a place without a record, would be a lost job.
-- Uses: names clock tally announce deliver store
local id, queue, level, due = ARGV[1], ARGV[2], ARGV[3], ARGV[5]

if redis.call('EXISTS', job_key(id)) == 1 then return 'exists' end
if ARGV[7] ~= '0' then
  local length = 0
  for name in string.gmatch(ARGV[8], '[^,]+') do
    length = length + redis.call('LLEN', ready_key(queue .. ':' .. name))
  end
  if length >= tonumber(ARGV[7]) then return 'full' end
end

-- The first write is one that a full server refuses; after any other, it would let the rest pass.
redis.call('SADD', queues_key, queue)
local now = now_ms()
local state = 'ready'
if ARGV[6] ~= '0' then due = now + tonumber(ARGV[6]) end
if due ~= '0' and tonumber(due) > now then
  local added = redis.pcall('ZADD', scheduled_key, due, id)
  if type(added) == 'table' then return 'fault: ' .. added.err end
  state = 'scheduled'
  announce(id, due)
else
  local fault = deliver(id, queue, level, false)
  if fault then return 'fault: ' .. fault.err end
end
store(job_key(id), queue, level, ARGV[4], state, as_text(now), due)
tally('accepted')
return state
