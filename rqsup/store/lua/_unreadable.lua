-- Buries an id that has no record to run: foreign bytes, or a record that somebody deleted or
-- overwrote. A record of a wrong type stays as it is: it is the evidence.
local function bury_unreadable(id, now)
  redis.call('ZADD', dead_key, now, id)
  redis.pcall('HSET', job_key(id), 'state', 'dead', 'dead_at', now,
    'reason', 'unreadable job: the list held an id without a job record')
  tally('dead')
end
