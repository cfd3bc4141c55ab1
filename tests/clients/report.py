"""Runs checks one by one, prints a line for each, and keeps the score."""

import os
import sys
import time
import traceback

from process import Failure, expect, tail


# A daemon that hangs makes every client wait: the run ends all the same.
LIMIT_SECONDS = 30 * 60


class Report:
    """The score of a run."""

    def __init__(self, work):
        self.work = work
        self.passed = self.failed = 0
        self.began = time.monotonic()

    def check(self, name, act, logs=()):
        """Runs one check; True when it held. `logs` are shown when it did not."""
        began = time.monotonic()
        try:
            expect(began - self.began < LIMIT_SECONDS, "the run has taken too long: not tried")
            act()
        except Failure as failure:
            self.fail(name, str(failure), logs)
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            self.fail(name, f"{type(error).__name__}: {error}", logs)
        else:
            self.passed += 1
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
            return True
        return False

    def fail(self, name, reason, logs=()):
        self.failed += 1
        print(f"FAILED {name}: {reason[:2000]}")
        for log in ("daemon", *logs):
            print(f"  the end of {log}'s log:\n{tail(self.work.log(log))}")
        sys.stdout.flush()

    def missing(self, name, what):
        """A client that cannot be tried: a failure in CI, a loud skip elsewhere."""
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            self.fail(name, what)
        else:
            print(f"SKIPPED {name}: {what}  <<<<<<<<<< this would fail in CI", flush=True)

    def end(self):
        """Prints the score; the exit status."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.failed == 0 and self.passed > 0 else 1
