-- Writes the record of a job that is accepted, under its key; the times as text, or as numbers.
local function store(key, queue, level, envelope, state, now, due)
  redis.call('HSET', key, 'state', state, 'envelope', envelope, 'queue', queue, 'level', level,
    'enqueued_at', now, 'due_at', due)
end
