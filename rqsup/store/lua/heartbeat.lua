-- Renews the registry entry of each worker that a master vouches for; adds the missing ones.
-- KEYS[1] root
-- ARGV[1] ttl_ms      life of an entry's details without a beat, ms
-- then, per worker:   id, details (JSON: host, process, state, job)
-- Returns the ids that were not in the registry: new, or reaped meanwhile (their leases are lost).
-- Atomic: an entry without a beat counter could not be judged by a reaper.
-- Uses: names
-- Flags: allow-oom (a full server must not look like dead workers)
local ttl = tonumber(ARGV[1])
local added = {}
for i = 2, #ARGV, 2 do
  local worker, details = ARGV[i], ARGV[i + 1]
  if redis.call('HINCRBY', workers_key, worker, 1) == 1 then added[#added + 1] = worker end
  redis.call('SET', worker_key(worker), details, 'PX', ttl)
end
return added
