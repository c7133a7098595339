/* What machines cost: the formulae of docs/owner.md, and nothing else. Statistics, so doubles; a year is 365 days of 24 hours, everything spread evenly over it. Money is of
 * the asset's currency. */
#ifndef OWNER_COST_H
#define OWNER_COST_H

#include <stdbool.h>
#include <stdint.h>

static const double HOUR_NS = 3600e9, YEAR_HOURS = 8760;

struct asset {
    int64_t id;
    char name[64], currency[4];
    enum { STRAIGHT_LINE, DECLINING_BALANCE } method;
    double price, residual; /* residual: what it is worth after its life */
    double life;            /* years */
    double chips;
    double watts;               /* drawn at all times */
    bool measured;              /* and beside them what the machine measures itself */
    double pue;                 /* of the building: watts from the grid for one of the machine's */
    double kwh;                 /* price of a kilowatt-hour */
    double operation, discount; /* shares of the price, and of what is owed, a year */
    int64_t bought, retired;    /* nanoseconds since 1970; retired 0: it is in use */
    double sold;                /* for so much, when it was retired */
};

/* What is left of the price after `years`: straight line, or double declining balance (each year 2/life of what was left, and straight line from when that is more). Never below the
 * residual value. */
double asset_value(const struct asset *a, double years);
/* What has been written off from `from` to `to` after it was bought. */
double asset_depreciation(const struct asset *a, double from, double to);

/* A year's costs. Capital on the straight line: (price - residual) / life. As an annuity: equal payments at each year's end, which at the discount rate are worth the price less
 * the residual value. */
double asset_straight(const struct asset *a);
double asset_annuity(const struct asset *a);
double asset_power(const struct asset *a, double measured_watts);
double asset_operation(const struct asset *a);

/* When the money is back. */
struct payback {
    double price;              /* of the machines, new */
    double remaining;          /* of what was ever paid, what has not been earned yet */
    double revenue, operating; /* a year, at this rate; operating: power, operation, expenses */
    double chip_hours;         /* sold a year, at this rate */
};
double payback_years(const struct payback *p); /* from new; NAN: never */
double payback_left(const struct payback *p);  /* years from now; 0: it is, NAN: never */
double payback_price(
    const struct payback *p,
    double months); /* of a chip-hour, for the rest to be back in so many months; NAN: none is sold */

#endif
