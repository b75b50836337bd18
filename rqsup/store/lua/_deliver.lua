-- Hands a job to one worker that waits for its queue; false when none does. A worker counts as
-- waiting only while it is in `waiting`; entries of `idle:<queue>` are hints that may be old.
local function hand_over(id, queue)
  while true do
    local worker = redis.pcall('SPOP', idle_key(queue))
    if type(worker) ~= 'string' then return false end
    if redis.pcall('SREM', waiting_key, worker) == 1 then
      if type(redis.pcall('LPUSH', inbox_key(worker), id)) == 'number' then return true end
    end
  end
end

-- Hands a job over, or puts it into its ready list; `urgent` at the consuming end (a returned job keeps its turn).
-- Returns nil, or the error of a wrong-typed ready list, in which case the job was not placed.
local function deliver(id, queue, level, urgent)
  if hand_over(id, queue) then return nil end
  local pushed = redis.pcall(urgent and 'RPUSH' or 'LPUSH', ready_key(queue .. ':' .. level), id)
  if type(pushed) == 'table' then return pushed end
  return nil
end
