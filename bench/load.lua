-- Requests of the benchmark for wrk; no two heads are the same.
-- Arguments after "--": kind (small | real | post | close), path, bytes of body, seed.
-- Prints one line "RESULT name=value ..." at the end, which bench/load.py reads.

local head, tail, count

local function realistic(path)
  -- What the Arvados Python client and a browser send, 850 bytes with the counter in it.
  local before = "GET " .. path .. "?n="
  local after = table.concat({
    " HTTP/1.1",
    "Host: xarv1.example.com",
    "User-Agent: arvados-python-client/3.1.2 (Linux; x86_64) Python/3.11.7 httplib2/0.22.0",
    "Accept: application/json, text/javascript;q=0.9, */*;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.7",
    "Authorization: Bearer v2/xarv1-gj3su-0123456789abcde/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdmi",
    "Cookie: _session_id=7c1f3cbb0b1d4a0e9d2c5f6a8b7e4d31; remember_user=eyJfcmFpbHMiOnsibWVzc2FnZ",
    "Referer: https://workbench.xarv1.example.com/collections/xarv1-4zz18-0123456789abcde",
    "Origin: https://workbench.xarv1.example.com",
    "Cache-Control: no-cache",
    "X-Requested-With: XMLHttpRequest",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "X-Arvados-Client: workbench2/3.1.2-1",
    "X-Request-Id: req-",
  }, "\r\n")
  return before, after
end

function init(args)
  local kind, path, size, seed = args[1], args[2], tonumber(args[3]), tonumber(args[4])
  count = seed * 1000000000
  if kind == "real" then
    local before, after = realistic(path)
    request = function()
      count = count + 1
      local n = string.format("%020d", count)
      return before .. n .. after .. n .. "\r\n\r\n"
    end
    return
  end
  local rest = " HTTP/1.1\r\nHost: xarv1.example.com\r\n"
  local method, body = "GET", ""
  if kind == "post" then
    method, body = "POST", string.rep("x", size)
    rest = rest .. "Content-Length: " .. size .. "\r\n"
  elseif kind == "close" then
    rest = rest .. "Connection: close\r\n"
  end
  head, tail = method .. " " .. path .. "?n=", rest .. "\r\n" .. body
  request = function()
    count = count + 1
    return head .. count .. tail
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    "RESULT requests=%d bytes=%d duration_us=%d p50_us=%d p99_us=%d connect=%d read=%d write=%d timeout=%d status=%d\n",
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.timeout, e.status))
end
