"""The owner's report reckoned from docs/owner.md alone, in fractions and fifty digits: what src/owner/ is compared with."""
import datetime
from decimal import Decimal, getcontext
from fractions import Fraction as F

getcontext().prec = 50
HOUR, YEAR = F(3600), F(365 * 24)


def fraction(text):
    text = str(text)
    return F(text[:-1]) / 100 if text.endswith("%") else F(text)


def power(base, exponent):
    """base ** exponent for fractions, to fifty digits."""
    decimal = Decimal(base.numerator) / Decimal(base.denominator)
    return F(decimal ** (Decimal(exponent.numerator) / Decimal(exponent.denominator)))


def begins(day, zone):
    """When a day begins in the book's zone, in seconds since 1970."""
    return F(int(datetime.datetime.fromisoformat(day + "T00:00:00+00:00").timestamp()) - 60 * zone)


def day_at(second, zone):
    return datetime.datetime.fromtimestamp(int(second) + 60 * zone, datetime.timezone.utc).date().isoformat()


class Asset:
    def __init__(self, zone, price, currency, bought, life, method="straight", residual=0, chips=1, watts=0, kwh=0, pue=1, operation=0,
                 discount=0, retired=None, sold=0, measured=False):
        self.price, self.residual, self.chips, self.watts = fraction(price), fraction(residual), fraction(chips), fraction(watts)
        self.kwh, self.pue, self.operation, self.discount = fraction(kwh), fraction(pue), fraction(operation), fraction(discount)
        self.currency, self.method, self.sold, self.measured = currency, method, fraction(sold), measured
        self.life = F(int(life[:-1])) if life.endswith("y") else F(int(life.rstrip("m")), 12)
        self.bought, self.retired = begins(bought, zone), retired and begins(retired, zone)

    def value(self, years):
        if years <= 0:
            return self.price
        if years >= self.life:
            return self.residual
        if self.method == "straight":
            return self.price - (self.price - self.residual) * years / self.life
        left, k = self.price, F(0)
        while True:
            part = min(F(1), self.life - k)
            off = min(max(2 * left * part / self.life, (left - self.residual) * part / (self.life - k)), left - self.residual)
            if years <= k + part:
                return left - off * (years - k) / part
            left, k = left - off, k + 1

    def straight(self):
        return (self.price - self.residual) / self.life

    def annuity(self):
        if self.discount == 0:
            return self.straight()
        shrunk = power(1 + self.discount, -self.life)
        return (self.price - self.residual * shrunk) * self.discount / (1 - shrunk)

    def power_year(self, measured):
        return (self.watts + (measured if self.measured else 0)) / 1000 * self.pue * self.kwh * YEAR

    def operation_year(self):
        return self.operation * self.price


def over(a, b):
    return a / b if a is not None and b is not None and b > 0 else None


def times(a, b):
    return None if a is None or b is None else a * b


def rate(rates, base, quote, at):
    """Of the newest rate that is not newer than `at`; rates: (base, quote, value in 10^-9, since in seconds), in the order they were made."""
    if base == quote:
        return F(1)
    for one, other, back in ((base, quote, False), (quote, base, True)):
        known = [(since, i, F(value, 10**9)) for i, (b, q, value, since) in enumerate(rates) if (b, q) == (one, other) and since <= at]
        if known:
            return 1 / max(known)[2] if back else max(known)[2]
    raise KeyError((base, quote))


def payback(price, remaining, revenue, operating, chip_hours, months, to, zone):
    net = None if revenue is None else revenue - operating
    left = F(0) if remaining <= 0 else remaining / net if net is not None and net > 0 else None
    needed = over(max(remaining, 0) * 12 / months + operating, chip_hours)
    return {"revenue_year": revenue, "operating_year": operating, "years": price / net if net is not None and net > 0 else None,
            "remaining": remaining, "years_left": left,
            "paid_back_on": None if left is None or left >= 150 else day_at(to + left * YEAR * HOUR, zone), "months": months,
            "price_chip_hour": needed, "price_factor": over(times(needed, chip_hours), revenue)}


def report(zone, start, to, currency, assets, expenses, rates, chip_time, usage, basis="book", months=36, sold=None, use=None):
    """start, to: seconds. expenses: (amount a year, currency, from, until or None). chip_time: (second, available_ns, busy_ns, energy_uj, measured_ns). usage:
    (day, tenant, its currency, model, requests, prompt, cached, completion, charge in 10^-9, chip_ns, prefill_ns)."""
    first, last = day_at(start, zone), day_at(to - F(1, 1000), zone)
    year = YEAR * HOUR
    spans = [c for c in chip_time if start <= c[0] < to]
    energy, seconds = sum(F(c[3], 10**6) for c in spans), sum(F(c[4], 10**9) for c in spans)
    watts = energy / seconds if seconds else F(0)
    available, busy = (sum(F(c[i], 10**9) for c in spans) / HOUR for i in (1, 2))
    cost, now, ever = dict.fromkeys(("capital", "power", "operation", "expenses"), F(0)), [], F(0)
    owned, paid, got = F(0), F(0), F(0)
    for a in assets:
        if a.bought >= to:
            continue
        x = rate(rates, a.currency, currency, to)
        gone = a.retired is not None and a.retired <= to
        end, begin = (a.retired if gone else to), max(a.bought, start)
        paid, got = paid + a.price * x, got + (a.sold * x if gone else 0)
        ever += (a.power_year(watts) + a.operation_year()) * (end - a.bought) / year * x
        if not gone:
            now.append((a, x))
        if end <= begin:
            continue
        before, after = (begin - a.bought) / year, (end - a.bought) / year
        cost["capital"] += x * (a.annuity() * max(min(after, a.life) - before, 0) if basis == "annuity" else a.value(before) - a.value(after))
        cost["power"] += x * a.power_year(watts) * (end - begin) / year
        cost["operation"] += x * a.operation_year() * (end - begin) / year
        owned += a.chips * (end - begin) / HOUR
    other = F(0)
    for amount, money, begin, until in expenses:
        x, end = rate(rates, money, currency, to), min(until, to) if until is not None else to
        ever += x * fraction(amount) * max(end - begin, 0) / year
        cost["expenses"] += x * fraction(amount) * max(end - max(begin, start), 0) / year
        other += x * fraction(amount) if begin < to and (until is None or until > to) else 0
    total = sum(cost.values())
    hour = over(total, owned)
    chips = sum((a.chips for a, _ in now), F(0))
    price = sum((a.price * x for a, x in now), F(0))
    yearly = sum(((a.power_year(watts) + a.operation_year()) * x for a, x in now), F(0)) + other
    seen = [u for u in usage if first <= u[0] <= last]
    used = sum(F(u[9], 10**9) for u in seen) / HOUR
    revenue = sum((F(u[8], 10**9) * rate(rates, u[2], currency, to) for u in seen), F(0))
    earned = sum((F(u[8], 10**9) * rate(rates, u[2], currency, to) for u in usage if u[0] <= last), F(0))

    def whose(column, noun):
        rows = []
        for name in sorted({u[column] for u in seen}):
            mine = [u for u in seen if u[column] == name]
            requests, prompt, cached, completion = (sum(u[i] for u in mine) for i in (4, 5, 6, 7))
            prefill, chip = (sum(F(u[i], 10**9) for u in mine) / HOUR for i in (10, 9))
            income = sum(F(u[8], 10**9) * rate(rates, u[2], currency, to) for u in mine)
            spent = times(chip, hour)
            into = over(times(prefill, hour), F(prompt - cached, 10**6))
            out = over(times(chip - prefill, hour), F(completion, 10**6))
            rows.append({noun: name, "requests": requests, "input_tokens": prompt, "cached_tokens": cached, "output_tokens": completion,
                         "prefill_seconds": prefill * HOUR, "decode_seconds": (chip - prefill) * HOUR, "cost": spent, "revenue": income,
                         "margin": None if spent is None else over(income - spent, income), "input_million": into, "output_million": out,
                         "input_million_with_idle": times(into, over(owned, used)),
                         "output_million_with_idle": times(out, over(owned, used))})
        return rows

    began = max(start, min(a.bought for a, _ in now)) if now else start
    a_year = YEAR / ((to - began) / HOUR)
    remaining = paid - got - (earned - ever)
    prefill = sum(F(u[10], 10**9) for u in seen) / HOUR
    answer = {
        "from": first, "to": last, "from_second": start, "to_second": to, "currency": currency, "basis": basis,
        "assets": {"count": len(now), "chips": chips, "price": price, "measured_watts": watts,
                   "value": sum((a.value((to - a.bought) / year) * x for a, x in now), F(0))},
        "cost": {**cost, "total": total},
        "chip_hour": {"period": hour, "straight": over(sum((a.straight() * x for a, x in now), F(0)) + yearly, chips * YEAR),
                      "annuity": over(sum((a.annuity() * x for a, x in now), F(0)) + yearly, chips * YEAR)},
        "chip_hours": {"owned": owned, "available": available, "busy": busy, "used": used, "prefill": prefill, "decode": used - prefill},
        "utilisation": {"owned": over(used, owned), "available": over(used, available),
                        "break_even": over(times(over(used, owned), total), revenue)},
        "idle": {"chip_hours": owned - used, "cost": total - (times(used, hour) or 0), "off": times(owned - available, hour),
                 "waiting": times(available - busy, hour), "unclaimed": times(busy - used, hour)},
        "revenue": revenue, "profit": revenue - total, "margin": over(revenue - total, revenue),
        "models": whose(3, "model"), "tenants": whose(1, "tenant"),
        "payback": payback(price, remaining, revenue * a_year, yearly, used * a_year, F(months), to, zone)}
    if sold is not None or use is not None:
        sold = fraction(sold) if sold is not None else over(revenue, used)
        use = fraction(use) if use is not None else over(used, owned)
        hours = times(use, chips * YEAR)
        answer["supposed"] = {"sold": sold, "use": use, "break_even_straight": over(answer["chip_hour"]["straight"], sold),
                              "break_even_annuity": over(answer["chip_hour"]["annuity"], sold),
                              **payback(price, remaining, times(sold, hours), yearly, hours, F(months), to, zone)}
    return answer
