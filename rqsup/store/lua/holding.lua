-- Finds workers that have jobs in their hands, begun or not.
-- KEYS[1] root
-- ARGV[1..] workers
-- Returns the ids of those whose inbox or processing list holds a job; a list of a wrong type holds none.
-- Atomic: a job on its way from the inbox to the processing list is seen in one of them.
-- Uses: names
local found = {}
for _, worker in ipairs(ARGV) do
  for _, list in ipairs({inbox_key(worker), processing_key(worker)}) do
    local length = redis.pcall('LLEN', list)
    if type(length) == 'number' and length > 0 then
      found[#found + 1] = worker
      break
    end
  end
end
return found
