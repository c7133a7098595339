/* What the admin API and the tenants' view of their own usage are, row by row; api.h says how a row is read. */
#include "gateway/api.h"

/* ---- what comes back ---- */

#define OBJECT(value) \
    { "object", FORM_IS, NULL, value }
#define NOTHING(name) \
    { name, FORM_IS, .nullable = true }
#define DELETED(value, prefix)                                                             \
    (const struct field[]) {                                                               \
        {"id", FORM_ID, NULL, prefix}, OBJECT(value), {"deleted", FORM_BOOL, "revoked"}, { \
            NULL                                                                           \
        }                                                                                  \
    }

static const struct shape project = {
    "Project", (const struct field[]){{"id", FORM_ID, NULL, "proj_"},
                                      OBJECT("organization.project"),
                                      {"name", FORM_TEXT, .about = "what the commands call the tenant"},
                                      {"created_at", FORM_TIME, "created"},
                                      {"archived_at", FORM_TIME, "archived", .nullable = true},
                                      {"status", FORM_EITHER, "archived", "active|archived"},
                                      {"currency", FORM_TEXT, .about = "of its account: an ISO 4217 code"},
                                      {"balance", FORM_MONEY},
                                      {"held", FORM_MONEY, .about = "set aside for requests that run"},
                                      {"available", FORM_MONEY},
                                      {NULL}}};

static const struct shape key_account = {"ProjectApiKeyOwnerServiceAccount",
                                         (const struct field[]){{"id", FORM_ID, NULL, "svc_"},
                                                                {"name", FORM_TEXT},
                                                                {"created_at", FORM_TIME, "created"},
                                                                {"role", FORM_IS, NULL, "member"},
                                                                {NULL}}};

static const struct shape key_owner = {
    "ProjectApiKeyOwner", (const struct field[]){{"type", FORM_IS, NULL, "service_account"},
                                                 {"service_account", FORM_INSIDE, .shape = &key_account},
                                                 {NULL}}};

static const struct shape project_key = {
    "ProjectApiKey", (const struct field[]){{"id", FORM_ID, NULL, "key_"},
                                            OBJECT("organization.project.api_key"),
                                            {"name", FORM_TEXT},
                                            {"redacted_value", FORM_IS, NULL, "uk-...",
                                             .about = "the books know its hash alone"},
                                            {"created_at", FORM_TIME, "created"},
                                            NOTHING("last_used_at"),
                                            {"owner_project_access", FORM_IS, NULL, "active"},
                                            {"owner", FORM_INSIDE, .shape = &key_owner},
                                            {NULL}}};

static const struct shape project_key_deleted = {"ProjectApiKeyDeleted",
                                                 DELETED("organization.project.api_key.deleted", "key_")};

static const struct shape account = {"ProjectServiceAccount",
                                     (const struct field[]){{"id", FORM_ID, NULL, "svc_"},
                                                            OBJECT("organization.project.service_account"),
                                                            {"name", FORM_TEXT},
                                                            {"role", FORM_IS, NULL, "member"},
                                                            {"created_at", FORM_TIME, "created"},
                                                            {NULL}}};

static const struct shape account_key = {
    "ProjectServiceAccountApiKey",
    (const struct field[]){{"id", FORM_ID, NULL, "key_"},
                           OBJECT("organization.project.service_account.api_key"),
                           {"name", FORM_TEXT},
                           {"created_at", FORM_TIME, "created"},
                           {"value", FORM_TEXT, "key", .about = "the key itself, shown this once"},
                           {NULL}}};

static const struct shape account_created = {
    "ProjectServiceAccountCreated", (const struct field[]){{"id", FORM_ID, NULL, "svc_"},
                                                           OBJECT("organization.project.service_account"),
                                                           {"name", FORM_TEXT},
                                                           {"role", FORM_IS, NULL, "member"},
                                                           {"created_at", FORM_TIME, "created"},
                                                           {"api_key", FORM_INSIDE, .shape = &account_key},
                                                           {NULL}}};

static const struct shape account_deleted = {"ProjectServiceAccountDeleted",
                                             DELETED("organization.project.service_account.deleted", "svc_")};

static const struct shape admin_owner = {"AdminApiKeyOwner",
                                         (const struct field[]){{"type", FORM_IS, NULL, "service_account"},
                                                                OBJECT("organization.service_account"),
                                                                {"id", FORM_ID, NULL, "adm_"},
                                                                {"name", FORM_TEXT},
                                                                {"created_at", FORM_TIME, "created"},
                                                                {"role", FORM_TEXT},
                                                                {NULL}}};

#define ADMIN_KEY                                                                             \
    {"id", FORM_ID, NULL, "adm_"}, OBJECT("organization.admin_api_key"), {"name", FORM_TEXT}, \
        {"redacted_value", FORM_IS, NULL, "uka-..."}, {"created_at", FORM_TIME, "created"},   \
        {"expires_at", FORM_TIME, "expires", .nullable = true}, NOTHING("last_used_at"), {    \
        "owner", FORM_INSIDE, .shape = &admin_owner                                           \
    }

static const struct shape admin_key = {"AdminApiKey", (const struct field[]){ADMIN_KEY, {NULL}}};

static const struct shape admin_key_created = {
    "AdminApiKeyCreated",
    (const struct field[]){
        ADMIN_KEY, {"value", FORM_TEXT, "key", .about = "the key itself, shown this once"}, {NULL}}};

static const struct shape admin_key_deleted = {"AdminApiKeyDeleted",
                                               DELETED("organization.admin_api_key.deleted", "adm_")};

static const struct shape audit_key = {
    "AuditLogActorApiKey",
    (const struct field[]){
        {"id", FORM_ID, "key", "adm_"},
        {"type", FORM_IS, NULL, "service_account"},
        {"service_account", FORM_INSIDE,
         .shape = &(const struct shape){"AuditLogActorServiceAccount",
                                        (const struct field[]){{"id", FORM_ID, "key", "adm_"},
                                                               {"name", FORM_TEXT, "actor"},
                                                               {NULL}}}},
        {NULL}}};

static const struct shape audit_actor = {
    "AuditLogActor",
    (const struct field[]){{"type", FORM_EITHER, "key", "session|api_key",
                            .about = "session: a command on the server's machine"},
                           {"api_key", FORM_INSIDE, .more = "key", .shape = &audit_key, .nullable = true},
                           {NULL}}};

static const struct shape audit = {
    "AuditLog", (const struct field[]){{"id", FORM_ID, NULL, "audit_"},
                                       OBJECT("organization.audit_log"),
                                       {"type", FORM_EVENT, "operation"},
                                       {"effective_at", FORM_TIME, "at"},
                                       {"actor", FORM_INSIDE, .shape = &audit_actor},
                                       {"role", FORM_TEXT, .about = "of the key, then"},
                                       {"operation", FORM_TEXT},
                                       {"target", FORM_TEXT, .nullable = true},
                                       {"request", FORM_ANY, .about = "its arguments, without secrets"},
                                       {"outcome", FORM_TEXT, .about = "ok, or why it was refused"},
                                       {NULL}}};

static const struct shape usage_result = {
    "UsageCompletionsResult",
    (const struct field[]){OBJECT("organization.usage.completions.result"),
                           {"input_tokens", FORM_INT, "prompt"},
                           {"input_cached_tokens", FORM_INT, "cached"},
                           {"input_uncached_tokens", FORM_INT, "uncached"},
                           {"output_tokens", FORM_INT, "completion"},
                           {"num_model_requests", FORM_INT, "requests"},
                           {"project_id", FORM_ID, "tenant", "proj_", .nullable = true},
                           NOTHING("user_id"),
                           {"api_key_id", FORM_ID, "key", "key_", .nullable = true},
                           {"model", FORM_TEXT, .nullable = true},
                           NOTHING("batch"),
                           NOTHING("service_tier"),
                           {"chip_seconds", FORM_NUMBER},
                           {NULL}}};

static const struct shape cost_amount = {
    "CostsAmount",
    (const struct field[]){{"value", FORM_AMOUNT, "charge"}, {"currency", FORM_LOWER}, {NULL}}};

static const struct shape cost_result = {
    "CostsResult", (const struct field[]){OBJECT("organization.costs.result"),
                                          {"amount", FORM_INSIDE, .shape = &cost_amount},
                                          {"line_item", FORM_TEXT, "model", .nullable = true},
                                          {"project_id", FORM_ID, "tenant", "proj_", .nullable = true},
                                          {"api_key_id", FORM_ID, "key", "key_", .nullable = true},
                                          {NULL}}};

#define BUCKET(result)                                                                      \
    (const struct field[]) {                                                                \
        OBJECT("bucket"), {"start_time", FORM_INT, "start"}, {"end_time", FORM_INT, "end"}, \
            {"results", FORM_LIST, .shape = (result)}, {                                    \
            NULL                                                                            \
        }                                                                                   \
    }
#define PAGE(bucket)                                                                                        \
    (const struct field[]) {                                                                                \
        OBJECT("page"), {"data", FORM_LIST, "buckets", .shape = (bucket)}, {"has_more", FORM_BOOL, "next"}, \
            {"next_page", FORM_ID, "next", "page_", .nullable = true}, {                                    \
            NULL                                                                                            \
        }                                                                                                   \
    }

static const struct shape usage_bucket = {"UsageBucket", BUCKET(&usage_result)};
static const struct shape usage_page = {"UsagePage", PAGE(&usage_bucket)};
static const struct shape cost_bucket = {"CostsBucket", BUCKET(&cost_result)};
static const struct shape cost_page = {"CostsPage", PAGE(&cost_bucket)};

static const struct shape price_version = {
    "Price", (const struct field[]){{"id", FORM_ID, NULL, "price_"},
                                    OBJECT("price"),
                                    {"model", FORM_TEXT},
                                    {"currency", FORM_TEXT},
                                    {"input", FORM_MONEY, .about = "of a million tokens, as all three"},
                                    {"cached", FORM_MONEY},
                                    {"output", FORM_MONEY},
                                    {"since", FORM_TIME},
                                    {NULL}}};

static const struct shape transfer = {
    "Transfer",
    (const struct field[]){{"id", FORM_ID, "seq", "transfer_", .about = "its place in the journal"},
                           OBJECT("ledger.transfer"),
                           {"name", FORM_TEXT, "id", .about = "as whoever made it chose"},
                           {"created_at", FORM_TIME, "at"},
                           {"phase", FORM_TEXT},
                           {"kind", FORM_TEXT},
                           {"about", FORM_TEXT, .nullable = true},
                           {"note", FORM_TEXT, .nullable = true},
                           {"debit", FORM_TEXT, .about = "an account"},
                           {"credit", FORM_TEXT},
                           {"amount", FORM_MONEY},
                           {"currency", FORM_TEXT},
                           {"hash", FORM_TEXT},
                           {NULL}}};

static const struct shape ledger_account = {"LedgerAccount",
                                            (const struct field[]){{"id", FORM_TEXT, "name"},
                                                                   OBJECT("ledger.account"),
                                                                   {"currency", FORM_TEXT},
                                                                   {"balance", FORM_MONEY},
                                                                   {"pending_debit", FORM_MONEY},
                                                                   {"pending_credit", FORM_MONEY},
                                                                   {"line", FORM_MONEY},
                                                                   {"overdraft", FORM_BOOL},
                                                                   {"closed", FORM_BOOL},
                                                                   {NULL}}};

static const struct shape trial_balance = {"TrialBalance",
                                           (const struct field[]){{"id", FORM_TEXT, "currency"},
                                                                  OBJECT("ledger.balance"),
                                                                  {"accounts", FORM_INT},
                                                                  {"debit", FORM_MONEY},
                                                                  {"credit", FORM_MONEY},
                                                                  {"ok", FORM_BOOL},
                                                                  {NULL}}};

static const struct shape rate_limit = {
    "ProjectRateLimit",
    (const struct field[]){
        {"id", FORM_IS, NULL, "rl_all"},
        {"object", FORM_IS, NULL, "project.rate_limit"},
        {"model", FORM_IS, NULL, "*", .about = "all models together"},
        {"max_requests_per_1_minute", FORM_INT, "requests_per_minute", .about = "0: no limit"},
        {"max_tokens_per_1_minute", FORM_INT, "tokens_per_minute", .about = "0: no limit"},
        {NULL}}};

static const struct shape limits = {
    "ProjectLimits",
    (const struct field[]){{"id", FORM_ID, "key", "key_", .nullable = true, .about = "null: of the project"},
                           {"object", FORM_IS, NULL, "project.limits"},
                           {"requests_per_minute", FORM_INT, .about = "0 is no limit, in all of these"},
                           {"tokens_per_minute", FORM_INT},
                           {"concurrency", FORM_INT},
                           {"spend_day", FORM_ANY},
                           {"spend_month", FORM_ANY},
                           {"credit_low", FORM_ANY},
                           {"currency", FORM_TEXT},
                           {"models", FORM_ANY},
                           {"addresses", FORM_ANY},
                           {"warn", FORM_ANY},
                           {"used", FORM_ANY},
                           {NULL}}};

static const struct shape invoice = {"Invoice", (const struct field[]){{"id", FORM_TEXT, "number"},
                                                                       OBJECT("invoice"),
                                                                       {"kind", FORM_TEXT},
                                                                       {"project", FORM_TEXT, "tenant"},
                                                                       {"month", FORM_TEXT},
                                                                       {"about", FORM_TEXT, .nullable = true},
                                                                       {"issued_at", FORM_TIME, "issued"},
                                                                       {"currency", FORM_TEXT},
                                                                       {"net", FORM_MONEY},
                                                                       {"tax", FORM_MONEY},
                                                                       {"total", FORM_MONEY},
                                                                       {NULL}}};

static const struct shape invoice_document = {
    "InvoiceDocument",
    (const struct field[]){OBJECT("invoice.document"), {"document", FORM_ANY, "."}, {NULL}}};

static const struct shape period = {
    "Period", (const struct field[]){{"id", FORM_TEXT, "month"},
                                     OBJECT("period"),
                                     {"first_seq", FORM_INT},
                                     {"last_seq", FORM_INT},
                                     {"closed_at", FORM_TIME, "closed", .nullable = true},
                                     {"root", FORM_TEXT, .nullable = true},
                                     {NULL}}};

static const struct shape owner_report = {
    "OwnerReport", (const struct field[]){OBJECT("owner.report"), {"report", FORM_ANY, "."}, {NULL}}};

static const struct shape rate = {"ExchangeRate", (const struct field[]){{"id", FORM_ID, NULL, "rate_"},
                                                                         OBJECT("exchange_rate"),
                                                                         {"base", FORM_TEXT},
                                                                         {"quote", FORM_TEXT},
                                                                         {"rate", FORM_MONEY},
                                                                         {"since", FORM_TIME},
                                                                         {NULL}}};

static const struct shape webhook = {
    "Webhook", (const struct field[]){{"id", FORM_ID, NULL, "webhook_"},
                                      OBJECT("webhook"),
                                      {"url", FORM_TEXT},
                                      {"events", FORM_ANY},
                                      {"project", FORM_TEXT, "tenant", .nullable = true},
                                      {"created_at", FORM_TIME, "created"},
                                      {"disabled", FORM_BOOL},
                                      {NULL}}};

static const struct shape webhook_deleted = {"WebhookDeleted",
                                             (const struct field[]){{"id", FORM_ID, NULL, "webhook_"},
                                                                    OBJECT("webhook.deleted"),
                                                                    {"deleted", FORM_BOOL, "disabled"},
                                                                    {NULL}}};

static const struct shape verification = {
    "LedgerVerification",
    (const struct field[]){OBJECT("ledger.verification"),
                           {"ok", FORM_BOOL},
                           {"root", FORM_TEXT, .about = "the chain's head: keep it elsewhere"},
                           {"transfers", FORM_INT, .about = "that were checked"},
                           {"wrong", FORM_ANY, .about = "a sentence for each thing that is wrong"},
                           {NULL}}};

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
               {"payment", NULL, IN_BODY, TYPE_TEXT, .least = 1, .most = 25,
                .about = "the payment's own name: the same again adds nothing"}},
     .about = "Add prepaid credit"},

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
               {"rate", NULL, IN_BODY, TYPE_MONEY, true, .about = "of the quote for one of the base"}},
     .about = "Set an exchange rate from now on"},

    {"GET", "/ledger/transfers", WHO_CHECKS, "ledger.list", ANSWERS_LIST, &transfer,
     .param = {LIMIT(20, 100),
               {"after", "before", IN_QUERY, TYPE_ID, .words = "transfer_",
                .about = "last_id of the page before"},
               {"project", "tenant", IN_QUERY, TYPE_NAME, .least = 1, .most = 63},
               {"account", NULL, IN_QUERY, TYPE_NAME, .least = 1, .most = 63}},
     .about = "The latest transfers, of one project or account if it is named"},
    {"GET", "/ledger/accounts", WHO_CHECKS, "ledger.accounts", ANSWERS_WHOLE, &ledger_account,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "Every account, and what is on it"},
    {"GET", "/ledger/balance", WHO_CHECKS, "ledger.balance", ANSWERS_WHOLE, &trial_balance,
     .about = "The trial balance of each currency"},
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
     .param = {PROJECT("tenant"),
               {"requests_per_minute", NULL, IN_BODY, TYPE_INT, .most = 1000000000},
               {"tokens_per_minute", NULL, IN_BODY, TYPE_INT, .most = 1000000000},
               {"concurrency", NULL, IN_BODY, TYPE_INT, .most = 1000000000},
               {"spend_day", NULL, IN_BODY, TYPE_MONEY},
               {"spend_month", NULL, IN_BODY, TYPE_MONEY},
               {"credit_low", NULL, IN_BODY, TYPE_MONEY}},
     .about = "Change a project's limits: what is left out stays"},

    {"GET", "/invoices", WHO_CHECKS, "invoice.list", ANSWERS_WHOLE, &invoice,
     .param = {LIMIT(20, 100),
               AFTER_WHOLE,
               {"project", "tenant", IN_QUERY, TYPE_NAME, .least = 1, .most = 63}},
     .about = "List invoices and credit notes, the oldest first"},
    {"GET", "/invoices/{number}", WHO_CHECKS, "invoice.show", ANSWERS_OBJECT, &invoice_document,
     .param = {NUMBER}, .about = "The document as it was issued"},
    {"POST", "/invoices/{number}/cancel", WHO_BILLS, "invoice.cancel", ANSWERS_OBJECT, &invoice,
     .param = {NUMBER, {"reason", NULL, IN_BODY, TYPE_TEXT, true, .least = 1, .most = 60}},
     .about = "Cancel an invoice by a credit note, which is the answer"},
    {"GET", "/periods", WHO_CHECKS, "close.list", ANSWERS_WHOLE, &period,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "List the months of the books, the oldest first"},
    {"GET", "/owner/report", WHO_OWNS, "owner.report", ANSWERS_OBJECT, &owner_report,
     .about = "What the machines cost and what they earn"},
    {"GET", "/webhooks", WHO_OPERATES, "webhook.list", ANSWERS_WHOLE, &webhook,
     .param = {LIMIT(20, 100), AFTER_WHOLE}, .about = "List webhooks"},
    {"DELETE", "/webhooks/{webhook_id}", WHO_OPERATES, "webhook.remove", ANSWERS_OBJECT, &webhook_deleted,
     .param = {PATH_ID("webhook_id", "webhook_")}, .about = "Disable a webhook"},
    {NULL}};

static const struct api_route tenant_routes[] = {
    {"GET", "/organization/usage/completions", ROLE_TENANT, "usage.days", ANSWERS_OBJECT, &usage_page,
     .param = {TIMES, KEYS, MODELS, USAGE_GROUPS, LIMIT(7, 31)}, .about = "Your own usage by day"},
    {"GET", "/organization/costs", ROLE_TENANT, "cost.days", ANSWERS_OBJECT, &cost_page,
     .param = {TIMES, KEYS, COST_GROUPS, LIMIT(7, 180)}, .about = "What you were charged by day"},
    {NULL}};

const struct api admin_api = {"/admin/v1", "unkai administration",
                              "Tenants, keys, usage, prices and the books of an unkai cloud.", admin_routes};
const struct api tenant_api = {"/v1", "unkai", "What a tenant may ask of an unkai cloud about itself.",
                               tenant_routes};
