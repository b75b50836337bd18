-- Key names inside scripts: the mirror of rqsup/store/keys.py (a test proves the two equal).
-- KEYS[1] is the namespace's root, `rqsup:{<namespace>}:`; its hash tag puts every key of a
-- namespace into one Cluster slot, so a script may name keys that it reads out of lists.
local root = KEYS[1]
local workers_key = root .. 'workers'
local waiting_key = root .. 'waiting'
local scheduled_key = root .. 'scheduled'
local dead_key = root .. 'dead'
local stats_key = root .. 'stats'
local queues_key = root .. 'queues'
local due_channel = root .. 'due'
local function job_key(id) return root .. 'job:' .. id end
local function ready_key(lane) return root .. 'ready:' .. lane end
local function idle_key(queue) return root .. 'idle:' .. queue end
local function inbox_key(worker) return root .. 'inbox:' .. worker end
local function processing_key(worker) return root .. 'processing:' .. worker end
local function worker_key(worker) return root .. 'worker:' .. worker end
