-- Tells the masters, which sleep until a known time, when this job is the next one due.
-- Only a hint: a user without the right to publish costs them a moment, never the job.
local function announce(id, due)
  local first = redis.call('ZRANGE', scheduled_key, 0, 0)
  if first[1] == id then redis.pcall('PUBLISH', due_channel, due) end
end
