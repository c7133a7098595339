/* What the admin API and the tenants' view of their own usage are, row by row; api.h says how a row is read, admin_shapes.h what the
 * answers look like. */
#include "gateway/admin_shapes.h"
#include "gateway/ask.h"

/* ---- what goes in ---- */

#define PROJECT(member) \
    { "project_id", member, IN_PATH, TYPE_TENANT, true, "proj_" }
#define PATH_ID(name, prefix) \
    { name, "id", IN_PATH, TYPE_ID, true, prefix }
#define LIMIT(usual, highest) \
    { "limit", .place = IN_QUERY, .type = TYPE_INT, .least = 1, .most = (highest), .otherwise = (usual) }
#define AFTER(prefix)                                                                        \
    {                                                                                        \
        "after", .place = IN_QUERY, .type = TYPE_ID, .words = prefix,                        \
                 .about = "the page that begins behind this one: last_id of the page before" \
    }
#define AFTER_WHOLE \
    { "after", "", IN_QUERY, TYPE_TEXT, .least = 1, .most = 100, .about = "last_id of the page before" }
#define NUMBER \
    { "number", NULL, IN_PATH, TYPE_NAME, true, .least = 1, .most = 63 }
#define NAME(member, about_) \
    { "name", member, IN_BODY, TYPE_NAME, true, .least = 1, .most = 63, .about = (about_) }
#define TITLE \
    { "name", NULL, IN_BODY, TYPE_TEXT, true, .least = 1, .most = 60 }
#define CURRENCY \
    { "currency", NULL, IN_BODY, TYPE_CURRENCY, true, .about = "an ISO 4217 code" }
#define MODEL \
    { "model", NULL, IN_BODY, TYPE_TEXT, true, .least = 1, .most = 48 }

#define PROJECT_NAME(place) \
    { "project", "tenant", place, TYPE_NAME, .least = 1, .most = 63 }
#define MONTH(place, required) \
    { "month", NULL, place, TYPE_MONTH, required }
#define PERIOD(place)                                                                          \
    MONTH(place, false), {"from", NULL, place, TYPE_DAY}, {"to", NULL, place, TYPE_DAY},       \
        {"basis", NULL, place, TYPE_CHOICE, .words = "book|annuity"}, {                        \
        "currency", NULL, place, TYPE_CURRENCY, .about = "that of the first asset if left out" \
    }
#define TRANSFER \
    { "transfer_name", "transfer", IN_PATH, TYPE_TEXT, true, .least = 1, .most = 140 }
#define THING \
    { "name", NULL, IN_PATH, TYPE_TEXT, true, .least = 1, .most = 63 }
#define ON \
    { "on", NULL, IN_BODY, TYPE_DAY, .about = "today if left out" }
#define PAYMENT(again)                                                          \
    {                                                                           \
        "payment", .place = IN_BODY, .type = TYPE_TEXT, .least = 1, .most = 25, \
                   .about = "the payment's own name: " again                    \
    }
#define ABOVE_ZERO(name, required, about_) \
    { name, NULL, IN_BODY, TYPE_MONEY, required, .least = 1, .about = (about_) }
#define PROFILE(schema) \
    { "profile", NULL, IN_BODY, TYPE_JSON, true, schema }
#define MONEY(name, required) \
    { name, NULL, IN_BODY, TYPE_MONEY, required }
/* Of the owner's profiles, which are suppositions and no money that moves. */
#define OWN(name, required, most_) \
    { name, NULL, IN_BODY, TYPE_NUMBER, required, .most = (most_) }
#define COUNT(name) \
    { name, NULL, IN_BODY, TYPE_INT, .most = 1000000000 }
#define LIMITS                                                                                     \
    COUNT("requests_per_minute"), COUNT("tokens_per_minute"), COUNT("concurrency"),                \
        MONEY("spend_day", false), MONEY("spend_month", false),                                    \
        {"models", NULL, IN_BODY, TYPE_TEXTS, .least = 1, .most = 48, .about = "empty: all"},      \
        {"addresses", NULL, IN_BODY, TYPE_TEXTS, .least = 1, .most = 60, .about = "empty: any"}, { \
        "warn", NULL, IN_BODY, TYPE_INTS, .least = 1, .most = 100, .about = "at these hundredths"  \
    }

#define KEY \
    { "api_key_id", "key", IN_PATH, TYPE_ID, true, "key_" }
#define ACCOUNT(name) \
    { name, NULL, IN_BODY, TYPE_NAME, true, .least = 1, .most = 63 }
#define MOST_OWN 1000000000000
#define LATEST 4102444800 /* the year 2100 */
#define TIMES                                                                                            \
    {"start_time",     "start",                                                                          \
     IN_QUERY,         TYPE_INT,                                                                         \
     .required = true, .least = 0,                                                                       \
     .most = LATEST,   .about = "seconds since 1970; buckets are days of the books' zone"},              \
        {"end_time", "end", IN_QUERY, TYPE_INT, .least = 1, .most = LATEST, .about = "now if left out"}, \
        {"bucket_width", NULL, IN_QUERY, TYPE_CHOICE, .words = "1d"}, {                                  \
        "page", .place = IN_QUERY, .type = TYPE_ID, .words = "page_",                                    \
                .about = "next_page of the page before"                                                  \
    }
#define KEYS \
    { "api_key_ids", "keys", IN_QUERY, TYPE_IDS, .words = "key_" }
#define PROJECTS \
    { "project_ids", "tenants", IN_QUERY, TYPE_IDS, .words = "proj_" }
#define MODELS \
    { "models", NULL, IN_QUERY, TYPE_TEXTS, .least = 1, .most = 199 }
#define GROUPS(words_) \
    { "group_by", NULL, IN_QUERY, TYPE_CHOICES, .words = (words_) }
#define USAGE_GROUPS GROUPS("project_id=tenant|api_key_id=key|model=model")
#define COST_GROUPS GROUPS("project_id=tenant|api_key_id=key|line_item=model")

/* ---- the routes ---- */

#define WHO_READS ROLES_ALL
#define WHO_OPERATES (ROLE_OWNER | ROLE_OPERATOR)
#define WHO_BILLS (ROLE_OWNER | ROLE_BILLING)
#define WHO_CHECKS (ROLE_OWNER | ROLE_BILLING | ROLE_READER)
#define WHO_OWNS ROLE_OWNER
#define PROJECT_PATH "/organization/projects/{project_id}"

/* ---- what the operations check themselves ---- */

#define SCHEMA_TEXT "{\"type\":\"string\",\"minLength\":1,\"pattern\":\"^[^\\u0000]+$\"}"
#define SCHEMA_TEXTS "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}}"
#define SCHEMA_LINES "{\"type\":\"array\",\"maxItems\":20,\"items\":{\"type\":\"string\"}}"
#define SCHEMA_PARTY(more)                                                                                \
    "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"name\"],\"properties\":{"        \
    "\"name\":" SCHEMA_TEXT ",\"address\":" SCHEMA_LINES ",\"country\":{\"type\":\"string\",\"pattern\":" \
    "\"^[A-Z]{2}$\"},\"tax_id\":" SCHEMA_TEXT ",\"rule\":" SCHEMA_TEXT ",\"language\":{\"enum\":[\"en\"," \
    "\"ja\"]},\"terms_days\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":365},"                       \
    "\"reference\":" SCHEMA_TEXT more "}}"
#define SCHEMA_ISSUER                                                                                   \
    SCHEMA_PARTY(",\"payment\":" SCHEMA_LINES ",\"rounding\":{\"enum\":[\"down\",\"up\",\"nearest\"]}," \
                 "\"series\":" SCHEMA_TEXTS ",\"rates\":" SCHEMA_TEXTS)
#define SCHEMA_RULES "{\"type\":\"object\"}" /* like data/tax-rules.json; what is wrong with one is said */
#define SCHEMA_ZONE "{\"type\":\"string\",\"pattern\":\"^[+-](0[0-9]|1[0-4]):[0-5][0-9]$\"}"
#define SCHEMA_PRICE "{\"type\":\"number\",\"minimum\":0,\"maximum\":1000}"
#define SCHEMA_PRICES                                                                                    \
    "{\"type\":\"array\",\"minItems\":1,\"maxItems\":1000,\"items\":{\"type\":\"object\",\"required\":[" \
    "\"model\",\"input_cost_per_token\",\"output_cost_per_token\"],\"additionalProperties\":false,"      \
    "\"properties\":{\"model\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":199,\"pattern\":\""    \
    "^[^\\u0000]+$\"},\"input_cost_per_token\":" SCHEMA_PRICE ",\"output_cost_per_token\":" SCHEMA_PRICE \
    ",\"cache_read_input_token_cost\":" SCHEMA_PRICE "}}}"

static const struct api_route admin_routes[] = {
    {"GET", "/organization/projects", WHO_READS, "tenant.list", ANSWERS_LIST, &project,
     .param = {LIMIT(20, 100), AFTER("proj_"), {"include_archived", "archived", IN_QUERY, TYPE_BOOL}},
     .about = "List projects, which are the cloud's tenants, the newest first"},
    {"POST", "/organization/projects", WHO_OPERATES, "tenant.create", ANSWERS_OBJECT, &project,
     .param = {NAME(NULL, "unlike any other"), CURRENCY}, .about = "Create a project"},
    {"GET", PROJECT_PATH, WHO_READS, "tenant.show", ANSWERS_OBJECT, &project, .param = {PROJECT("name")},
     .about = "Retrieve a project"},
    {"POST", PROJECT_PATH, WHO_OPERATES, "tenant.rename", ANSWERS_OBJECT, &project,
     .param = {PROJECT("name"), NAME("to", "unlike any other")}, .about = "Modify a project: its name"},
    {"POST", PROJECT_PATH "/archive", WHO_OPERATES, "tenant.archive", ANSWERS_OBJECT, &project,
     .param = {PROJECT("name")}, .about = "Archive a project: its keys stop working, what it did stays"},
    {"POST", PROJECT_PATH "/credit", WHO_BILLS, "tenant.credit", ANSWERS_OBJECT, &project,
     .param = {PROJECT("name"),
               {"amount", NULL, IN_BODY, TYPE_MONEY, true, .about = "in the project's currency"},
               PAYMENT("the same again adds nothing")},
     .about = "Add prepaid credit"},
    {"POST", PROJECT_PATH "/credit_line", WHO_BILLS, "tenant.set", ANSWERS_OBJECT, &project,
     .param = {PROJECT("name"),
               {"credit_line", "line", IN_BODY, TYPE_MONEY, true, .about = "0: it pays in advance"}},
     .about = "Let a project pay later, up to its credit line"},
    {"GET", PROJECT_PATH "/invoice_draft", WHO_CHECKS, "invoice.draft", ANSWERS_OBJECT, &invoice_document,
     .param = {PROJECT("tenant"), MONTH(IN_QUERY, false)},
     .about = "What the month's invoice would be now; of the running month if none is named"},

    {"GET", PROJECT_PATH "/billing_profile", WHO_CHECKS, "invoice.party", ANSWERS_OBJECT, &billing_profile,
     .param = {PROJECT("tenant")}, .about = "What a project's invoices say of it"},
    {"POST", PROJECT_PATH "/billing_profile", WHO_BILLS, "invoice.party", ANSWERS_OBJECT, &billing_profile,
     .param = {PROJECT("tenant"), PROFILE(SCHEMA_PARTY(""))},
     .about = "Say what a project's invoices say of it, from the next one on"},

    {"GET", PROJECT_PATH "/api_keys", WHO_READS, "key.list", ANSWERS_LIST, &project_key,
     .param = {PROJECT("tenant"), LIMIT(20, 100), AFTER("key_")}, .fixed = "\"revoked\":false",
     .about = "List a project's API keys, the oldest first"},
    {"GET", PROJECT_PATH "/api_keys/{api_key_id}", WHO_READS, "key.show", ANSWERS_OBJECT, &project_key,
     .param = {PROJECT("tenant"), PATH_ID("api_key_id", "key_")}, .fixed = "\"revoked\":false",
     .about = "Retrieve an API key"},
    {"DELETE", PROJECT_PATH "/api_keys/{api_key_id}", WHO_OPERATES, "key.revoke", ANSWERS_OBJECT,
     &project_key_deleted, .param = {PROJECT("tenant"), PATH_ID("api_key_id", "key_")},
     .about = "Delete an API key: it stops working at once"},
    {"GET", PROJECT_PATH "/service_accounts", WHO_READS, "key.list", ANSWERS_LIST, &account,
     .param = {PROJECT("tenant"), LIMIT(20, 100), AFTER("svc_")}, .fixed = "\"revoked\":false",
     .about = "List a project's service accounts: each has one API key, of the same number"},
    {"POST", PROJECT_PATH "/service_accounts", WHO_OPERATES, "key.create", ANSWERS_OBJECT, &account_created,
     .param = {PROJECT("tenant"), TITLE}, .about = "Create a service account, and its API key"},
    {"GET", PROJECT_PATH "/service_accounts/{service_account_id}", WHO_READS, "key.show", ANSWERS_OBJECT,
     &account, .param = {PROJECT("tenant"), PATH_ID("service_account_id", "svc_")},
     .fixed = "\"revoked\":false", .about = "Retrieve a service account"},
    {"DELETE", PROJECT_PATH "/service_accounts/{service_account_id}", WHO_OPERATES, "key.revoke",
     ANSWERS_OBJECT, &account_deleted, .param = {PROJECT("tenant"), PATH_ID("service_account_id", "svc_")},
     .about = "Delete a service account, and its API key"},

    {"GET", "/organization/usage/completions", WHO_READS, "usage.days", ANSWERS_OBJECT, &usage_page,
     .param = {TIMES, PROJECTS, KEYS, MODELS, USAGE_GROUPS, LIMIT(7, 31)},
     .about = "Usage of completions by day"},
    {"GET", "/organization/costs", WHO_READS, "cost.days", ANSWERS_OBJECT, &cost_page,
     .param = {TIMES, PROJECTS, KEYS, COST_GROUPS, LIMIT(7, 180)},
     .about = "What was charged by day, each currency by itself"},

    {"GET", "/organization/admin_api_keys", WHO_OWNS, "admin.key.list", ANSWERS_LIST, &admin_key,
     .param = {LIMIT(20, 100), AFTER("adm_")}, .about = "List admin API keys, the oldest first"},
    {"POST", "/organization/admin_api_keys", WHO_OWNS, "admin.key.create", ANSWERS_OBJECT, &admin_key_created,
     .param = {TITLE,
               {"role", NULL, IN_BODY, TYPE_CHOICE, true, "owner|operator|billing|read-only"},
               {"expires_in_seconds", "expires_in", IN_BODY, TYPE_INT, .least = 1, .most = 31536000}},
     .about = "Create an admin API key"},
    {"GET", "/organization/admin_api_keys/{key_id}", WHO_OWNS, "admin.key.show", ANSWERS_OBJECT, &admin_key,
     .param = {PATH_ID("key_id", "adm_")}, .about = "Retrieve an admin API key"},
    {"DELETE", "/organization/admin_api_keys/{key_id}", WHO_OWNS, "admin.key.revoke", ANSWERS_OBJECT,
     &admin_key_deleted, .param = {PATH_ID("key_id", "adm_")},
     .about = "Delete an admin API key: it stops working at once"},
    {"GET", "/organization/audit_logs", WHO_OWNS, "admin.audit", ANSWERS_LIST, &audit,
     .param = {LIMIT(20, 100),
               AFTER("audit_"),
               {"effective_at[gte]", "from", IN_QUERY, TYPE_INT, .least = 0, .most = LATEST},
               {"effective_at[lt]", "to", IN_QUERY, TYPE_INT, .least = 0, .most = LATEST},
               {"operation", NULL, IN_QUERY, TYPE_NAME, .least = 1, .most = 63},
               {"target", NULL, IN_QUERY, TYPE_NAME, .least = 1, .most = 199}},
     .about = "Every change of the books and who made it, the newest first; refused ones, too"},

    {"GET", "/prices", WHO_READS, "price.list", ANSWERS_LIST, &price_version,
     .param = {LIMIT(20, 100), AFTER("price_")}, .about = "List the versions of all prices"},
    {"POST", "/prices", WHO_BILLS, "price.set", ANSWERS_OBJECT, &price_version,
     .param = {MODEL,
               CURRENCY,
               {"input", NULL, IN_BODY, TYPE_PRICE, true, .about = "of a million tokens, as all three"},
               {"cached", NULL, IN_BODY, TYPE_PRICE, .about = "as input if it is left out"},
               {"output", NULL, IN_BODY, TYPE_PRICE, true}},
     .about = "Set a model's price from now on"},
    {"GET", "/prices/rates", WHO_READS, "price.rates", ANSWERS_WHOLE, &rate,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "List the versions of all exchange rates"},
    {"POST", "/prices/rates", WHO_BILLS, "price.rate", ANSWERS_OBJECT, &rate,
     .param = {{"base", NULL, IN_BODY, TYPE_CURRENCY, true},
               {"quote", NULL, IN_BODY, TYPE_CURRENCY, true},
               ABOVE_ZERO("rate", true, "of the quote for one of the base")},
     .about = "Set an exchange rate from now on"},
    {"POST", "/prices/import", WHO_BILLS, "price.import", ANSWERS_OBJECT, &prices_imported,
     .param = {CURRENCY,
               {"since", NULL, IN_BODY, TYPE_DAY, .about = "a later day; at once if left out"},
               {"note", NULL, IN_BODY, TYPE_TEXT, .least = 1, .most = 125},
               {"prices", NULL, IN_BODY, TYPE_JSON, true, SCHEMA_PRICES}},
     .about =
         "Set many models' prices, of a token, as LiteLLM's list has them: all, or none where one has more "
         "than 12 decimals",
     .most_body = 512 << 10},
    {"GET", "/prices/comparison", WHO_CHECKS, "price.compare", ANSWERS_OBJECT, &comparison,
     .param = {{"model", NULL, IN_QUERY, TYPE_TEXT, .least = 1, .most = 48},
               {"against", NULL, IN_QUERY, TYPE_TEXT, .least = 1, .most = 60,
                .about = "a part of a provider's or a model's name, or a class; all if left out"},
               PERIOD(IN_QUERY)},
     .about = "Prices beside those that others ask"},
    {"POST", "/prices/suggestion", WHO_OWNS, "price.suggest", ANSWERS_OBJECT, &suggestion,
     .param = {OWN("margin", true, 1),
               {"model", NULL, IN_BODY, TYPE_TEXT, .least = 1, .most = 48},
               OWN("cached", false, 1),
               OWN("use", false, 1),
               PERIOD(IN_BODY),
               {"set", NULL, IN_BODY, TYPE_BOOL, .about = "put them into the price book"}},
     .about = "Prices that pay for the machines, from what was measured"},

    {"GET", "/ledger/transfers", WHO_CHECKS, "ledger.list", ANSWERS_LIST, &transfer,
     .param = {LIMIT(20, 100),
               {"after", "before", IN_QUERY, TYPE_ID, .words = "transfer_",
                .about = "last_id of the page before"},
               PROJECT_NAME(IN_QUERY),
               {"account", NULL, IN_QUERY, TYPE_NAME, .least = 1, .most = 63}},
     .about = "The latest transfers, of one project or account if it is named"},
    {"POST", "/ledger/transfers", WHO_BILLS, "ledger.transfer", ANSWERS_OBJECT, &movement,
     .param = {{"name", "transfer", IN_BODY, TYPE_TEXT, .least = 1, .most = 25,
                .about = "the same again moves nothing"},
               ACCOUNT("debit"),
               ACCOUNT("credit"),
               ABOVE_ZERO("amount", true, "in the accounts' currency"),
               {"note", NULL, IN_BODY, TYPE_TEXT, .least = 1, .most = 125},
               {"pending", NULL, IN_BODY, TYPE_BOOL, .about = "set it aside, to be posted or voided"},
               {"expires_in_seconds", "expires", IN_BODY, TYPE_INT, .least = 1, .most = 31536000,
                .about = "a pending one"}},
     .about = "Move money from one account to another"},
    {"GET", "/ledger/transfers/{transfer_name}", WHO_CHECKS, "ledger.show", ANSWERS_WHOLE, &transfer,
     .param = {TRANSFER}, .about = "A transfer, and those about it"},
    {"POST", "/ledger/transfers/{transfer_name}/post", WHO_BILLS, "ledger.post", ANSWERS_OBJECT, &movement,
     .param = {TRANSFER, MONEY("amount", false)}, .about = "Post a pending transfer: all of it, or less"},
    {"POST", "/ledger/transfers/{transfer_name}/void", WHO_BILLS, "ledger.void", ANSWERS_OBJECT, &movement,
     .param = {TRANSFER}, .about = "Void a pending transfer"},
    {"POST", "/ledger/transfers/{transfer_name}/reverse", WHO_BILLS, "ledger.reverse", ANSWERS_OBJECT,
     &movement, .param = {TRANSFER, {"reason", NULL, IN_BODY, TYPE_TEXT, true, .least = 1, .most = 125}},
     .about = "Reverse a transfer by another one"},
    {"POST", "/ledger/accounts", WHO_BILLS, "ledger.account", ANSWERS_OBJECT, &ledger_account,
     .param = {ACCOUNT("account"),
               {"currency", NULL, IN_BODY, TYPE_CURRENCY, .about = "of one that is made"},
               {"overdraft", NULL, IN_BODY, TYPE_CHOICE, .words = "yes|no"},
               {"closed", NULL, IN_BODY, TYPE_CHOICE, .words = "yes|no"},
               MONEY("line", false)},
     .about = "Make an account, or change what it may do"},
    {"GET", "/ledger/accounts", WHO_CHECKS, "ledger.accounts", ANSWERS_WHOLE, &ledger_account,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "Every account, and what is on it"},
    {"GET", "/ledger/balance", WHO_CHECKS, "ledger.balance", ANSWERS_WHOLE, &trial_balance,
     .about = "The trial balance of each currency"},
    {"GET", "/ledger/zone", WHO_CHECKS, "ledger.zone", ANSWERS_OBJECT, &zone,
     .about = "Where days and months of the books begin"},
    {"POST", "/ledger/zone", WHO_OWNS, "ledger.zone", ANSWERS_OBJECT, &zone,
     .param = {{"zone", NULL, IN_BODY, TYPE_JSON, true, SCHEMA_ZONE}},
     .about = "Say where days and months of the books begin, from now on"},
    {"GET", "/ledger/verification", WHO_CHECKS, "ledger.verify", ANSWERS_OBJECT, &verification,
     .about = "Check the whole ledger"},

    {"GET", PROJECT_PATH "/rate_limits", WHO_READS, "limit.show", ANSWERS_ONE, &rate_limit,
     .param = {PROJECT("tenant")}, .about = "A project's rate limit, which is one for all models"},
    {"POST", PROJECT_PATH "/rate_limits/{rate_limit_id}", WHO_OPERATES, "limit.set", ANSWERS_OBJECT,
     &rate_limit,
     .param = {PROJECT("tenant"),
               {"rate_limit_id", "", IN_PATH, TYPE_CHOICE, true, "rl_all"},
               {"max_requests_per_1_minute", "requests_per_minute", IN_BODY, TYPE_INT, .most = 1000000000},
               {"max_tokens_per_1_minute", "tokens_per_minute", IN_BODY, TYPE_INT, .most = 1000000000}},
     .about = "Change a project's rate limit"},
    {"GET", PROJECT_PATH "/limits", WHO_READS, "limit.show", ANSWERS_WHOLE, &limits,
     .param = {PROJECT("tenant")}, .about = "All limits of a project, and of its keys that have some"},
    {"POST", PROJECT_PATH "/limits", WHO_OPERATES, "limit.set", ANSWERS_OBJECT, &limits,
     .param = {PROJECT("tenant"), LIMITS, MONEY("credit_low", false)},
     .about = "Change a project's limits: what is left out stays"},
    {"GET", PROJECT_PATH "/api_keys/{api_key_id}/limits", WHO_READS, "limit.show", ANSWERS_OBJECT, &limits,
     .param = {PROJECT("tenant"), KEY}, .about = "A key's own limits, beside its project's"},
    {"POST", PROJECT_PATH "/api_keys/{api_key_id}/limits", WHO_OPERATES, "limit.set", ANSWERS_OBJECT, &limits,
     .param = {PROJECT("tenant"),
               KEY,
               LIMITS,
               {"expires_at", "expires", IN_BODY, TYPE_INT, .most = LATEST, .about = "0: never"}},
     .about = "Change a key's own limits: what is left out stays"},

    {"GET", "/invoices", WHO_CHECKS, "invoice.list", ANSWERS_WHOLE, &invoice,
     .param = {LIMIT(20, 100), AFTER_WHOLE, PROJECT_NAME(IN_QUERY)},
     .about = "List invoices and credit notes, the oldest first"},
    {"POST", "/invoices", WHO_BILLS, "invoice.create", ANSWERS_WHOLE, &invoice,
     .param = {PROJECT_NAME(IN_BODY), MONTH(IN_BODY, false)},
     .about =
         "Issue the invoices of a closed month, the newest if none is named: one project's, or those of all "
         "that have none"},
    {"GET", "/invoices/{number}/verification", WHO_CHECKS, "invoice.verify", ANSWERS_OBJECT,
     &invoice_verification, .param = {NUMBER},
     .about = "Make an invoice again from the journal, and compare"},
    {"GET", "/invoices/{number}", WHO_CHECKS, "invoice.show", ANSWERS_OBJECT, &invoice_document,
     .param = {NUMBER}, .about = "The document as it was issued"},
    {"POST", "/invoices/{number}/cancel", WHO_BILLS, "invoice.cancel", ANSWERS_OBJECT, &invoice,
     .param = {NUMBER, {"reason", NULL, IN_BODY, TYPE_TEXT, true, .least = 1, .most = 60}},
     .about = "Cancel an invoice by a credit note, which is the answer"},
    {"GET", "/invoices/{number}/status", WHO_CHECKS, "invoice.status", ANSWERS_OBJECT, &invoice,
     .param = {NUMBER}, .about = "What is paid of an invoice and what is left, as in the list"},
    {"POST", "/invoices/{number}/payments", WHO_BILLS, "invoice.pay", ANSWERS_OBJECT, &invoice_payment,
     .param = {NUMBER,
               ABOVE_ZERO("amount", false, "all that is left if it is left out"),
               PAYMENT("the same again pays nothing"),
               {"paid_on", "date", IN_BODY, TYPE_DAY, .about = "today if left out"}},
     .about = "Write down that an invoice was paid, or a part of it"},
    {"GET", "/billing/issuer", WHO_CHECKS, "invoice.issuer", ANSWERS_OBJECT, &billing_profile,
     .about = "Who sends the invoices"},
    {"POST", "/billing/issuer", WHO_BILLS, "invoice.issuer", ANSWERS_OBJECT, &billing_profile,
     .param = {PROFILE(SCHEMA_ISSUER)}, .about = "Say who sends the invoices, from the next one on"},
    {"GET", "/billing/tax_rules", WHO_CHECKS, "invoice.rules", ANSWERS_OBJECT, &tax_rules_kept,
     .about = "The tax rules, own ones and those of the program"},
    {"POST", "/billing/tax_rules", WHO_BILLS, "invoice.rules", ANSWERS_OBJECT, &tax_rules_kept,
     .param = {PROFILE(SCHEMA_RULES)}, .about = "Keep tax rules that come before the program's"},
    {"GET", "/exports/focus", WHO_CHECKS, "export.focus", ANSWERS_OBJECT, &focus_page,
     .param = {MONTH(IN_QUERY, true),
               PROJECT_NAME(IN_QUERY),
               {"version", NULL, IN_QUERY, TYPE_CHOICE, .words = "1.2"},
               {"rows", NULL, IN_QUERY, TYPE_INT, .least = 1, .most = 2000, .about = "about so many a page"},
               {"page", "after", IN_QUERY, TYPE_TEXT, .least = 1, .most = 2000,
                .about = "next_page of the page before"}},
     .about = "A month's usage and cost in the columns of FinOps FOCUS, page by page"},
    {"GET", "/exports/events", WHO_CHECKS, "export.events", ANSWERS_OBJECT, &events_page,
     .param = {{"after", NULL, IN_QUERY, TYPE_INT, .most = 1000000000000000000,
                .about = "the number of a transfer; from the first on if left out"},
               PROJECT_NAME(IN_QUERY),
               {"rows", NULL, IN_QUERY, TYPE_INT, .least = 1, .most = 2000, .about = "about so many a page"}},
     .about = "Finished requests as CloudEvents, page by page in the journal's order"},
    {"GET", "/periods", WHO_CHECKS, "close.list", ANSWERS_WHOLE, &period,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "List the months of the books, the oldest first"},
    {"GET", "/periods/{month}", WHO_CHECKS, "close.show", ANSWERS_OBJECT, &statement,
     .param = {MONTH(IN_PATH, true)}, .about = "A closed month's statement"},
    {"POST", "/periods/{month}/close", WHO_BILLS, "close", ANSWERS_OBJECT, &statement,
     .param = {MONTH(IN_PATH, true)}, .about = "Close a month that is over, and sign its statement"},
    {"GET", "/periods/{month}/verification", WHO_CHECKS, "close.verify", ANSWERS_OBJECT, &verification,
     .param = {MONTH(IN_PATH, true)}, .about = "Close a month again from the journal, and compare"},

    {"GET", "/owner/report", WHO_OWNS, "owner.report", ANSWERS_OBJECT, &owner_report,
     .param = {PERIOD(IN_QUERY)}, .about = "What the machines cost and what they earn"},
    {"GET", "/owner/assets", WHO_OWNS, "owner.asset.list", ANSWERS_WHOLE, &asset,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "What was bought, the oldest first"},
    {"POST", "/owner/assets", WHO_OWNS, "owner.asset.add", ANSWERS_OBJECT, &asset,
     .param = {TITLE,
               CURRENCY,
               OWN("price", true, MOST_OWN),
               OWN("residual", false, MOST_OWN),
               {"life_months", "life", IN_BODY, TYPE_INT, true, .least = 1, .most = 1200},
               {"bought", NULL, IN_BODY, TYPE_DAY, .about = "today if left out"},
               OWN("chips", false, 10000000),
               OWN("watts", false, MOST_OWN),
               {"pue", NULL, IN_BODY, TYPE_NUMBER, .least = 1, .most = 10},
               OWN("kwh", false, MOST_OWN),
               OWN("operation", false, 10),
               OWN("discount", false, 10),
               {"method", NULL, IN_BODY, TYPE_CHOICE, .words = "straight|declining"},
               {"measured", NULL, IN_BODY, TYPE_BOOL, .about = "the chip's meter says what it draws"}},
     .about = "Add a machine: its price, life and power"},
    {"POST", "/owner/assets/{name}/retire", WHO_OWNS, "owner.asset.retire", ANSWERS_OBJECT, &asset,
     .param = {THING, ON, OWN("sold", false, MOST_OWN)}, .about = "Retire a machine, sold or not"},
    {"GET", "/owner/expenses", WHO_OWNS, "owner.expense.list", ANSWERS_WHOLE, &expense,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "What is paid again and again, the oldest first"},
    {"POST", "/owner/expenses", WHO_OWNS, "owner.expense.add", ANSWERS_OBJECT, &expense,
     .param = {TITLE,
               CURRENCY,
               OWN("amount", true, MOST_OWN),
               {"per", NULL, IN_BODY, TYPE_CHOICE, .words = "month|year"},
               {"from", NULL, IN_BODY, TYPE_DAY, .about = "today if left out"}},
     .about = "Add an expense of a month or a year"},
    {"POST", "/owner/expenses/{name}/end", WHO_OWNS, "owner.expense.end", ANSWERS_OBJECT, &expense,
     .param = {THING, ON}, .about = "End an expense"},

    {"GET", "/nodes", WHO_READS, "node.list", ANSWERS_WHOLE, &node, .param = {LIMIT(20, 100), AFTER_WHOLE},
     .about = "List the nodes that share the books"},
    {"DELETE", "/nodes/{name}", WHO_OPERATES, "node.remove", ANSWERS_OBJECT, &node_removed, .param = {THING},
     .about = "Settle what a node that is gone had open"},
    {"GET", "/webhooks", WHO_OPERATES, "webhook.list", ANSWERS_WHOLE, &webhook,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "List webhooks"},
    {"POST", "/webhooks", WHO_OPERATES, "webhook.add", ANSWERS_OBJECT, &webhook_created,
     .param = {{"url", NULL, IN_BODY, TYPE_TEXT, true, .least = 1, .most = 511},
               {"events", NULL, IN_BODY, TYPE_CHOICES,
                .words = "credit.exhausted|credit.low|spend.limit_reached|spend.threshold|webhook.test",
                .about = "all if left out or empty"},
               PROJECT_NAME(IN_BODY)},
     .about = "Add a webhook: of one project, or of all"},
    {"POST", "/webhooks/{webhook_id}/test", WHO_OPERATES, "webhook.test", ANSWERS_OBJECT, &webhook_tested,
     .param = {PATH_ID("webhook_id", "webhook_")}, .about = "Send a webhook a test event"},
    {"GET", "/webhooks/{webhook_id}/deliveries", WHO_OPERATES, "webhook.deliveries", ANSWERS_WHOLE, &delivery,
     .param = {PATH_ID("webhook_id", "webhook_"), LIMIT(20, 100), AFTER_WHOLE},
     .about = "A webhook's last hundred deliveries, the newest first"},
    {"DELETE", "/webhooks/{webhook_id}", WHO_OPERATES, "webhook.remove", ANSWERS_OBJECT, &webhook_deleted,
     .param = {PATH_ID("webhook_id", "webhook_")}, .about = "Disable a webhook"},
    {NULL}};

static const struct api_route tenant_routes[] = {
    {"GET", "/organization/usage/completions", ROLE_TENANT, "usage.days", ANSWERS_OBJECT, &usage_page,
     .param = {TIMES, KEYS, MODELS, USAGE_GROUPS, LIMIT(7, 31)}, .about = "Your own usage by day"},
    {"GET", "/organization/costs", ROLE_TENANT, "cost.days", ANSWERS_OBJECT, &cost_page,
     .param = {TIMES, KEYS, COST_GROUPS, LIMIT(7, 180)}, .about = "What you were charged by day"},
    {NULL}};

extern const unsigned char openai_api[]; /* data/openai-api.json */
extern const size_t openai_api_bytes;

const struct api admin_api = {"/admin/v1", "unkai administration",
                              "Tenants, keys, usage, prices and the books of an unkai cloud.", admin_routes};
const struct api tenant_api = {"/v1",
                               "unkai",
                               "Models, and what a tenant may ask of an unkai cloud about itself.",
                               tenant_routes,
                               openai_api,
                               &openai_api_bytes,
                               openai_write_schemas};
