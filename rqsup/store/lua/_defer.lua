-- Keeps a job that could not be delivered, because its lane has a wrong type: it stays (or goes)
-- into `scheduled` and is tried again later. So it is neither lost, nor in the way of other jobs.
local function defer(id, now)
  local due = now + 5000
  redis.call('ZADD', scheduled_key, due, id)
  redis.call('HSET', job_key(id), 'state', 'scheduled', 'due_at', due)
  tally('deferred')
end
