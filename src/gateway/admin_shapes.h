/* What the routes of admin_routes.c answer, shape by shape; api.h says how a field is read. For that file alone. */
#ifndef GATEWAY_ADMIN_SHAPES_H
#define GATEWAY_ADMIN_SHAPES_H

#include "gateway/api.h"

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
    "Project",
    (const struct field[]){{"id", FORM_ID, NULL, "proj_"},
                           OBJECT("organization.project"),
                           {"name", FORM_TEXT, .about = "what the commands call the tenant"},
                           {"created_at", FORM_TIME, "created"},
                           {"archived_at", FORM_TIME, "archived", .nullable = true},
                           {"status", FORM_EITHER, "archived", "active|archived"},
                           {"currency", FORM_TEXT, .about = "of its account: an ISO 4217 code"},
                           {"balance", FORM_MONEY},
                           {"held", FORM_MONEY, .about = "set aside for requests that run"},
                           {"available", FORM_MONEY},
                           {"credit_line", FORM_MONEY, "line", .about = "how far below zero it may go"},
                           {"postpaid", FORM_BOOL, .about = "it has a credit line"},
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
                           {"expires_at", FORM_TIME, "expires", .nullable = true},
                           {NULL}}};

#define DUES                                                                                           \
    {"status", FORM_TEXT, .nullable = true,                                                            \
     .about = "open, part_paid, paid or cancelled; null of a credit note"},                            \
        {"due", FORM_MONEY, .about = "of the total, what credit did not cover"}, {"paid", FORM_MONEY}, \
        {"left", FORM_MONEY}, {                                                                        \
        "due_on", FORM_TEXT, .nullable = true, .about = "a day"                                        \
    }

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
                                                                       DUES,
                                                                       {NULL}}};

static const struct shape invoice_payment = {
    "InvoicePayment", (const struct field[]){{"id", FORM_TEXT, "payment", .about = "the payment's own name"},
                                             OBJECT("invoice.payment"),
                                             {"invoice", FORM_TEXT, "number"},
                                             {"project", FORM_TEXT, "tenant"},
                                             {"currency", FORM_TEXT},
                                             {"amount", FORM_MONEY, .about = "of this payment"},
                                             {"paid_on", FORM_TEXT, "date", .about = "a day"},
                                             DUES,
                                             {NULL}}};

static const struct shape invoice_document = {
    "InvoiceDocument",
    (const struct field[]){OBJECT("invoice.document"), {"document", FORM_ANY, "."}, {NULL}}};

static const struct shape billing_profile = {
    "BillingProfile", (const struct field[]){OBJECT("billing_profile"),
                                             {"profile", FORM_ANY, ".", .about = "empty until there is one"},
                                             {NULL}}};

static const struct shape tax_rules_kept = {
    "TaxRules", (const struct field[]){OBJECT("tax_rules"),
                                       {"own", FORM_ANY, .about = "come before the program's"},
                                       {"built_in", FORM_ANY},
                                       {NULL}}};

static const struct shape zone = {
    "LedgerZone", (const struct field[]){OBJECT("ledger.zone"),
                                         {"zone", FORM_TEXT, .about = "the distance from UTC, like +09:00"},
                                         {NULL}}};

static const struct shape prices_imported = {
    "PricesImported",
    (const struct field[]){OBJECT("price.import"), {"imported", FORM_INT, .about = "models"}, {NULL}}};

static const struct shape focus_page = {
    "FocusPage",
    (const struct field[]){OBJECT("export.focus"),
                           {"month", FORM_TEXT},
                           {"version", FORM_TEXT, .about = "of the specification"},
                           {"rows", FORM_INT},
                           {"text", FORM_TEXT, .about = "CSV; the first page begins with the columns' names"},
                           {"next_page", FORM_TEXT, "after", .nullable = true,
                            .about = "what the next page is asked with; null: there is none"},
                           {NULL}}};

static const struct shape events_page = {
    "EventsPage",
    (const struct field[]){
        OBJECT("export.events"),
        {"rows", FORM_INT},
        {"text", FORM_TEXT, .about = "a CloudEvent a line"},
        {"after", FORM_INT, .about = "what the next page is asked with; the same: there is nothing new"},
        {NULL}}};

static const struct shape period = {
    "Period", (const struct field[]){{"id", FORM_TEXT, "month"},
                                     OBJECT("period"),
                                     {"first_seq", FORM_INT},
                                     {"last_seq", FORM_INT},
                                     {"closed_at", FORM_TIME, "closed", .nullable = true},
                                     {"root", FORM_TEXT, .nullable = true},
                                     {NULL}}};

static const struct shape statement = {
    "PeriodStatement",
    (const struct field[]){{"id", FORM_TEXT, "month"},
                           OBJECT("period.statement"),
                           {"closed_at", FORM_TIME, "closed"},
                           {"statement", FORM_ANY},
                           {"signature", FORM_TEXT, .about = "Ed25519, of the statement's bytes"},
                           {NULL}}};

static const struct shape invoice_verification = {
    "InvoiceVerification",
    (const struct field[]){OBJECT("invoice.verification"),
                           {"ok", FORM_BOOL},
                           {"number", FORM_TEXT},
                           {"hash", FORM_TEXT},
                           {"wrong", FORM_ANY, .about = "a sentence for each thing that is wrong"},
                           {NULL}}};

static const struct shape movement = {
    "LedgerMovement",
    (const struct field[]){
        {"id", FORM_TEXT, .about = "the transfer's name in /ledger/transfers/{transfer_name}"},
        OBJECT("ledger.movement"),
        {"amount", FORM_MONEY},
        {"again", FORM_BOOL, .about = "it was made before, and nothing moved now"},
        {NULL}}};

static const struct shape asset = {
    "OwnerAsset", (const struct field[]){{"id", FORM_TEXT, "name"},
                                         OBJECT("owner.asset"),
                                         {"retired", FORM_TEXT, .nullable = true, .about = "a day"},
                                         {"value", FORM_NUMBER, .about = "in the books, now"},
                                         {"profile", FORM_ANY},
                                         {NULL}}};

static const struct shape expense = {
    "OwnerExpense", (const struct field[]){{"id", FORM_TEXT, "name"},
                                           OBJECT("owner.expense"),
                                           {"until", FORM_TEXT, .nullable = true, .about = "a day"},
                                           {"profile", FORM_ANY},
                                           {NULL}}};

static const struct shape suggestion = {
    "PriceSuggestion",
    (const struct field[]){OBJECT("price.suggestion"), {"suggestion", FORM_ANY, "."}, {NULL}}};

static const struct shape comparison = {
    "PriceComparison",
    (const struct field[]){OBJECT("price.comparison"), {"comparison", FORM_ANY, "."}, {NULL}}};

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

static const struct shape webhook_created = {
    "WebhookCreated",
    (const struct field[]){{"id", FORM_ID, NULL, "webhook_"},
                           OBJECT("webhook"),
                           {"url", FORM_TEXT},
                           {"secret", FORM_TEXT, .about = "what it is signed with, shown this once"},
                           {NULL}}};

static const struct shape node = {"Node",
                                  (const struct field[]){OBJECT("node"),
                                                         {"name", FORM_TEXT},
                                                         {"started_at", FORM_TIME, "started"},
                                                         {"silent_seconds", FORM_INT},
                                                         {"open_requests", FORM_INT},
                                                         {"this", FORM_BOOL, .about = "the one that answers"},
                                                         {NULL}}};

static const struct shape node_removed = {
    "NodeRemoved",
    (const struct field[]){
        OBJECT("node.deleted"), {"name", FORM_TEXT}, {"deleted", FORM_BOOL, "removed"}, {NULL}}};

static const struct shape webhook_tested = {
    "WebhookTested",
    (const struct field[]){
        {"id", FORM_ID, NULL, "webhook_"}, OBJECT("webhook.test"), {"event", FORM_TEXT}, {NULL}}};

static const struct shape delivery = {"WebhookDelivery",
                                      (const struct field[]){{"id", FORM_ID, NULL, "delivery_"},
                                                             OBJECT("webhook.delivery"),
                                                             {"webhook_id", FORM_ID, "webhook", "webhook_"},
                                                             {"event", FORM_TEXT},
                                                             {"type", FORM_TEXT, "kind"},
                                                             {"state", FORM_TEXT},
                                                             {"attempts", FORM_INT},
                                                             {"created_at", FORM_TIME, "created"},
                                                             {"due_at", FORM_TIME, "due"},
                                                             {"note", FORM_TEXT, .nullable = true},
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

#endif
