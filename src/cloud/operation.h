/* What the operations behind the commands and the admin API share. Each takes and gives JSON, runs on the writer's thread in a transaction of its own, and
 * changes the mirror in memory with the books. A noun's file exports its rows; admin.c joins the tables. */
#ifndef CLOUD_OPERATION_H
#define CLOUD_OPERATION_H

#include "cloud/access.h"
#include "cloud/inner.h"

/* Each ends with a row whose name is NULL. */
extern const struct operation_row access_operations[], bucket_operations[];

/* ---- arguments ---- */
struct str args_text(const struct json *args, const char *name);
/* 1 to most - 1 letters, digits and . _ - : / @ */
bool args_name(struct str s, size_t most);
/* The id of a transfer that pays, PREFIX:TENANT:NAME, under the payment's name as its maker gave it, whole: two that were cut to the same would pay once. NULL: it is a payment of its own. */
int args_payment(char *id, size_t size, const char *prefix, int64_t tenant, const struct json *payment,
                 struct error *e);
/* The tenant that an argument names. */
int args_tenant(struct cloud *c, const struct json *args, const char *name, struct tenant **out,
                struct error *e);
/* How a list is cut into pages: "limit" rows (all there are without it) behind the row "after" in the list's order. */
struct args_page {
    int64_t after, limit;
};
struct args_page args_page(const struct json *args);

/* t has id, kind, value, about and at: from funding into the tenant's account, here and in memory. The same one again changes nothing. Nothing may fail behind it. */
int tenant_fund(struct cloud *c, struct tenant *tenant, struct transfer *t, struct error *e);

/* ---- answers ---- */
void answer_money(struct buf *out, const char *name, int64_t value, int digits); /* ,"name":"1.5" */
void answer_text(struct buf *out, const char *name, struct str value);           /* ,"name":"value" */

/* A key: the prefix and 256 random bits. */
enum { KEY_TEXT_BYTES = 8 + 43 };
void key_make(char text[KEY_TEXT_BYTES], const char *prefix);

#endif
