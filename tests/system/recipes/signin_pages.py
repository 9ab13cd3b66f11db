"""The pages of the sign-in recipes. `csrf` is the hidden field of a framework that protects forms with one."""

from jinja2 import DictLoader, Environment

PAGES = {
    "page": """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>{% block title %}{% endblock %}</title><style>
main { max-width: 22rem; margin: 10vh auto; padding: 0 1rem; font: 1.1rem/1.5 system-ui }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .6rem; margin: .3rem 0 }</style>
<main><h1>{{ self.title() }}</h1>{% if error %}<p role="alert" id="error">{{ error }}</p>{% endif %}
{% block body %}{% endblock %}</main></html>""",
    "number": """{% extends "page" %}{% block title %}Sign in{% endblock %}{% block body %}
<form method="post" action="/start">{{ csrf }}<input type="hidden" name="key" value="{{ key }}">
<label for="number">Phone number</label><input id="number" name="number" type="tel" autocomplete="tel" required>
<button>Text me a code</button></form>{% endblock %}""",
    "code": """{% extends "page" %}{% block title %}Enter your code{% endblock %}{% block body %}
<p>We sent it to {{ flow.masked_number }}.</p><form method="post" action="/code">{{ csrf }}
<label for="code">Code</label>
<input id="code" name="code" inputmode="numeric" autocomplete="one-time-code" required autofocus
  {% if error %}aria-invalid="true" aria-describedby="error"{% endif %}><button>Sign in</button></form>
{% if flow.sends_left %}<form method="post" action="/resend">{{ csrf }}<button id="again">Text me another code</button>
<p id="wait">{% if flow.resend_in %}Possible in {{ flow.resend_in }} s.{% endif %}</p></form>
{% if flow.can_call %}<form method="post" action="/call">{{ csrf }}<button>Call me instead</button></form>{% endif %}
<script>let left = {{ flow.resend_in }}; const tick = () => { again.disabled = left > 0;
wait.textContent = left > 0 ? `Possible in ${left--} s.` : ""; if (again.disabled) setTimeout(tick, 1000); }; tick();
</script>{% endif %}<p><a href="/">Use another number</a></p>{% endblock %}""",
    "message": """{% extends "page" %}{% block title %}{{ heading }}{% endblock %}{% block body %}
<p><a href="{{ back }}">Continue</a></p>{% endblock %}""",
}
TEMPLATES = Environment(autoescape=True, loader=DictLoader(PAGES))
