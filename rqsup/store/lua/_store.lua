-- Writes the record of a job that is accepted; the times as text, or as numbers.
local function store(id, queue, level, envelope, state, now, due)
  redis.call('HSET', job_key(id), 'state', state, 'envelope', envelope, 'queue', queue, 'level', level,
    'enqueued_at', now, 'due_at', due)
end
