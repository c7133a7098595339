/* Classes of characters, from utf8proc's tables; ASCII, which is most of all text, from a table of our own. */
#include "model/unicode.h"

#include <stddef.h>
#include <utf8proc.h>

static bool is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

const uint8_t unicode_ascii[128] = {
    [9 ... 13] = UNICODE_SPACE,
    [' '] = UNICODE_SPACE,
    ['!' ... '#'] = UNICODE_PUNCTUATION,
    ['$'] = UNICODE_SYMBOL,
    ['%' ... '*'] = UNICODE_PUNCTUATION,
    ['+'] = UNICODE_SYMBOL,
    [',' ... '/'] = UNICODE_PUNCTUATION,
    ['0' ... '9'] = UNICODE_NUMBER,
    [':' ... ';'] = UNICODE_PUNCTUATION,
    ['<' ... '>'] = UNICODE_SYMBOL,
    ['?' ... '@'] = UNICODE_PUNCTUATION,
    ['A' ... 'Z'] = UNICODE_LETTER | UNICODE_UPPER,
    ['[' ... ']'] = UNICODE_PUNCTUATION,
    ['^'] = UNICODE_SYMBOL,
    ['_'] = UNICODE_PUNCTUATION,
    ['`'] = UNICODE_SYMBOL,
    ['a' ... 'z'] = UNICODE_LETTER | UNICODE_LOWER,
    ['{'] = UNICODE_PUNCTUATION,
    ['|'] = UNICODE_SYMBOL,
    ['}'] = UNICODE_PUNCTUATION,
    ['~'] = UNICODE_SYMBOL,
};

unsigned unicode_classes(int32_t c) {
    static const uint8_t of_category[] = {
        [UTF8PROC_CATEGORY_LU] = UNICODE_LETTER | UNICODE_UPPER,
        [UTF8PROC_CATEGORY_LL] = UNICODE_LETTER | UNICODE_LOWER,
        [UTF8PROC_CATEGORY_LT] = UNICODE_LETTER | UNICODE_UPPER,
        [UTF8PROC_CATEGORY_LM] = UNICODE_LETTER,
        [UTF8PROC_CATEGORY_LO] = UNICODE_LETTER,
        [UTF8PROC_CATEGORY_MN] = UNICODE_MARK,
        [UTF8PROC_CATEGORY_MC] = UNICODE_MARK,
        [UTF8PROC_CATEGORY_ME] = UNICODE_MARK,
        [UTF8PROC_CATEGORY_ND] = UNICODE_NUMBER,
        [UTF8PROC_CATEGORY_NL] = UNICODE_NUMBER,
        [UTF8PROC_CATEGORY_NO] = UNICODE_NUMBER,
        [UTF8PROC_CATEGORY_PC] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_PD] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_PS] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_PE] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_PI] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_PF] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_PO] = UNICODE_PUNCTUATION,
        [UTF8PROC_CATEGORY_SM] = UNICODE_SYMBOL,
        [UTF8PROC_CATEGORY_SC] = UNICODE_SYMBOL,
        [UTF8PROC_CATEGORY_SK] = UNICODE_SYMBOL,
        [UTF8PROC_CATEGORY_SO] = UNICODE_SYMBOL,
    };
    if (c < 0)
        return 0;
    if (c < 0x80)
        return unicode_ascii[c];
    size_t category = (size_t)utf8proc_category(c);
    unsigned classes = category < sizeof of_category ? of_category[category] : 0;
    return is_space(c) ? classes | UNICODE_SPACE : classes;
}
