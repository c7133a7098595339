"""The admin API: its own keys, roles route by route, the audit log, the shapes that the official client knows, and what nobody may see or do."""
import base64
import json
import os
import pathlib
import re
import subprocess
import time
import urllib.parse

import openai
import pytest
from server import Server, held_port, wait_until, within_a_day

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROLES = ["owner", "operator", "billing", "read-only"]
DAY = 86400


class Admin:
    """A server, two tenants, a key a role."""

    def __init__(self, options=()):
        self.server = Server(os.environ["UNKAI_PROGRAM"], options=["--trusted-proxies", "127.0.0.1", *options])
        self.calls = 0
        self.other = self.server.tenant("two", "5")
        self.key = {role: self.make(role) for role in ROLES}
        self.port = self.server.port

    def make(self, role):
        return json.loads(self.server.unkai("admin", "key", "create", f"the {role} one", "--role", role, "--json"))["key"]

    def start(self):
        self.server.start()
        return self

    def call(self, method, path, key=None, body=None, prefix="/admin/v1", port=None, more=""):
        """Status, headers and the JSON of one request, each from another address: wrong keys are counted by address."""
        self.calls += 1
        more += f"X-Forwarded-For: 10.{self.calls >> 16}.{self.calls >> 8 & 255}.{self.calls & 255}\r\n"
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.server.port, kept = port or self.port, self.server.port
        try:
            status, headers, answer = self.server.raw(
                self.server.head(prefix + path, method, self.key["owner"] if key is None else key,
                                 f"Content-Length: {len(data)}\r\n{more}\r\n") + data)
        finally:
            self.server.port = kept
        return status, headers, json.loads(answer) if answer else None

    def must(self, *words, **more):
        status, _, answer = self.call(*words, **more)
        assert status == 200, answer
        return answer

    def openai(self, key=None, prefix="/admin/v1"):
        key = key or self.key["owner"]
        return openai.OpenAI(api_key=key, admin_api_key=key, base_url=f"http://127.0.0.1:{self.port}{prefix}", max_retries=0)


@pytest.fixture(scope="module")
def admin():
    a = Admin()
    try:
        yield a.start()
        assert a.server.stop() == 0
    finally:
        a.server.close()


@pytest.fixture(scope="module")
def routes(admin):
    """Every route of the description: method, path, the roles that may."""
    paths = admin.must("GET", "/openapi.json")["paths"]
    return [(method.upper(), path, row["x-roles"], row) for path, rows in paths.items() for method, row in rows.items()]


def filled(path):
    return re.sub(r"\{(\w+)\}", lambda m: {"project_id": "proj_999", "key_id": "adm_999"}.get(m[1], "key_999"), path)


# ---- who may do what -----------------------------------------------------------------------------------------------------


def test_every_route_and_role(admin, routes):
    """Whom the table does not name is refused with 403, whatever else is in the request; whom it names is not."""
    assert len(routes) >= 20
    for method, path, roles, _ in routes:
        assert roles and set(roles) <= set(ROLES), path
        for role in ROLES:
            status, _, answer = admin.call(method, filled(path), admin.key[role], body=None if method == "GET" else b"{")
            assert (status == 403) == (role not in roles), (method, path, role, answer)
            assert status < 500


# Whoever moves money, opens the house or sees what it costs: said here again, so that no slip in the table goes unseen.
BILLS, OPERATES, CHECKS, OWNS = ["owner", "billing"], ["owner", "operator"], ["owner", "billing", "read-only"], ["owner"]
PROJECT = "/organization/projects/{project_id}"
WHO = {f"POST {PROJECT}/credit": BILLS, f"POST {PROJECT}/credit_line": BILLS, "POST /ledger/transfers": BILLS, "POST /ledger/accounts": BILLS,
       "POST /ledger/transfers/{transfer_name}/post": BILLS, "POST /ledger/transfers/{transfer_name}/void": BILLS,
       "POST /ledger/transfers/{transfer_name}/reverse": BILLS, "GET /ledger/transfers/{transfer_name}": CHECKS,
       "POST /invoices": BILLS, "POST /invoices/{number}/cancel": BILLS, "POST /invoices/{number}/payments": BILLS,
       "GET /invoices/{number}/status": CHECKS, "POST /periods/{month}/close": BILLS, "GET /periods/{month}": CHECKS,
       f"GET {PROJECT}/billing_profile": CHECKS, f"POST {PROJECT}/billing_profile": BILLS, "GET /billing/issuer": CHECKS, "POST /billing/issuer": BILLS,
       "GET /billing/tax_rules": CHECKS, "POST /billing/tax_rules": BILLS, "GET /ledger/zone": CHECKS, "POST /ledger/zone": OWNS,
       "GET /exports/focus": CHECKS, "GET /exports/events": CHECKS, "POST /prices/import": BILLS,
       "POST /prices": BILLS, "POST /prices/rates": BILLS, "POST /prices/suggestion": OWNS, "GET /prices/comparison": CHECKS,
       "GET /owner/report": OWNS, "GET /owner/assets": OWNS, "POST /owner/assets": OWNS, "POST /owner/assets/{name}/retire": OWNS,
       "GET /owner/expenses": OWNS, "POST /owner/expenses": OWNS, "POST /owner/expenses/{name}/end": OWNS,
       "DELETE /nodes/{name}": OPERATES, "POST /webhooks": OPERATES, "POST /webhooks/{webhook_id}/test": OPERATES, "DELETE /webhooks/{webhook_id}": OPERATES,
       f"POST {PROJECT}/limits": OPERATES, f"POST {PROJECT}/api_keys/{{api_key_id}}/limits": OPERATES,
       f"POST {PROJECT}/service_accounts": OPERATES, "POST /organization/admin_api_keys": OWNS, "GET /organization/audit_logs": OWNS}


def test_who_may(routes):
    told = {f"{method} {path}": sorted(roles) for method, path, roles, _ in routes}
    assert {route: told.get(route) for route in WHO} == {route: sorted(roles) for route, roles in WHO.items()}
    assert all(set(roles) < set(ROLES) for route, roles in told.items() if not route.startswith("GET"))  # whoever reads alone changes nothing


def test_every_route_without_a_key(admin, routes):
    forged = admin.key["owner"][:-1] + ("A" if admin.key["owner"][-1] != "A" else "B")
    for key in ["", "uka-", "x", forged, admin.server.key, admin.server.key.replace("uk-", "uka-"), "é" * 40, "a" * 5000]:
        for method, path in [(m, p) for m, p, _, _ in routes] + [("GET", "/openapi.json")]:
            status, headers, answer = admin.call(method, filled(path), key)
            assert status == 401, (method, path, key)
            assert headers["www-authenticate"].startswith("Bearer")
            assert not key or key not in json.dumps(answer)


def test_guesses_are_slowed_down(admin):
    """An address that was wrong too often waits, right or wrong; who used a key from there before goes on."""
    def call(key):
        return admin.server.raw(admin.server.head("/admin/v1/organization/projects", "GET", key, "X-Forwarded-For: 192.0.2.7\r\n\r\n"))
    assert call(admin.key["operator"])[0] == 200
    seen, wait = [], 0
    while wait < 2 and len(seen) < 100:  # until it is two seconds or more to the next guess
        status, headers, _ = call(f"uka-{len(seen)}")
        seen, wait = [*seen, status], int(headers.get("retry-after", 0))
    assert seen[0] == 401 and seen[-1] == 429 and set(seen) == {401, 429}
    status, headers, _ = call(admin.key["billing"])
    assert status == 429 and int(headers["retry-after"]) >= 1 and headers["cache-control"] == "no-store"
    assert call(admin.key["operator"])[0] == 200


def test_an_admin_key_is_no_tenants_key(admin):
    for path in ["/models", "/organization/usage/completions?start_time=0"]:
        assert admin.call("GET", path, prefix="/v1")[0] == 401
    assert admin.call("POST", "/completions", body={"model": "smol", "prompt": "x"}, prefix="/v1")[0] == 401


def test_a_revoked_key_is_refused_at_once(admin):
    made = admin.must("POST", "/organization/admin_api_keys", body={"name": "short lived", "role": "read-only"})
    assert made["owner"]["role"] == "read-only" and made["value"].startswith("uka-")
    assert admin.call("GET", "/organization/projects", made["value"])[0] == 200
    assert admin.must("DELETE", f"/organization/admin_api_keys/{made['id']}")["deleted"]
    assert admin.call("GET", "/organization/projects", made["value"])[0] == 401
    assert admin.call("GET", f"/organization/admin_api_keys/{made['id']}")[0] == 404


def test_a_key_expires(admin):
    begin = int(time.time())
    made = admin.must("POST", "/organization/admin_api_keys", body={"name": "brief", "role": "owner", "expires_in_seconds": 1})
    assert begin + 1 <= made["expires_at"] <= time.time() + 1
    time.sleep(max(0, made["expires_at"] + 1 - time.time()))
    assert admin.call("GET", "/organization/projects", made["value"])[0] == 401


# ---- the door ------------------------------------------------------------------------------------------------------------


def test_no_admin_api_without_an_admin_key():
    server = Server(os.environ["UNKAI_PROGRAM"])
    try:
        server.start()
        for path in ["/admin/v1/organization/projects", "/admin/v1/openapi.json", "/admin/"]:
            assert server.raw(server.head(path, "GET", more="\r\n"))[0] == 404
        key = json.loads(server.unkai("admin", "key", "create", "one", "--role", "read-only", "--json"))["key"]
        assert server.raw(server.head("/admin/v1/organization/projects", "GET", key, "\r\n"))[0] == 200
        server.unkai("admin", "key", "revoke", "1")
        assert server.raw(server.head("/admin/v1/organization/projects", "GET", key, "\r\n"))[0] == 404
    finally:
        server.close()


@pytest.mark.parametrize("own", [False, True])
def test_doors(own):
    """Not on a door that others than this machine reach, unless it is the admin API's own; and nothing else on that one."""
    held, port = held_port()
    server = Server(os.environ["UNKAI_PROGRAM"], options=["--admin-listen", f"127.0.0.1:{port}"] if own else [])
    try:
        key = json.loads(server.unkai("admin", "key", "create", "one", "--role", "owner", "--json"))["key"]
        server.listen = "0.0.0.0"
        server.start()
        request = server.head("/admin/v1/organization/projects", "GET", key, "\r\n")
        assert server.raw(request)[0] == 404
        assert server.raw(server.head("/v1/models", "GET", more="\r\n"))[0] == 200
        if own:
            server.port = port
            assert server.raw(request)[0] == 200
            for path in ["/v1/models", "/health", "/metrics", "/"]:
                assert server.raw(server.head(path, "GET", more="\r\n"))[0] == 404
        assert server.stop() == 0
    finally:
        server.close()
        held.close()


# ---- shapes --------------------------------------------------------------------------------------------------------------


def test_projects_with_the_official_client(admin):
    o = admin.openai().admin.organization
    made = o.projects.create(name="shop", extra_body={"currency": "EUR"})
    assert (made.object, made.status, made.archived_at) == ("organization.project", "active", None)
    assert made.created_at > 1.7e9
    assert o.projects.retrieve(made.id) == made
    assert o.projects.update(made.id, name="store").name == "store"
    with pytest.raises(openai.ConflictError):
        o.projects.create(name="store", extra_body={"currency": "EUR"})
    with pytest.raises(openai.BadRequestError) as refused:
        o.projects.create(name="nameless money")
    assert refused.value.body["param"] in ("currency", "name")
    assert [p.id for p in o.projects.list(limit=1)][0] == made.id  # through every page, the newest first
    assert len({p.id for p in o.projects.list(limit=1)}) == len(list(o.projects.list(limit=100)))
    account = o.projects.service_accounts.create(made.id, name="Füllhorn №1")
    tenant = openai.OpenAI(api_key=account.api_key.value, base_url=f"http://127.0.0.1:{admin.port}/v1", max_retries=0)
    assert tenant.models.list().data
    keys = list(o.projects.api_keys.list(made.id))
    assert [k.name for k in keys] == ["Füllhorn №1"] and account.api_key.value not in keys[0].model_dump_json()
    assert o.projects.api_keys.retrieve(keys[0].id, project_id=made.id).name == keys[0].name
    with pytest.raises(openai.NotFoundError):
        o.projects.api_keys.retrieve(keys[0].id, project_id="proj_1")
    with pytest.raises(openai.NotFoundError):
        o.projects.api_keys.delete(keys[0].id, project_id="proj_1")
    assert tenant.models.list().data
    assert o.projects.api_keys.delete(keys[0].id, project_id=made.id).deleted
    with pytest.raises(openai.AuthenticationError):
        tenant.models.list()
    account = o.projects.service_accounts.create(made.id, name="last")
    assert o.projects.archive(made.id).status == "archived"
    with pytest.raises(openai.AuthenticationError):
        tenant.with_options(api_key=account.api_key.value).models.list()
    with pytest.raises(openai.ConflictError):
        o.projects.service_accounts.create(made.id, name="too late")
    assert made.id not in [p.id for p in o.projects.list()]
    assert made.id in [p.id for p in o.projects.list(include_archived=True)]


def test_credit_and_prices(admin):
    for _ in range(2):  # the same payment is the same transfer
        project = admin.must("POST", "/organization/projects/proj_2/credit", body={"amount": "2.5", "payment": "wire-7"})
    assert project["balance"] == "7.5"
    status, _, answer = admin.call("POST", "/organization/projects/proj_2/credit", body={"amount": "3", "payment": "wire-7"})
    assert status == 409, answer
    made = admin.must("POST", "/prices", body={"model": "m", "currency": "USD", "input": "0.000001", "output": "2"})
    assert (made["cached"], made["output"]) == ("0.000001", "2")
    seen, after = [], ""
    while True:
        page = admin.must("GET", f"/prices?limit=2{after}")
        seen += page["data"]
        assert page["first_id"] == page["data"][0]["id"] and page["last_id"] == page["data"][-1]["id"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert made in seen and len({p["id"] for p in seen}) == len(seen) == 3


def test_ledger(admin):
    page = admin.must("GET", "/ledger/transfers?limit=1")
    assert page["has_more"] and int(page["data"][0]["id"][9:]) > 1
    assert admin.must("GET", "/ledger/verification")["ok"]


def test_transfers_page(admin):
    seen, after = [], ""
    while True:
        page = admin.must("GET", f"/ledger/transfers?limit=1{after}")
        seen += [int(t["id"][9:]) for t in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen == list(range(seen[0], 0, -1)) and len(seen) >= 2
    names = [a["id"] for a in admin.must("GET", "/ledger/accounts?limit=100")["data"]]
    assert {"tenant:one", "tenant:two", "funding:JPY"} <= set(names)
    paged, after = [], ""
    while True:
        page = admin.must("GET", f"/ledger/accounts?limit=2{after}")
        paged += [a["id"] for a in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert paged == names
    assert admin.must("GET", "/ledger/accounts?after=nowhere")["data"] == []
    assert all(b["ok"] for b in admin.must("GET", "/ledger/balance")["data"])


def test_rate_limits_with_the_official_client(admin):
    limits = admin.openai().admin.organization.projects.rate_limits
    assert [(r.model, r.max_requests_per_1_minute) for r in limits.list_rate_limits("proj_2")] == [("*", 0)]
    changed = limits.update_rate_limit("rl_all", project_id="proj_2", max_requests_per_1_minute=7)
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (7, 0)
    whole = admin.must("POST", "/organization/projects/proj_2/limits", body={"requests_per_minute": 0, "spend_day": "12.5"})
    assert (whole["requests_per_minute"], whole["spend_day"], whole["id"]) == (0, "12.5", None)
    assert admin.must("GET", "/organization/projects/proj_2/limits")["data"][0]["spend_day"] == "12.5"
    with pytest.raises(openai.NotFoundError):
        limits.update_rate_limit("rl_other", project_id="proj_2", max_requests_per_1_minute=7)


def test_bills_and_the_owner(admin):
    """Rows of operations that are described elsewhere: that they are there, and are the commands' own."""
    assert admin.must("GET", "/invoices")["data"] == [] and admin.call("GET", "/invoices/INV-1")[0] == 404
    assert admin.must("GET", "/periods")["data"][0]["closed_at"] is None
    assert set(admin.must("GET", "/owner/report")["report"]) >= {"models", "tenants"}
    assert admin.must("GET", "/webhooks")["data"] == []
    rate = admin.must("POST", "/prices/rates", body={"base": "USD", "quote": "JPY", "rate": "150.25"})
    assert admin.must("GET", "/prices/rates")["data"] == [rate] and rate["rate"] == "150.25"


def test_a_backup_is_audited_and_no_route(admin, routes):
    """Whoever takes the books out of the house stands in the log, and nobody does over HTTP."""
    copy = admin.server.home / "copy.db"
    admin.server.unkai("db", "backup", str(copy))
    with pytest.raises(AssertionError):
        admin.server.unkai("db", "backup", str(copy))
    log = admin.must("GET", "/organization/audit_logs?operation=db.backup")["data"]
    assert [(a["actor"]["type"], a["target"], a["outcome"] == "ok") for a in log] == [("session", str(copy), False), ("session", str(copy), True)]
    assert not [path for _, path, _, _ in routes if "backup" in path or "/db" in path]
    assert '"db.' not in (ROOT / "src/gateway/admin_routes.c").read_text()


def test_transfers_in_two_steps(admin):
    """As the commands do it; a name makes a transfer once."""
    key, path = admin.key["billing"], "/ledger/transfers"
    for name, more in [("gifts:JPY", {"currency": "JPY"}), ("rent:JPY", {"currency": "JPY", "overdraft": "no"})]:
        made = admin.must("POST", "/ledger/accounts", key, {"account": name, **more})
        assert (made["id"], made["overdraft"]) == (name, "overdraft" not in more)
    move = {"name": "gift 1", "debit": "gifts:JPY", "credit": "tenant:two", "amount": "2", "note": "for the wait"}
    made = admin.must("POST", path, key, move)
    assert made == {"id": "transfer:gift 1", "object": "ledger.movement", "amount": "2", "again": False}
    assert admin.must("POST", path, key, move)["again"]
    assert admin.call("POST", path, key, {**move, "amount": "3"})[0] == 409
    assert admin.call("POST", path, key, {"debit": "rent:JPY", "credit": "tenant:two", "amount": "1"})[0] == 402
    back = admin.must("POST", f"{path}/transfer:gift%201/reverse", key, {"reason": "the wrong one"})
    assert back["id"] == "reverse:transfer:gift 1" and admin.call("POST", f"{path}/transfer:gift%201/reverse", key, {})[0] == 400
    assert [t["kind"] for t in admin.must("GET", f"{path}/transfer:gift%201")["data"]] == ["transfer", "reverse"]
    for name, end, body, phase in [("p1", "post", {"amount": "1.5"}, "posted"), ("p2", "void", None, "voided")]:
        admin.must("POST", path, key, {**move, "name": name, "pending": True, "expires_in_seconds": 3600})
        admin.must("POST", f"{path}/transfer:{name}/{end}", key, body)
        assert [t["phase"] for t in admin.must("GET", f"{path}/transfer:{name}")["data"]] == ["pending", phase]
    admin.must("POST", path, key, {**move, "name": "brief", "expires_in_seconds": 1})
    wait_until(lambda: [t["phase"] for t in admin.must("GET", f"{path}/transfer:brief")["data"]] == ["pending", "expired"])  # by itself
    assert admin.call("GET", f"{path}/nothing")[0] == 404
    assert admin.must("GET", "/ledger/verification")["ok"]


def test_a_credit_line(admin):
    path = "/organization/projects/proj_1/credit_line"
    project = admin.must("POST", path, admin.key["billing"], {"credit_line": "20"})
    assert (project["credit_line"], project["postpaid"]) == ("20", True) and float(project["available"]) == float(project["balance"]) + 20
    assert not admin.must("POST", path, admin.key["billing"], {"credit_line": "0"})["postpaid"]
    status, _, answer = admin.call("POST", path, body={})
    assert status == 400 and answer["error"]["param"] == "credit_line"


def test_a_keys_own_limits(admin):
    path = "/organization/projects/proj_2/api_keys/key_2/limits"
    until = int(time.time()) + 3600
    whole = admin.must("POST", path, admin.key["operator"], {"tokens_per_minute": 9, "models": ["smol", "b"], "warn": [50], "expires_at": until})
    assert (whole["id"], whole["tokens_per_minute"], whole["models"], whole["warn"], whole["expires_at"]) == ("key_2", 9, ["smol", "b"], [50], until)
    assert admin.must("GET", path)["models"] == ["smol", "b"]
    assert admin.call("GET", "/organization/projects/proj_1/api_keys/key_2/limits")[0] == 404
    whole = admin.must("POST", path, body={"tokens_per_minute": 0, "models": [], "expires_at": 0})
    assert (whole["models"], whole["warn"], whole["expires_at"]) == ([], [50], None)  # empty, as it was, never


def test_months_and_invoices(admin):
    """None is closed here; tests/bill knows some that are."""
    within_a_day()
    month = time.strftime("%Y-%m", time.gmtime(time.time()))
    assert month in [p["id"] for p in admin.must("GET", "/periods")["data"]]
    assert admin.call("POST", f"/periods/{month}/close", admin.key["billing"])[0] == 400  # it runs
    assert admin.call("GET", f"/periods/{month}")[0] == admin.call("GET", f"/periods/{month}/verification")[0] == 404
    for path in ["/periods/2026-13", "/periods/2026-1", "/periods/x/verification", "/invoices/INV-1/verification"]:
        assert admin.call("GET", path)[0] == 404, path
    assert admin.call("POST", "/invoices", body={})[0] == 404  # no month is closed
    assert admin.call("GET", "/invoices/INV-1/status")[0] == admin.call("POST", "/invoices/INV-1/payments", body={})[0] == 404
    for wrong in [{"amount": 5}, {"amount": "-5"}, {"payment": ""}, {"paid_on": "2026-02-30"}, {"paid_on": "2026"}, {"amount": "0"}]:
        assert admin.call("POST", "/invoices/INV-1/payments", body=wrong)[0] == 400, wrong
    assert admin.call("POST", "/invoices", body={"project": "one", "month": month})[0] == 409
    status, _, answer = admin.call("GET", "/organization/projects/proj_1/invoice_draft")
    assert status == 200 or "issuer" in answer["error"]["message"], answer


def audited(admin, operation):
    return [(e["outcome"] == "ok", e["actor"]["type"]) for e in admin.must("GET", f"/organization/audit_logs?operation={operation}&limit=100")["data"]]


def test_who_sends_invoices_and_to_whom(admin):
    """Whoever only looks leaves nothing in the audit log; a change, and one that was refused, does."""
    bill, read, path = admin.key["billing"], admin.key["read-only"], "/organization/projects/proj_2/billing_profile"
    before = {operation: audited(admin, operation) for operation in ("invoice.party", "invoice.issuer", "invoice.rules", "ledger.zone")}
    assert admin.must("GET", path, read) == {"object": "billing_profile", "profile": {}}
    two = {"name": "Two é Co", "country": "JP", "address": ["1-1", ""], "terms_days": 14, "language": "ja"}
    assert admin.must("POST", path, bill, {"profile": two})["profile"] == two == admin.must("GET", path, read)["profile"]
    for wrong in [{}, {"name": ""}, {"name": "x", "nam": 1}, {"name": "x", "country": "Japan"}, {"name": "x", "terms_days": 366}, {"name": "x", "rounding": "up"}, [], "x", None]:
        status, _, answer = admin.call("POST", path, bill, {"profile": wrong})
        assert status == 400 and answer["error"]["param"] == "profile", wrong
    assert admin.call("POST", path, bill, {})[0] == 400
    assert admin.call("GET", path.replace("proj_2", "proj_77"))[0] == 404
    us = {"name": "Us", "country": "JP", "series": {"invoice": "U-"}, "rounding": "down", "rates": {"smol": "reduced"}}
    assert admin.must("POST", "/billing/issuer", bill, {"profile": us})["profile"] == us == admin.must("GET", "/billing/issuer", read)["profile"]
    assert admin.call("POST", "/billing/issuer", bill, {"profile": {**us, "rounding": "sideways"}})[0] == 400
    rules = admin.must("GET", "/billing/tax_rules", read)
    assert rules["own"] == {} and {"none", "eu-vat"} <= {rule["id"] for rule in rules["built_in"]["rules"]}
    levy = {"rules": [{**rules["built_in"]["rules"][0], "id": "levy"}]}
    assert admin.must("POST", "/billing/tax_rules", bill, {"profile": levy})["own"] == levy
    assert admin.call("POST", "/billing/tax_rules", bill, {"profile": {"rules": [{"id": "X"}]}})[0] == 400
    zone = admin.must("GET", "/ledger/zone", read)["zone"]
    assert admin.must("POST", "/ledger/zone", body={"zone": "+09:30"})["zone"] == "+09:30" == admin.must("GET", "/ledger/zone")["zone"]
    for wrong in ["", "9", "+15:00", "+09:60", 9]:
        assert admin.call("POST", "/ledger/zone", body={"zone": wrong})[0] == 400, wrong
    assert admin.must("POST", "/ledger/zone", body={"zone": zone})["zone"] == zone
    for operation, changes, refused in (("invoice.party", 1, 9), ("invoice.issuer", 1, 1), ("invoice.rules", 1, 1), ("ledger.zone", 2, 5)):
        now = audited(admin, operation)[:len(audited(admin, operation)) - len(before[operation])]
        assert now.count((True, "api_key")) == changes and now.count((False, "api_key")) == refused, (operation, now)
    assert admin.server.unkai("invoice", "rules", "--json")  # is JSON on the command line, too


def test_prices_come_as_lists(admin):
    def item(model, **more):
        return {"model": model, "input_cost_per_token": 1.5e-07, "output_cost_per_token": 2.9999999999999997e-07, **more}
    many = [item(f"imported {i}", cache_read_input_token_cost=i * 1e-12) for i in range(1000)]
    assert admin.must("POST", "/prices/import", admin.key["billing"], {"currency": "EUR", "note": "a list", "prices": many})["imported"] == 1000
    kept = {p["model"]: p for p in json.loads(admin.server.unkai("price", "--json")) if p["currency"] == "EUR"}
    assert len(kept) == 1000 and all((p["input"], p["output"]) == ("0.15", "0.3") for p in kept.values())
    assert (kept["imported 999"]["cached"], kept["imported 7"]["cached"]) == ("0.000999", "0.000007")
    for wrong in [[], [item("x")] * 1001, [item("")], [item("x", mode="chat")], [item("x", input_cost_per_token=-1)], [item("x", input_cost_per_token=1000.5)],
                  [item("smol", input_cost_per_token=1), item("y", input_cost_per_token=1e-13)], [{"model": "x"}], {}, ["x"]]:
        assert admin.call("POST", "/prices/import", body={"currency": "JPY", "prices": wrong})[0] == 400, wrong
    assert admin.call("POST", "/prices/import", body={"currency": "JPY", "prices": [item("x" * 199) for _ in range(1000)], "note": "n" * 125})[0] == 200
    assert admin.call("POST", "/prices/import", body=b" " * (600 << 10))[0] == 413
    assert admin.call("POST", "/prices", body=b" " * (65 << 10))[0] == 413
    assert [p for p in json.loads(admin.server.unkai("price", "--json")) if p["model"] == "smol" and p["input"] == "1000000"] == []


def test_exports(admin):
    """Page by page the same as the command writes."""
    assert admin.server.post({"model": "smol", "prompt": "export", "max_tokens": 3}, timeout=120)[0] == 200
    assert admin.server.post({"model": "smol", "prompt": "export", "max_tokens": 3}, key=admin.other, timeout=120)[0] == 200
    month, read = admin.must("GET", "/periods")["data"][-1]["id"], admin.key["read-only"]
    for project in ("", "&project=two"):
        text, page, pages = "", "", 0
        while page is not None:
            answer = admin.must("GET", f"/exports/focus?month={month}&rows=1{project}" + (f"&page={urllib.parse.quote(page)}" if page else ""), read)
            text, page, pages = text + answer["text"], answer["next_page"], pages + 1
            assert (answer["month"], answer["version"]) == (month, "1.2") and answer["text"].count("\n") >= answer["rows"]
        assert pages >= 2
        assert text == admin.server.unkai("export", "focus", "--month", month, *(["--tenant", "two"] if project else []))
    text, after = "", None
    while True:
        answer = admin.must("GET", "/exports/events?rows=1" + (f"&after={after}" if after is not None else ""), read)
        text += answer["text"]
        if answer["after"] == after:
            break
        after = answer["after"]
    assert text == admin.server.unkai("export", "events") and text.count("\n") >= 2
    for path in ["/exports/focus", "/exports/focus?month=1999-13", f"/exports/focus?month={month}&page=x", f"/exports/focus?month={month}&page=%5B%5D",
                 f"/exports/focus?month={month}&rows=0", f"/exports/focus?month={month}&version=9", "/exports/events?after=-1", "/exports/events?page=1"]:
        assert admin.call("GET", path)[0] == 400, path
    assert admin.call("GET", "/exports/focus?month=1999-12")[0] == admin.call("GET", "/exports/events?project=nobody")[0] == 404


def test_what_the_owner_bought(admin):
    rack = {"name": "rack 1", "currency": "JPY", "price": 1200000, "life_months": 60, "bought": "2026-01-01", "chips": 4, "watts": 300.5,
            "method": "declining", "residual": 1000}
    made = admin.must("POST", "/owner/assets", body=rack)
    assert (made["id"], made["retired"], made["profile"]["watts"], made["profile"]["life"]) == ("rack 1", None, 300.5, "60")
    assert admin.call("POST", "/owner/assets", body=rack)[0] == 409
    for wrong in [{"price": "1200000"}, {"price": -1}, {"life_months": 0}, {"pue": 0.5}, {"bought": "2026-1-1"}, {"price": 1e300}]:
        assert admin.call("POST", "/owner/assets", body={**rack, "name": "rack 2", **wrong})[0] == 400, wrong
    sold = admin.must("POST", "/owner/assets/rack%201/retire", body={"sold": 7, "on": "2026-02-01"})
    assert (sold["retired"], sold["profile"]["sold"]) == ("2026-02-01", 7)
    assert admin.must("GET", "/owner/assets")["data"][0]["retired"] == "2026-02-01"
    rent = admin.must("POST", "/owner/expenses", body={"name": "rent", "currency": "JPY", "amount": 100, "from": "2026-01-01"})
    assert rent["profile"]["amount"] == 1200
    assert admin.must("POST", "/owner/expenses/rent/end", body={"on": "2026-03-01"})["until"] == "2026-03-01"
    assert admin.must("GET", "/owner/expenses")["data"][0]["id"] == "rent"
    assert "currency" in admin.must("GET", "/owner/report?month=2026-11&currency=JPY")["report"]
    compared = admin.must("GET", "/prices/comparison?model=smol&currency=JPY", admin.key["read-only"])["comparison"]
    assert compared["prices"][0]["offers"]
    assert admin.call("POST", "/prices/suggestion", body={"margin": 0.3, "currency": "JPY"})[0] == 400  # nothing was measured


def test_webhooks(admin):
    made = admin.must("POST", "/webhooks", admin.key["operator"], {"url": "https://hook.example/x", "events": ["credit.low"], "project": "two"})
    assert made["secret"].startswith("whsec_")
    hook = admin.must("GET", "/webhooks")["data"][0]
    assert (hook["id"], hook["events"], hook["project"], "secret" in hook) == (made["id"], ["credit.low"], "two", False)
    assert admin.must("POST", f"/webhooks/{made['id']}/test")["event"]
    sent = admin.must("GET", f"/webhooks/{made['id']}/deliveries")["data"][0]
    assert (sent["webhook_id"], sent["type"]) == (made["id"], "webhook.test")
    for url in ["ftp://x", "https://me:word@x", "x", ""]:
        assert admin.call("POST", "/webhooks", body={"url": url})[0] == 400
    assert admin.call("POST", "/webhooks", body={"url": "https://x", "events": ["else"]})[0] == 400
    assert admin.must("DELETE", f"/webhooks/{made['id']}")["deleted"]


# ---- usage ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def used(admin):
    """Usage on known days, written beside the server's own roll-up: on some days long ago."""
    admin.server.stop()
    rows = [("2025-03-01", 1, 1, "a", 7, 100, 40, 10, 1500000000), ("2025-03-01", 1, 1, "b", 1, 5, 0, 3, 500000000),
            ("2025-03-01", 2, 2, "a", 2, 20, 0, 4, 7), ("2025-03-03", 1, 1, "a", 1, 1, 1, 1, 1)]
    for day, tenant, key, model, requests, prompt, cached, completion, charge in rows:
        admin.server.sql("INSERT INTO usage_day (period, day, tenant, key, model, price, rate, requests, cancelled, failed, prompt, cached,"
                         " completion, charge, chip_ns, prefill_ns) VALUES"
                         f" (0, '{day}', {tenant}, {key}, '{model}', 1, 1000000000, {requests}, 0, 0, {prompt}, {cached}, {completion}, {charge},"
                         " 2000000000, 0)")
    admin.server.start()
    return 1740787200  # where 2025-03-01 begins in UTC


def test_usage_with_the_official_client(admin, used):
    usage = admin.openai().admin.organization.usage
    page = usage.completions(start_time=used, end_time=used + 3 * DAY)
    assert [(b.start_time, b.end_time, len(b.results)) for b in page.data] == [
        (used + i * DAY, used + (i + 1) * DAY, n) for i, n in enumerate([1, 0, 1])]
    total = page.data[0].results[0]
    assert (total.input_tokens, total.input_cached_tokens, total.output_tokens, total.num_model_requests) == (125, 40, 17, 10)
    assert (total.project_id, total.model, total.api_key_id, page.has_more, page.next_page) == (None, None, None, False, None)
    split = usage.completions(start_time=used, end_time=used + DAY, group_by=["project_id", "model", "api_key_id"]).data[0].results
    assert [(r.project_id, r.api_key_id, r.model, r.input_tokens) for r in split] == [
        ("proj_1", "key_1", "a", 100), ("proj_1", "key_1", "b", 5), ("proj_2", "key_2", "a", 20)]
    some = usage.completions(start_time=used, end_time=used + DAY, project_ids=["proj_2", "proj_9"], models=["a"]).data[0].results
    assert [r.input_tokens for r in some] == [20]
    assert usage.completions(start_time=used, end_time=used + DAY, models=["b"], api_key_ids=["key_2"]).data[0].results == []
    pages, at = [], {}
    while True:
        page = usage.completions(start_time=used + 7, end_time=used + 3 * DAY, limit=1, **at)
        pages += page.data
        if not page.has_more:
            break
        at = {"page": page.next_page}
    assert [len(b.results) for b in pages] == [1, 0, 1]


def test_costs_with_the_official_client(admin, used):
    costs = admin.openai().admin.organization.usage.costs(start_time=used, end_time=used + DAY, group_by=["line_item"])
    assert [(r.line_item, r.amount.value, r.amount.currency) for r in costs.data[0].results] == [
        ("a", 1.500000007, "jpy"), ("b", 0.5, "jpy")]
    status, _, answer = admin.call("GET", f"/organization/costs?start_time={used}&end_time={used + DAY}&group_by=project_id,line_item")
    assert status == 200 and [r["amount"]["value"] for r in answer["data"][0]["results"]] == [1.5, 0.5, 0.000000007]


def test_a_tenant_sees_its_own_usage_alone(admin, used):
    paths = admin.must("GET", "/openapi.json", key=admin.server.key, prefix="/v1")["paths"]
    own = {"/organization/usage/completions", "/organization/costs"}
    assert set(paths) == own | {"/chat/completions", "/completions", "/models", "/models/{model}"}
    for path in own:
        for key, project, tokens in [(admin.server.key, "proj_1", 105), (admin.other, "proj_2", 20)]:
            base = f"{path}?start_time={used}&end_time={used + DAY}"
            answer = admin.must("GET", base + "&group_by=project_id", key=key, prefix="/v1")
            results = answer["data"][0]["results"]
            assert [r["project_id"] for r in results] == [project]
            assert path.endswith("costs") or [r["input_tokens"] for r in results] == [tokens]
            foreign = "key_2" if project == "proj_1" else "key_1"
            assert admin.must("GET", base + f"&api_key_ids={foreign}", key=key, prefix="/v1")["data"][0]["results"] == []
            for guess in ["&project_ids=proj_1", "&project_ids[]=proj_2", "&tenant=two", "&tenants=2", "&tenant=one",
                          "&project_id=proj_2", "&op=tenant.list", "&%74enant=two"]:
                assert admin.call("GET", base + guess, key=key, prefix="/v1")[0] == 400, guess
        for method in ["POST", "PUT", "DELETE", "PATCH"]:
            assert admin.call(method, path, key=admin.server.key, prefix="/v1", body={})[0] == 405
    o = admin.openai(admin.other, "/v1").admin.organization
    assert o.usage.completions(start_time=used, end_time=used + DAY).data[0].results[0].input_tokens == 20


def test_a_tenant_on_every_other_route(admin, routes):
    """Under whatever id it guesses."""
    for key in [admin.server.key, admin.other]:
        for method, path, _, _ in routes:
            for number in ["1", "2"]:
                guess = re.sub(r"\{(\w+)\}", lambda m: {"project_id": "proj_", "key_id": "adm_"}.get(m[1], "key_") + number, path)
                assert admin.call(method, guess, key=key)[0] == 401
                status, _, answer = admin.call(method, guess, key=key, prefix="/v1")
                own = path in ("/organization/usage/completions", "/organization/costs") and method == "GET"
                assert status == (400 if own else 404), (method, guess, answer)  # 400: no start_time


# ---- the audit log -------------------------------------------------------------------------------------------------------


def test_audit(admin):
    newest = admin.must("GET", "/organization/audit_logs?limit=1")["data"][0]["id"]
    admin.must("POST", "/organization/projects", admin.key["operator"], {"name": "audited", "currency": "JPY"})
    assert admin.call("POST", "/organization/projects", admin.key["operator"], {"name": "audited", "currency": "JPY"})[0] == 409
    assert admin.call("POST", "/organization/projects", admin.key["read-only"], {"name": "never", "currency": "JPY"})[0] == 403
    assert admin.call("POST", "/organization/projects", admin.key["operator"], {"name": "never"})[0] == 400
    admin.must("GET", "/organization/projects", admin.key["read-only"])
    admin.server.unkai("tenant", "credit", "audited", "3")
    log = [a for a in admin.must("GET", "/organization/audit_logs?limit=10")["data"] if int(a["id"][6:]) > int(newest[6:])]
    assert [(a["type"], a["role"], a["actor"]["type"], a["outcome"] == "ok") for a in log] == [
        ("tenant.credit", "owner", "session", True), ("project.created", "read-only", "api_key", False),
        ("project.created", "operator", "api_key", False), ("project.created", "operator", "api_key", True)]
    assert log[3]["actor"]["api_key"]["service_account"] == {"id": "adm_2", "name": "the operator one"}
    assert log[3]["request"] == {"name": "audited", "currency": "JPY"} and log[3]["target"] == "audited"
    assert "already" in log[2]["outcome"] and "role" in log[1]["outcome"]
    assert admin.must("GET", "/organization/audit_logs?target=audited&operation=tenant.credit")["data"] == log[:1]
    assert admin.must("GET", "/organization/audit_logs?effective_at%5Blt%5D=1000")["data"] == []
    assert len(list(admin.openai().admin.organization.audit_logs.list(limit=1))) >= len(log)
    assert len(admin.server.unkai("admin", "audit", "audited").splitlines()) == 3


# ---- hostile -------------------------------------------------------------------------------------------------------------

BAD = [
    ("GET", "/organization/projects?limit=0", None), ("GET", "/organization/projects?limit=101", None),
    ("GET", "/organization/projects?limit=1e1", None), ("GET", "/organization/projects?limit=", None),
    ("GET", "/organization/projects?limit=99999999999999999999", None), ("GET", "/organization/projects?limit=1&limit=1", None),
    ("GET", "/organization/projects?limit[]=1", None), ("GET", "/organization/projects?after=proj_0", None),
    ("GET", "/organization/projects?after=key_1", None), ("GET", "/organization/projects?include_archived=1", None),
    ("GET", "/organization/projects?x=1", None), ("GET", "/organization/usage/completions", None),
    ("GET", "/organization/usage/completions?start_time=-1", None),
    ("GET", "/organization/usage/completions?start_time=100&end_time=100", None),
    ("GET", "/organization/usage/completions?start_time=100&page=page_0", None),
    ("GET", "/organization/usage/completions?start_time=100&bucket_width=1m", None),
    ("GET", "/organization/usage/completions?start_time=100&group_by=user_id", None),
    ("GET", "/organization/usage/completions?start_time=100&models=" + "m," * 9, None),
    ("GET", "/organization/audit_logs?target=%00", None), ("GET", "/organization/audit_logs?target=" + "x" * 200, None),
    ("POST", "/organization/projects", b""), ("POST", "/organization/projects", b"[]"), ("POST", "/organization/projects", b"nul"),
    ("POST", "/organization/projects", b'{"name":"x","currency":"JPY","op":"tenant.list"}'),
    ("POST", "/organization/projects", {"name": "x", "currency": "jpy"}), ("POST", "/organization/projects", {"name": 5, "currency": "JPY"}),
    ("POST", "/organization/projects", {"name": "a b", "currency": "JPY"}), ("POST", "/organization/projects", {"name": "x" * 64, "currency": "JPY"}),
    ("POST", "/organization/projects", {"name": "", "currency": "JPY"}), ("POST", "/organization/projects", {"name": "a\0b", "currency": "JPY"}),
    ("POST", "/organization/projects", {"name": None, "currency": "JPY"}),
    ("POST", "/organization/projects/proj_1/service_accounts", {"name": "a\u0000"}),
    ("POST", "/organization/projects/proj_1/service_accounts", {"name": "a\u001b[2J"}),
    ("POST", "/organization/projects/proj_1/credit", {"amount": 5}), ("POST", "/organization/projects/proj_1/credit", {"amount": "-5"}),
    ("POST", "/organization/projects/proj_1/credit", {"amount": "1e3"}),
    ("POST", "/organization/projects/proj_1/credit", {"amount": "0.0000000001"}),
    ("POST", "/organization/projects/proj_1/credit", {"amount": "9999999999"}),
    ("POST", "/organization/admin_api_keys", {"name": "x", "role": "root"}),
    ("POST", "/organization/admin_api_keys", {"name": "x", "role": "owner", "expires_in_seconds": 1.5}),
    ("POST", "/prices", {"model": "m", "currency": "USD", "input": "0.0000001", "output": "1"}),
]


@pytest.mark.parametrize("method, path, body", BAD)
def test_bad_requests(admin, method, path, body):
    status, headers, answer = admin.call(method, path, body=body)
    assert status == 400 and set(answer["error"]) == {"message", "type", "param", "code"}, answer
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/organization/projects/", "/organization/projects/proj_0", "/organization/projects/proj_01",
                                  "/organization/projects/one", "/organization/projects/proj_1/archive/x", "/organization//projects",
                                  "/organization/projects/proj_99999999999999999999", "/organization/projects/..%2f..", "", "/",
                                  "/organization/projects/%00", "/ORGANIZATION/projects", "/organization/projects/proj_1%20"])
def test_paths_that_are_not_there(admin, path):
    assert admin.call("GET", path)[0] == 404


def test_methods_and_headers(admin, routes):
    status, headers, _ = admin.call("PUT", "/organization/projects/proj_1", body={})
    assert status == 405 and headers["allow"] == "GET, HEAD, POST"
    status, headers, answer = admin.call("HEAD", "/organization/projects")
    assert status == 200 and answer is None and int(headers["content-length"]) > 50
    for path in ["/organization/projects", "/organization/projects/proj_77", "/nowhere", "/openapi.json"]:
        _, headers, _ = admin.call("GET", path)
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff", path
    assert admin.call("POST", "/organization/projects", body=b"x", more="Content-Encoding: gzip\r\n")[0] == 415
    assert admin.call("POST", "/organization/projects", body=b"{" + b" " * 65600)[0] == 413


def test_injection(admin):
    """What looks like SQL is a name like any other, or none."""
    for name in ["x'--", 'x" OR 1=1', "x;DROP TABLE tenant", "$1", "%", "x\\"]:
        assert admin.call("POST", "/organization/projects", body={"name": name, "currency": "JPY"})[0] == 400
        made = admin.must("POST", "/organization/projects/proj_1/service_accounts", body={"name": name})
        assert made["name"] == name
        model = admin.must("POST", "/prices", body={"model": name, "currency": "JPY", "input": "1", "output": "1"})
        assert model["model"] == name


def test_clients_that_leave(admin):
    """The request is carried out or not, and the server goes on."""
    body = json.dumps({"name": "leaver", "role": "read-only"}).encode()
    head = admin.server.head("/admin/v1/organization/admin_api_keys", "POST", admin.key["owner"], f"Content-Length: {len(body)}\r\n\r\n")
    for data in [head, head + body[:5], head + body]:
        for _ in range(10):
            with admin.server.connect() as s:
                s.sendall(data)
    assert admin.call("GET", "/organization/projects")[0] == 200


# ---- secrets -------------------------------------------------------------------------------------------------------------


def test_no_key_is_written_anywhere(admin):
    account = admin.must("POST", "/organization/projects/proj_1/service_accounts", body={"name": "secret"})
    secrets = [*admin.key.values(), admin.server.key, admin.other, account["api_key"]["value"]]
    for path in ["/organization/audit_logs?limit=100", "/organization/admin_api_keys?limit=100",
                 "/organization/projects/proj_1/api_keys?limit=100", "/openapi.json"]:
        text = json.dumps(admin.must("GET", path))
        assert not any(s in text for s in secrets), path
    admin.call("GET", "/organization/projects", "uka-guess")
    written = admin.server.log.read_bytes() + admin.server.dump()
    for secret in secrets:
        number = base64.urlsafe_b64decode(secret.split("-", 1)[1] + "=")[:16]
        assert not any(form in written for form in [secret.encode(), number, number.hex().encode()])
    assert b"uka-guess" not in written


def test_sql_is_never_built(admin):
    """store_query takes literals alone; nothing formats a statement."""
    for path in (p for p in (ROOT / "src").rglob("*.c") if p.parent.name != "store"):
        text = path.read_text()
        for call in re.findall(r"\bstore_query\(([^;]*);", text):
            sql = call.split(",", 2)[2].strip()  # a literal, or what a table's row or a caller has as one
            assert re.match(r'"|[A-Z_]+\b|sql\b|\w+(\[\w+\])?(\.|->)(sql|select)\b', sql), f"{path}: {call}"
        for call in re.findall(r"\b(?:snprintf|buf_printf|buf_text|asprintf)\([^;]*?;", text, re.S):
            assert not re.search(r'"\s*(SELECT|INSERT|UPDATE|DELETE|DROP|CREATE|ALTER) [A-Za-z*]', call), f"{path}: {call}"


def test_commands_take_no_secret_as_an_argument(admin):
    done = subprocess.run([admin.server.program, "admin", "--help"], stdout=subprocess.PIPE, text=True)
    assert "--key" not in done.stdout and "--secret" not in done.stdout
