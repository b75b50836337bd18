-- The server's clock, in milliseconds: the only wall clock that scripts use, so that hosts with
-- wrong clocks can neither hasten nor delay a job.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
