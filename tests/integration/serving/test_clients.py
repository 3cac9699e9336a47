"""Others' clients ask both runtimes, as they are installed and unchanged; docs/clients.md shows what came of it."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import NewPod, Pod, Trained
from .runtimes import MODEL_NAME, REPOSITORY, MLServer, Runtime, Seldon, alike, environment

PAGE = REPOSITORY / "docs" / "clients.md"
PROGRAMS = {
    "ask_triton": "clients",
    "ask_kserve": "clients",
    "ask_grpcurl": "clients",
    "ask_seldon": "seldon",
}
REFUSALS = re.compile(r"\b(40\d|415|UNIMPLEMENTED|NOT_FOUND)\b")
WORDS = {
    "Not Found": "404",
    "False": "no",
    "no reason": "refused",
}

Seen = dict[tuple[str, str], str]


def asked(pod: Pod, program: str, rows: Any) -> list[dict[str, Any]]:
    """Run a client's program in that client's environment."""
    server = {"http": pod.http, "grpc": pod.grpc, "model": MODEL_NAME, "rows": rows.tolist()}
    python = environment(PROGRAMS[program])
    packages = environment("seldon").parents[1] / "lib" / "python3.11" / "site-packages"
    settings = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parent),
        "SELDON_PROTOCOLS": str(packages / "seldon_core" / "proto"),
    }
    done = subprocess.run(
        [python, "-m", f"clients.{program}"],
        input=json.dumps(server),
        env=settings,
        cwd=pod.root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def curled(pod: Pod, rows: Any) -> list[dict[str, Any]]:
    """Ask by curl."""
    v2, v1 = (json.dumps(runtime.request(rows)) for runtime in (MLServer(), Seldon()))
    requests: dict[str, tuple[str, ...]] = {
        f"POST /v2/models/{MODEL_NAME}/infer": ("--json", v2),
        f"GET /v2/models/{MODEL_NAME}": (),
        f"GET /v2/models/{MODEL_NAME}/ready": (),
        "POST /invocations": ("--json", json.dumps({"inputs": rows.tolist()})),
        "GET /ping": (),
        "POST /api/v1.0/predictions": ("--json", v1),
        "POST /api/v0.1/predictions": ("--json", v1),
        "POST /predict": ("--data-urlencode", f"json={v1}"),
        "POST /api/v1.0/feedback": ("--json", '{"reward": 1}'),
        "GET /api/v1.0/metadata": (),
        "GET /health/status": (),
    }
    found = []
    for call, options in requests.items():
        line = ["curl", "--silent", "--noproxy", "*", "--write-out", "\n%{http_code}", *options]
        done = subprocess.run(
            [*line, pod.http + call.partition(" ")[2]], capture_output=True, text=True, check=True
        )
        body, _, status = done.stdout.rpartition("\n")
        seen = {"answer": _answer(body)} if status == "200" else {"refused": status}
        found.append({"client": "curl", "call": call} | seen)
    return found


def _answer(body: str) -> Any:
    """The predictions in an answer of any protocol; True for any other good answer."""
    parsed = json.loads(body) if body.startswith("{") else {}
    if "outputs" in parsed and "data" in (parsed["outputs"] or [{}])[0]:
        return MLServer().answers(parsed).tolist()
    if "data" in parsed:
        return Seldon().answers(parsed).tolist()
    return parsed.get("predictions", True)


def outcome(seen: dict[str, Any], expected: Any) -> str:
    """What the table says of a call: a right answer, or the refusal's code."""
    if "answer" in seen:
        answer = seen["answer"]
        if isinstance(answer, list) and answer and isinstance(answer[0], list):
            assert alike(answer, expected), seen
            return "right answers"
        return WORDS.get(str(answer), "yes")
    code = REFUSALS.search(seen["refused"])
    words = [short for word, short in WORDS.items() if word in seen["refused"]]
    assert code or words, seen
    return code[1] if code else words[0]


@pytest.fixture(scope="module")
def tables(new_pod: NewPod, array_model: Trained) -> dict[str, Seen]:
    """What came of each call, for each runtime."""
    rows = array_model.rows.to_numpy()[:3]
    expected = array_model.estimator.predict_proba(rows)
    found: dict[str, Seen] = {}
    runtimes: tuple[Runtime, ...] = (MLServer(), Seldon())
    for runtime in runtimes:
        pod = new_pod(array_model.folder, runtime=runtime)
        pod.serve_until_ready()
        calls = [call for program in PROGRAMS for call in asked(pod, program, rows)] + curled(pod, rows)
        found[runtime.name] = {(call["client"], call["call"]): outcome(call, expected) for call in calls}
    return found


def test_each_client_gets_right_answers_from_a_runtime_of_its_protocol(tables: dict[str, Seen]) -> None:
    seen = {
        client: {table[client, call] for table in tables.values() for other, call in table if other == client}
        for client, _ in tables["mlserver"]
    }
    assert [client for client, outcomes in seen.items() if "right answers" not in outcomes] == []


def test_the_documents_show_what_came_of_each_call(tables: dict[str, Seen]) -> None:
    lines = ["| client | call | `mlserver` | `seldon` |", "|---|---|---|---|"]
    lines += [
        f"| {client} | {call} | {tables['mlserver'][client, call]} | {tables['seldon'][client, call]} |"
        for client, call in tables["mlserver"]
    ]
    table = "\n".join(lines)
    print(table)
    page = PAGE.read_text()
    start, end = "<!-- what test_clients.py saw -->\n", "\n<!-- end -->"
    before, _, rest = page.partition(start)
    shown, _, after = rest.partition(end)
    if os.environ.get("ROLLWAY_UPDATE_DOCS"):
        PAGE.write_text(before + start + table + end + after)
    else:
        assert shown == table, "run this test again with ROLLWAY_UPDATE_DOCS=1"
