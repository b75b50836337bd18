-- Starts a job that lies in this worker's processing list: a new fencing token, state `active`.
-- Returns {id, token, errors, crashes, envelope}, or nil when the entry was no job to run: a stray copy
-- is dropped (its other place counts), an id without a readable record is buried. `resumed` = the
-- job may be active already, in this worker's own hands. `now` is text, as it is written for each job.
local function begin(id, worker, processing, now, resumed)
  local key = job_key(id)
  local job = redis.pcall('HMGET', key, 'state', 'envelope', 'token', 'errors', 'crashes')
  if job.err or not job[1] or not job[2] then
    bury_unreadable(id, now)
    redis.call('LREM', processing, 1, id)
    return nil
  end
  if job[1] ~= 'ready' and not (resumed and job[1] == 'active' and redis.call('HGET', key, 'worker') == worker) then
    redis.call('LREM', processing, 1, id)
    tally('strays')
    return nil
  end
  local token = (tonumber(job[3]) or 0) + 1
  redis.call('HSET', key, 'state', 'active', 'worker', worker, 'token', as_text(token), 'started_at', now)
  return {id, token, tonumber(job[4]) or 0, tonumber(job[5]) or 0, job[2]}
end

-- Most ids to move at once: Lua's stack bounds the arguments of one command.
local most_moved = 1000

-- Copies ids, given from the newest to the oldest, to the processing list: the oldest will be at its right end.
local function copy_oldest_first(ids, processing)
  local ordered = {}
  for i = #ids, 1, -1 do ordered[#ordered + 1] = ids[i] end
  return redis.pcall('LPUSH', processing, unpack(ordered)), ordered
end

-- Moves up to `count` ids from the lanes, in the order given, into the processing list and
-- begins them. A lane of a wrong type is passed over and named in `faults`.
local function take(worker, count, lanes, first, last, now, jobs, faults)
  local processing = processing_key(worker)
  for i = first, last do
    local ready = ready_key(lanes[i])
    while #jobs < count do
      local ids = redis.pcall('LRANGE', ready, as_text(-math.min(count - #jobs, most_moved)), '-1')
      if #ids == 0 and not ids.err then break end
      local copied, ordered = ids, nil
      if not ids.err then copied, ordered = copy_oldest_first(ids, processing) end
      if type(copied) == 'table' then
        faults[#faults + 1] = lanes[i] .. ': ' .. copied.err
        break
      end
      redis.call('LTRIM', ready, '0', as_text(-#ids - 1))
      for _, id in ipairs(ordered) do jobs[#jobs + 1] = begin(id, worker, processing, now, false) end
    end
    if #jobs >= count then return end
  end
end
