-- The server's clock, in milliseconds: the only wall clock that scripts use, so that hosts with
-- wrong clocks can neither hasten nor delay a job.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A whole number as decimal digits. Redis would write a number of Lua's with 17 digits, which takes it longer than the command.
local function as_text(number)
  return number == 1 and '1' or string.format('%d', number)
end
