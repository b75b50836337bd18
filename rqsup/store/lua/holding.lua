-- Finds workers that have jobs in their hands, begun or not.
-- KEYS[1] root
-- ARGV[1..] workers
-- Returns the ids of those whose inbox or processing list holds a job; a list of a wrong type holds none.
-- Atomic: a job on its way from the inbox to the processing list is seen in one of them.
-- Uses: names
local found, lists = {}, {}
for _, worker in ipairs(ARGV) do
  lists[#lists + 1] = inbox_key(worker)
  lists[#lists + 1] = processing_key(worker)
end
-- Of an idle pool, all lists are empty: one command says so.
if #lists == 0 or redis.call('EXISTS', unpack(lists)) == 0 then return found end
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
