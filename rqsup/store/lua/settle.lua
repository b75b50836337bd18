-- Ends attempts of one worker, and may claim its next jobs in the same round trip.
-- KEYS[1] root
-- ARGV[1] worker
-- ARGV[2] count       most jobs to claim next; 0 = none
-- ARGV[3] lane_count  how many lanes follow
-- ARGV[4..] lanes     '<queue>:<level>' in the order to be tried
-- then, per attempt:  id, token, outcome, payload, number
--   outcome 'succeed' payload = result JSON,  number = time the record is kept, ms; 0 = delete it
--   outcome 'retry'   payload = error JSON,   number = delay until the next attempt, ms
--   outcome 'bury'    payload = error JSON,   number = unused
--   outcome 'crash'   payload = cause JSON,   number = crashes after which it is dead; the job's own
--                     process died while its worker lives on: else as `recover` with this job charged
--   outcome 'defer'   payload = error JSON,   number = time since the first deferral after which it is buried, ms
--                     (a task that this worker's code does not know: newer code may be on its way)
--   outcome 'release' payload, number = unused; the job was never begun and goes back to the front of its queue
-- Returns {verdicts, jobs, faults}: per attempt 'ok' | 'repeated' (this very settle was applied
--         before) | 'stale' (the job was taken away meanwhile, or its record is
--         not kept: nothing changed) | 'fault: …' (its new place
--         has a wrong type: nothing changed); jobs and faults as in claim.
-- Atomic: a job that left `processing` without arriving elsewhere would be lost.
-- Uses: names clock tally announce unreadable deliver begin
-- Flags: allow-oom (a full server must still drain)
local worker, count, lane_count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local processing = processing_key(worker)
local now = now_ms()
local now_text = as_text(now)
local ended = {succeed = 'succeeded', retry = 'scheduled', bury = 'dead', defer = 'scheduled'}
-- Pause before a deferred job is offered again, ms.
local defer_ms = 1000
local succeeded = 0

-- Adds to a sorted set, and returns the error if it is none.
local function place(set, score, id)
  local added = redis.pcall('ZADD', set, score, id)
  return type(added) == 'table' and added or nil
end

local function succeed(key, result, kept)
  if kept == '0' then
    redis.call('DEL', key)
  else
    redis.call('HSET', key, 'state', 'succeeded', 'result', result, 'finished_at', now_text)
    redis.call('PEXPIRE', key, kept)
  end
  succeeded = succeeded + 1
end

-- The other ends, by outcome, made only for those who need them: functions cost more than a settle's commands.
-- Each returns nil, or the error of a place with a wrong type: then nothing changed.
local function other_ends()
  local ends = {}

  function ends.retry(id, key, failure, delay)
    local due = now + tonumber(delay)
    local fault = place(scheduled_key, due, id)
    if fault then return fault end
    local errors = (tonumber(redis.call('HGET', key, 'errors')) or 0) + 1
    redis.call('HSET', key, 'state', 'scheduled', 'error', failure, 'due_at', due, 'errors', errors)
    announce(id, due)
    tally('retried')
    return nil
  end

  function ends.bury(id, key, failure)
    local fault = place(dead_key, now, id)
    if fault then return fault end
    local errors = (tonumber(redis.call('HGET', key, 'errors')) or 0) + 1
    redis.call('HSET', key, 'state', 'dead', 'error', failure, 'dead_at', now, 'errors', errors)
    tally('dead')
    return nil
  end

  function ends.defer(id, key, failure, patience)
    local since = tonumber(redis.call('HGET', key, 'deferred_since')) or now
    if now - since >= tonumber(patience) then return ends.bury(id, key, failure) end
    local fault = place(scheduled_key, now + defer_ms, id)
    if fault then return fault end
    redis.call('HSET', key, 'state', 'scheduled', 'due_at', now + defer_ms, 'deferred_since', since)
    announce(id, now + defer_ms)
    tally('deferred')
    return nil
  end

  -- Charges a crash: dead at the limit, else ready again at the consuming end.
  function ends.crash(id, key, cause, limit)
    local job = redis.call('HMGET', key, 'queue', 'level', 'crashes')
    local crashes = (tonumber(job[3]) or 0) + 1
    if not job[1] or not job[2] then
      bury_unreadable(id, now)
    elseif crashes >= tonumber(limit) then
      local fault = place(dead_key, now, id)
      if fault then return fault end
      redis.call('HSET', key, 'state', 'dead', 'dead_at', now, 'crashes', crashes, 'crash', cause,
        'reason', 'crash limit: its process died ' .. crashes .. ' times while running it')
      tally('dead')
    else
      local fault = deliver(id, job[1], job[2], true)
      if fault then return fault end
      redis.call('HSET', key, 'state', 'ready', 'crashes', crashes, 'crash', cause)
    end
    tally('crashed')
    return nil
  end

  -- No new token is needed: until the next claim the state refuses a late settle, then its token does.
  function ends.release(id, key)
    local job = redis.call('HMGET', key, 'queue', 'level')
    if not job[1] or not job[2] then
      bury_unreadable(id, now)
      return nil
    end
    local fault = deliver(id, job[1], job[2], true)
    if fault then return fault end
    redis.call('HSET', key, 'state', 'ready')
    return nil
  end

  return ends
end
local ends

-- The verdict on an attempt that is over: 'repeated' if it was this very settle that ended it.
local function look_back(key, state, outcome, payload)
  if outcome == 'crash' then return redis.call('HGET', key, 'crash') == payload and 'repeated' or 'stale' end
  local same = state == ended[outcome] or (outcome == 'defer' and state == 'dead')
  return same and 'repeated' or 'stale'
end

local function settle(id, token, outcome, payload, number)
  local key = job_key(id)
  local job = redis.pcall('HMGET', key, 'state', 'worker', 'token')
  if job.err or job[3] ~= token or job[2] ~= worker then
    tally('stale')
    return 'stale'
  end
  if job[1] ~= 'active' then return look_back(key, job[1], outcome, payload) end
  if outcome == 'succeed' then
    succeed(key, payload, number)
    return 'ok'
  end
  ends = ends or other_ends()
  local fault = ends[outcome](id, key, payload, number)
  return fault and 'fault: ' .. fault.err or 'ok'
end

-- Takes ended jobs, given from the oldest, off the processing list. A list that somebody overwrote holds none any more; the ends still count.
local function strike(ids)
  if #ids == 0 then return end
  if #ids == 1 then return redis.pcall('LREM', processing, '-1', ids[1]) end
  local oldest = redis.pcall('LRANGE', processing, as_text(-#ids), '-1')
  local in_order = #oldest == #ids
  for i, id in ipairs(ids) do in_order = in_order and oldest[#ids + 1 - i] == id end
  if in_order then return redis.call('LTRIM', processing, '0', as_text(-#ids - 1)) end
  for _, id in ipairs(ids) do redis.pcall('LREM', processing, -1, id) end
end

local verdicts, over, jobs, faults = {}, {}, {}, {}
for i = 4 + lane_count, #ARGV, 5 do
  local verdict = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  verdicts[#verdicts + 1] = verdict
  if verdict == 'ok' then over[#over + 1] = ARGV[i] end
end
strike(over)
if succeeded > 0 then tally('succeeded', as_text(succeeded)) end
if count > 0 and redis.call('HEXISTS', workers_key, worker) == 1 then
  take(worker, count, ARGV, 4, 3 + lane_count, now_text, jobs, faults)
end
return {verdicts, jobs, faults}
