-- Deletes dead letters, oldest first.
-- KEYS[1] root
-- ARGV[1] limit       most letters to delete in this call
-- Returns how many were deleted; call again until it is less than limit.
-- Atomic: a letter replayed meanwhile must not lose its record.
-- Uses: names tally
-- Flags: allow-oom (purging frees memory)
local limit = tonumber(ARGV[1])
local ids = redis.call('ZRANGE', dead_key, 0, limit - 1)
for _, id in ipairs(ids) do
  local state = redis.pcall('HGET', job_key(id), 'state')
  -- A stray copy of a living job's id must not cost its record.
  if state == 'dead' or type(state) == 'table' then redis.call('DEL', job_key(id)) end
  redis.call('ZREM', dead_key, id)
end
if #ids > 0 then tally('purged', #ids) end
return #ids
