/* Exact money; see money.h. */
#include "cloud/money.h"

int money_parse(int64_t *out, struct str text, int digits, struct error *e) {
    int64_t value = 0;
    int decimals = -1, seen = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '.' && decimals < 0 && i > 0) {
            decimals = 0;
            continue;
        }
        if (c < '0' || c > '9')
            return error_set(e, ERR_INVALID, "'%.*s' is no amount: write it like 12.5",
                             (int)(text.n < 40 ? text.n : 40), text.p);
        seen++;
        if (decimals == digits) {
            if (c != '0')
                return error_set(e, ERR_INVALID,
                                 "'%.*s' has more than %d decimals and cannot be kept exactly",
                                 (int)(text.n < 40 ? text.n : 40), text.p, digits);
            continue;
        }
        decimals += decimals >= 0;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, c - '0', &value))
            return error_set(e, ERR_INVALID, "'%.*s' is too large", (int)(text.n < 40 ? text.n : 40), text.p);
    }
    if (seen == 0)
        return error_set(e, ERR_INVALID, "an amount is missing");
    for (decimals = decimals < 0 ? 0 : decimals; decimals < digits; decimals++)
        if (__builtin_mul_overflow(value, 10, &value))
            return error_set(e, ERR_INVALID, "'%.*s' is too large", (int)(text.n < 40 ? text.n : 40), text.p);
    *out = value;
    return 0;
}

static bool read_exponent(int *out, struct str text) {
    bool minus = text.n > 0 && text.p[0] == '-';
    size_t i = minus || (text.n > 0 && text.p[0] == '+');
    int value = 0;
    if (i == text.n)
        return false;
    for (; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || value > 1000)
            return false;
        value = value * 10 + text.p[i] - '0';
    }
    *out = minus ? -value : value;
    return true;
}

__extension__ typedef unsigned __int128 money_unsigned;

/* The integer that a number of too many digits is but for a double's rounding: digits / 10^over within 2^-50 of itself, which is 4 to 8 units in a double's last place. Below 2^40, where that
 * is at most a thousandth of what lies between two integers; so chance hits one in 500 at most, and one in 10^7 at the size of a price. 0 when it is none. */
static int64_t without_noise(struct str digits, int over) {
    money_unsigned value = 0, scale = 1;
    if (digits.n > 36 || over > 36)
        return 0;
    for (size_t i = 0; i < digits.n; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return 0;
        value = value * 10 + (money_unsigned)(digits.p[i] - '0');
    }
    for (int i = 0; i < over; i++)
        scale *= 10;
    money_unsigned nearest = (value + scale / 2) / scale;
    if (nearest >= (money_unsigned)1 << 40)
        return 0;
    money_unsigned exact = nearest * scale, noise = value > exact ? value - exact : exact - value;
    return noise <= exact >> 50 ? (int64_t)nearest : 0;
}

/* The exponent moves the decimal point of the mantissa, whose zeros at the end count for nothing. */
int money_parse_number(int64_t *out, struct str text, int digits, struct error *e) {
    char plain[128];
    size_t n = 0;
    int exponent = 0, decimals = 0, shown = (int)(text.n < 40 ? text.n : 40);
    bool point = false;
    size_t i = 0;
    for (; i < text.n && text.p[i] != 'e' && text.p[i] != 'E'; i++) {
        if (n == sizeof plain - 1)
            return error_set(e, ERR_INVALID, "'%.*s' has too many digits", shown, text.p);
        if (text.p[i] == '.' && !point)
            point = true;
        else
            plain[n++] = text.p[i];
        decimals += point && text.p[i] != '.';
    }
    if (i < text.n && !read_exponent(&exponent, (struct str){text.p + i + 1, text.n - i - 1}))
        return error_set(e, ERR_INVALID, "'%.*s' is no number", shown, text.p);
    int places = digits - decimals + exponent; /* zeros that the scaled integer has behind the mantissa */
    while (places < 0 && n > 1 && plain[n - 1] == '0') {
        n--;
        places++;
    }
    bool zero = n == 1 && plain[0] == '0';
    if (places < 0 && !zero) {
        if ((*out = without_noise((struct str){plain, n}, -places)) > 0)
            return 0;
        return error_set(e, ERR_INVALID, "'%.*s' has more than %d decimals and cannot be kept exactly", shown,
                         text.p, digits);
    }
    int rc = money_parse(out, (struct str){plain, n}, 0, e);
    for (; rc == 0 && places > 0 && *out != 0; places--)
        if (__builtin_mul_overflow(*out, 10, out))
            return error_set(e, ERR_INVALID, "'%.*s' is too large", shown, text.p);
    return rc;
}

void money_write_wide(struct buf *out, money_wide value, int digits) {
    char text[48];
    int n = 0;
    bool decimals = false;
    money_unsigned rest = value < 0 ? -(money_unsigned)value : (money_unsigned)value;
    for (int i = 0; i < digits || rest != 0 || i == digits; i++) {
        char c = (char)('0' + (int)(rest % 10));
        rest /= 10;
        if (i == digits && decimals)
            text[n++] = '.';
        decimals |= i < digits && c != '0';
        if (i >= digits || decimals)
            text[n++] = c;
    }
    if (value < 0)
        buf_byte(out, '-');
    while (n > 0)
        buf_byte(out, text[--n]);
}

void money_write(struct buf *out, int64_t value, int digits) {
    money_write_wide(out, value, digits);
}

bool money_currency(struct str text) {
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] < 'A' || text.p[i] > 'Z')
            return false;
    return text.n == 3;
}

bool tariff_cost(const struct tariff *t, uint64_t input, uint64_t cached, uint64_t output, money_wide *cost) {
    const money_wide most = (money_wide)1 << 126;
    money_wide sum = (money_wide)t->input * (money_wide)input + (money_wide)t->cached * (money_wide)cached +
                     (money_wide)t->output * (money_wide)output;
    bool fits = t->rate <= 0 || sum <= most / t->rate;
    *cost = fits ? sum * t->rate : most;
    return fits;
}
