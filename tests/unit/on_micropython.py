"""Runs device tests on MicroPython: `micropython on_micropython.py test_i8254 ...`, from any directory.

The test files are the ones that pytest runs. `hypothesis` is replaced by a fixed number of seeded
random cases, so tests for both use `@given(st.randoms())` and plain asserts only.
Exit status 1 if a test fails or none was run. Limit: no target calls it. The unix port
has no vmx, and most viper code needs the constants that the build puts in (port/constants.py); test_mc146818 runs.
"""

import random
import sys

_HERE = __file__[: __file__.rfind("/")] if "/" in __file__ else "."
sys.path.insert(0, _HERE + "/../..")
sys.path.insert(1, _HERE)

_CASES = 60


class _Namespace:
    """Stands for a module: MicroPython imports plain attributes from any object, but no methods."""


def _given(strategy):
    def decorate(function):
        def run():
            for seed in range(_CASES):
                random.seed(seed)
                try:
                    function(strategy)
                except Exception:
                    print("seed", seed)
                    raise

        return run

    return decorate


_hypothesis = _Namespace()
_hypothesis.given = _given
_hypothesis.settings = lambda **_: lambda function: function
_hypothesis.strategies = _Namespace()
_hypothesis.strategies.randoms = lambda **_: random
sys.modules["hypothesis"] = _hypothesis


def main(names):
    ran = failed = 0
    for name in names:
        module = __import__(name)
        for test in sorted(dir(module)):
            if not test.startswith("test_"):
                continue
            ran += 1
            try:
                getattr(module, test)()
                print("PASS %s.%s" % (name, test))
            except Exception as error:
                failed += 1
                print("FAIL %s.%s" % (name, test))
                sys.print_exception(error)
    print("SUMMARY %d ran, %d failed" % (ran, failed))
    return 1 if failed or not ran else 0


sys.exit(main(sys.argv[1:]))
