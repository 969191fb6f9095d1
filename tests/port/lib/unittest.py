"""A small unittest for the monitor: as much of it as MicroPython's own tests use.

It goes into the RAM file system as a boot module. MicroPython's test runner reads
the summary at the end, so that has the form of micropython-lib's.
"""


class SkipTest(Exception):
    pass


def skip(message):
    def mark(item):
        item.__unittest_skip__ = message
        return item

    def wrap(item):
        if isinstance(item, type):
            return mark(item)

        def skipped(self):
            raise SkipTest(message)

        return skipped

    return wrap


def skipIf(condition, message):
    return skip(message) if condition else lambda item: item


def skipUnless(condition, message):
    return skipIf(not condition, message)


class _Raises:
    def __init__(self, expected):
        self.expected = expected

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.exception = error
        if kind is None:
            raise AssertionError("%r not raised" % self.expected)
        return issubclass(kind, self.expected)


class TestCase:
    def setUp(self):
        pass

    def tearDown(self):
        pass

    def skipTest(self, message):
        raise SkipTest(message)

    def fail(self, message=""):
        raise AssertionError(message)

    def assertTrue(self, value, message=""):
        if not value:
            self.fail(message or "%r is not true" % (value,))

    def assertFalse(self, value, message=""):
        if value:
            self.fail(message or "%r is not false" % (value,))

    def assertEqual(self, a, b, message=""):
        if not a == b:
            self.fail(message or "%r != %r" % (a, b))

    def assertNotEqual(self, a, b, message=""):
        if a == b:
            self.fail(message or "%r == %r" % (a, b))

    def assertIs(self, a, b, message=""):
        if a is not b:
            self.fail(message or "%r is not %r" % (a, b))

    def assertIn(self, item, items, message=""):
        if item not in items:
            self.fail(message or "%r not in %r" % (item, items))

    def assertIsInstance(self, item, kind, message=""):
        if not isinstance(item, kind):
            self.fail(message or "%r is not an instance of %r" % (item, kind))

    def assertRaises(self, expected, function=None, *args, **kwargs):
        context = _Raises(expected)
        if function is None:
            return context
        with context:
            function(*args, **kwargs)


class _Result:
    def __init__(self):
        self.ran = self.skipped = self.failures = self.errors = 0

    def run(self, case, name):
        import sys

        print("%s (%s) ..." % (name, case.__class__.__name__), end=" ")
        self.ran += 1
        try:
            case.setUp()
            try:
                getattr(case, name)()
            finally:
                case.tearDown()
            print("ok")
        except SkipTest as e:
            self.skipped += 1
            print("skipped:", e.args[0] if e.args else "")
        except AssertionError as e:
            self.failures += 1
            print("FAIL")
            sys.print_exception(e)
        except Exception as e:
            self.errors += 1
            print("ERROR")
            sys.print_exception(e)

    def summary(self):
        print("-" * 70)
        print("Ran %d tests\n" % self.ran)
        if self.failures or self.errors:
            print("FAILED (failures=%d, errors=%d)" % (self.failures, self.errors))
        elif self.skipped:
            print("OK (skipped=%d)" % self.skipped)
        else:
            print("OK")


def _cases(module):
    for name in dir(module):
        item = getattr(module, name)
        if isinstance(item, type) and issubclass(item, TestCase) and item is not TestCase:
            yield item


def main(module="__main__"):
    result = _Result()
    for kind in _cases(__import__(module)):
        case = kind()
        for name in dir(case):
            if name.startswith("test"):
                result.run(case, name)
    result.summary()
