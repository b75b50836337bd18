-- Starts a job that lies in this worker's processing list: a new fencing token, state `active`.
-- Returns {id, token, errors, crashes, envelope}, or nil when the entry was no job to run: a stray copy
-- is dropped (its other place counts), an id without a readable record is buried. `resumed` = the
-- job may be active already, in this worker's own hands. `now` is text, as it is written for each job.
local function begin(id, worker, processing, now, resumed)
  local key = job_key(id)
  local job = redis.pcall('HMGET', key, 'state', 'envelope', 'token')
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
  if not job[3] then -- never claimed, so that nothing can have failed yet
    redis.call('HSET', key, 'state', 'active', 'worker', worker, 'token', '1', 'started_at', now)
    return {id, 1, 0, 0, job[2]}
  end
  local token, past = (tonumber(job[3]) or 0) + 1, redis.call('HMGET', key, 'errors', 'crashes')
  redis.call('HSET', key, 'state', 'active', 'worker', worker, 'token', as_text(token), 'started_at', now)
  return {id, token, tonumber(past[1]) or 0, tonumber(past[2]) or 0, job[2]}
end

-- Moves the oldest ids of a lane, at most so many, into the processing list: one command for one,
-- else three for all. Returns them, oldest first, or nil and what went wrong.
local function move(ready, processing, count)
  if count == 1 then
    local id = redis.pcall('LMOVE', ready, processing, 'RIGHT', 'LEFT')
    if type(id) == 'table' then return nil, id.err end
    return {id or nil}, nil
  end
  -- Lua's stack bounds the arguments of one command.
  local ids = redis.pcall('LRANGE', ready, as_text(-math.min(count, 1000)), '-1')
  if ids.err then return nil, ids.err end
  if #ids == 0 then return ids, nil end
  local oldest_first = {}
  for i = #ids, 1, -1 do oldest_first[#oldest_first + 1] = ids[i] end
  local copied = redis.pcall('LPUSH', processing, unpack(oldest_first))
  if type(copied) == 'table' then return nil, copied.err end
  redis.call('LTRIM', ready, '0', as_text(-#ids - 1))
  return oldest_first, nil
end

-- True when one of these lanes may hold a job: one command for all of them.
local function any_filled(lanes, first, last)
  local keys = {}
  for i = first, last do keys[#keys + 1] = ready_key(lanes[i]) end
  return redis.call('EXISTS', unpack(keys)) > 0
end

-- Moves up to `count` ids from one lane and begins them; a wrong type is named in `faults`.
local function take_from(lane, worker, processing, count, now, jobs, faults)
  while #jobs < count do
    local ids, fault = move(ready_key(lane), processing, count - #jobs)
    if fault then faults[#faults + 1] = lane .. ': ' .. fault end
    if fault or #ids == 0 then return end
    for _, id in ipairs(ids) do jobs[#jobs + 1] = begin(id, worker, processing, now, false) end
  end
end

-- Moves up to `count` ids from the lanes, in the order given, into the processing list and begins them.
local function take(worker, count, lanes, first, last, now, jobs, faults)
  local processing = processing_key(worker)
  -- Of many lanes most are empty, and to ask each alone takes most of a claim's time: they are asked by the dozen.
  for start = first, last, 12 do
    local stop = math.min(start + 11, last)
    if last - first < 12 or any_filled(lanes, start, stop) then
      for i = start, stop do
        take_from(lanes[i], worker, processing, count, now, jobs, faults)
        if #jobs >= count then return end
      end
    end
  end
end
