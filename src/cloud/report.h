/* The reading operations of the table in admin.c. */
#ifndef CLOUD_REPORT_H
#define CLOUD_REPORT_H

#include "cloud/inner.h"

int report_usage(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int report_verify(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
/* ,"name":"12.5" */
void report_money(struct buf *out, const char *name, amount value);

#endif
