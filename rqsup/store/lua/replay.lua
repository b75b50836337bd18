-- Puts a dead job back into its queue with a clean record of attempts.
-- KEYS[1] root
-- ARGV[1] id
-- Returns 'ready' | 'missing' (not in the dead letters) | 'unreadable' (no record to run)
-- Atomic: two operators may replay the same letter; it runs once.
-- Uses: names clock tally deliver
-- Flags: allow-oom (the job is stored already: only its place changes)
local id = ARGV[1]
local key = job_key(id)
if not redis.call('ZSCORE', dead_key, id) then return 'missing' end
local job = redis.pcall('HMGET', key, 'state', 'queue', 'level', 'token', 'envelope')
if job.err then return 'unreadable' end
if job[1] and job[1] ~= 'dead' then
  redis.call('ZREM', dead_key, id)
  tally('strays')
  return 'missing'
end
if not job[2] or not job[3] or not job[5] then return 'unreadable' end
local fault = deliver(id, job[2], job[3], false)
if fault then return fault end
redis.call('HSET', key, 'state', 'ready', 'token', (tonumber(job[4]) or 0) + 1, 'replayed_at', now_ms())
redis.call('HDEL', key, 'errors', 'crashes', 'reason', 'dead_at', 'deferred_since')
redis.call('ZREM', dead_key, id)
tally('replayed')
return 'ready'
