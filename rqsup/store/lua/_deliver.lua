-- Hands a job to one worker that waits for its queue, or appends it to its ready list.
-- `urgent` puts it at the consuming end (a returned job keeps its turn). A worker counts as
-- waiting only while it is in `waiting`; entries of `idle:<queue>` are hints that may be old.
-- Returns nil, or the error of a wrong-typed ready list, in which case the job was not placed.
local function deliver(id, queue, level, urgent)
  while true do
    local worker = redis.pcall('SPOP', idle_key(queue))
    if type(worker) ~= 'string' then break end
    if redis.pcall('SREM', waiting_key, worker) == 1 then
      if type(redis.pcall('LPUSH', inbox_key(worker), id)) == 'number' then return nil end
    end
  end
  local pushed = redis.pcall(urgent and 'RPUSH' or 'LPUSH', ready_key(queue .. ':' .. level), id)
  if type(pushed) == 'table' then return pushed end
  return nil
end
