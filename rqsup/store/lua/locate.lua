-- Finds every place that holds a job: the atomic second look of the state checker.
-- KEYS[1] root
-- ARGV[1] id
-- ARGV[2] lane_count  how many lanes follow
-- ARGV[3..] lanes     '<queue>:<level>', then the ids of all workers
-- Returns {state or '', ttl_ms, place, …}: ttl_ms as PTTL; places as key names without the root.
-- Atomic: on a live server a job moves between two commands.
-- Uses: names
local id, lane_count = ARGV[1], tonumber(ARGV[2])
local key = job_key(id)
local state = redis.pcall('HGET', key, 'state')
if type(state) ~= 'string' then state = '' end
local found = {state, redis.call('PTTL', key)}
local function look(name)
  local n = redis.call('LPOS', root .. name, id, 'COUNT', 0)
  for _ = 1, #n do found[#found + 1] = name end
end
for i = 3, 2 + lane_count do look('ready:' .. ARGV[i]) end
for i = 3 + lane_count, #ARGV do
  look('inbox:' .. ARGV[i])
  look('processing:' .. ARGV[i])
end
if redis.call('ZSCORE', scheduled_key, id) then found[#found + 1] = 'scheduled' end
if redis.call('ZSCORE', dead_key, id) then found[#found + 1] = 'dead' end
return found
