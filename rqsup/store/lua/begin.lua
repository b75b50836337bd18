-- Begins the jobs that were handed to a worker while it waited: those in its processing list that are ready.
-- Sent right behind the BLMOVE that it waits with, so that it runs at the moment of the hand-over.
-- KEYS[1] root
-- ARGV[1] worker      must be in the registry: a job in an unknown worker's hands has no reaper
-- Returns {'unregistered'} | {'ok', jobs, faults} as in claim; faults is always empty.
-- Atomic: an id must never be in a list and in a reply that nobody can find again.
-- Uses: names clock tally unreadable begin
-- Flags: allow-oom (a full server must still drain)
local worker = ARGV[1]
local processing = processing_key(worker)
local jobs = {}
local own = redis.pcall('LRANGE', processing, 0, -1)
-- First, because mostly a wait ends without a job.
if own.err or #own == 0 then return {'ok', jobs, {}} end
if redis.call('HEXISTS', workers_key, worker) == 0 then return {'unregistered'} end

local now = as_text(now_ms())
for i = #own, 1, -1 do
  -- It may come late, over a connection that was given up: what is active was begun by the worker's next one,
  -- whose token must stay the valid one. What claim calls a stray is left to claim.
  if redis.pcall('HGET', job_key(own[i]), 'state') == 'ready' then
    jobs[#jobs + 1] = begin(own[i], worker, processing, now, false)
  end
end
return {'ok', jobs, {}}
