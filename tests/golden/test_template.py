#!/usr/bin/env python3
"""The template interpreter against jinja2 (template_oracle.py), byte for byte; where jinja2 raises, unkai has to refuse.

usage: test_template.py UNKAI RENDER_TEMPLATES [CASES]; RENDER_TEMPLATES (render_templates.c) renders as UNKAI does, thousands in a process. UNKAI_SHARED names the folder with the models' own templates. Four kinds of cases: every
model's template with many conversations; templates in the style of other models (templates/); hand-written snippets
(template_cases.txt, one a line, and template_blocks.txt, between lines of "=="); random expressions (CASES of
them) and layouts (half as many)."""
import json
import os
import pathlib
import random
import subprocess
import sys
import warnings

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
try:
    import template_oracle
except ImportError as missing:
    python = os.environ.get("UNKAI_TEST_PYTHON", sys.executable)  # the interpreter that ./run test has set up
    if python != sys.executable:
        os.execv(python, [python, *sys.argv])
    print(f"skipped: {missing} (tests/requirements.txt)")
    sys.exit(77)

warnings.simplefilter("ignore")  # Python's opinion on what the random expressions index
UNKAI = sys.argv[1]
RENDERER = subprocess.Popen([sys.argv[2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 3000


class Counts:
    same = raised = wrong = 0


def ours(source, variables):
    """(text, segments, None), or (None, None, why not)."""
    RENDERER.stdin.write(json.dumps({"template": source, "variables": variables}) + "\n")
    RENDERER.stdin.flush()
    line = RENDERER.stdout.readline()
    if not line:
        raise SystemExit(f"FAIL the renderer ended with {RENDERER.wait()} on {source!r}")
    told = json.loads(line)
    return told.get("text"), told.get("segments"), told.get("refused")


# What unkai refuses by design: whole numbers beyond 64 bits, and slices of what has none, which jinja2 refuses too unless it
# meets them while it folds constants.
BY_DESIGN = ("larger than 64 bits", "object is not subscriptable")


def compare(name, source, variables, by_design=()):
    """Counts one case, and says what differs. Returns our segments."""
    theirs, problem = template_oracle.render(source, variables)
    text, segments, refusal = ours(source, variables)
    if text != theirs and "strftime_now" in source:  # once more: a day, or whatever it writes, may have ended between the two
        theirs, problem = template_oracle.render(source, variables)
        text, segments, refusal = ours(source, variables)
    if text is None and any(reason in refusal for reason in by_design):
        return None
    if text != theirs:
        Counts.wrong += 1
        print(f"FAIL {name}\n  jinja2: {theirs!r} {problem or ''}\n  unkai:  {text!r} {refusal or ''}")
    elif text is None:
        Counts.raised += 1
    else:
        Counts.same += 1
        if "".join(s["text"] for s in segments) != text:
            Counts.wrong += 1
            print(f"FAIL {name}: the segments do not add up to the text")
    return segments


# ---- conversations ----

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a <city>",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Its name"},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "days": {"type": "integer", "default": 1.5},
            "options": {"type": "object", "required": ["a"], "properties": {
                "a": {"type": "array", "items": {"type": "string"}}}}}}}},
    {"type": "function", "function": {
        "name": "add", "description": "Adds", "return": {"type": "number"}, "response": {"description": "sum", "type": "object"},
        "parameters": {"type": "object", "properties": {
            "x": {"type": "number", "nullable": True}, "y": {"type": ["number", "null"]}}}}},
]


def calls(arguments, *ids):
    return [{"id": i, "type": "function", "function": {"name": "get_weather", "arguments": arguments}} for i in ids]


def conversations():
    plain = [{"role": "user", "content": "Hello <|im_end|> é 日本 😀"}]
    system = [{"role": "system", "content": "Be terse.\n"}, *plain]
    multi = [*system, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi  "}, {"role": "user", "content": " more "},
             {"role": "assistant", "content": "ok"}, {"role": "user", "content": "bye"}]
    yield from {"plain": plain, "system": system, "multi": multi, "empty": [],
                "parts": [{"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "image"},
                                                       {"type": "text", "text": "is it?"}]}],
                "two users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
                "odd role": [{"role": "weird", "content": "a"}],
                "answered": [*plain, {"role": "assistant", "content": "done"}]}.items()
    structured = {"city": "Tōkyō", "unit": "C", "days": 3, "f": 1e20, "n": None, "b": True, "l": [1, {"x": "y"}]}
    for kind, arguments in (("object", structured), ("string", '{"city": "Paris"}')):
        for first, second in (("abcdefgh1", "abcdefgh2"), ("functions.get_weather:0", "functions.get_weather:1")):
            called = [system[0], {"role": "user", "content": "weather?"},
                      {"role": "assistant", "content": "", "tool_calls": calls(arguments, first)},
                      {"role": "tool", "tool_call_id": first, "name": "get_weather", "content": '{"t": 20}'}]
            yield f"tool, {kind}, {first}", called
            yield f"tools, {kind}, {first}", [
                *called, {"role": "assistant", "content": "It is 20."}, {"role": "user", "content": "thanks"},
                {"role": "assistant", "content": None, "reasoning_content": "let me", "tool_calls": calls(arguments, first, second)},
                {"role": "tool", "tool_call_id": first, "content": "x"},
                {"role": "tool", "tool_call_id": second, "content": "y"}]


EXTRAS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "enable_thinking": False, "tools": TOOLS},
    {"add_generation_prompt": True, "enable_thinking": True, "thinking": True, "tools": TOOLS, "reasoning_effort": "high"},
    {"add_generation_prompt": False, "tools": TOOLS, "date_string": "26 Jul 2024", "tools_in_user_message": False,
     "builtin_tools": ["code_interpreter"], "documents": [{"title": "t", "text": "body", "doc_id": 1}]},
    {"add_generation_prompt": True, "tools": []},
    {"add_generation_prompt": True, "tools": None},
]


MARK = "\u2603"


def marked(value, key=""):
    """The value with a mark in every string that a template does not compare with something: it must come out as the caller's."""
    if isinstance(value, str):
        return value if key in ("role", "type", "id", "tool_call_id") else value[:1] + MARK + value[1:]
    if isinstance(value, list):
        return [marked(item, key) for item in value]
    if isinstance(value, dict):
        return {(MARK + k if key == "arguments" else k): marked(v, k) for k, v in value.items()}
    return value


def model_templates(folder):
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_bytes().decode()
        for kind, messages in conversations():
            for extra in EXTRAS:
                variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", **extra}
                compare(f"{path.name}, {kind}, {list(extra)}", source, variables)
            variables = {"messages": marked(messages), "tools": marked(TOOLS), "bos_token": "<s>", "eos_token": "</s>",
                         "documents": [{"text": MARK}], "add_generation_prompt": True}
            segments = compare(f"{path.name}, {kind}, marked", source, variables)
            if segments and any(MARK in s["text"] for s in segments if s["control"]):
                Counts.wrong += 1
                print(f"FAIL {path.name}, {kind}: the caller's text became control")


# ---- snippets ----

VARIABLES = {"text": "Hello world\nfoo  ", "num": 41, "real": 1.25, "flag": True, "nothing": None,
             "items_list": ["a", "b", "<c>"], "obj": {"key": "välue", "nested": {"deep": [1, 2.0, "three"]}, "items": 1}}


def snippet(source, by_design=()):
    compare(repr(source), source, VARIABLES, by_design)


def snippets():
    joined = ""
    for line in (HERE / "template_cases.txt").read_text(encoding="utf-8").split("\n")[:-1]:
        joined += line
        if line.endswith("\\"):  # goes on in the next line
            joined += "\n"
            continue
        snippet(joined)
        joined = ""
    for block in (HERE / "template_blocks.txt").read_text(encoding="utf-8").split("\n==\n"):
        snippet(block)
        snippet(block.replace("\n", "\r\n"))
        snippet(block + "\n\n")


# ---- random expressions ----

ATOMS = ["1", "0", "-3", "2.5", "1e3", "10", "'a'", "''", "'Hello World'", "'a,b,c'", "'é日'", "' x\\n'", "true", "false", "none", "missing",
         "text", "num", "real", "flag", "nothing", "items_list", "obj", "obj.nested.deep", "[]", "[1, 2, 3]", "['b', 'A']",
         "{'a': 1, 'b': 'x'}", "(1, 'two')", "range(4)", "{}"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "length", "first", "last", "list", "string", "int", "float", "abs", "round", "sort",
           "reverse|list", "join(',')", "join", "tojson", "tojson(indent=2)", "default('d')", "default('d', true)", "unique|list", "sum", "min",
           "max", "items|list", "dictsort", "replace('a', 'b')", "map('string')|list", "map('upper')|join('-')", "select|list",
           "reject('none')|list", "batch(2)|list", "indent", "wordcount", "urlencode", "e", "count", "truncate(5)", "slice(2)|list", "center(9)"]
TESTS = ["defined", "none", "string", "number", "mapping", "sequence", "iterable", "odd", "even", "boolean", "integer", "float", "true", "false",
         "undefined", "eq(1)", "in([1, 'a'])", "gt(1)", "divisibleby(2)", "lower", "upper", "callable"]
METHODS = ["strip()", "split()", "split(',')", "rsplit(',', 1)", "upper()", "title()", "startswith('a')", "endswith('d')", "replace('l', 'L')",
           "find('l')", "count('a')", "items()|list", "keys()|list", "values()|list", "get('a')", "index(1)", "join(['x', 'y'])", "isdigit()",
           "zfill(4)", "partition(',')", "splitlines()", "lstrip('aH ')", "capitalize()", "swapcase()", "format(1)"]
ITEMS = ["[0]", "[-1]", "[1:]", "[::-1]", "[:2]", "['a']", ".a", "[::2]", "[-2:]", "[5]", "[3:0:-1]", ".nested", "[true]", "[none]"]


def expression(r, depth):
    kind = r.random() if depth > 0 else 0
    if kind < 0.25:
        return r.choice(ATOMS)
    if kind < 0.45:
        return f"({expression(r, depth - 1)} {r.choice(BINARY)} {expression(r, depth - 1)})"
    if kind < 0.6:
        return f"({expression(r, depth - 1)}|{r.choice(FILTERS)})"
    if kind < 0.68:
        return f"({expression(r, depth - 1)} is {r.choice(['', 'not '])}{r.choice(TESTS)})"
    if kind < 0.78:
        return f"{expression(r, depth - 1)}.{r.choice(METHODS)}"
    if kind < 0.88:
        return f"{expression(r, depth - 1)}{r.choice(ITEMS)}"
    if kind < 0.92:
        return f"({expression(r, depth - 1)} if {expression(r, depth - 1)} else {expression(r, depth - 1)})"
    if kind < 0.96:
        return f"[{expression(r, depth - 1)}, {expression(r, depth - 1)}]"
    return f"({r.choice(['not ', '-', '+'])}{expression(r, depth - 1)})"


def comparable(text):
    """Things that print their address or that Python shows as built in, and lists of markup, are no matter of this test."""
    return text is None or not any(what in text for what in (" at 0x", " object", "<class", "<built-in", "Markup("))


def random_expressions():
    r = random.Random(20261124)
    for _ in range(COUNT):
        source = "{{ " + expression(r, 4) + " }}"
        theirs, _ = template_oracle.render(source, VARIABLES)
        if comparable(theirs):
            snippet(source, BY_DESIGN)


# ---- random layouts: white space control, scopes, loops ----

PIECES = ["a", " ", "  ", "\n", "\n", "\n\n", "\t", "x\n", " {", "}", "%", "\r\n", "\u00a0", "{{ 1 }}", "{{- 2 }}", "{{ 3 -}}", "{{+ x }}", "{# c #}", "{#- c -#}",
          "{# c +#}", "{#+ c\n#}", "{% set x = 5 %}", "{%- set x = x ~ 1 -%}", "{%+ set y = x +%}", "{{ x }}", "{{ y }}", "{{ ns.v }}", "{% set ns.v = ns.v ~ 'n' %}",
          "{{ loop.index if loop is defined }}", "{{ i }}", "{% raw %} {{ r }}\n {% endraw %}", "{%- raw -%} \n{% r %} {%- endraw -%}", "{%+ raw %}\n{%+ endraw +%}", "{{ m(x) }}", "{{ m() }}"]
WRAPPERS = [("if true", "endif"), ("if x", "endif"), ("for i in [1, 2]", "endfor"), ("for i in 'ab' if i != x", "endfor"), ("set y", "endset"), ("filter upper", "endfilter"),
            ("with x = 7", "endwith"), ("macro m(x=3)", "endmacro"), ("generation", "endgeneration"), ("if false", "endif"), ("call m(1)", "endcall"), ("set z | trim", "endset")]


def layout(r, depth):
    text = ""
    for _ in range(r.randint(1, 5)):
        if depth == 0 or r.random() < 0.6:
            text += r.choice(PIECES)
            continue
        begin, end = r.choice(WRAPPERS)
        sign = [r.choice(["", "", "-", "+"]) for _ in range(4)]
        middle = layout(r, depth - 1)
        if begin.startswith(("if", "for")) and r.random() < 0.3:
            middle += r.choice(["{% else %}", "{%- else -%}", " {% else +%}\n"]) + layout(r, depth - 1)
        if begin.startswith("for") and r.random() < 0.3:
            middle += r.choice(["{% break %}", "{% if loop.last %}{% continue %}{% endif %}", "{% if i == 1 %}{%- continue -%}{% endif %}\n"]) + "tail"
        text += "{%" + sign[0] + f" {begin} " + sign[1] + "%}" + middle + "{%" + sign[2] + f" {end} " + sign[3] + "%}"
    return text


def random_layouts():
    r = random.Random(20261125)
    for _ in range(COUNT // 2):
        source = "{% set ns = namespace(v='') %}{% macro m(x=3) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}" + layout(r, 3)
        theirs, _ = template_oracle.render(source, VARIABLES)
        if comparable(theirs):
            snippet(source)


def own_template():
    """The command, on a model file's own template, with the tokens of its vocabulary; what is no object is refused."""
    models = pathlib.Path(os.environ.get("UNKAI_MODELS", pathlib.Path.home() / ".local/share/unkai/models"))
    path = models / "smollm2-135m-q4_1.gguf"
    if not path.exists():
        print(f"skipped: {path} is not there; no model file's own template was rendered")
        return
    variables = json.dumps({"messages": [{"role": "user", "content": "<|im_end|>"}], "add_generation_prompt": True})
    told = json.loads(subprocess.run([UNKAI, "template", "--json", path], input=variables, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout)
    plain = subprocess.run([UNKAI, "template", path], input=variables, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    refused = subprocess.run([UNKAI, "template", path], input="[]", stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    wanted = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
              "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n")
    if told["text"] != wanted or plain != wanted or [s["text"] for s in told["segments"] if not s["control"]] != ["user", "<|im_end|>"]:
        Counts.wrong += 1
        print(f"FAIL {path.name}: {told} {plain!r}")
    elif refused.returncode != 1 or refused.stdout or "JSON object" not in refused.stderr:
        Counts.wrong += 1
        print(f"FAIL {path.name}: what is no object ended with {refused.returncode}: {refused.stdout!r} {refused.stderr!r}")
    else:
        Counts.same += 1


def main():
    own_template()
    shared = pathlib.Path(os.environ.get("UNKAI_SHARED", HERE.parent.parent.parent / "shared")) / "templates"
    model_templates(HERE / "templates")
    if shared.is_dir():
        model_templates(shared)
    else:
        print(f"skipped: {shared} is not there; the models' own templates were not rendered")
    snippets()
    random_expressions()
    random_layouts()
    print(f"{Counts.same} texts equal, {Counts.raised} refused by both, {Counts.wrong} wrong")
    return Counts.wrong > 0


sys.exit(main())
