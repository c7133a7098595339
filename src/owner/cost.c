/* Depreciation, annuity, payback; see cost.h. On a yen's journey: from the asset to the cost of its time. */
#include "owner/cost.h"

#include <math.h>

static double declining_value(const struct asset *a, double years) {
    double value = a->price;
    for (int k = 0; k < a->life; k++) {
        double left = a->life - k, part = fmin(1, left);
        double off = fmax(value * 2 / a->life * part, (value - a->residual) * part / left);
        off = fmin(off, value - a->residual);
        if (years < k + part)
            return value - off * (years - k) / part;
        value -= off;
    }
    return value;
}

double asset_value(const struct asset *a, double years) {
    if (years <= 0)
        return a->price;
    if (years >= a->life)
        return a->residual;
    return a->method == DECLINING_BALANCE ? declining_value(a, years)
                                          : a->price - (a->price - a->residual) * years / a->life;
}

double asset_depreciation(const struct asset *a, double from, double to) {
    return asset_value(a, from) - asset_value(a, to);
}

double asset_straight(const struct asset *a) {
    return (a->price - a->residual) / a->life;
}

double asset_annuity(const struct asset *a) {
    double i = a->discount, grown = pow(1 + i, -a->life);
    return i > 0 ? (a->price - a->residual * grown) * i / (1 - grown) : asset_straight(a);
}

double asset_power(const struct asset *a, double measured_watts) {
    return (a->watts + (a->measured ? measured_watts : 0)) / 1000 * a->pue * a->kwh * YEAR_HOURS;
}

double asset_operation(const struct asset *a) {
    return a->operation * a->price;
}

static double net(const struct payback *p) {
    return p->revenue - p->operating;
}

double payback_years(const struct payback *p) {
    return net(p) > 0 ? p->price / net(p) : NAN;
}

double payback_left(const struct payback *p) {
    if (p->remaining <= 0)
        return 0;
    return net(p) > 0 ? p->remaining / net(p) : NAN;
}

double payback_price(const struct payback *p, double months) {
    return p->chip_hours > 0 ? (fmax(p->remaining, 0) * 12 / months + p->operating) / p->chip_hours : NAN;
}
