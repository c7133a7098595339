/* The parties of an invoice; see party.h. What a profile may say is the table below; anything else is a mistake in writing and refused by its name. */
#include "cloud/bill/party.h"

#include <string.h>

enum { PROFILE_BYTES = 65536, RULES_BYTES = 262144 };

enum member_kind {
    MEMBER_TEXT,
    MEMBER_LINES,
    MEMBER_COUNTRY,
    MEMBER_DAYS,
    MEMBER_TEXTS,
    MEMBER_LANGUAGE,
    MEMBER_ROUNDING
};
struct member {
    const char *name;
    enum member_kind kind;
    bool issuer_only;
    const char *form;
};

static const struct member members[] = {
    {"name", MEMBER_TEXT, false, "a text"},
    {"address", MEMBER_LINES, false, "an array of lines"},
    {"country", MEMBER_COUNTRY, false, "two capital letters, like JP (ISO 3166)"},
    {"tax_id", MEMBER_TEXT, false, "a text"},
    {"rule", MEMBER_TEXT, false, "the id of a tax rule"},
    {"language", MEMBER_LANGUAGE, false, "en or ja"},
    {"terms_days", MEMBER_DAYS, false, "a number of days up to 365"},
    {"reference", MEMBER_TEXT, false, "a text"}, /* a purchase order's number, say */
    {"payment", MEMBER_LINES, true, "an array of lines"},
    {"rounding", MEMBER_ROUNDING, true, "down, up or nearest"},
    {"series", MEMBER_TEXTS, true,
     "an object of texts"}, /* invoice, credit_note: what their numbers begin with */
    {"rates", MEMBER_TEXTS, true,
     "an object of texts"}, /* model: the id of its rate, where it is not "standard" */
};

static bool good_lines(const struct json *v) {
    for (size_t i = 0; i < json_count(v); i++)
        if (json_kind(json_at(v, i)) != JSON_KIND_STRING)
            return false;
    return json_kind(v) == JSON_KIND_ARRAY && json_count(v) <= 20;
}

static bool good_texts(const struct json *v) {
    for (void *it = json_first(v); it != NULL; it = json_next(v, it))
        if (json_kind(json_value(it)) != JSON_KIND_STRING)
            return false;
    return json_kind(v) == JSON_KIND_OBJECT;
}

static bool good_member(const struct member *m, const struct json *v) {
    struct str text = json_as_str(v);
    bool is_text = json_kind(v) == JSON_KIND_STRING && text.n > 0 && memchr(text.p, 0, text.n) == NULL;
    switch (m->kind) {
    case MEMBER_TEXT:
        return is_text;
    case MEMBER_LINES:
        return good_lines(v);
    case MEMBER_COUNTRY:
        return is_text && text.n == 2 && text.p[0] >= 'A' && text.p[0] <= 'Z' && text.p[1] >= 'A' &&
               text.p[1] <= 'Z';
    case MEMBER_DAYS:
        return json_kind(v) == JSON_KIND_INT && json_as_int(v) >= 0 && json_as_int(v) <= 365;
    case MEMBER_TEXTS:
        return good_texts(v);
    case MEMBER_LANGUAGE:
        return str_is(text, "en") || str_is(text, "ja");
    case MEMBER_ROUNDING:
        return str_is(text, "down") || str_is(text, "up") || str_is(text, "nearest");
    }
    return false;
}

static int check_profile(const struct json *profile, bool issuer, struct error *e) {
    if (json_kind(profile) != JSON_KIND_OBJECT)
        return error_param(e, ERR_INVALID, "profile", "a profile is a JSON object");
    for (void *it = json_first(profile); it != NULL; it = json_next(profile, it)) {
        struct str name = json_key(it);
        size_t i = 0, n = sizeof members / sizeof *members;
        while (i < n && !(str_is(name, members[i].name) && (issuer || !members[i].issuer_only)))
            i++;
        if (i == n)
            return error_param(e, ERR_INVALID, "profile", "a profile of this party has no '%.*s'",
                               (int)(name.n < 60 ? name.n : 60), name.p);
        if (!good_member(&members[i], json_value(it)))
            return error_param(e, ERR_INVALID, "profile", "'%s' is %s", members[i].name, members[i].form);
    }
    return json_as_str(json_get(profile, "name")).n > 0
               ? 0
               : error_param(e, ERR_INVALID, "profile", "a profile has a name");
}

int party_read(struct store *s, int64_t party, struct json **out, struct error *e) {
    struct query *q;
    *out = NULL;
    int rc = store_query(s, &q, "SELECT profile FROM party WHERE tenant = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, party);
    if ((rc = query_step(q, e)) > 0)
        rc = json_parse(out, query_column_text(q, 0), e);
    return rc == 0 ? query_run(q, e) : rc;
}

/* Keep it, if there is one in the arguments, and write what is kept. */
static int keep(struct cloud *c, int64_t party, const struct json *profile, size_t most, struct buf *out,
                struct error *e) {
    struct query *q;
    struct json *kept = NULL;
    struct buf text = {0};
    int rc = 0;
    if (profile != NULL) {
        canonical_write(&text, profile);
        if (text.n > most)
            rc = error_param(e, ERR_TOO_LARGE, "profile", "this is larger than %zu bytes", most);
        else if ((rc = store_query(c->store, &q,
                                   "INSERT INTO party (tenant, profile) VALUES ($1, $2)"
                                   " ON CONFLICT (tenant) DO UPDATE SET profile = excluded.profile",
                                   e)) == 0) {
            query_int(q, 1, party);
            query_text(q, 2, buf_view(&text));
            rc = query_run(q, e);
        }
    }
    buf_free(&text);
    if (rc != 0 || (rc = party_read(c->store, party, &kept, e)) != 0)
        return rc;
    if (kept != NULL)
        json_write(out, kept);
    else
        buf_text(out, "{}");
    json_free(kept);
    return 0;
}

static int party_tenant(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    const struct json *profile = json_get(args, "profile");
    if (memory_need_tenant(c, json_as_str(json_get(args, "tenant")), "tenant", &t, e) != 0)
        return ERR_NOT_FOUND;
    if (profile != NULL && check_profile(profile, false, e) != 0)
        return ERR_INVALID;
    return keep(c, t->id, profile, PROFILE_BYTES, out, e);
}

static int party_issuer(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    const struct json *profile = json_get(args, "profile");
    if (profile != NULL && check_profile(profile, true, e) != 0)
        return ERR_INVALID;
    return keep(c, PARTY_ISSUER, profile, PROFILE_BYTES, out, e);
}

/* Without new ones: {"own": what is kept, "built_in": those of the program}. */
static int party_rules(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    const struct json *rules = json_get(args, "profile");
    if (rules != NULL && tax_check_rules(rules, e) != 0)
        return ERR_INVALID;
    buf_text(out, "{\"own\":");
    int rc = keep(c, PARTY_RULES, rules, RULES_BYTES, out, e);
    buf_text(out, ",\"built_in\":");
    if (rc == 0)
        rc = canonical(out, (struct str){(const char *)tax_rules, tax_rules_bytes}, e);
    buf_byte(out, '}');
    return rc;
}

const struct operation_row party_operations[] = {
    {"invoice.party", party_tenant, .changes_by = "profile"},
    {"invoice.issuer", party_issuer, .changes_by = "profile"},
    {"invoice.rules", party_rules, .changes_by = "profile"},
    {NULL},
};
