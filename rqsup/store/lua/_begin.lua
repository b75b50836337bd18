-- Starts a job that lies in this worker's processing list: a new fencing token, state `active`.
-- Returns {id, token, errors, crashes, envelope}, or nil when the entry was no job to run: a stray copy
-- is dropped (its other place counts), an id without a readable record is buried. `resumed` = the
-- job may be active already, in this worker's own hands.
local function begin(id, worker, processing, now, resumed)
  local job = redis.pcall('HMGET', job_key(id), 'state', 'envelope', 'token', 'errors', 'crashes', 'worker')
  if job.err or not job[1] or not job[2] then
    bury_unreadable(id, now)
    redis.call('LREM', processing, 1, id)
    return nil
  end
  if job[1] ~= 'ready' and not (resumed and job[1] == 'active' and job[6] == worker) then
    redis.call('LREM', processing, 1, id)
    tally('strays')
    return nil
  end
  local token = (tonumber(job[3]) or 0) + 1
  redis.call('HSET', job_key(id), 'state', 'active', 'worker', worker, 'token', token, 'started_at', now)
  return {id, token, tonumber(job[4]) or 0, tonumber(job[5]) or 0, job[2]}
end

-- Moves up to `count` ids from the lanes, in the order given, into the processing list and
-- begins them. A lane of a wrong type is passed over and named in `faults`.
local function take(worker, count, lanes, first, last, now, jobs, faults)
  local processing = processing_key(worker)
  for i = first, last do
    local ready = ready_key(lanes[i])
    while #jobs < count do
      local id = redis.pcall('LMOVE', ready, processing, 'RIGHT', 'LEFT')
      if type(id) == 'table' then
        faults[#faults + 1] = lanes[i] .. ': ' .. id.err
        break
      end
      if not id then break end
      jobs[#jobs + 1] = begin(id, worker, processing, now, false)
    end
    if #jobs >= count then return end
  end
end
