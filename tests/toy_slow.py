"""A toy whose first cell is quick and whose others take half a minute."""

import time

from tests.toy import Toy


class Slow(Toy):
    """The toy, slow after its first cell and seed."""

    def run(self, cell, seed, context):
        if (cell, seed) != ("rate 0.3", 0):
            time.sleep(30.0)
        return super().run(cell, seed, context)
