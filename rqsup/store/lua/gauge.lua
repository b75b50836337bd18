-- Tells how long the oldest ready job of some lanes has waited, and how many wait.
-- KEYS[1] root
-- ARGV[1..] lanes
-- Returns {waiting, wait_ms}: jobs in these lanes, and the wait of the longest waiting of their first ones, 0 = none waits.
-- Atomic: not needed for a measure; one script is one round trip, and jobs cannot leave between list and record.
-- Uses: names clock
local now = now_ms()
local waiting, longest = 0, 0
for _, lane in ipairs(ARGV) do
  local length = redis.pcall('LLEN', ready_key(lane))
  if type(length) == 'number' and length > 0 then
    waiting = waiting + length
    -- A job that came back from a schedule, a dead worker or the dead letters waits since then.
    local since = 0
    local times = redis.pcall('HMGET', job_key(redis.call('LINDEX', ready_key(lane), -1)),
      'enqueued_at', 'due_at', 'returned_at', 'replayed_at')
    if not times.err then
      for i = 1, 4 do since = math.max(since, tonumber(times[i]) or 0) end
    end
    -- At least 1: a job that has just come waits, too.
    if since > 0 then longest = math.max(longest, now - since, 1) end
  end
end
return {waiting, longest}
