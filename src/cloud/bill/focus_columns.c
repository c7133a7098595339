/* The columns of each version of FOCUS, and CSV; see focus.h. In the order of the specification; those that speak of what there is not here (commitments, reservations, regions)
 * are left out, as it allows. */
#include "cloud/bill/focus.h"

#include <string.h>

static const struct focus_column columns_1_2[] = {
    {"BilledCost", FOCUS_BILLED_COST},
    {"BillingAccountId", FOCUS_ACCOUNT},
    {"BillingAccountName", FOCUS_ACCOUNT_NAME},
    {"BillingAccountType", FOCUS_ACCOUNT_TYPE},
    {"BillingCurrency", FOCUS_CURRENCY},
    {"BillingPeriodEnd", FOCUS_MONTH_END},
    {"BillingPeriodStart", FOCUS_MONTH_START},
    {"ChargeCategory", FOCUS_CATEGORY},
    {"ChargeClass", FOCUS_CLASS},
    {"ChargeDescription", FOCUS_DESCRIPTION},
    {"ChargeFrequency", FOCUS_FREQUENCY},
    {"ChargePeriodEnd", FOCUS_END},
    {"ChargePeriodStart", FOCUS_START},
    {"CommitmentDiscountId", FOCUS_NOTHING}, /* these two, since rules of others ask whether they are null */
    {"CommitmentDiscountStatus", FOCUS_NOTHING},
    {"ConsumedQuantity", FOCUS_TOKENS},
    {"ConsumedUnit", FOCUS_TOKENS_UNIT},
    {"ContractedCost", FOCUS_LIST_COST},
    {"ContractedUnitPrice", FOCUS_LIST_UNIT_PRICE},
    {"EffectiveCost", FOCUS_BILLED_COST},
    {"InvoiceId", FOCUS_INVOICE},
    {"InvoiceIssuerName", FOCUS_ISSUER},
    {"ListCost", FOCUS_LIST_COST},
    {"ListUnitPrice", FOCUS_LIST_UNIT_PRICE},
    {"PricingCategory", FOCUS_PRICING},
    {"PricingCurrency", FOCUS_PRICE_CURRENCY},
    {"PricingCurrencyContractedUnitPrice", FOCUS_PRICE_UNIT_PRICE},
    {"PricingCurrencyEffectiveCost", FOCUS_PRICE_COST},
    {"PricingCurrencyListUnitPrice", FOCUS_PRICE_UNIT_PRICE},
    {"PricingQuantity", FOCUS_QUANTITY},
    {"PricingUnit", FOCUS_QUANTITY_UNIT},
    {"ProviderName", FOCUS_ISSUER},
    {"PublisherName", FOCUS_ISSUER},
    {"ResourceId", FOCUS_MODEL},
    {"ResourceName", FOCUS_MODEL},
    {"ResourceType", FOCUS_MODEL_TYPE},
    {"ServiceCategory", FOCUS_SERVICE_CATEGORY},
    {"ServiceName", FOCUS_SERVICE},
    {"ServiceSubcategory", FOCUS_SERVICE_SUBCATEGORY},
    {"SkuId", FOCUS_SKU},
    {"SkuMeter", FOCUS_SKU_METER},
    {"SkuPriceDetails", FOCUS_SKU_DETAILS},
    {"SkuPriceId", FOCUS_SKU_PRICE},
    {"SubAccountId", FOCUS_KEY},
    {"SubAccountName", FOCUS_KEY_NAME},
    {"SubAccountType", FOCUS_KEY_TYPE},
    {"x_ExchangeRate", FOCUS_EXCHANGE_RATE},
    {"x_TokenKind", FOCUS_TOKEN_KIND},
    {"x_Transfer", FOCUS_TRANSFER},
};

static const struct focus_version versions[] = {
    {"1.2", columns_1_2, sizeof columns_1_2 / sizeof *columns_1_2}, /* the newest is last */
};

const struct focus_version *focus_version(struct str name) {
    const struct focus_version *newest = &versions[sizeof versions / sizeof *versions - 1];
    for (const struct focus_version *v = versions; v <= newest; v++)
        if (str_is(name, v->name))
            return v;
    return name.n == 0 ? newest : NULL;
}

void focus_clear(struct focus_row *r) {
    for (size_t i = 0; i < FOCUS_FIELDS; i++)
        buf_clear(&r->value[i]);
}

void focus_free(struct focus_row *r) {
    for (size_t i = 0; i < FOCUS_FIELDS; i++)
        buf_free(&r->value[i]);
}

void focus_text(struct focus_row *r, enum focus_field field, struct str value) {
    buf_clear(&r->value[field]);
    buf_str(&r->value[field], value);
}

static void write_field(struct buf *out, struct str value) {
    bool plain = true;
    for (size_t i = 0; i < value.n; i++)
        plain &= value.p[i] != 0 && strchr(",\"\r\n", value.p[i]) == NULL;
    if (plain) {
        buf_str(out, value);
        return;
    }
    buf_byte(out, '"');
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '"')
            buf_byte(out, '"');
        buf_byte(out, value.p[i]);
    }
    buf_byte(out, '"');
}

void focus_header(const struct focus_version *v, struct buf *out) {
    for (size_t i = 0; i < v->n; i++)
        buf_printf(out, "%s%s", i == 0 ? "" : ",", v->columns[i].name);
    buf_byte(out, '\n');
}

void focus_write(const struct focus_version *v, const struct focus_row *r, struct buf *out) {
    for (size_t i = 0; i < v->n; i++) {
        if (i > 0)
            buf_byte(out, ',');
        write_field(out, buf_view(&r->value[v->columns[i].field]));
        out->failed |= r->value[v->columns[i].field].failed;
    }
    buf_byte(out, '\n');
}
