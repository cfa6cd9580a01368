"""A worker in plain Python: it does the phase `price` of the flow `order` over HTTP, and installs nothing."""

import json
import os
import threading
import time
import urllib.request

URL, TOKEN = os.environ["RUNCLAIM_API_URL"], os.environ["RUNCLAIM_TOKEN"]


def call(path, body, prefer="wait=0"):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Prefer": prefer}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except OSError as refused:
            if getattr(refused, "code", 503) < 500:
                return refused.code, json.loads(refused.read())
        time.sleep(1)  # the API or its ledger is away: the same again is safe, whatever it had heard


def work(job):
    path, proof, done = f"/v1/runs/{job['id']}", {"claim": job["claim"]}, threading.Event()

    def beat():
        while not done.wait(job["lease_seconds"] / 4):
            call(f"{path}:heartbeat", proof)

    threading.Thread(target=beat, daemon=True).start()
    try:
        verb, said = "succeed", {"result": job["results"]["reserve"] * 250}
    except Exception as error:
        verb, said = "fail", {"error": {"type": type(error).__name__, "message": str(error)}}
    done.set()
    return call(f"{path}:{verb}", proof | said)  # 409 claim-lost: another worker has it, drop the work


while True:
    status, job = call("/v1/runs:claim", {"flow": "order", "phases": ["price"], "worker": "plain-1"}, "wait=20")
    if status == 200:
        print(job["key"], job["phase"], *work(job), flush=True)
    elif status != 204:
        raise SystemExit(job["detail"])
