"""What is asked of the record over HTTP: filters, `q`, whole lists as CSV and NDJSON, dead letters."""

import csv
import io
import itertools
import json
from datetime import datetime, timedelta

import pytest

from onceseen.testing.asking import problem
from onceseen.testing.pictures import flat, picky_model, picture, slow
from onceseen.testing.running import RunningServer, eventually

NAMES = ["=1+1", "+x", "-x", "@x", "pläne 50%_\\.png"]
QUOTED = 'say "hi", all'
COLUMNS = ["name", "digest", "state", "label", "score", "model", "risk", "found", "error_kind", "error"]


def every(server, path, **query):
    """All items of a list, page by page."""
    found: list[dict[str, object]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = server.get(path, **query, **({"cursor": cursor} if cursor else {}))
        found += page["items"]
        cursor = page["next"]
    return found


def asked(server, **query):
    return every(server, "/v1/predictions", limit=1000, **query)


def stream(server, kind, path="/v1/predictions", **query):
    answer = server.http.get(path, params=query, headers={"accept": kind})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["vary"] == "accept"
    return answer.text


# -- filters ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(server, job):
    """All items there are, and that of a name for each letter that is special somewhere."""
    server.submit([(name, picture(60_000 + n)) for n, name in enumerate(NAMES)], name="Special Names", wait=20)
    server.submit(picture(60_100), filename=QUOTED, wait=20)
    return asked(server)


def score(item):
    return -1 if item["score"] is None else item["score"]


def nothing(_item):
    return False


FILTERS = [
    ({"model": "colours"}, lambda item: item["model"] == "colours:1"),
    ({"model": "COLOURS:1"}, lambda item: item["model"] == "colours:1"),
    ({"model": "colour"}, nothing),
    ({"label": "red"}, lambda item: item["label"] == "red"),
    ({"min_score": 0.5}, lambda item: score(item) >= 0.5),
    ({"min_score": 0.5, "max_score": 0.9}, lambda item: 0.5 <= score(item) <= 0.9),
    ({"name": "pläne 50%_"}, lambda item: item["name"] == NAMES[-1]),
    ({"name": "5"}, lambda item: item["name"].startswith("5")),
    ({"state": "failed"}, lambda item: item["state"] == "failed"),
    ({"state": "failed,succeeded", "name": "1"}, lambda item: item["name"][0] == "1" and item["state"] != "cancelled"),
    ({"q": "state:failed"}, lambda item: item["state"] == "failed"),
    ({"q": "-state:failed model:colours"}, lambda item: item["state"] != "failed" and item["model"] == "colours:1"),
    ({"q": "score:<0.6 -label:red"}, lambda item: -1 < score(item) < 0.6 and item["label"] != "red"),
    ({"q": "risk:>=0.5"}, lambda item: item["risk"] is not None and item["risk"] >= 0.5),
    ({"q": "found:yes"}, lambda item: item["found"] is True),
    ({"q": "found:no"}, lambda item: item["found"] is False),
    ({"q": "owner:me age:<1d"}, lambda item: True),
    ({"q": "age:>1d"}, nothing),
    ({"q": 'name:"PLäNE 50%_\\\\"'}, lambda item: item["name"] == NAMES[-1]),
    ({"q": '"hi\\", all"'}, lambda item: item["name"] == QUOTED),
    ({"q": "unreadable-image"}, lambda item: item["error"] is not None and item["error"]["kind"] == "unreadable-image"),
    ({"q": "state:failed", "name": "03"}, lambda item: item["name"] == "03.png"),
]


@pytest.mark.parametrize(("query", "fits"), FILTERS, ids=[json.dumps(query) for query, _ in FILTERS])
def test_predictions_are_found_by_every_filter(server, store, query, fits):
    expected = [item for item in store if fits(item)]
    assert bool(expected) == (fits is not nothing)
    assert asked(server, **query) == expected
    assert every(server, "/v1/predictions", limit=7, **query) == expected


def test_items_are_found_by_what_names_them(server, store):
    one = next(item for item in store if item["name"] == NAMES[0])
    for query in (
        f"digest:{one['digest']}",
        f"digest:{one['digest'][:9].upper()}",
        f"job:{one['job']} name:{one['name']}",
    ):
        assert one in asked(server, q=query)
    assert {item["worker"] for item in asked(server, q=f"worker:{one['worker']}")} == {one["worker"]}
    host = server.get("/v1/workers")["items"][0]["host"]
    assert len(asked(server, q=f"worker:{host}")) == len([item for item in store if item["worker"]])
    in_job = [item for item in store if item["job"] == one["job"]]
    assert asked(server, q=f"job:{one['job']}") == in_job
    assert every(server, f"/v1/jobs/{one['job']}/items", q="-state:failed") == [
        item for item in reversed(in_job) if item["state"] != "failed"
    ]


def test_after_and_before_compare_the_end_of_an_item(server, store):
    middle = sorted(item["finished_at"] for item in store)[len(store) // 2]
    later, earlier = (asked(server, **{name: middle}) for name in ("after", "before"))
    assert later == [item for item in store if item["finished_at"] > middle]
    assert earlier == [item for item in store if item["finished_at"] < middle]
    zone = datetime.fromisoformat(middle).astimezone(tz=None).isoformat()
    assert asked(server, after=zone) == later
    week = timedelta(days=7)
    assert asked(server, after=(datetime.fromisoformat(middle) + week).isoformat()) == []


@pytest.mark.parametrize(
    "query",
    [
        {"q": "scroe:1"},
        {"q": "score:abc"},
        {"q": '"'},
        {"q": "a\0"},
        {"model": "a b"},
        {"name": "\0"},
        {"min_score": "nan"},
        {"min_score": "high"},
        {"after": "yesterday"},
        {"after": "2026-01-31T08:30:00"},
        {"before": "1e9"},
        {"limit": 1001},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_asked_is_a_problem(server, query):
    for kind in ("application/json", "text/csv", "application/x-ndjson"):
        answer = server.http.get("/v1/predictions", params=query, headers={"accept": kind})
        problem(answer, 400, "invalid-request")
    said = problem(server.http.get("/v1/predictions", params={"q": "scroe:1"}), 400, "invalid-request")
    assert "did you mean `score`" in said


# -- jobs ---------------------------------------------------------------------------------------------------------------


def test_jobs_are_found_by_state_model_and_query(server, store):
    jobs = every(server, "/v1/jobs", limit=1000)
    filters = [
        ({"state": "failed"}, lambda job: job["state"] == "failed"),
        ({"model": "colours"}, lambda job: job["model"] == "colours:1"),
        ({"q": 'name:"special names"'}, lambda job: job["name"] == "Special Names"),
        ({"q": "names -state:failed"}, lambda job: "names" in job["name"].lower() and job["state"] != "failed"),
        ({"q": "owner:me age:<1d model:colours:1"}, lambda job: job["model"] == "colours:1"),
        ({"q": f"job:{jobs[0]['id']}"}, lambda job: job == jobs[0]),
        ({"state": "succeeded,failed"}, lambda job: job["state"] in ("succeeded", "failed")),
    ]
    for query, fits in filters:
        expected = [job for job in jobs if fits(job)]
        assert expected
        assert every(server, "/v1/jobs", **query) == expected
        assert every(server, "/v1/jobs", limit=1, **query) == expected
    said = problem(server.http.get("/v1/jobs", params={"q": "score:>0.5"}), 400, "invalid-request")
    assert "`score` cannot be asked here" in said
    problem(server.http.get("/v1/jobs", params={"state": "done"}), 400, "invalid-request")


def test_a_job_is_found_while_it_runs_and_once_it_is_cancelled(server):
    files = [(f"{n}", slow(20, 3000 + n)) for n in range(60)]
    job = server.submit(files, model="slow", name="while it runs")["id"]
    found = eventually(lambda: every(server, "/v1/jobs", q='state:running name:"while it"'))
    assert [row["id"] for row in found] == [job]
    server.http.post(f"/v1/jobs/{job}/cancel")
    server.wait_job(job)
    assert every(server, "/v1/jobs", q=f"job:{job} state:pending") == asked(server, q=f"job:{job} state:pending") == []
    assert [row["id"] for row in every(server, "/v1/jobs", q=f"job:{job} state:cancelled")] == [job]
    cancelled = asked(server, q=f"job:{job} state:cancelled")
    assert cancelled == asked(server, q=f"job:{job} -state:succeeded") != []


# -- whole lists --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    """A server with 1,300 items of one picture in three jobs, and their numbers."""
    with RunningServer(workers=1) as running:
        jobs = [running.submit([(f"{n:04}", picture(1)) for n in range(count)])["id"] for count in (600, 400, 300)]
        for job in jobs:
            running.wait_job(job, 60)
        yield running, jobs


def test_a_stream_has_every_item_exactly_once(many):
    server, jobs = many
    paged = asked(server)
    assert len(paged) == 1300
    lines = [json.loads(line) for line in stream(server, "application/x-ndjson").splitlines()]
    assert lines == paged
    rows = list(csv.reader(io.StringIO(stream(server, "text/csv"), newline="")))
    assert rows[0] == COLUMNS
    assert [row[:3] for row in rows[1:]] == [[item["name"], item["digest"], "succeeded"] for item in paged]
    assert [float(row[4]) for row in rows[1:]] == [item["score"] for item in paged]
    job = f"/v1/jobs/{jobs[0]}/items"
    assert [json.loads(line)["n"] for line in stream(server, "application/x-ndjson", job).splitlines()] == [*range(600)]
    assert len(stream(server, "text/csv", name="00").splitlines()) == 1 + 300
    assert len(stream(server, "text/csv", limit=501).splitlines()) == 1 + 501
    cursor = server.get("/v1/predictions", limit=1000)["next"]
    assert len(stream(server, "application/x-ndjson", cursor=cursor).splitlines()) == 300
    assert stream(server, "text/csv", q="state:failed").splitlines() == [",".join(COLUMNS)]
    assert stream(server, "application/x-ndjson", q="state:failed") == ""


def test_items_that_arrive_meanwhile_move_no_page(many):
    server, _ = many
    before = asked(server)
    found: list[dict[str, object]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = server.get("/v1/predictions", limit=300, **({"cursor": cursor} if cursor else {}))
        found += page["items"]
        cursor = page["next"]
        server.submit(picture(1), wait=20)
    assert found == before


def test_a_reader_that_goes_away_ends_its_stream(many):
    server, _ = many
    for _ in range(8):  # more than there are threads that read
        with server.http.stream("GET", "/v1/predictions", headers={"accept": "application/x-ndjson"}) as answer:
            next(answer.iter_raw(100))
    assert len(stream(server, "application/x-ndjson", limit=700).splitlines()) == 700


def test_no_name_is_a_formula_in_a_spreadsheet(server, store):
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(stream(server, "text/csv"), newline=""))}
    for name in [*NAMES, QUOTED]:
        shown = f"'{name}" if name[0] in "=+-@" else name
        assert rows[shown]["state"] == "succeeded"
        assert shown == name or name not in rows
    failed = rows["03.png"]
    assert (failed["label"], failed["score"], failed["found"]) == ("", "", "")
    assert failed["error_kind"] == "unreadable-image"
    assert failed["error"]
    assert {rows[f"'{name}"]["found"] for name in NAMES[:4]} <= {"true", "false"}


# -- dead letters --------------------------------------------------------------------------------------------------------


GREEN = itertools.count(40)
"""Equal models share their tasks, so each test has pictures of its own."""


@pytest.fixture
def letters(server, tmp_path):
    """A job of three dead letters; the names of its model and of the pictures are not used elsewhere."""
    green = next(GREEN)
    name = f"letters{green}"
    server.add_model(picky_model(tmp_path / name, name))
    job = server.submit([(f"dead {n}", flat((230 + n, green, 0))) for n in range(3)], model=name, wait=20)
    assert job["failed"] == 3
    return name, job


def test_dead_letters_are_found_and_purged_by_a_query(server, letters):
    name, job = letters
    found = every(server, "/v1/dead-letters", q=f"model:{name}", limit=2)
    assert [item["name"] for item in found] == ["dead 2", "dead 1", "dead 0"]
    assert all(item["deaths"] == 0 and item["losses"] == 0 for item in found)
    purge = f'model:{name} name:"dead 1"'
    assert server.http.post("/v1/dead-letters/purge", json={"q": purge}).json() == {"count": 1}
    assert server.http.post("/v1/dead-letters/purge", json={"q": purge}).json() == {"count": 0}
    assert [item["name"] for item in every(server, "/v1/dead-letters", q=f"model:{name}")] == ["dead 2", "dead 0"]
    kept = server.items(job["id"])
    assert kept == job["items"]
    assert server.get(f"/v1/jobs/{job['id']}")["failed"] == 3
    tasks = [item["task"] for item in kept]
    assert server.http.post("/v1/dead-letters/purge", json={"tasks": tasks}).json() == {"count": 2}
    assert every(server, "/v1/dead-letters", q=f"model:{name}") == []
    before = server.get("/v1/stats")["failed"]
    server.http.post(f"/v1/jobs/{job['id']}/retry")
    eventually(lambda: len(every(server, "/v1/dead-letters", q=f"model:{name}")) == 3)
    assert server.wait_job(job["id"])["failed"] == 3
    eventually(lambda: server.get("/v1/stats")["failed"] == before)


def test_dead_letters_are_retried_by_a_query(server, letters):
    name, job = letters
    assert server.http.post("/v1/dead-letters/retry", json={"q": f"model:{name} -name:dead"}).json() == {"count": 0}
    assert server.http.post("/v1/dead-letters/retry", json={"q": f"model:{name}"}).json() == {"count": 3}
    again = server.wait_job(job["id"])
    assert again["finished_at"] > job["finished_at"]
    assert again["failed"] == 3


def test_a_dead_letter_that_cannot_be_meant_is_a_problem(server):
    for path in ("/v1/dead-letters/retry", "/v1/dead-letters/purge"):
        for body in ('{"q": "lable:x"}', '{"q": "", "tasks": []}', '{"tasks": ["x"]}', '{"which": 1}', "[", '{"q": 5}'):
            problem(server.http.post(path, content=body), 400, "invalid-request")
    assert '{"q": ""}' in problem(server.http.post("/v1/dead-letters/purge"), 400, "invalid-request")
    assert server.http.post("/v1/dead-letters/purge", json={"tasks": []}).json() == {"count": 0}


def test_a_misspelt_parameter_is_refused_by_name(server):
    answer = server.http.get("/v1/predictions", params={"lable": "seven"})
    detail = problem(answer, 400, "invalid-request")
    assert "`lable`" in detail
    assert " label" in detail
    assert "accept" not in detail.lower()
