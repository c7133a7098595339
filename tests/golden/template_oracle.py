"""The judge of the template interpreter: jinja2, set up as Hugging Face's transformers sets it up for chat templates
(transformers/utils/chat_template_utils.py, _compile_jinja_template)."""
import datetime
import functools
import json

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationTag(jinja2.ext.Extension):
    """{% generation %}: the assistant's text, marked for training; its body is rendered as in a call block."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _body(self, context, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.now().strftime(format)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[GenerationTag, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


parsed = functools.lru_cache(maxsize=64)(environment().from_string)


def render(source, variables):
    """(text, None), or (None, what was raised)."""
    try:
        return parsed(source).render(**variables), None
    except (Exception, RecursionError) as problem:  # whatever Python raises, the interpreter has to refuse
        return None, f"{type(problem).__name__}: {problem}"
