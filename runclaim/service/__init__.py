"""
What every door does the same way, so that none of them decides or words it by itself.

A door (the HTTP API, the command line, pages, a console) holds a `LedgerAccess` and asks this room:

- `flows`: a flow by its name, of the application at hand or as its workers have registered it, and the run that a
  request for one stands for.
- `runs`, `actions`, `events`, `listeners`: what there is, page by page, and each as JSON.
- `phase_moves`: a phase gets its new name in live runs.
- `misfits`: what of a project a release could not do; `release` and `recorded_inputs` are its parts.
- `once`: a change under an idempotency key, done once and answered the same after that.

What a door changes is a `Change` of `flows.client`; it does it with `access.do`, or in a `Once`. Functions that take a
connection only read, in the caller's transaction; those that take an access have transactions of their own. What is
refused is an error of `runclaim.errors` or of `service.errors`. A door adds what is its own: who may ask, status codes
and headers, exit codes and lines.
"""
