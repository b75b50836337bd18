-- Takes up to `count` jobs for one worker, from any number of queues and levels at once.
-- KEYS[1] root
-- ARGV[1] worker      must be in the registry: a job in an unknown worker's hands has no reaper
-- ARGV[2] count       most jobs to take from the lanes; 0 = only what resume finds
-- ARGV[3] resume      1 = first take back what already lies in this worker's own lists: a lost
--                     reply, or a job handed to its inbox; such jobs come on top of `count`
-- ARGV[4] wait        1 = when there is nothing, register as waiting for a hand-over
-- ARGV[5] in_hand     ids that the worker runs at this moment, with commas: resume leaves them alone
-- ARGV[6] lane_count  how many lanes follow
-- ARGV[7..] lanes     '<queue>:<level>' in the order to be tried, then the queue names
-- Returns {'unregistered'} | {'ok', jobs, faults}: jobs = {{id, token, errors, crashes, envelope}, …},
--         faults = keys of a wrong type, in words. Empty jobs with wait = 1: registered.
-- Atomic: an id must never be in a list and in a reply that nobody can find again.
-- Uses: names clock tally unreadable begin
-- Flags: allow-oom (a full server must still drain)
local worker, count = ARGV[1], tonumber(ARGV[2])
local resume, wait, lane_count = ARGV[3] == '1', ARGV[4] == '1', tonumber(ARGV[6])

-- An idle worker whose wait was over looks again, and mostly it waits already and there is nothing: two commands say so.
-- Who is in `waiting` is in the registry, and in `idle:<queue>` of its queues: each is taken out of `waiting` first.
if resume and wait and lane_count <= 1000 and redis.pcall('SISMEMBER', waiting_key, worker) == 1 then
  local keys = {inbox_key(worker), processing_key(worker)}
  for i = 7, 6 + lane_count do keys[#keys + 1] = ready_key(ARGV[i]) end
  if redis.call('EXISTS', unpack(keys)) == 0 then return {'ok', {}, {}} end
end

if redis.call('HEXISTS', workers_key, worker) == 0 then return {'unregistered'} end

local now = as_text(now_ms())
local processing = processing_key(worker)
local jobs, faults = {}, {}
if resume then
  redis.pcall('SREM', waiting_key, worker)
  local inbox = inbox_key(worker)
  while redis.call('LMOVE', inbox, processing, 'RIGHT', 'LEFT') do end
  local own = redis.call('LRANGE', processing, 0, -1)
  local seen, in_hand = {}, {}
  for id in string.gmatch(ARGV[5], '[^,]+') do in_hand[id] = true end
  for i = #own, 1, -1 do
    local id = own[i]
    if not in_hand[id] then
      jobs[#jobs + 1] = begin(id, worker, processing, now, not seen[id])
      seen[id] = true
    end
  end
end
-- A worker that would wait mostly finds nothing: one command says so. Lua's stack bounds it.
if #jobs == 0 and (not wait or lane_count > 1000 or any_filled(ARGV, 7, 6 + lane_count)) then
  take(worker, count, ARGV, 7, 6 + lane_count, now, jobs, faults)
end
if #jobs == 0 and wait then
  local function enter(key)
    local added = redis.pcall('SADD', key, worker)
    if type(added) == 'table' then faults[#faults + 1] = key .. ': ' .. added.err end
  end
  enter(waiting_key)
  for i = 7 + lane_count, #ARGV do enter(idle_key(ARGV[i])) end
end
return {'ok', jobs, faults}
