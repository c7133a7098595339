/* A document as a page: self-contained HTML with a print style for A4, in English or Japanese. Every text of a document is somebody's, and escaped. */
#include "cloud/bill/document.h"
#include "cloud/bill/payment.h"

#include <stdio.h>
#include <string.h>

enum label {
    L_INVOICE,
    L_CREDIT_NOTE,
    L_DRAFT,
    L_NUMBER,
    L_ABOUT,
    L_ISSUED,
    L_DUE_ON,
    L_PERIOD,
    L_FROM,
    L_TO,
    L_REFERENCE,
    L_TAX_ID,
    L_ITEM,
    L_TOKENS,
    L_UNIT,
    L_AMOUNT,
    L_INPUT,
    L_CACHED,
    L_OUTPUT,
    L_REQUESTS,
    L_PRICE,
    L_RATE,
    L_CHARGE,
    L_CREDIT,
    L_REVERSAL,
    L_CARRIED_IN,
    L_CARRIED_OUT,
    L_NET,
    L_BASE,
    L_TOTAL,
    L_COVERED,
    L_DUE,
    L_PAID,
    L_LEFT,
    L_REASON,
    L_PAYMENT,
    L_HASH,
    LABELS
};

static const char *const text[LABELS][2] = {
    [L_INVOICE] = {"Invoice", "請求書"},
    [L_CREDIT_NOTE] = {"Credit note", "返還請求書"},
    [L_DRAFT] = {"Draft, not issued", "下書き(未発行)"},
    [L_NUMBER] = {"Number", "番号"},
    [L_ABOUT] = {"Takes back", "対象の請求書"},
    [L_ISSUED] = {"Issued", "発行日"},
    [L_DUE_ON] = {"Due", "支払期日"},
    [L_PERIOD] = {"Services of", "取引期間"},
    [L_FROM] = {"From", "発行者"},
    [L_TO] = {"To", "宛先"},
    [L_REFERENCE] = {"Your reference", "貴社参照番号"},
    [L_TAX_ID] = {"Tax number", "税番号"},
    [L_ITEM] = {"Service", "品目"},
    [L_TOKENS] = {"Tokens", "トークン数"},
    [L_UNIT] = {"A million", "100万当たり単価"},
    [L_AMOUNT] = {"Amount", "金額"},
    [L_INPUT] = {"input", "入力"},
    [L_CACHED] = {"cached input", "入力(キャッシュ)"},
    [L_OUTPUT] = {"output", "出力"},
    [L_REQUESTS] = {"requests", "件"},
    [L_PRICE] = {"price", "価格表"},
    [L_RATE] = {"exchange rate", "換算レート"},
    [L_CHARGE] = {"Charge", "追加料金"},
    [L_CREDIT] = {"Credit", "値引"},
    [L_REVERSAL] = {"Reversal", "取消"},
    [L_CARRIED_IN] = {"Rounding: carried from the month before", "端数:前月からの繰越"},
    [L_CARRIED_OUT] = {"Rounding: carried to the next month", "端数:翌月への繰越"},
    [L_NET] = {"Total without tax", "小計(税抜)"},
    [L_BASE] = {"of", "対象額"},
    [L_TOTAL] = {"Total", "合計(税込)"},
    [L_COVERED] = {"Paid from credit", "前払残高からの充当"},
    [L_DUE] = {"To be paid", "お支払額"},
    [L_PAID] = {"Paid", "入金済み"},
    [L_LEFT] = {"Left to be paid", "お支払残額"},
    [L_REASON] = {"Reason", "理由"},
    [L_PAYMENT] = {"Payment", "お支払方法"},
    [L_HASH] = {"Journal up to transfer", "帳簿(仕訳番号まで)"},
};

static const char style[] =
    "@page{size:A4;margin:18mm}"
    "*{box-sizing:border-box}"
    "body{font:10.5pt/1.45 system-ui,\"Noto Sans\",\"Noto Sans JP\",\"Hiragino Sans\",sans-serif;color:#111;"
    "max-width:174mm;margin:12mm auto;padding:0 4mm}"
    "h1{font-size:20pt;margin:0 0 6mm}"
    ".draft{border:1px solid #b00;color:#b00;padding:1mm 3mm;display:inline-block;margin:0 0 4mm}"
    ".parties{display:flex;gap:10mm;margin:0 0 6mm}.parties>div{flex:1}"
    ".parties p{margin:0;overflow-wrap:anywhere}"
    "h2{font-size:9pt;color:#555;margin:0 0 1mm;font-weight:600}"
    "table{border-collapse:collapse;width:100%;margin:0 0 6mm}"
    "th,td{padding:1mm 2mm;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "thead th{border-bottom:1.5px solid #111;font-size:9pt}"
    "tr{break-inside:avoid}"
    ".n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".line td{border-top:1px solid #ccc;font-weight:600}.part td{color:#333;font-size:9.5pt}"
    ".facts th{font-weight:400;color:#555;width:38mm}.facts td,.facts th{padding:.4mm 0}"
    ".sums{width:auto;min-width:85mm;margin-left:auto}.sums .strong td{border-top:1.5px solid "
    "#111;font-weight:700;font-size:12pt}"
    "footer{color:#555;font-size:8pt;overflow-wrap:anywhere}"
    "@media print{body{margin:0;padding:0;max-width:none}}";

struct page {
    struct buf *out;
    const struct json *document;
    const struct dues *dues;
    int language; /* of the labels: 0 en, 1 ja */
    int decimals;
};

/* ---- text ---- */

static void escape(struct buf *out, struct str s) {
    for (size_t i = 0; i < s.n; i++)
        switch (s.p[i]) {
        case '&':
            buf_text(out, "&amp;");
            break;
        case '<':
            buf_text(out, "&lt;");
            break;
        case '>':
            buf_text(out, "&gt;");
            break;
        case '"':
            buf_text(out, "&quot;");
            break;
        case '\'':
            buf_text(out, "&#39;");
            break;
        default:
            if ((unsigned char)s.p[i] >= 32 || s.p[i] == '\n')
                buf_byte(out, s.p[i]);
        }
}

static struct str text_of(const struct json *object, const char *name) {
    return json_as_str(json_get(object, name));
}

static void say(const struct page *p, enum label label) {
    buf_text(p->out, text[label][p->language]);
}

/* Of {"en", "ja"}. */
static void say_of(const struct page *p, const struct json *both) {
    struct str own = text_of(both, p->language == 1 ? "ja" : "en");
    escape(p->out, own.n > 0 ? own : text_of(both, "en"));
}

/* "-1234.5" with two decimals at least: "−1,234.50". */
static void number(struct buf *out, struct str value, int decimals) {
    size_t i = value.n > 0 && value.p[0] == '-', point = i;
    if (i > 0)
        buf_text(out, "\xE2\x88\x92");
    while (point < value.n && value.p[point] != '.')
        point++;
    for (; i < point; i++) {
        escape(out, (struct str){value.p + i, 1});
        if ((point - i - 1) % 3 == 0 && i + 1 < point)
            buf_byte(out, ',');
    }
    int shown = value.n > point ? (int)(value.n - point - 1) : 0;
    if (shown > 0 || decimals > 0)
        buf_byte(out, '.');
    if (shown > 0)
        escape(out, (struct str){value.p + point + 1, (size_t)shown});
    for (; shown < decimals; shown++)
        buf_byte(out, '0');
}

static void cell(const struct page *p, struct str value, int decimals) {
    buf_text(p->out, "<td class=\"n\">");
    number(p->out, value, decimals);
    buf_text(p->out, "</td>");
}

/* ---- parts of the page ---- */

static void fact(const struct page *p, enum label label, struct str value) {
    if (value.n == 0)
        return;
    buf_text(p->out, "<tr><th>");
    say(p, label);
    buf_text(p->out, "</th><td>");
    escape(p->out, value);
    buf_text(p->out, "</td></tr>");
}

static void facts(const struct page *p) {
    const struct json *d = p->document, *period = json_get(d, "period");
    buf_text(p->out, "<table class=\"facts\">");
    fact(p, L_NUMBER, text_of(d, "number"));
    fact(p, L_ABOUT, text_of(d, "about"));
    fact(p, L_REASON, text_of(d, "reason"));
    fact(p, L_ISSUED, text_of(d, "issued_on"));
    fact(p, L_DUE_ON, text_of(d, "due_on"));
    buf_text(p->out, "<tr><th>");
    say(p, L_PERIOD);
    buf_text(p->out, "</th><td>");
    escape(p->out, text_of(period, "first_day"));
    buf_text(p->out, " &ndash; ");
    escape(p->out, text_of(period, "last_day"));
    buf_text(p->out, "</td></tr>");
    fact(p, L_REFERENCE, text_of(json_get(d, "to"), "reference"));
    buf_text(p->out, "</table>");
}

static void lines_of(const struct page *p, const struct json *lines) {
    for (size_t i = 0; i < json_count(lines); i++) {
        buf_text(p->out, "<p>");
        escape(p->out, json_as_str(json_at(lines, i)));
        buf_text(p->out, "</p>");
    }
}

/* number: how the rule calls the party's tax number; NULL: simply that. */
static void party(const struct page *p, enum label label, const struct json *who,
                  const struct json *number_label) {
    buf_text(p->out, "<div><h2>");
    say(p, label);
    buf_text(p->out, "</h2><p><strong>");
    escape(p->out, text_of(who, "name"));
    buf_text(p->out, "</strong></p>");
    lines_of(p, json_get(who, "address"));
    buf_text(p->out, "<p>");
    escape(p->out, text_of(who, "country"));
    buf_text(p->out, "</p>");
    if (text_of(who, "tax_id").n > 0) {
        buf_text(p->out, "<p>");
        if (number_label != NULL)
            say_of(p, number_label);
        else
            say(p, L_TAX_ID);
        buf_text(p->out, ": ");
        escape(p->out, text_of(who, "tax_id"));
        buf_text(p->out, "</p>");
    }
    buf_text(p->out, "</div>");
}

static void usage(const struct page *p, const struct json *line) {
    static const enum label kind[] = {L_INPUT, L_CACHED, L_OUTPUT};
    const struct json *parts = json_get(line, "parts");
    struct str rate = text_of(line, "exchange_rate");
    buf_text(p->out, "<tr class=\"line\"><td>");
    escape(p->out, text_of(line, "model"));
    buf_printf(p->out, " <small>(%lld ", (long long)json_as_int(json_get(line, "requests")));
    say(p, L_REQUESTS);
    buf_text(p->out, ", ");
    say(p, L_PRICE);
    buf_printf(p->out, " %lld", (long long)json_as_int(json_get(line, "price")));
    if (rate.n > 0) {
        buf_text(p->out, ", ");
        say(p, L_RATE);
        buf_byte(p->out, ' ');
        escape(p->out, text_of(line, "priced_in"));
        buf_byte(p->out, ' ');
        escape(p->out, rate);
    }
    buf_text(p->out, ")</small></td><td></td><td></td>");
    cell(p, text_of(line, "amount"), p->decimals);
    buf_text(p->out, "</tr>");
    for (size_t i = 0; i < json_count(parts) && i < 3; i++) {
        const struct json *part = json_at(parts, i);
        char tokens[32];
        snprintf(tokens, sizeof tokens, "%lld", (long long)json_as_int(json_get(part, "tokens")));
        if (strcmp(tokens, "0") == 0)
            continue;
        buf_text(p->out, "<tr class=\"part\"><td>&emsp;");
        say(p, kind[i]);
        buf_text(p->out, "</td>");
        cell(p, str_from(tokens), 0);
        cell(p, text_of(part, "unit_price"), 0);
        cell(p, text_of(part, "amount"), p->decimals);
        buf_text(p->out, "</tr>");
    }
}

static void other(const struct page *p, const struct json *line) {
    static const struct {
        const char *kind;
        enum label label;
    } name[] = {{"charge", L_CHARGE},
                {"credit", L_CREDIT},
                {"reversal", L_REVERSAL},
                {"carried_in", L_CARRIED_IN},
                {"carried_out", L_CARRIED_OUT}};
    buf_text(p->out, "<tr class=\"line\"><td>");
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        if (str_is(text_of(line, "kind"), name[i].kind))
            say(p, name[i].label);
    if (text_of(line, "note").n > 0)
        buf_text(p->out, ": ");
    escape(p->out, text_of(line, "note"));
    if (text_of(line, "id").n > 0) {
        buf_text(p->out, " <small>(");
        escape(p->out, text_of(line, "id"));
        buf_text(p->out, ")</small>");
    }
    buf_text(p->out, "</td><td></td><td></td>");
    cell(p, text_of(line, "amount"), p->decimals);
    buf_text(p->out, "</tr>");
}

static void lines(const struct page *p) {
    const struct json *list = json_get(p->document, "lines");
    static const enum label head[] = {L_ITEM, L_TOKENS, L_UNIT, L_AMOUNT};
    buf_text(p->out, "<table><thead><tr>");
    for (size_t i = 0; i < 4; i++) {
        buf_text(p->out, i == 0 ? "<th>" : "<th class=\"n\">");
        say(p, head[i]);
        if (i >= 2) {
            buf_text(p->out, " (");
            escape(p->out, text_of(p->document, "currency"));
            buf_byte(p->out, ')');
        }
        buf_text(p->out, "</th>");
    }
    buf_text(p->out, "</tr></thead><tbody>");
    for (size_t i = 0; i < json_count(list); i++)
        if (str_is(text_of(json_at(list, i), "kind"), "usage"))
            usage(p, json_at(list, i));
        else
            other(p, json_at(list, i));
    buf_text(p->out, "</tbody></table>");
}

static void sum_of(const struct page *p, enum label label, struct str value, bool strong) {
    if (value.n == 0)
        return;
    buf_text(p->out, strong ? "<tr class=\"strong\"><td>" : "<tr><td>");
    say(p, label);
    buf_text(p->out, "</td>");
    cell(p, value, p->decimals);
    buf_text(p->out, "<td>");
    escape(p->out, text_of(p->document, "currency"));
    buf_text(p->out, "</td></tr>");
}

static void sum(const struct page *p, enum label label, const char *member, bool strong) {
    sum_of(p, label, text_of(p->document, member), strong);
}

static void sum_amount(const struct page *p, enum label label, amount value, bool strong) {
    struct buf text = {0};
    money_write(&text, value, AMOUNT_DIGITS);
    sum_of(p, label, buf_view(&text), strong);
    buf_free(&text);
}

static void sums(const struct page *p) {
    const struct json *taxes = json_get(p->document, "taxes"), *rule = json_get(p->document, "rule");
    buf_text(p->out, "<table class=\"sums\">");
    sum(p, L_NET, "net", false);
    for (size_t i = 0; i < json_count(taxes); i++) {
        const struct json *tax = json_at(taxes, i);
        buf_text(p->out, "<tr><td>");
        say_of(p, json_get(rule, "label"));
        buf_byte(p->out, ' ');
        escape(p->out, text_of(tax, "percent"));
        buf_text(p->out, "% <small>(");
        say(p, L_BASE);
        buf_byte(p->out, ' ');
        number(p->out, text_of(tax, "base"), p->decimals);
        buf_text(p->out, ")</small></td>");
        cell(p, text_of(tax, "tax"), p->decimals);
        buf_text(p->out, "<td>");
        escape(p->out, text_of(p->document, "currency"));
        buf_text(p->out, "</td></tr>");
    }
    sum(p, L_TOTAL, "total", true);
    if (document_amount(p->document, "covered") != 0)
        sum(p, L_COVERED, "covered", false);
    sum(p, L_DUE, "due", true);
    if (p->dues != NULL && p->dues->paid != 0) {
        sum_amount(p, L_PAID, p->dues->paid, false);
        sum_amount(p, L_LEFT, p->dues->left, true);
    }
    buf_text(p->out, "</table>");
}

static void foot(const struct page *p) {
    const struct json *period = json_get(p->document, "period"),
                      *note = json_get(json_get(p->document, "rule"), "note"),
                      *payment = json_get(json_get(p->document, "from"), "payment");
    if (note != NULL) {
        buf_text(p->out, "<p>");
        say_of(p, note);
        buf_text(p->out, "</p>");
    }
    if (json_count(payment) > 0) {
        buf_text(p->out, "<h2>");
        say(p, L_PAYMENT);
        buf_text(p->out, "</h2>");
        lines_of(p, payment);
    }
    buf_text(p->out, "<footer><p>");
    say(p, L_HASH);
    buf_printf(p->out, " %lld: ", (long long)json_as_int(json_get(period, "last_seq")));
    escape(p->out, text_of(period, "root"));
    buf_text(p->out, "</p></footer>");
}

void document_html(const struct json *document, const struct dues *dues, struct buf *out) {
    const struct json *to = json_get(document, "to"), *from = json_get(document, "from"),
                      *rule = json_get(document, "rule");
    struct str language = text_of(to, "language"), currency = text_of(document, "currency");
    char code[4] = "";
    struct page p = {.out = out, .document = document, .dues = dues};
    language = language.n > 0 ? language : text_of(from, "language");
    p.language = str_is(language, "ja");
    snprintf(code, sizeof code, "%.*s", (int)(currency.n < 3 ? currency.n : 3), currency.p);
    p.decimals = currency_decimals(code);
    enum label title = str_is(text_of(document, "kind"), "credit_note") ? L_CREDIT_NOTE : L_INVOICE;
    buf_printf(out, "<!DOCTYPE html><html lang=\"%s\"><head><meta charset=\"utf-8\"><title>",
               p.language ? "ja" : "en");
    say(&p, title);
    buf_byte(out, ' ');
    escape(out, text_of(document, "number"));
    buf_printf(out, "</title><style>%s</style></head><body><h1>", style);
    say(&p, title);
    buf_text(out, "</h1>");
    if (text_of(document, "number").n == 0) {
        buf_text(out, "<p class=\"draft\">");
        say(&p, L_DRAFT);
        buf_text(out, "</p>");
    }
    buf_text(out, "<div class=\"parties\">");
    party(&p, L_TO, to, json_get(rule, "customer_number"));
    party(&p, L_FROM, from, json_get(rule, "issuer_number"));
    buf_text(out, "</div>");
    facts(&p);
    lines(&p);
    sums(&p);
    foot(&p);
    buf_text(out, "</body></html>\n");
}
