-- What wrk saw, as one line of JSON: the last line it prints.
done = function(summary, latency)
   local e = summary.errors
   print(string.format('{"count": %d, "seconds": %f, "p99_ms": %f, "failed": %d}',
      summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e3,
      e.connect + e.read + e.write + e.timeout + e.status))
end
