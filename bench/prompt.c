/* See prompt.h. The words are of nearly equal length, so that a text's tokens hardly depend on which words were drawn. */
#include "bench/prompt.h"

#include "bench/random.h"

#include <math.h>

static const char words[][10] = {
    "about",   "after",  "again",   "along",   "animal",  "answer", "around", "began",   "being",   "below",
    "between", "black",  "board",   "book",    "both",    "bring",  "build",  "called",  "carry",   "cause",
    "change",  "city",   "class",   "clear",   "close",   "color",  "common", "could",   "country", "course",
    "cover",   "cross",  "dark",    "deep",    "draw",    "early",  "earth",  "every",   "example", "face",
    "family",  "farm",   "father",  "feel",    "field",   "final",  "fire",   "first",   "fish",    "food",
    "force",   "form",   "found",   "friend",  "front",   "full",   "gave",   "girl",    "give",    "glass",
    "gold",    "great",  "green",   "ground",  "group",   "grow",   "half",   "happen",  "heard",   "heat",
    "help",    "high",   "home",    "horse",   "hour",    "house",  "idea",   "inch",    "island",  "keep",
    "kind",    "king",   "know",    "land",    "large",   "later",  "learn",  "leave",   "left",    "letter",
    "light",   "list",   "listen",  "live",    "long",    "made",   "make",   "mark",    "mean",    "might",
    "miles",   "money",  "moon",    "morning", "most",    "mother", "move",   "music",   "name",    "near",
    "need",    "never",  "night",   "north",   "number",  "ocean",  "often",  "order",   "other",   "page",
    "paper",   "part",   "people",  "picture", "piece",   "place",  "plain",  "plan",    "plant",   "point",
    "power",   "press",  "problem", "quick",   "rain",    "reach",  "ready",  "record",  "river",   "road",
    "rock",    "room",   "round",   "school",  "science", "second", "seven",  "several", "shape",   "ship",
    "short",   "show",   "simple",  "sing",    "sleep",   "small",  "snow",   "some",    "song",    "sound",
    "south",   "space",  "special", "stand",   "star",    "start",  "state",  "stay",    "step",    "stood",
    "story",   "street", "strong",  "study",   "such",    "summer", "table",  "talk",    "teach",   "thing",
    "think",   "those",  "though",  "three",   "time",    "today",  "tree",   "true",    "turn",    "under",
    "until",   "usual",  "voice",   "walk",    "warm",    "watch",  "water",  "week",    "wheel",   "where",
    "which",   "white",  "whole",   "wind",    "wood",    "word",   "work",   "world",
};

enum { WORDS = sizeof words / sizeof *words };

void prompt_words(struct buf *out, uint64_t seed, uint64_t stream, uint32_t n) {
    struct random r = random_start(seed, stream);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            buf_byte(out, ' ');
        buf_text(out, words[random_below(&r, WORDS)]);
    }
}

struct prompt_cost prompt_cost(uint32_t few, uint32_t few_tokens, uint32_t many, uint32_t many_tokens) {
    double word = ((double)many_tokens - few_tokens) / ((double)many - few);
    return (struct prompt_cost){.word = word, .around = few_tokens - word * few};
}

uint32_t prompt_count(const struct prompt_cost *c, double tokens) {
    double n = round(tokens / c->word);
    return n < 1 ? 1 : (uint32_t)n;
}
