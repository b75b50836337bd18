-- Reads what the state checker compares, for many jobs in one round trip.
-- KEYS[1] root
-- ARGV[1..] ids
-- Returns per id {state or '', worker or '', lane, ttl_ms}: ttl_ms as PTTL; a record of a wrong type has no state.
-- Atomic: not needed for the checker, whose second look is; one script is faster than two commands a job.
-- Uses: names
local found = {}
for i, id in ipairs(ARGV) do
  local key = job_key(id)
  local job = redis.pcall('HMGET', key, 'state', 'worker', 'queue', 'level')
  if job.err then job = {} end
  local lane = (job[3] or '') .. ':' .. (job[4] or '')
  found[i] = {job[1] or '', job[2] or '', lane, redis.call('PTTL', key)}
end
return found
