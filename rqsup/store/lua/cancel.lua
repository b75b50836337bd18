-- Cancels a job that has not started.
-- KEYS[1] root
-- ARGV[1] id
-- ARGV[2] ttl_ms      time the record is kept, ms
-- Returns 'cancelled' | 'missing' | the state that forbids it ('active', 'succeeded', 'dead', …)
-- Atomic: between looking and removing, a worker could start it.
-- Uses: names clock tally
-- Flags: allow-oom (cancelling frees memory)
local id, ttl = ARGV[1], tonumber(ARGV[2])
local key = job_key(id)
local job = redis.call('HMGET', key, 'state', 'queue', 'level')
if not job[1] then return 'missing' end
if job[1] ~= 'ready' and job[1] ~= 'scheduled' then return job[1] end
local removed
if job[1] == 'scheduled' then
  removed = redis.call('ZREM', scheduled_key, id)
else
  removed = redis.call('LREM', ready_key(job[2] .. ':' .. job[3]), 1, id)
end
-- Ready but in no queue: it lies in a worker's inbox and starts within the millisecond.
if removed == 0 then return 'active' end
redis.call('HSET', key, 'state', 'cancelled', 'finished_at', now_ms())
redis.call('PEXPIRE', key, ttl)
tally('cancelled')
return 'cancelled'
