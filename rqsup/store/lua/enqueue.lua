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
-- Returns 'ready' | 'scheduled' | 'exists' (this id was accepted before) | 'full'
-- Atomic: a record without a place, or a place without a record, would be a lost job.
-- Uses: names clock tally announce deliver
local id, queue, level, envelope = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local due, delay, max_length, levels = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local job = job_key(id)

if redis.call('EXISTS', job) == 1 then return 'exists' end
if max_length > 0 then
  local length = 0
  for name in string.gmatch(levels, '[^,]+') do
    length = length + redis.call('LLEN', ready_key(queue .. ':' .. name))
  end
  if length >= max_length then return 'full' end
end

-- The first write is one that a full server refuses; after any other, it would let the rest pass.
redis.call('SADD', queues_key, queue)
local now = now_ms()
if delay > 0 then due = now + delay end
local state = due > now and 'scheduled' or 'ready'
if state == 'scheduled' then
  redis.call('ZADD', scheduled_key, due, id)
else
  local fault = deliver(id, queue, level, false)
  if fault then return fault end
end
redis.call('HSET', job, 'state', state, 'envelope', envelope, 'queue', queue, 'level', level,
  'enqueued_at', now, 'due_at', due)
if state == 'scheduled' then announce(id, due) end
tally('accepted')
return state
