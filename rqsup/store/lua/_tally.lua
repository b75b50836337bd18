-- Counts for operators; `by` as text. A counter that cannot be written (a key of a wrong type) never stops a job.
local function tally(name, by)
  redis.pcall('HINCRBY', stats_key, name, by or '1')
end
