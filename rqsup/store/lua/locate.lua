-- Finds every place that holds a job: the atomic second look of the state checker.
-- KEYS[1] root
-- ARGV[1] id
-- ARGV[2] lane_count  how many lanes follow
-- ARGV[3..] lanes     '<queue>:<level>', then ids of workers that may not be in the registry
-- The job's own lane and the lists of all registered workers are looked at in any case.
-- Returns {state or '', worker or '', lane, ttl_ms, place, …}: ttl_ms as PTTL; places as key names without the root.
-- Atomic: on a live server a job moves between two commands.
-- Uses: names
local id, lane_count = ARGV[1], tonumber(ARGV[2])
local key = job_key(id)
local job = redis.pcall('HMGET', key, 'state', 'worker', 'queue', 'level')
if job.err then job = {} end
local lane = (job[3] or '') .. ':' .. (job[4] or '')
local found = {job[1] or '', job[2] or '', lane, redis.call('PTTL', key)}
local seen = {}

-- A key of a wrong type holds no job.
local function look(name)
  if seen[name] then return end
  seen[name] = true
  local copies = redis.pcall('LPOS', name, id, 'COUNT', 0)
  for _ = 1, #copies do found[#found + 1] = string.sub(name, #root + 1) end
end
local function look_at_worker(worker)
  look(inbox_key(worker))
  look(processing_key(worker))
end

for i = 3, 2 + lane_count do look(ready_key(ARGV[i])) end
look(ready_key(lane))
for _, worker in ipairs(redis.pcall('HKEYS', workers_key)) do look_at_worker(worker) end
for i = 3 + lane_count, #ARGV do look_at_worker(ARGV[i]) end
if type(redis.pcall('ZSCORE', scheduled_key, id)) == 'string' then found[#found + 1] = 'scheduled' end
if type(redis.pcall('ZSCORE', dead_key, id)) == 'string' then found[#found + 1] = 'dead' end
return found
