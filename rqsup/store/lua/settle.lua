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
local ended = {succeed = 'succeeded', retry = 'scheduled', bury = 'dead', defer = 'scheduled'}
-- Pause before a deferred job is offered again, ms.
local defer_ms = 1000

-- Charges a crash: dead at the limit, else ready again at the consuming end.
local function crash(id, key, cause, limit)
  local job = redis.call('HMGET', key, 'queue', 'level', 'crashes')
  if not job[1] or not job[2] then
    bury_unreadable(id, now)
    tally('crashed')
    return nil
  end
  local crashes = (tonumber(job[3]) or 0) + 1
  if crashes >= limit then
    local added = redis.pcall('ZADD', dead_key, now, id)
    if type(added) == 'table' then return added end
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

local function settle(id, token, outcome, payload, number)
  local key = job_key(id)
  local job = redis.pcall('HMGET', key, 'state', 'worker', 'token', 'errors', 'deferred_since')
  if job.err or job[3] ~= token or job[2] ~= worker then
    tally('stale')
    return 'stale'
  end
  if job[1] ~= 'active' then
    if outcome == 'crash' then return redis.call('HGET', key, 'crash') == payload and 'repeated' or 'stale' end
    local same = job[1] == ended[outcome] or (outcome == 'defer' and job[1] == 'dead')
    return same and 'repeated' or 'stale'
  end
  local since = tonumber(job[5]) or now
  if outcome == 'defer' and now - since < number then
    local added = redis.pcall('ZADD', scheduled_key, now + defer_ms, id)
    if type(added) == 'table' then return 'fault: ' .. added.err end
    redis.call('HSET', key, 'state', 'scheduled', 'due_at', now + defer_ms, 'deferred_since', since)
    announce(id, now + defer_ms)
    tally('deferred')
  elseif outcome == 'succeed' then
    if number > 0 then
      redis.call('HSET', key, 'state', 'succeeded', 'result', payload, 'finished_at', now)
      redis.call('PEXPIRE', key, number)
    else
      redis.call('DEL', key)
    end
    tally('succeeded')
  elseif outcome == 'retry' then
    local due = now + number
    local added = redis.pcall('ZADD', scheduled_key, due, id)
    if type(added) == 'table' then return 'fault: ' .. added.err end
    redis.call('HSET', key, 'state', 'scheduled', 'error', payload, 'due_at', due,
      'errors', (tonumber(job[4]) or 0) + 1)
    announce(id, due)
    tally('retried')
  elseif outcome == 'crash' then
    local fault = crash(id, key, payload, number)
    if fault then return 'fault: ' .. fault.err end
  else
    local added = redis.pcall('ZADD', dead_key, now, id)
    if type(added) == 'table' then return 'fault: ' .. added.err end
    redis.call('HSET', key, 'state', 'dead', 'error', payload, 'dead_at', now,
      'errors', (tonumber(job[4]) or 0) + 1)
    tally('dead')
  end
  -- A list that somebody overwrote holds no job any more; the result still counts.
  redis.pcall('LREM', processing, -1, id)
  return 'ok'
end

local verdicts, jobs, faults = {}, {}, {}
for i = 4 + lane_count, #ARGV, 5 do
  verdicts[#verdicts + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]))
end
if count > 0 and redis.call('HEXISTS', workers_key, worker) == 1 then
  take(worker, count, ARGV, 4, 3 + lane_count, now, jobs, faults)
end
return {verdicts, jobs, faults}
