/* Taxes as data; see tax.h. Nothing here knows a country: what a rule can say is read from its members. */
#include "cloud/bill/tax.h"

#include "cloud/calendar.h"
#include "cloud/money.h"

#include <string.h>

/* ---- coins ---- */

int currency_decimals(const char *currency) {
    /* ISO 4217, those that have not two. */
    static const struct {
        int decimals;
        const char *codes;
    } table[] = {
        {0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"},
        {3, "BHD IQD JOD KWD LYD OMR TND"},
        {4, "CLF UYW"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strstr(table[i].codes, currency) != NULL)
            return table[i].decimals;
    return 2;
}

static money_wide round_wide(money_wide value, money_wide unit, enum direction direction) {
    money_wide down = value / unit - (value % unit < 0), left = value - down * unit;
    bool up = direction == DIRECTION_UP        ? left > 0
              : direction == DIRECTION_NEAREST ? left * 2 > unit || (left * 2 == unit && value > 0)
                                               : false;
    return (down + up) * unit;
}

static int64_t coin_of(int decimals) {
    int64_t unit = 1;
    for (int i = decimals; i < AMOUNT_DIGITS; i++)
        unit *= 10;
    return unit;
}

int64_t money_round(int64_t value, int decimals, enum direction direction) {
    money_wide r = round_wide(value, coin_of(decimals), direction);
    return r > INT64_MAX ? INT64_MAX : r < INT64_MIN ? INT64_MIN : (int64_t)r;
}

/* ---- the rules ---- */

enum { PERCENT_DIGITS = 6 };

static struct str text_of(const struct json *object, const char *name) {
    return json_as_str(json_get(object, name));
}

static int direction_of(struct str name, enum direction *out) {
    static const char *const names[] = {"down", "up", "nearest"};
    for (int i = 0; i < 3; i++)
        if (str_is(name, names[i])) {
            *out = (enum direction)i;
            return 0;
        }
    return -1;
}

static bool known_scope(struct str name) {
    return str_is(name, "line") || str_is(name, "rate") || str_is(name, "invoice");
}

static int wrong(struct error *e, struct str id, const char *what) {
    return error_set(e, ERR_INVALID, "the tax rule '%.*s': %s", (int)(id.n < 60 ? id.n : 60), id.p, what);
}

static bool good_percent(const struct json *rate) {
    int64_t percent, at;
    struct str text = text_of(rate, "percent"), since = text_of(rate, "since");
    return money_parse(&percent, text, PERCENT_DIGITS, NULL) == 0 && percent <= INT64_C(1000) * 1000000 &&
           since.n == CALENDAR_DAY - 1 && calendar_parse(&at, since, 0, NULL) == 0;
}

static int check_rule(const struct json *rule, struct error *e) {
    struct str id = text_of(rule, "id");
    enum direction direction;
    const struct json *rates = json_get(rule, "rates"), *countries = json_get(rule, "countries");
    if (id.n == 0 || id.n > 40)
        return error_set(e, ERR_INVALID, "a tax rule has no id, or one of more than 40 bytes");
    for (size_t i = 0; i < id.n; i++)
        if ((id.p[i] < 'a' || id.p[i] > 'z') && (id.p[i] < '0' || id.p[i] > '9') && id.p[i] != '-')
            return wrong(e, id, "its id has small letters, digits and hyphens");
    if (text_of(json_get(rule, "label"), "en").n == 0)
        return wrong(e, id, "its label says nothing in English (\"label\": {\"en\": ...})");
    if (!known_scope(text_of(rule, "scope")))
        return wrong(e, id, "its scope is line, rate or invoice");
    if (direction_of(text_of(rule, "direction"), &direction) != 0)
        return wrong(e, id, "its direction is down, up or nearest");
    if ((json_count(rates) == 0) == (json_count(countries) == 0))
        return wrong(e, id, "it has either rates or countries");
    for (size_t i = 0; i < json_count(rates); i++)
        if (text_of(json_at(rates, i), "id").n == 0 || !good_percent(json_at(rates, i)))
            return wrong(e, id, "a rate has an id, a day \"since\" and a \"percent\" like \"10\"");
    for (size_t i = 0; i < json_count(countries); i++)
        if (text_of(json_at(countries, i), "country").n != 2 || !good_percent(json_at(countries, i)))
            return wrong(e, id, "a country has two letters, a day \"since\" and a \"percent\" like \"19\"");
    return 0;
}

int tax_check_rules(const struct json *rules, struct error *e) {
    const struct json *list = json_get(rules, "rules");
    if (json_kind(list) != JSON_KIND_ARRAY)
        return error_set(e, ERR_INVALID, "a file of tax rules is an object with an array \"rules\"");
    for (size_t i = 0; i < json_count(list); i++)
        if (check_rule(json_at(list, i), e) != 0)
            return ERR_INVALID;
    return 0;
}

static const struct json *find_rule(const struct json *rules, struct str id) {
    const struct json *list = json_get(rules, "rules");
    for (size_t i = 0; i < json_count(list); i++)
        if (str_equal(text_of(json_at(list, i), "id"), id))
            return json_at(list, i);
    return NULL;
}

/* Of the rows where `member` is `value`, the one that holds on that day. Days compare as text. */
static const struct json *row_of(const struct json *list, const char *member, struct str value,
                                 const char *day) {
    const struct json *best = NULL;
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *row = json_at(list, i);
        struct str since = text_of(row, "since");
        if (str_equal(text_of(row, member), value) && memcmp(since.p, day, CALENDAR_DAY - 1) <= 0 &&
            (best == NULL || memcmp(since.p, text_of(best, "since").p, CALENDAR_DAY - 1) > 0))
            best = row;
    }
    return best;
}

/* 9: a digit, A: a letter or digit in a country's prefix, *: the rest, 2 to 13 letters and digits. */
static bool matches(struct str number, struct str pattern) {
    size_t i = 0;
    for (size_t k = 0; k < pattern.n; k++) {
        char p = pattern.p[k], c = i < number.n ? number.p[i] : 0;
        bool digit = c >= '0' && c <= '9', letter = c >= 'A' && c <= 'Z';
        if (p == '*') {
            size_t rest = number.n - i;
            for (; i < number.n; i++)
                if ((number.p[i] < '0' || number.p[i] > '9') && (number.p[i] < 'A' || number.p[i] > 'Z') &&
                    number.p[i] != '+' && number.p[i] != '*')
                    return false;
            return rest >= 2 && rest <= 13;
        }
        if (p == '9' ? !digit : p == 'A' ? !letter : c != p)
            return false;
        i++;
    }
    return i == number.n;
}

static void add_member(struct buf *out, const char *name, const struct json *value) {
    if (json_kind(value) == JSON_KIND_NULL)
        return;
    buf_printf(out, ",\"%s\":", name);
    json_write(out, value);
}

static void add_rate(struct buf *out, struct str id, struct str percent) {
    buf_text(out, "{\"id\":");
    json_write_str(out, id);
    buf_text(out, ",\"percent\":");
    json_write_str(out, percent);
    buf_byte(out, '}');
}

/* One rate, by where the customer is and whether it accounts for the tax itself. */
static int place_rate(const struct json *rule, const struct json *issuer, const struct json *customer,
                      const char *day, struct buf *out, struct error *e) {
    const struct json *countries = json_get(rule, "countries");
    struct str from = text_of(issuer, "country"), to = text_of(customer, "country"),
               number = text_of(customer, "tax_id"), percent = STR("0");
    const struct json *there = row_of(countries, "country", to, day), *note = NULL;
    char pattern[8] = "";
    bool known = false;
    if (from.n != 2 || to.n != 2)
        return wrong(e, text_of(rule, "id"), "both parties' profiles need their country, like \"DE\"");
    for (size_t i = 0; i < json_count(countries); i++)
        known |= str_equal(text_of(json_at(countries, i), "country"), to);
    if (known && there == NULL)
        return wrong(e, text_of(rule, "id"), "it has no rate for the customer's country on that day");
    if (there != NULL) {
        struct str prefix = text_of(there, "prefix");
        if (prefix.n <= 4) {
            memcpy(pattern, prefix.p, prefix.n);
            pattern[prefix.n] = '*';
        }
        bool business = number.n > 0;
        if (business && !matches(number, str_from(pattern)))
            return wrong(e, text_of(rule, "id"), "the customer's tax_id is no number of its country");
        if (business && !str_equal(from, to))
            note = json_get(rule, "reverse_charge");
        else
            percent = text_of(there, "percent");
    } else {
        note = json_get(rule, "outside");
    }
    add_rate(out, STR("standard"), percent);
    buf_byte(out, ']');
    add_member(out, "note", note);
    if (note != NULL && note == json_get(rule, "reverse_charge"))
        add_member(out, "customer_number", json_get(rule, "customer_number"));
    return 0;
}

/* Every rate of the list, as it is on that day. */
static int listed_rates(const struct json *rule, const char *day, struct buf *out, struct error *e) {
    const struct json *rates = json_get(rule, "rates");
    size_t n = 0;
    for (size_t i = 0; i < json_count(rates); i++) {
        struct str id = text_of(json_at(rates, i), "id");
        if (row_of(rates, "id", id, day) != json_at(rates, i))
            continue;
        if (n++ > 0)
            buf_byte(out, ',');
        add_rate(out, id, text_of(json_at(rates, i), "percent"));
    }
    buf_byte(out, ']');
    return n > 0 && n <= TAX_RATES ? 0 : wrong(e, text_of(rule, "id"), "it has no rate on that day");
}

static int write_rule(const struct json *rule, const struct json *issuer, const struct json *customer,
                      const char *day, struct buf *out, struct error *e) {
    const struct json *number = json_get(rule, "issuer_number"), *own = json_get(issuer, "rounding");
    enum direction direction;
    if (number != NULL && !matches(text_of(issuer, "tax_id"), text_of(number, "pattern")))
        return wrong(e, text_of(rule, "id"),
                     "the issuer's profile needs its tax_id in the form that the rule names");
    if (own != NULL && direction_of(json_as_str(own), &direction) != 0)
        return wrong(e, text_of(rule, "id"), "the issuer's rounding is down, up or nearest");
    buf_text(out, "{\"id\":");
    json_write(out, json_get(rule, "id"));
    add_member(out, "label", json_get(rule, "label"));
    add_member(out, "scope", json_get(rule, "scope"));
    add_member(out, "direction", own != NULL ? own : json_get(rule, "direction"));
    add_member(out, "issuer_number", number);
    buf_text(out, ",\"rates\":[");
    int rc = json_get(rule, "countries") != NULL ? place_rate(rule, issuer, customer, day, out, e)
                                                 : listed_rates(rule, day, out, e);
    buf_byte(out, '}');
    return rc;
}

int tax_resolve(const struct json *own, const struct json *issuer, const struct json *customer,
                const char *day, struct buf *out, struct error *e) {
    struct json *built_in = NULL;
    struct str id = text_of(customer, "rule");
    id = id.n > 0 ? id : text_of(issuer, "rule");
    id = id.n > 0 ? id : STR("none");
    int rc = json_parse(&built_in, (struct str){(const char *)tax_rules, tax_rules_bytes}, e);
    if (rc != 0)
        return rc;
    const struct json *rule = find_rule(own, id);
    rule = rule != NULL ? rule : find_rule(built_in, id);
    rc = rule == NULL ? wrong(e, id, "there is no such rule; see unkai invoice rules")
                      : write_rule(rule, issuer, customer, day, out, e);
    json_free(built_in);
    return rc;
}

/* ---- what it comes to ---- */

struct taxing {
    const struct json *rates;
    struct tax_row *row;
    size_t rows;
    money_wide exact[TAX_RATES]; /* 10^-17, of each row; rounded line by line where the rule says so */
};

/* base (10^-9) times percent (10^-6, and a hundredth): 10^-17. */
static money_wide tax_of(amount base, int64_t percent) {
    return (money_wide)base * percent;
}
static const int64_t TAX_UNIT = 100000000; /* 10^-17 in 10^-9 */

static int row_for(struct taxing *t, struct str rate, size_t *out, struct error *e) {
    for (*out = 0; *out < t->rows; ++*out)
        if (str_equal(t->row[*out].rate, rate))
            return 0;
    for (size_t i = 0; i < json_count(t->rates); i++)
        if (str_equal(text_of(json_at(t->rates, i), "id"), rate) && t->rows < TAX_RATES) {
            t->row[t->rows++] = (struct tax_row){.rate = text_of(json_at(t->rates, i), "id"),
                                                 .percent = text_of(json_at(t->rates, i), "percent")};
            return 0;
        }
    return error_set(e, ERR_INVALID, "the tax rule has no rate '%.*s'", (int)(rate.n < 60 ? rate.n : 60),
                     rate.p);
}

int tax_apply(const struct json *rule, const struct tax_line *line, size_t lines, int decimals,
              struct tax_row row[TAX_RATES], size_t *rows, struct error *e) {
    struct taxing t = {.rates = json_get(rule, "rates"), .row = row};
    struct str scope = text_of(rule, "scope");
    money_wide coin = (money_wide)coin_of(decimals) * TAX_UNIT, sum = 0, before = 0;
    enum direction direction = DIRECTION_DOWN;
    int64_t percent;
    if (!known_scope(scope) || direction_of(text_of(rule, "direction"), &direction) != 0)
        return error_set(e, ERR_INVALID, "the tax rule says no way to round");
    for (size_t i = 0, at; i < lines; i++) {
        if (row_for(&t, line[i].rate, &at, e) != 0 ||
            money_parse(&percent, row[at].percent, PERCENT_DIGITS, e) != 0)
            return ERR_INVALID;
        money_wide tax = tax_of(line[i].value, percent);
        t.exact[at] += str_is(scope, "line") ? round_wide(tax, coin, direction) : tax;
        if (__builtin_add_overflow(row[at].base, line[i].value, &row[at].base))
            return error_set(e, ERR_INVALID, "the invoice is too large");
    }
    for (size_t i = 0; i < t.rows; i++) {
        money_wide tax = round_wide(t.exact[i], coin, direction);
        if (str_is(scope,
                   "invoice")) { /* what the sum so far is rounded to, less what the rows before have */
            sum += t.exact[i];
            tax = round_wide(sum, coin, direction) - before;
            before += tax;
        }
        tax /= TAX_UNIT;
        if (tax > INT64_MAX || tax < INT64_MIN)
            return error_set(e, ERR_INVALID, "the tax is too large");
        row[i].tax = (amount)tax;
    }
    *rows = t.rows;
    return 0;
}
