/* Strings that know who wrote each byte, and characters as Python sees them. A byte that came from a caller is the caller's in
 * everything made of it; where it is in doubt who wrote something, the caller did. */
#include "model/template/inner.h"

#include "base/utf8.h"

#include <locale.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <wctype.h>

void work_fail(struct work *w, enum err code, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    w->code = w->line > 0 ? error_set(w->e, code, "the chat template, line %u: %s", w->line, text)
                          : error_set(w->e, code, "the chat template: %s", text);
    longjmp(w->stop, 1);
}

void *work_alloc(struct work *w, size_t count, size_t size) {
    void *p = arena_array(w->arena, count ? count : 1, size);
    if (p == NULL)
        work_fail(w, ERR_TOO_LARGE, "it needs more than %d MiB of memory", TEMPLATE_MOST_MEMORY >> 20);
    return p;
}

void work_charge(struct work *w, size_t steps) {
    if (steps >= (size_t)w->steps)
        work_fail(w, ERR_TOO_LARGE, "it takes more than %d steps", TEMPLATE_MOST_STEPS);
    w->steps -= (int64_t)steps;
}

void work_enter(struct work *w) {
    if (++w->depth > w->most_depth)
        work_fail(w, ERR_TOO_LARGE, "it is nested deeper than %u levels", w->most_depth);
}

/* ---- strings ---- */

struct text *text_new(struct work *w, const char *p, size_t n, bool caller) {
    struct text *s = work_alloc(w, 1, sizeof *s);
    *s = (struct text){.p = p, .n = n, .caller = caller};
    return s;
}

const struct text *text_part(struct work *w, const struct text *s, size_t from, size_t n) {
    if (n == s->n)
        return s;
    struct text *part = text_new(w, s->p + from, n, s->caller);
    part->mask = s->mask ? s->mask + from : NULL;
    part->markup = s->markup;
    return part;
}

bool text_caller_any(const struct text *s, size_t from, size_t n) {
    return s->mask ? memchr(s->mask + from, 1, n) != NULL : s->caller && n > 0;
}

const struct text *text_as_caller(struct work *w, const struct text *s) {
    return text_new(w, s->p, s->n, true);
}

size_t text_chars(struct work *w, const struct text *s) {
    size_t chars = 0;
    work_charge(w, s->n / 64);
    for (size_t i = 0; i < s->n; i++)
        chars += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    return chars;
}

size_t text_offset(struct work *w, const struct text *s, size_t chars) {
    size_t i = 0;
    for (; i < s->n; i++)
        if (((unsigned char)s->p[i] & 0xC0) != 0x80 && chars-- == 0)
            break;
    work_charge(w, i / 64);
    return i;
}

static int32_t char_at(const struct text *s, size_t at, size_t *n) {
    return utf8_decode((struct str){s->p + at, s->n - at}, n);
}

static bool strips(const struct text *chars, const struct text *s, size_t at, size_t n) {
    if (chars == NULL) {
        size_t length;
        return char_is_space(char_at(s, at, &length));
    }
    return str_find(text_str(chars), (struct str){s->p + at, n}, 0) != SIZE_MAX;
}

const struct text *text_strip(struct work *w, const struct text *s, const struct text *chars, bool left,
                              bool right) {
    size_t from = 0, to = s->n;
    work_charge(w, s->n / 64);
    while (left && from < to) {
        size_t n;
        char_at(s, from, &n);
        if (!strips(chars, s, from, n))
            break;
        from += n;
    }
    while (right && to > from) {
        size_t n = 1;
        while (n < 4 && n < to - from && ((unsigned char)s->p[to - n] & 0xC0) == 0x80)
            n++;
        if (!strips(chars, s, to - n, n))
            break;
        to -= n;
    }
    s = text_part(w, s, from, to - from);
    return chars != NULL && text_caller_any(chars, 0, chars->n) ? text_as_caller(w, s) : s;
}

bool text_is_number(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return s.n > 0;
}

/* ---- writer ---- */

static void writer_grow(struct writer *o, size_t n) {
    if (o->limit != 0 && (n > o->limit || o->n > o->limit - n))
        work_fail(o->w, ERR_TOO_LARGE, "it writes more than %zu bytes", o->limit);
    if (n <= o->capacity - o->n)
        return;
    size_t capacity = o->capacity ? o->capacity : 32;
    while (capacity - o->n < n) {
        if (capacity > TEMPLATE_MOST_MEMORY)
            work_fail(o->w, ERR_TOO_LARGE, "it needs more than %d MiB of memory", TEMPLATE_MOST_MEMORY >> 20);
        capacity *= 2;
    }
    char *p = work_alloc(o->w, capacity, 1);
    if (o->n > 0)
        memcpy(p, o->p, o->n);
    if (o->mask != NULL) {
        uint8_t *mask = work_alloc(o->w, capacity, 1);
        memcpy(mask, o->mask, o->n);
        o->mask = mask;
    }
    o->p = p;
    o->capacity = capacity;
}

static void writer_mixes(struct writer *o) {
    if (o->mask != NULL)
        return;
    o->mask = work_alloc(o->w, o->capacity, 1);
    memset(o->mask, o->caller, o->n);
}

void writer_bytes(struct writer *o, const char *p, size_t n, bool caller) {
    if (n == 0)
        return;
    work_charge(o->w, n / 64);
    writer_grow(o, n);
    if (o->n == 0 && o->mask == NULL)
        o->caller = caller;
    else if (o->caller != caller)
        writer_mixes(o);
    memcpy(o->p + o->n, p, n);
    if (o->mask != NULL)
        memset(o->mask + o->n, caller, n);
    o->n += n;
}

void writer_part(struct writer *o, const struct text *s, size_t from, size_t n) {
    if (s->mask == NULL || n == 0) {
        writer_bytes(o, s->p + from, n, s->caller);
        return;
    }
    work_charge(o->w, n / 32);
    writer_grow(o, n);
    writer_mixes(o);
    memcpy(o->p + o->n, s->p + from, n);
    memcpy(o->mask + o->n, s->mask + from, n);
    o->n += n;
}

void writer_text(struct writer *o, const struct text *s) {
    writer_part(o, s, 0, s->n);
}

void writer_char(struct writer *o, uint32_t c, bool caller) {
    char bytes[4];
    writer_bytes(o, bytes, utf8_encode(c, bytes), caller);
}

void writer_printf(struct writer *o, bool caller, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0)
        writer_bytes(o, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1, caller);
}

const struct text *writer_done(struct writer *o) {
    struct text *s = text_new(o->w, o->p ? o->p : "", o->n, o->n > 0 && o->caller);
    s->mask = o->mask;
    return s;
}

/* ---- characters ---- */

bool char_is_space(int32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

static pthread_once_t unicode_once = PTHREAD_ONCE_INIT;
static locale_t
    unicode_locale; /* of the C library, whatever the process's locale; 0: it has none, and only ASCII has case */

static void unicode_open(void) {
    unicode_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

static bool in_class(int32_t c, const char *class) {
    pthread_once(&unicode_once, unicode_open);
    if (c < 0)
        return false;
    return unicode_locale ? iswctype_l((wint_t)c, wctype_l(class, unicode_locale), unicode_locale) != 0
                          : iswctype((wint_t)c, wctype(class)) != 0;
}

static int32_t map_char(int32_t c, bool upper) {
    pthread_once(&unicode_once, unicode_open);
    if (c < 0x80)
        return upper ? c - (c >= 'a' && c <= 'z' ? 32 : 0) : c + (c >= 'A' && c <= 'Z' ? 32 : 0);
    if (unicode_locale == (locale_t)0)
        return c;
    return (int32_t)(upper ? towupper_l((wint_t)c, unicode_locale) : towlower_l((wint_t)c, unicode_locale));
}

/* Characters whose upper case is more than one character (SpecialCasing.txt, those of European texts). */
static const struct {
    int32_t from, upper[3], title[3];
} special_case[] = {
    {0x00DF, {'S', 'S'}, {'S', 's'}},           {0x0149, {0x02BC, 'N'}, {0x02BC, 'N'}},
    {0x01F0, {'J', 0x030C}, {'J', 0x030C}},     {0xFB00, {'F', 'F'}, {'F', 'f'}},
    {0xFB01, {'F', 'I'}, {'F', 'i'}},           {0xFB02, {'F', 'L'}, {'F', 'l'}},
    {0xFB03, {'F', 'F', 'I'}, {'F', 'f', 'i'}}, {0xFB04, {'F', 'F', 'L'}, {'F', 'f', 'l'}},
    {0xFB05, {'S', 'T'}, {'S', 't'}},           {0xFB06, {'S', 'T'}, {'S', 't'}},
};

size_t char_map(int32_t c, enum char_case to, int32_t out[3]) {
    size_t n = 1;
    if (to == CASE_LOWER) {
        out[0] = map_char(c, false);
        if (c == 0x130) {
            out[0] = 'i';
            out[n++] = 0x307;
        }
        return n;
    }
    out[0] = map_char(c, true);
    for (size_t i = 0; c >= 0xDF && i < sizeof special_case / sizeof *special_case; i++) {
        if (special_case[i].from != c)
            continue;
        const int32_t *from = to == CASE_UPPER ? special_case[i].upper : special_case[i].title;
        for (n = 0; n < 3 && from[n] != 0; n++)
            out[n] = from[n];
    }
    return n;
}

bool char_is_upper(int32_t c) {
    return c < 0x80 ? c >= 'A' && c <= 'Z' : in_class(c, "upper");
}
bool char_is_lower(int32_t c) {
    return c < 0x80 ? c >= 'a' && c <= 'z' : in_class(c, "lower") || c == 0xAA || c == 0xBA;
}
bool char_is_cased(int32_t c) {
    return char_is_upper(c) || char_is_lower(c);
}
bool char_is_alpha(int32_t c) {
    return c < 0x80 ? (c | 32) >= 'a' && (c | 32) <= 'z' : in_class(c, "alpha") && !char_is_digit(c);
}
bool char_is_printable(int32_t c) {
    /* Formatting characters (Cf) and private use, which the C library calls printable. */
    static const int32_t hidden[][2] = {
        {0xAD, 0xAD},     {0x600, 0x605},   {0x61C, 0x61C},     {0x6DD, 0x6DD},     {0x70F, 0x70F},
        {0x180E, 0x180E}, {0x200B, 0x200F}, {0x202A, 0x202E},   {0x2060, 0x206F},   {0xE000, 0xF8FF},
        {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB}, {0xE0001, 0xE007F}, {0xF0000, 0x10FFFF}};
    if (c < 0x80)
        return c >= 32 && c < 127;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        if (c >= hidden[i][0] && c <= hidden[i][1])
            return false;
    return in_class(c, "print") && !char_is_space(c);
}

/* Decimal digits of the scripts in daily use: runs of ten that begin here. */
bool char_is_digit(int32_t c) {
    static const int32_t zero[] = {0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66,  0xAE6,  0xB66,  0xBE6, 0xC66,
                                   0xCE6, 0xD66, 0xE50, 0xED0, 0xF20, 0x1040, 0x17E0, 0x1810, 0xFF10};
    if (c < 0x80)
        return c >= '0' && c <= '9';
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++)
        if (c >= zero[i] && c < zero[i] + 10)
            return true;
    return false;
}

const struct text *text_map(struct work *w, const struct text *s, enum char_case to) {
    struct writer o = {.w = w};
    work_charge(w, s->n / 16);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t out[3];
        size_t count = char_map(char_at(s, i, &n), to, out);
        for (size_t k = 0; k < count; k++)
            writer_char(&o, (uint32_t)out[k], text_caller_at(s, i));
    }
    return writer_done(&o);
}
