"""The only outgoing HTTP: generator, judge, replicas' admin routes, the API."""
