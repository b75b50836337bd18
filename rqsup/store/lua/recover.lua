-- Gives the jobs of a worker that is gone back to their queues, and strikes it from the registry.
-- KEYS[1] root
-- ARGV[1] worker
-- ARGV[2] beat        the counter that the caller judged by; '' = the caller saw it die
-- ARGV[3] limit       most entries to move in this call (a huge list must not block the server)
-- ARGV[4] cause       JSON: what happened, in words, with time and place
-- ARGV[5] charged     id of the job that the worker was running when it crashed; '' = nobody's fault
-- ARGV[6] crash_limit crashes after which a job is quarantined in the dead letters
-- ARGV[7] evidence    JSON: the cause with the stack of the dead worker, for the charged or condemned job alone
-- ARGV[8] condemned   id of the job for whose sake an operator had the worker killed: it goes to the dead letters,
--                     with the cause's message as the reason and no crash; '' = none
-- ARGV[9] suspects    1 = its end was a crash, and each job that it had begun may have caused it: each is charged, but
--                     none to the limit; the last try, alone in a fresh worker, tells which one it was
-- Returns {'alive'} (it beat again: nothing changed) | {'ok', returned ids, buried ids, left}:
--         left = jobs still to return; call again until it is 0.
-- Atomic: two reapers may run this at once; each job is returned once, with a new token.
-- Uses: names clock tally unreadable deliver defer
-- Flags: allow-oom (a full server must still recover)
local worker, beat, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local cause, charged, crash_limit, evidence, condemned = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local suspects = ARGV[9] == '1'

if beat ~= '' and redis.call('HGET', workers_key, worker) ~= beat then return {'alive'} end

local now = now_ms()
local returned, buried, moved, seen = {}, {}, 0, {}

-- Gives one entry its new place, unless it is a stray copy of a job that has one.
local function give_back(id)
  local key = job_key(id)
  local job = redis.pcall('HMGET', key, 'state', 'worker', 'queue', 'level', 'token', 'crashes', 'returns')
  if job.err or not job[3] or not job[4] then
    return bury_unreadable(id, now)
  end
  local unbegun = job[1] == 'ready' and not seen[id]
  seen[id] = true
  if not unbegun and not (job[1] == 'active' and job[2] == worker) then
    return tally('strays')
  end
  local token = (tonumber(job[5]) or 0) + 1
  local crashes = tonumber(job[6]) or 0
  local suspected = suspects and not unbegun and crashes < crash_limit - 1
  if id == charged or suspected then
    crashes = crashes + 1
    redis.call('HSET', key, 'crashes', crashes, 'crash', evidence)
    tally('crashed')
  end
  local reason = nil
  if id == condemned then
    redis.call('HSET', key, 'crash', evidence)
    reason = cjson.decode(cause).message
  elseif id == charged and crashes >= crash_limit then
    reason = 'crash limit: its worker died ' .. crashes .. ' times while running it'
  end
  if reason then
    redis.call('ZADD', dead_key, now, id)
    redis.call('HSET', key, 'state', 'dead', 'dead_at', now, 'token', token, 'reason', reason)
    tally('dead')
    buried[#buried + 1] = id
    return
  end
  local fault = deliver(id, job[3], job[4], true)
  redis.call('HSET', key, 'state', 'ready', 'token', token, 'returned_at', now, 'returned', cause)
  -- A crash is counted as one; being handed back for somebody else's sake is nothing but that.
  if id ~= charged and not suspected then redis.call('HSET', key, 'returns', (tonumber(job[7]) or 0) + 1) end
  if fault then defer(id, now) end
  tally('recovered')
  returned[#returned + 1] = id
end

local inbox, processing = inbox_key(worker), processing_key(worker)
redis.call('LLEN', inbox)
redis.call('LLEN', processing)
redis.pcall('SREM', waiting_key, worker)
-- Newest first, each to the consuming end: so the oldest comes out first again.
for _, list in ipairs({inbox, processing}) do
  while moved < limit do
    local id = redis.call('LINDEX', list, 0)
    if not id then break end
    give_back(id)
    redis.call('LREM', list, 1, id)
    moved = moved + 1
  end
end

local left = redis.call('LLEN', inbox) + redis.call('LLEN', processing)
if left == 0 then
  redis.call('HDEL', workers_key, worker)
  redis.call('DEL', worker_key(worker))
end
return {'ok', returned, buried, left}
