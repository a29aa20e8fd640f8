"""Runs the Autobahn test suite's fuzzing client on Python 3.

The suite is for Python 2, which no longer exists where these tests run. Nothing of it is kept in this repository: its source
distribution is fetched from PyPI, and what is done here, with words of our own, is what Python 2 would do: print statements
and the like are translated by lib2to3 as each module is imported, and a text of the suite's is taken for bytes wherever it
meets a socket, since in Python 2 it is. The cases, and the judgement of each, are the suite's own.

Usage: run.py FOLDER_OF_THE_SUITE FOLDER_FOR_THE_REPORT NAME=URL... -- CASE...

Prints one line a case: NAME CASE BEHAVIOUR BEHAVIOUR_OF_CLOSING.
"""

import ast
import binascii
import importlib.abc
import importlib.util
import os
import sys
import warnings

warnings.simplefilter("ignore")

from lib2to3 import refactor  # noqa: E402

SUITE = "autobahntestsuite"
#: What the translator does not know of: in Python 3 everything is an object already.
TOO_OLD = [("(object, Case, )", "(Case, )"), ("(object, Case,)", "(Case,)")]


class Translated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the suite's modules from Python 2. Each byte of a source becomes one character, as each was one in Python 2."""

    def __init__(self, folder, cache):
        self.folder, self.cache = folder, cache
        self.tool = refactor.RefactoringTool(refactor.get_fixers_from_package("lib2to3.fixes"))

    def find_spec(self, name, path, target=None):
        words = name.split(".")
        if words[0] != SUITE:
            return None
        place = os.path.join(self.folder, *words)
        package = os.path.isdir(place)
        file = os.path.join(place, "__init__.py") if package else place + ".py"
        if not os.path.exists(file):
            return None
        spec = importlib.util.spec_from_loader(name, self, origin=file, is_package=package)
        if package:
            spec.submodule_search_locations = [place]
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__file__ = file = module.__spec__.origin
        if module.__name__ == SUITE:
            # Of all that the package can do only the fuzzing client is needed.
            module.version = "on Python 3"
            return
        kept = os.path.join(self.cache, module.__name__ + ".py")
        if os.path.exists(kept):
            with open(kept, encoding="utf-8") as source:
                text = source.read()
        else:
            with open(file, encoding="latin-1", newline="") as source:
                text = source.read().replace("\r\n", "\n")
            for old, new in TOO_OLD:
                text = text.replace(old, new)
            # Implicit imports from beside a module are told from others by what lies there.
            text = str(self.tool.refactor_string(text + "\n", file))
            text = siblings(text, os.path.dirname(file))
            with open(f"{kept}.{os.getpid()}", "w", encoding="utf-8") as target:
                target.write(text)
            os.replace(f"{kept}.{os.getpid()}", kept)
        tree = ast.fix_missing_locations(Divisions().visit(ast.parse(text, file)))
        module.__dict__["divided"] = divided
        exec(compile(tree, file, "exec"), module.__dict__)


class Divisions(ast.NodeTransformer):
    """Lets whole numbers be divided as in Python 2."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("divided", ast.Load()), [node.left, node.right], [])


def divided(one, other):
    whole = isinstance(one, int) and isinstance(other, int)
    return one // other if whole else one / other


def siblings(text, folder):
    """Makes imports of what lies in the same folder relative: Python 2 looked there first."""
    names = {name[:-3] for name in os.listdir(folder) if name.endswith(".py")}
    names |= {name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))}
    lines = []
    for line in text.split("\n"):
        words = line.split()
        if len(words) >= 2 and words[0] == "import" and words[1] in names and line[0] == "i":
            line = line.replace("import ", "from . import ", 1)
        if len(words) >= 4 and words[0] == "from" and words[1] in names:
            line = line.replace("from ", "from .", 1)
        lines.append(line)
    return "\n".join(lines)


def raw(text):
    """The bytes of a text of Python 2."""
    return text.encode("latin-1") if isinstance(text, str) else text


def text(data):
    """The text that bytes are in Python 2."""
    return data.decode("latin-1") if isinstance(data, (bytes, bytearray)) else data


def adapt(fuzzing, case):
    """Puts the border between texts and bytes around the suite's client."""
    client, base = fuzzing.FuzzingClientProtocol, fuzzing.FuzzingProtocol

    def out(name, place, keyword):
        inner = getattr(client, name)

        def send(self, *args, **kwargs):
            args = list(args)
            if len(args) > place:
                args[place] = raw(args[place])
            if keyword in kwargs:
                kwargs[keyword] = raw(kwargs[keyword])
            return inner(self, *args, **kwargs)

        setattr(client, name, send)

    out("sendFrame", 1, "payload")
    out("sendMessageFrameData", 0, "payload")
    out("sendMessage", 0, "payload")
    out("sendPing", 0, "payload")
    out("sendPong", 0, "payload")
    out("sendCloseFrame", 1, "reasonUtf8")
    out("sendData", 0, "data")

    def message(self, data, binary):
        # The cases about compression make no texts of what they receive.
        name = type(self.runCase).__name__
        self.runCase.onMessage(data if name.startswith(("Case12", "Case13")) else text(data), binary)

    base.onMessage = message
    base.onPing = lambda self, data: self.runCase.onPing(text(data))
    base.onPong = lambda self, data: self.runCase.onPong(text(data))
    # The log is for the HTML report, which nobody reads here.
    base.createWirelog = property(lambda self: False, lambda self, wanted: None)

    # Lengths are divided by what gives a fraction in Python 3.
    frame = client.sendFrame

    def whole(self, opcode, payload=b"", *args, payload_len=None, **kwargs):
        payload = raw(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        return frame(self, opcode, payload, *args, **kwargs)

    client.sendFrame = whole
    # Pickles of equal values may differ.
    case.Case.compare = lambda self, one, other: one == other


def main():
    suite, report, rest = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3:]
    servers, cases = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    cache = os.path.join(suite, "translated")
    os.makedirs(cache, exist_ok=True)
    sys.meta_path.insert(0, Translated(suite, cache))
    # A text's digits are a text.
    digits = binascii.b2a_hex
    binascii.b2a_hex = lambda data, *rest: (
        digits(raw(data), *rest).decode() if isinstance(data, str) else digits(data, *rest)
    )
    import txaio
    import zope.interface

    txaio.use_twisted()
    from autobahn.websocket.utf8validator import Utf8Validator

    # It says what a class offers to those who ask, and nobody does.
    zope.interface.implements = lambda *_interfaces: None

    validate = Utf8Validator.validate
    Utf8Validator.validate = lambda self, data: validate(self, raw(data))
    from autobahntestsuite import fuzzing
    from autobahntestsuite.case import case
    from twisted.internet import reactor

    adapt(fuzzing, case)
    spec = {
        "outdir": report,
        "servers": [
            {"agent": name, "url": url} for name, url in (server.split("=", 1) for server in servers)
        ],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    fuzzing.FuzzingFactory.createReports = tell
    fuzzing.startClient(spec)
    reactor.run()


def tell(factory, *_args, **_kwargs):
    for agent, results in factory.agents.items():
        for name, result in results.items():
            words = [result[key].replace(" ", "-") for key in ("behavior", "behaviorClose")]
            print("result", agent, name, *words, result["result"])


if __name__ == "__main__":
    main()
