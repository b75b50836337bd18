-- Moves due jobs from `scheduled` to their queues, keeping their levels.
-- KEYS[1] root
-- ARGV[1] limit       most jobs to move in this call
-- Returns {moved, wait_ms}: wait_ms = time until the next job is due, 0 = more are due now, -1 = none is scheduled.
-- Atomic: any number of masters may promote at once; each job moves once.
-- Uses: names clock tally unreadable deliver defer
-- Flags: allow-oom (a full server must still drain)
local limit = tonumber(ARGV[1])
-- Mostly nothing is scheduled: one command says so.
if not redis.call('ZRANGE', scheduled_key, 0, 0)[1] then return {0, -1} end
local now = now_ms()
local moved = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled_key, '-inf', now, 'LIMIT', 0, limit)) do
  local job = redis.pcall('HMGET', job_key(id), 'state', 'queue', 'level')
  if job.err or not job[2] or not job[3] then
    bury_unreadable(id, now)
    redis.call('ZREM', scheduled_key, id)
  elseif job[1] ~= 'scheduled' then
    tally('strays')
    redis.call('ZREM', scheduled_key, id)
  elseif deliver(id, job[2], job[3], false) then
    defer(id, now)
  else
    redis.call('HSET', job_key(id), 'state', 'ready')
    redis.call('ZREM', scheduled_key, id)
    moved = moved + 1
  end
end
local first = redis.call('ZRANGE', scheduled_key, 0, 0, 'WITHSCORES')
if not first[1] then return {moved, -1} end
return {moved, math.max(0, tonumber(first[2]) - now)}
